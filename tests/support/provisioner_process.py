"""Starts, kills and watches real provisioner processes; writes `lifecycle.desired` and reads `lifecycle.outcomes`."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString, Self

import confluent_kafka
import psycopg
from confluent_kafka.admin import AdminClient
from psycopg import sql

from schemas.audit import Audit
from schemas.codec import decode
from schemas.outcome import Outcome, State
from schemas.tenant import Desired
from schemas.topics import AUDIT, DESIRED, OUTCOMES, Topic, named
from services.adapters.kafka import topics
from services.adapters.registry.types import Arrival
from tests.support.eventually import eventually
from tests.support.provisioner_child import TABLES

PARTITIONS = 2
SECRET = "k" * 40


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def key(number: int, org: int = 1) -> str:
    """A key of organisation `org`."""
    return f"00000000-0000-4000-8000-{org:012x}:00000000-0000-4000-9000-{number:012x}"


def desired(of: str, version: int, **fields: Any) -> Desired:
    """An installed version of a tenant named after its key, whose clock is its version."""
    given = {
        "key": of, "version": version, "installed": True, "enabled": True, "tenant_id": f"tenant-{of[-12:]}",
        "configuration": {"crmEndpoint": "https://acme.salesforce.com"}, "installed_at": version,
        "uninstalled_at": None,
    }  # fmt: skip
    return Desired.model_validate(given | fields)


def untraced(versions: Iterable[Desired]) -> list[Arrival]:
    """Desired versions that came without a trace."""
    return [Arrival(version, None) for version in versions]


def gone(of: str, version: int, **fields: Any) -> Desired:
    """An uninstalled version."""
    return desired(of, version, installed=False, configuration={}, uninstalled_at=version, **fields)


@dataclass
class Scene:
    """One installation: topics, database, keyring, and any number of provisioner processes.

    Attributes:
        kafka: `host:port`.
        prefix: Of its topics.
        database: URL.
        folder: For the keyring and the logs.
    """

    kafka: str
    prefix: str
    database: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ("tests.support.provisioner_child",)
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    said: list[Outcome] = field(default_factory=list)
    port: int = field(default_factory=free_port)

    def __enter__(self) -> Self:
        topics.apply({"bootstrap.servers": self.kafka}, prefix=self.prefix, partitions=PARTITIONS, replication=1)
        material = {"identity": SECRET, "configuration": SECRET}
        lists = {"audit": [SECRET], "seal": [SECRET], "outputs": [SECRET]}
        self.folder.joinpath("keyring.json").write_text(json.dumps({"endpoints": {}, "material": material | lists}))
        with psycopg.connect(self.database, autocommit=True) as session:
            session.execute(TABLES)
        self._producer = confluent_kafka.Producer({"bootstrap.servers": self.kafka, "linger.ms": 1})
        self._consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.kafka, "group.id": str(uuid.uuid4()), "auto.offset.reset": "earliest"}
        )
        self._consumer.subscribe([named(OUTCOMES, self.prefix)])
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        self._consumer.close()

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start one more provisioner."""
        given = {
            "PATH": os.environ["PATH"],
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "DATABASE_URL": self.database,
            "TOPIC_PREFIX": self.prefix,
            "KEYRING_FILE": str(self.folder / "keyring.json"),
            "LEASE_S": "1.5",
            "SESSION_TIMEOUT_S": "2",
            "RETRY_FIRST_S": "0.05",
            "REMOVALS_AT_ONCE": "100000",
            **self.environment,
            **environment,
        }
        log = self.folder / f"provisioner-{len(self.processes)}.log"
        with log.open("wb") as written:
            process = subprocess.Popen([sys.executable, "-m", *self.program, *arguments], env=given, stderr=written)
        self.processes.append(process)
        return process

    def logs(self) -> str:
        """Everything every process wrote."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("provisioner-*.log")))

    def publish_desired(self, versions: Iterable[Desired]) -> None:
        """Write desired versions, acknowledged."""
        for version in versions:
            self._producer.produce(
                named(DESIRED, self.prefix), version.model_dump_json().encode(), version.key.encode()
            )
        assert self._producer.flush(20) == 0

    def outcomes(self, of: str) -> list[Outcome]:
        """The outcomes of a key so far, repeats included."""
        for message in self._consumer.consume(1_000, 0.05):
            if message.error() is None:
                self.said.append(decode(Outcome, message.value()))
        return [outcome for outcome in self.said if outcome.key == of]

    def audit(self, of: str) -> list[Audit]:
        """The audit lines of a key so far, repeats included."""
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self.kafka, "group.id": str(uuid.uuid4())})
        partitions = [confluent_kafka.TopicPartition(named(AUDIT, self.prefix), n, 0) for n in range(PARTITIONS)]
        consumer.assign(partitions)
        found = [decode(Audit, message.value()) for message in consumer.consume(1_000, 1.0)]
        consumer.close()
        return [line for line in found if line.key == of]

    def empty(self, topic: Topic) -> None:
        """Remove every record of a topic."""
        admin = AdminClient({"bootstrap.servers": self.kafka})
        partitions = [confluent_kafka.TopicPartition(named(topic, self.prefix), n, -1) for n in range(PARTITIONS)]
        for future in admin.delete_records(partitions).values():
            future.result(10)

    def ended(self, of: str, version: int, deadline_s: float = 60.0) -> Outcome:
        """Wait for the end of a version of a key."""

        def find() -> Outcome | None:
            ends = [
                said
                for said in self.said
                if said.key == of and said.desired_version >= version and said.state is not State.WORKING
            ]
            if not ends:
                self.outcomes(of)
            return ends[-1] if ends else None

        result = eventually(find, deadline_s)
        assert result is not None
        return result

    def rows(self, query: LiteralString, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with psycopg.connect(self.database, autocommit=True) as session:
            return session.execute(query, values).fetchall()

    def run(self, statement: LiteralString) -> None:
        """Change the database."""
        with psycopg.connect(self.database, autocommit=True) as session:
            session.execute(statement)

    def things(self, of: str) -> list[str]:
        """Steps with something outside, in the order they were made."""
        return [row[0] for row in self.rows("SELECT step FROM outside.things WHERE key = %s ORDER BY ctid", of)]

    def calls(self, of: str) -> list[tuple[str, str]]:
        """Step and verb of every call for a key, in order; looks left out."""
        query = "SELECT step, verb FROM outside.calls WHERE key = %s AND verb <> 'read' ORDER BY id"
        return [(row[0], row[1]) for row in self.rows(query, of)]

    def ready(self, port: int) -> tuple[int, dict[str, str]]:
        """`/readyz` of the process on a port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                return int(answer.status), json.load(answer)["checks"]
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["checks"]
        except OSError as error:
            return 0, {"process": str(error)}


def end(process: "subprocess.Popen[bytes]", how: signal.Signals = signal.SIGTERM) -> int:
    """Signal a process and wait for its exit status."""
    process.send_signal(how)
    return process.wait(30)


@contextlib.contextmanager
def shut(admin_url: str, database: str) -> Iterator[None]:
    """A database that lets nobody in meanwhile."""
    name = sql.Identifier(database.rpartition("/")[2])
    with psycopg.connect(admin_url, autocommit=True) as session:
        session.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database.rpartition("/")[2],)
        )
        try:
            yield
        finally:
            session.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
