"""Faults for every alert, on a local installation whose hour lasts a minute, and the alerts that each has to fire.

Rule: a fault stays until its alerts have arrived, and is healed afterwards; the load of a usual day goes on meanwhile.
"""

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import confluent_kafka
import psycopg

from deploy.boards.workload import ENVIRONMENT, Workload, children, secret_of
from schemas.topics import DESIRED, OUTCOMES, RECEIVED, Table, changelog, named
from schemas.values import EventType
from services.cli.sender import InstalledIntegration

SCALE: Final = 60
"""Divisor of every time: an hour lasts a minute."""

HOUR_OF_A_MINUTE: Final[Mapping[str, str]] = {
    **ENVIRONMENT,
    "UNWELL_AFTER_S": "15",
    "PROVISION_AGAIN_S": "60",
    "RETRY_MOST_S": "1",
    "RECONCILE_INTERVAL_S": "60",
    "RECONCILE_SECOND_LOOK_S": "10",
    "SEAL_INTERVAL_S": "60",
    "SPOOL_MAX_AGE_S": "360",
    "SPOOL_MAX_BYTES": str(1 << 20),
}
"""Settings of the services at the scale; the spool has its least size, so that it can be filled."""

_LARGE: Final = 100_000
"""Bytes of a large configuration."""
_IN_A_ROW: Final = 400
"""Unreadable records behind each other; the ledger ends after 100."""
_FLOOD: Final = 60_000
"""Records of the flood, more than the ledger works off within a few seconds."""
_THREADS: Final = 8
_WORK_S: Final = 0.3
_REST_S: Final = 1.7
"""Seconds for which a slow Kafka works, and stands still."""
_BETWEEN_S: Final = 0.25
"""Seconds between two installs beside the steady load."""


class Expected(NamedTuple):
    """An alert that a fault has to fire.

    Attributes:
        alert: Name, without `Lifecycle`.
        severity: Label `severity`.
        inhibited_by: The alert that holds this one back by design; empty where the receiver has to be told.
    """

    alert: str
    severity: str
    inhibited_by: str = ""


class Fault(NamedTuple):
    """A fault, and what it has to fire.

    Attributes:
        name: The name in the tables.
        make: Returns the context in which the fault is there.
        expected: The alerts.
        limit_s: Longest wait for them, in seconds.
    """

    name: str
    make: "Callable[[Faults], AbstractContextManager[None]]"
    expected: tuple[Expected, ...]
    limit_s: float


UNFIRED: Final[Mapping[tuple[str, str], str]] = {
    ("SyncTooOld", "ticket"): "three hours without any reading are longer than the faults here last",
    ("RemovalsBraked", "ticket"): "the load removes many tenants in an hour, and its limit is above them",
    ("RemovalContradicted", "ticket"): "Genesys is not asked before a removal unless CONFIRM_REMOVALS is set",
}
"""Alerts by name and severity that no fault here fires, each with the reason; their promtool tests fire them."""


