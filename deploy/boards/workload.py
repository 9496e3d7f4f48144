"""A scripted workload on a local installation: an ordinary day, a storm of installs, and faults for every board.

Rule: the services are real, and so is what happens to them: a broker that is stopped, a registry that does not answer,
an outside system that is away, a forged webhook. Time alone is scaled (`ENVIRONMENT`).
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid5

import confluent_kafka
import httpx2

from schemas.hint import PATH as HINT_PATH
from schemas.hint import SECRET_HEADER
from schemas.topics import DESIRED, OUTCOMES, RECEIVED, Table, changelog, named
from schemas.values import EventType
from services.adapters.process.clock import now_us
from services.adapters.secrets import keyring
from services.cli import sender
from services.cli.local.stack import Stack
from services.cli.local.wiring import WEBHOOK_PATH
from services.cli.sender import InstalledIntegration

ENVIRONMENT: Final[Mapping[str, str]] = {
    "RECONCILE_INTERVAL_S": "20",
    "RECONCILE_SECOND_LOOK_S": "2",
    "SEAL_INTERVAL_S": "20",
    "UNWELL_AFTER_S": "10",
    "RETRY_FIRST_S": "0.5",
    "SPOOL_MAX_AGE_S": "8",
    "RETRY_MOST_S": "4",
    "REMOVALS_AT_ONCE": "100000",
    "SIMULATOR_RATE_PER_MINUTE": "30000",
}
"""Settings under which 15 minutes last 10 seconds, and an hour 20."""

STORM: Final = 500
"""Installs of the storm."""
STORM_S: Final = 60.0
"""Seconds of the storm."""

_IDS: Final = UUID("6d0f3d5e-5a53-5b0b-8f0e-3f5c5b1d7a10")
_SECOND_US: Final = 1_000_000
_CONFIGURATION: Final = {
    "crmEndpoint": "https://acme.salesforce.com",
    "syncInterval": "PT5M",
    "featureFlags": ["voice_routing"],
}


class Phase(NamedTuple):
    """A part of the workload.

    Attributes:
        name: The name, as a mark on the pictures shows it.
        begin_s: Begin, seconds since 1970.
        end_s: End, seconds since 1970.
    """

    name: str
    begin_s: float
    end_s: float


@dataclass(slots=True)
class Workload:
    """The workload on an installation.

    Attributes:
        stack: The running installation.
        storm: Number of installs of the storm.
        storm_s: Seconds of the storm.
        say: Called with the name of each phase.
        phases: The phases that ended.
        duplicate_every: Installs of the steady load for one that is sent twice.
    """

    stack: Stack
    storm: int = STORM
    storm_s: float = STORM_S
    say: Callable[[str], None] = print
    phases: list[Phase] = field(default_factory=list)
    duplicate_every: int = 3
    _client: httpx2.Client = field(default_factory=lambda: httpx2.Client(timeout=10, trust_env=False))
    _count: int = 0
    _secret: bytes = b""
    _stormed: list[InstalledIntegration] = field(default_factory=list)

    def run(self) -> None:
        """Runs every phase, one after the other, over a steady stream of installs, changes and removals."""
        self._secret = secret_of(self.stack)
        with self._steady():
            for name, act in self._script():
                begin_s = now_us() / 1e6
                self.say(name)
                act()
                self.phases.append(Phase(name, begin_s, now_us() / 1e6))

    def _script(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "ordinary day", lambda: time.sleep(40)
        yield "storm", self._storm
        yield "ordinary day again", lambda: time.sleep(20)
        yield "CRM away", lambda: self._outside("crm", "down", 25)
        yield "middleware refuses us", lambda: self._outside("middleware", "unauthorized", 25)
        yield "a customer's CRM secret is wrong", self._bad_customer_secret
        yield "forged, late and odd deliveries", self._strange_deliveries
        yield "Kafka stands still", lambda: self._stop_engine("kafka", 12)
        yield "registry stands still", lambda: self._stop_engine("postgres", 45)
        yield "records that nobody can read", self._poison
        yield "a stranger writes the ledger's changelog", self._foreign_write
        yield "ledger killed", lambda: self._kill("ledger")
        yield "provisioner killed", lambda: self._kill("provisioner")
        yield "keyring broken, then rotated", self._keyring
        yield "Genesys refuses us", lambda: self._genesys("refuse", 25)
        yield "webhooks lost", self._drift
        yield "integrations vanish", self._vanish
        yield "after all", lambda: time.sleep(30)

    # -- what customers do

    def _new(self) -> InstalledIntegration:
        self._count += 1
        org, own = (str(uuid5(_IDS, f"{self._count}/{part}")) for part in ("org", "integration"))
        return InstalledIntegration(org, own, f"tenant_{self._count}", dict(_CONFIGURATION))

    def _send(self, event: EventType, of: InstalledIntegration, *, secret: bytes = b"", **options: Any) -> None:
        """Sends a signed webhook; an answer other than 200 is what some phases are for."""
        at_us = options.pop("at_us", None) or now_us()
        raw = sender.body(event, of, at_us, **options)
        fields = sender.headers(secret or self._secret, raw, now_us())
        with suppress(httpx2.TransportError):
            self._client.post(self.stack.ingress + WEBHOOK_PATH, content=raw, headers=fields)

    def _tell(self, of: InstalledIntegration, event: EventType) -> None:
        with suppress(httpx2.HTTPError):
            sender.tell_genesys(self._client, self.stack.simulator, event, of)

    def _install(self, of: InstalledIntegration, **options: Any) -> None:
        self._tell(of, EventType.INSTALLED)
        self._send(EventType.INSTALLED, of, **options)

    @contextmanager
    def _steady(self) -> Iterator[None]:
        """Sends an install every half second, a change, a duplicate and a removal now and then, in a thread."""
        ended = threading.Event()

        def send() -> None:
            live: list[InstalledIntegration] = []
            number = 0
            while not ended.wait(0.5):
                number += 1
                of = self._new()
                live.append(of)
                self._install(of, event_id=f"install-{number}")
                if number % self.duplicate_every == 0:
                    self._send(EventType.INSTALLED, of, event_id=f"install-{number}", retry=1)
                if number % 4 == 0:
                    self._send(EventType.CONFIGURATION_UPDATED, live[number % len(live)])
                if number % 6 == 0:
                    gone = live.pop(0)
                    self._tell(gone, EventType.UNINSTALLED)
                    self._send(EventType.UNINSTALLED, gone)

        thread = threading.Thread(target=send, name="steady", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(30)

    def _storm(self) -> None:
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            for number in range(self.storm):
                of = self._new()
                self._stormed.append(of)
                pool.submit(self._install, of)
                time.sleep(max(0.0, began + self.storm_s * (number + 1) / self.storm - time.monotonic()))

    # -- what goes wrong

    def _fault(self, system: str, fault: str, **fields: Any) -> None:
        body = {"system": system, "fault": fault, **fields}
        self._client.post(f"{self.stack.simulator}/faults", json=body).raise_for_status()

    def _heal(self) -> None:
        self._client.delete(f"{self.stack.simulator}/faults").raise_for_status()

    def _outside(self, system: str, fault: str, seconds: float) -> None:
        self._fault(system, fault)
        time.sleep(seconds)
        self._heal()
        time.sleep(10)

    def _genesys(self, fault: str, seconds: float) -> None:
        self._fault("genesys", fault)
        time.sleep(seconds)
        self._heal()

    def _bad_customer_secret(self) -> None:
        for _ in range(5):
            of = self._new()
            of.configuration.update(crmClientId="c", crmClientSecret="invalid")
            self._install(of)
        time.sleep(15)

    def _strange_deliveries(self) -> None:
        for number in range(20):
            of = self._new()
            self._send(EventType.INSTALLED, of, secret=b"not the secret")
            self._send(EventType.INSTALLED, of, at_us=now_us() - 3_600 * _SECOND_US)
            with suppress(httpx2.TransportError):
                forged = {SECRET_HEADER: "not-the-secret"}
                self._client.post(f"{self.stack.ingress}{HINT_PATH}nobody", json={}, headers=forged)
            if number % 4 == 0:
                # Two bodies under one id, two events at one instant: Genesys has to be asked which is true.
                at_us = now_us()
                self._tell(of, EventType.INSTALLED)
                self._send(EventType.INSTALLED, of, event_id=f"conflict-{number}", at_us=at_us)
                self._send(EventType.UNINSTALLED, of, event_id=f"conflict-{number}", at_us=at_us)
            time.sleep(0.2)
        time.sleep(5)

    def _stop_engine(self, name: str, seconds: float) -> None:
        pid = self.stack.supervisor.pids()[name]
        pids = [pid, *children(pid)]
        for one in pids:
            os.kill(one, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            for one in pids:
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGCONT)
        time.sleep(10)

    def _poison(self) -> None:
        settings = self.stack.settings
        producer = confluent_kafka.Producer(settings.kafka)
        for topic in (RECEIVED, OUTCOMES, DESIRED):
            for _ in range(3):
                producer.produce(named(topic, settings.topic_prefix), key=b"nobody", value=b"not a record")
        producer.flush(10)
        time.sleep(10)

    def _foreign_write(self) -> None:
        settings = self.stack.settings
        producer = confluent_kafka.Producer(settings.kafka)
        producer.produce(
            named(changelog(Table.TENANTS), settings.topic_prefix), key=b"nobody", value=None
        )  # deletes a row that is not there
        producer.flush(10)
        time.sleep(20)

    def _kill(self, service: str) -> None:
        os.kill(self.stack.supervisor.pids()[service], signal.SIGKILL)
        time.sleep(15)

    def _keyring(self) -> None:
        file = self.stack.folders.keyring
        whole = file.read_bytes()
        former = self._secret
        file.write_bytes(whole[: len(whole) // 2])
        time.sleep(6)
        file.write_bytes(whole)
        time.sleep(2)
        argv = (sys.executable, "-m", "services.cli.main", "keyring", "rotate", "default")
        state_dir = ("--state-dir", str(self.stack.folders.top))
        subprocess.run((*argv, *state_dir), check=True, capture_output=True)
        self._secret = secret_of(self.stack)
        for _ in range(10):
            self._send(EventType.INSTALLED, self._new(), secret=former)
            time.sleep(0.3)
        time.sleep(5)

    def _drift(self) -> None:
        for _ in range(8):
            self._tell(self._new(), EventType.INSTALLED)
        time.sleep(30)

    def _vanish(self) -> None:
        # The first ones of the storm: nobody else touches them.
        gone = self._stormed[: max(12, len(self._stormed) // 3)]
        for of in gone:
            self._tell(of, EventType.UNINSTALLED)
        time.sleep(60)
        for of in gone:
            self._tell(of, EventType.INSTALLED)


def secret_of(stack: Stack) -> bytes:
    """Returns the secret of the endpoint that the workload posts to."""
    return keyring.raw(keyring.load(stack.folders.keyring).endpoints["default"].current.secret)


def children(pid: int) -> list[int]:
    """Returns the process ids of all children of a process."""
    found: list[int] = []
    with suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(word) for word in children.read_text(encoding="ascii").split()]
    return found
