"""The services of one installation on a guarded broker, each as a principal of its own."""

import json
import os
import secrets
import shlex
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.rights import Operation, Resource, Right, Service
from schemas.values import EventType
from services.adapters.process.clock import now_us
from services.cli import keyring_contents, sender
from services.cli.local import wiring
from services.cli.local.wiring import Addresses, Folders, LocalPorts
from services.cli.sender import InstalledIntegration
from services.engines import child_process
from services.engines.ports import free_ports
from tests.support.guarded_broker import Guarded

SIMULATOR = "simulator"
CUSTOMER = InstalledIntegration(
    "98765432-1234-5678-9abc-def012345678",
    "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
    "tenant_acme_corp",
    {"crmEndpoint": "https://acme.salesforce.com", "syncInterval": "PT5M"},
)
RUNNING = ("ingress", "ledger", "provisioner", "reconciler")
_IGNORED = {"KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "LIFECYCLE_ENGINES"}
_AT_ONCE = {"RECONCILE_SECOND_LOOK_S": "0", "RECONCILE_INTERVAL_S": "3600"}
_STOP_S = 15.0
_COMMAND_S = 60


@dataclass
class Installation:
    """Folders, ports and processes. Every process logs in to Kafka under its own name."""

    guarded: Guarded
    top: Path
    database_url: str
    prefix: str
    ports: LocalPorts = field(default_factory=lambda: LocalPorts(*free_ports(6)))
    running: dict[str, child_process.Child] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folders = Folders(self.top)
        for folder in (self.folders.orgs, self.folders.archive, self.folders.logs):
            folder.mkdir(parents=True)
        keyring_contents.init(self.folders.keyring)
        environ = {name: text for name, text in os.environ.items() if name not in _IGNORED}
        engines = Addresses(self.guarded.bootstrap, self.database_url)
        shared = wiring.shared(environ, self.folders, self.ports, engines, secrets.token_urlsafe(32))
        self.shared = {**environ, **shared, "TOPIC_PREFIX": self.prefix, **_AT_ONCE}
        del self.shared["SPOOL_DIR"]  # it would take what Kafka refuses

    def environment(self, name: str) -> dict[str, str]:
        """Of one process."""
        own = wiring.own(name, self.folders, self.ports) if name != Service.OPERATOR else {}
        return {**self.shared, **own, "KAFKA_CONFIG": json.dumps(self.guarded.config(name))}

    def start(self, *names: str, words: tuple[str, ...] = ()) -> None:
        for name in names:
            argv = (sys.executable, "-m", "services.cli.main", name, *words)
            self.running[name] = child_process.start(argv, env=self.environment(name), log_path=self.log_path(name))

    def stop(self, *names: str) -> None:
        for name in names:
            self.running.pop(name).stop(_STOP_S)

    def log_path(self, name: str) -> Path:
        return self.folders.logs / f"{name}.log"

    def readiness(self, name: str) -> dict[str, Any]:
        """The body of its `/readyz`; empty where it does not answer."""
        with suppress(httpx2.TransportError, ValueError):
            found: dict[str, Any] = httpx2.get(f"{self.ports.base(name)}/readyz", timeout=2.0, trust_env=False).json()
            return found
        return {}

    def is_ready(self, name: str) -> bool:
        return self.readiness(name).get("status") == "ready"

    def lifecycle(self, *words: str, client: str = Service.OPERATOR, **more: str) -> "subprocess.CompletedProcess[str]":
        """One command, with the environment of a client and more."""
        argv = [sys.executable, "-m", "services.cli.main", *words]
        environ = self.environment(client) | more
        return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=_COMMAND_S, check=False)

    def send(self, event: str, retry: int = 0, *, unknown: bool = False) -> str:
        """Sign and send one webhook, and tell the simulator's Genesys unless `unknown`; how it was answered."""
        secret = json.loads(self.folders.keyring.read_text())["endpoints"]["default"]["current"]["secret"].encode()
        known = event if event in set(EventType) else EventType.INSTALLED.value
        raw = sender.body(EventType(known), CUSTOMER, now_us(), retry=retry).replace(
            f'"{known}"'.encode(), f'"{event}"'.encode(), 1
        )
        with httpx2.Client(timeout=5.0, trust_env=False) as client:
            if not unknown:
                sender.tell_genesys(client, self.ports.base(SIMULATOR), EventType(known), CUSTOMER)
            url = self.ports.base("ingress") + wiring.WEBHOOK_PATH
            answer = sender.read(client.post(url, content=raw, headers=sender.headers(secret, raw, now_us())))
        return str(answer.body.get("status"))

    def printed_rights(self) -> dict[str, list[Right]]:
        """The rights of the lines that `lifecycle topics acls` prints, by client."""
        names = [word for service in Service for word in ("--principal", f"{service}={service}")]
        done = self.lifecycle("topics", "acls", *names)
        assert done.returncode == 0, done.stderr
        found: dict[str, list[Right]] = {}
        for line in done.stdout.splitlines():
            options = list(pairwise(shlex.split(line, comments=True)))
            for name in (value.removeprefix("User:") for option, value in options if option == "--allow-principal"):
                found.setdefault(name, []).extend(
                    Right(resource, of, Operation(operation))
                    for resource in Resource
                    for option, of in options
                    if option == f"--{resource}"
                    for other, operation in options
                    if other == "--operation"
                )
        return found

    def lose(self, topic: str) -> None:
        """Everything that a topic holds goes, read or not."""
        admin = AdminClient({"bootstrap.servers": self.guarded.plain})
        numbers = admin.list_topics(topic, timeout=20).topics[topic].partitions
        for answer in admin.delete_records([TopicPartition(topic, one, OFFSET_END) for one in numbers]).values():
            answer.result(20)

    def write_rubbish(self, topic: str) -> None:
        """A record that nobody can read, from somebody who may write everywhere."""
        producer = Producer({"bootstrap.servers": self.guarded.plain})
        producer.produce(topic, b"rubbish", b"rubbish")
        assert producer.flush(20) == 0