@dataclass(slots=True)
class Faults(Workload):
    """The faults on an installation, beside a steady load."""

    duplicate_every: int = 12
    _kept: list[InstalledIntegration] = field(default_factory=list)

    @contextmanager
    def load(self) -> Iterator[None]:
        """Sends a steady load of installs, changes, duplicates and removals for as long as the context lasts."""
        self._secret = secret_of(self.stack)
        with self._steady():
            self._kept = [self._new() for _ in range(150)]
            for of in self._kept:
                self._install(of)
            yield

    @contextmanager
    def nothing(self) -> Iterator[None]:
        """Waits for what a former fault leaves behind."""
        yield

    # -- outside systems and customers

    @contextmanager
    def at(self, system: str, fault: str, **fields: object) -> Iterator[None]:
        """Has the simulator fail the calls of a system."""
        self._fault(system, fault, **fields)
        try:
            yield
        finally:
            self._heal()

    @contextmanager
    def wrong_secrets(self) -> Iterator[None]:
        """Installs for customers with a wrong client secret for their CRM."""
        for _ in range(100):
            of = self._new()
            of.configuration.update(crmClientId="c", crmClientSecret="invalid")
            self._install(of)
            time.sleep(0.1)
        yield

    @contextmanager
    def teardowns_refused(self) -> Iterator[None]:
        """Uninstalls two tenants while the CRM refuses every deletion."""
        with self.at("crm", "refuse", verb="delete"):
            for of in self._kept[:2]:
                self._tell(of, EventType.UNINSTALLED)
                self._send(EventType.UNINSTALLED, of)
            yield

    @contextmanager
    def another_tenant(self) -> Iterator[None]:
        """Sends installs with another tenantId for two tenants."""
        claimed = self._kept[2:4]
        for of in claimed:
            self._install(InstalledIntegration(of.org, of.id, f"{of.tenant}_other", of.configuration))
        yield
        for of in claimed:
            # With an id: without one it would be taken for a repetition of the first install.
            self._install(of, event_id=f"back-{of.id}")

    @contextmanager
    def too_many_sagas(self) -> Iterator[None]:
        """Installs 400 tenants at once while the middleware is slow."""
        with self.at("middleware", "slow", seconds=2):
            self._burst(400)
            yield

    @contextmanager
    def forged(self) -> Iterator[None]:
        """Sends 400 webhooks with signatures of no known secret."""
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in range(400):
                pool.submit(self._send, EventType.INSTALLED, self._new(), secret=b"not the secret")
        yield

    @contextmanager
    def vanished(self) -> Iterator[None]:
        """Deletes integrations in Genesys without a webhook."""
        gone = self._kept[10:]
        for of in gone:
            self._tell(of, EventType.UNINSTALLED)
        yield
        for of in gone:
            self._tell(of, EventType.INSTALLED)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Renames a column of the registry that only the census reads."""
        with psycopg.connect(self.stack.addresses.database, autocommit=True) as session:
            session.execute("ALTER TABLE lifecycle.outbox RENAME COLUMN written_at TO written")
            try:
                yield
            finally:
                session.execute("ALTER TABLE lifecycle.outbox RENAME COLUMN written TO written_at")

    # -- secrets

    @contextmanager
    def half_keyring(self) -> Iterator[None]:
        """Cuts the keyring file in the middle."""
        file = self.stack.folders.keyring
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        try:
            yield
        finally:
            file.write_bytes(whole)
            time.sleep(4)

    @contextmanager
    def former_secret(self) -> Iterator[None]:
        """Rotates the endpoint's secret and goes on with the former one."""
        former = self._secret
        argv = (sys.executable, "-m", "services.cli.main", "keyring", "rotate", "default", "--overlap", "300s")
        state_dir = ("--state-dir", str(self.stack.folders.top))
        subprocess.run((*argv, *state_dir), check=True, capture_output=True)
        self._secret = secret_of(self.stack)
        for _ in range(20):
            self._send(EventType.INSTALLED, self._new(), secret=former)
            time.sleep(0.3)
        yield

    @contextmanager
    def wrong_endpoint_secret(self) -> Iterator[None]:
        """Signs the whole load with a secret that the endpoint does not know."""
        own, self._secret = self._secret, b"not the secret of the endpoint"
        try:
            yield
        finally:
            self._secret = own

    # -- Kafka and the ledger

    @contextmanager
    def unreadable(self) -> Iterator[None]:
        """Writes records without meaning into the input topics."""
        producer = self._producer()
        for topic in (RECEIVED, OUTCOMES, DESIRED):
            for _ in range(3):
                producer.produce(named(topic, self._prefix), key=b"nobody", value=b"not a record")
        producer.flush(10)
        yield

    @contextmanager
    def stranger(self) -> Iterator[None]:
        """Writes into a changelog of the ledger from outside: the tombstone of a row that is not there."""
        producer = self._producer()
        # The tombstone of a row that is not there.
        producer.produce(named(changelog(Table.TENANTS), self._prefix), key=b"nobody", value=None)
        producer.flush(10)
        yield

    @contextmanager
    def unreadable_in_a_row(self) -> Iterator[None]:
        """Writes more unreadable records than the ledger takes for single ones, behind each other in a partition."""
        producer = self._producer()
        for _ in range(_IN_A_ROW):
            producer.produce(named(RECEIVED, self._prefix), key=b"nobody", value=b"not a record")
        producer.flush(10)
        yield

    @contextmanager
    def kafka_away(self) -> Iterator[None]:
        """Stops the brokers, and fills the spool up to its size."""
        # Sagas that end while Kafka stands still leave their outcomes in the outbox.
        with self.at("middleware", "slow", seconds=2):
            self._burst(60)
            time.sleep(1)
            with self.stopped("kafka"):
                with ThreadPoolExecutor(_THREADS) as pool:
                    for _ in range(60):
                        of = self._new()
                        of.configuration["notes"] = secrets.token_hex(_LARGE // 2)
                        pool.submit(self._send, EventType.INSTALLED, of)
                yield

    @contextmanager
    def slow_kafka(self) -> Iterator[None]:
        """Lets the brokers work for a part of each second alone."""
        pid = self.stack.supervisor.pids()["kafka"]
        pids = [pid, *children(pid)]
        ended = threading.Event()

        def pulse() -> None:
            while not ended.is_set():
                for act, wait_s in ((signal.SIGSTOP, _REST_S), (signal.SIGCONT, _WORK_S)):
                    for one in pids:
                        with suppress(ProcessLookupError):
                            os.kill(one, act)
                    ended.wait(wait_s)
            for one in pids:
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGCONT)

        def send() -> None:
            # The steady load sends one delivery after the other: waiting for late answers, it would become a trickle.
            with ThreadPoolExecutor(_THREADS) as pool:
                while not ended.wait(_BETWEEN_S):
                    pool.submit(self._install, self._new())

        threads = [threading.Thread(target=act, daemon=True) for act in (pulse, send)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    @contextmanager
    def flood(self) -> Iterator[None]:
        """Repeats a record of the input topic, more often than the ledger can work off at once."""
        settings = self.stack.settings
        topic = named(RECEIVED, self._prefix)
        reader = confluent_kafka.Consumer({**settings.kafka, "group.id": "flood", "enable.auto.commit": False})
        reader.assign([confluent_kafka.TopicPartition(topic, at, 0) for at in range(settings.topic_partitions)])
        record = reader.poll(10)
        reader.close()
        assert record is not None
        assert not record.error()
        producer = self._producer()
        for _ in range(_FLOOD):
            # In the partition of the record: the client's own partitioner is another than ours.
            producer.produce(
                topic, record.value(), record.key(), partition=record.partition() or 0, headers=record.headers()
            )
            producer.poll(0)
        producer.flush(30)
        yield

    # -- processes

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """Stops a process with its children by SIGSTOP."""
        pid = self.stack.supervisor.pids()[name]
        pids = [pid, *children(pid)]
        for one in pids:
            os.kill(one, signal.SIGSTOP)
        try:
            yield
        finally:
            for one in pids:
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGCONT)
            time.sleep(10)

    def _burst(self, installs: int) -> None:
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in range(installs):
                pool.submit(self._install, self._new())

    def _producer(self) -> confluent_kafka.Producer:
        return confluent_kafka.Producer({**self.stack.settings.kafka, "queue.buffering.max.messages": 2 * _FLOOD})

    @property
    def _prefix(self) -> str:
        return self.stack.settings.topic_prefix


FAULTS: Final = (
    Fault("customers' CRM secrets are wrong", Faults.wrong_secrets, (
        Expected("ConvergenceBudgetBurn", "page"),
        Expected("ProvisioningRolledBack", "ticket"),
    ), 60),
    Fault("after it: more than the budget went wrong", Faults.nothing, (
        Expected("ConvergenceBudgetBurn", "ticket"),
    ), 120),
    Fault("the CRM is away", lambda on: on.at("crm", "down"), (
        Expected("SystemAway", "ticket"),
        Expected("TenantsUnwell", "ticket"),
        Expected("TenantsUnwell", "page"),
    ), 90),
    Fault("the middleware refuses our credentials", lambda on: on.at("middleware", "unauthorized"), (
        Expected("SystemRefusesOperator", "page"),
    ), 60),
    Fault("the CRM refuses teardowns", Faults.teardowns_refused, (
        Expected("DeprovisioningFailed", "ticket"),
    ), 60),
    Fault("integrations claim another tenant", Faults.another_tenant, (
        Expected("TenantsNeedPerson", "ticket"),
    ), 90),
    Fault("more sagas than the workers drive", Faults.too_many_sagas, (
        Expected("SagasNotDriven", "page"),
    ), 90),
    Fault("forged webhooks", Faults.forged, (Expected("SignaturesRefused", "ticket"),), 60),
    Fault("the sender signs with a secret that the endpoint does not know", Faults.wrong_endpoint_secret, (
        Expected("SignaturesRefused", "page"),
    ), 90),
    Fault("half a keyring file", Faults.half_keyring, (Expected("KeyringBroken", "ticket"),), 60),
    Fault("a sender keeps the former secret", Faults.former_secret, (
        Expected("SecretExpiresSoon", "ticket"),
    ), 60),
    Fault("records that nobody can read", Faults.unreadable, (Expected("DeadLettersGrowing", "ticket"),), 60),
    Fault("a stranger writes the ledger's changelog", Faults.stranger, (Expected("LedgerEnds", "ticket"),), 60),
    Fault("the registry stands still", lambda on: on.stopped("postgres"), (
        Expected("RegistryAway", "page"),
        Expected("NotReady", "ticket", "RegistryAway"),
    ), 90),
    Fault("the registry cannot be counted", Faults.uncounted, (Expected("CensusTooOld", "ticket"),), 90),
    Fault("Kafka is slow", Faults.slow_kafka, (Expected("KafkaSlow", "ticket"),), 90),
    Fault("Kafka stands still until the spool is full", Faults.kafka_away, (
        Expected("KafkaBreakerOpen", "page"),
        Expected("SpoolClosed", "ticket"),
        Expected("DeliveryBudgetBurn", "page"),
        Expected("SpoolNotEmpty", "ticket", "KafkaBreakerOpen"),
        Expected("SpoolNotEmpty", "page", "KafkaBreakerOpen"),
        Expected("OutboxStuck", "ticket", "KafkaBreakerOpen"),
        Expected("ReconcileTooOld", "ticket"),
        Expected("AuditUnsealed", "ticket"),
    ), 260),
    Fault("after it: more deliveries than the budget failed", Faults.nothing, (
        Expected("DeliveryBudgetBurn", "ticket"),
    ), 120),
    Fault("Genesys' API refuses our credentials", lambda on: on.at("genesys", "unauthorized"), (
        Expected("GenesysUnread", "ticket"),
    ), 150),
    Fault("integrations vanish from Genesys", Faults.vanished, (Expected("BrakeEngaged", "ticket"),), 180),
    Fault("a producer repeats one delivery", Faults.flood, (
        Expected("LedgerLags", "page"),
        Expected("DuplicatesAboveBaseline", "ticket"),
    ), 90),
    Fault("the reconciler stands still", lambda on: on.stopped("reconciler"), (
        Expected("ServiceDown", "ticket"),
        Expected("TargetDown", "ticket", "ServiceDown"),
    ), 60),
    Fault("the provisioner stands still", lambda on: on.stopped("provisioner"), (
        Expected("ServiceDown", "page"),
    ), 60),
    # Last, since the ledger goes on with these records only under another version or setting.
    Fault("hundreds of unreadable records in a row", Faults.unreadable_in_a_row, (Expected("LedgerEnds", "page"),), 60),
)  # fmt: skip
"""The faults in the order of a run. A fault named "after it" belongs to the one before."""
