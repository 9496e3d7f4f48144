"""A real ledger process on topics of its own, what is written to it and what comes out; for tests."""

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import httpx2
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from schemas import codec, webhook
from schemas.codec import Message
from schemas.outcome import Outcome
from schemas.times import rfc3339
from schemas.topics import LEDGER_APP, OUTCOMES, RECEIVED, Topic, named
from schemas.values import Record
from services.adapters.kafka import topics
from services.engines import child_process
from tests.faults import records
from tests.support.eventually import eventually

PARTITIONS = 4
_COMMAND = (sys.executable, "-m", "services.cli.main", "ledger")
_LEDGER = "/genesys-lifecycle/test"


def new_key() -> str:
    return f"{uuid4()}:{uuid4()}"


def now_us() -> int:
    return time.time_ns() // 1000


def keyring(path: Path, **endpoints: Any) -> Path:
    """A keyring with an endpoint `default`, and whatever else is named."""

    def key() -> str:
        return secrets.token_hex(24)

    known = {"default": {}, **endpoints}
    whole = {
        "endpoints": {name: {"current": {"secret": key()}, **more} for name, more in known.items()},
        "material": {
            "identity": key(),
            "configuration": key(),
            "audit": [key()],
            "seal": [key()],
            "outputs": [key()],
        },
    }
    path.write_text(json.dumps(whole))
    return path


def body(key: str, event: str = "installed", at_us: int | None = None, **changes: Any) -> bytes:
    """The raw body of one delivery."""
    org, _, integration = key.partition(":")
    whole = {
        "event": event,
        "orgId": org,
        "integrationId": integration,
        "tenantId": "tenant_acme_corp",
        "configuration": {"crmEndpoint": "https://acme.salesforce.com", "secretName": "hush"},
        "eventTimestamp": rfc3339(now_us() if at_us is None else at_us),
        "metadata": {"installedBy": "admin@acme.com", "source": "marketplace"},
    } | changes
    return json.dumps(whole).encode()


@dataclass(frozen=True)
class Out:
    """One record that came out."""

    key: str | None
    headers: dict[str, str]
    value: bytes

    @property
    def said(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.value)
        return found

    @property
    def ce_id(self) -> str:
        return self.headers["ce_id"]


@dataclass
class LedgerBench:
    """One installation: its topics, its keyring, its ledger."""

    bootstrap: str
    prefix: str
    folder: Path
    endpoints: Mapping[str, Any] = field(default_factory=dict)
    replication: int = 1

    def __post_init__(self) -> None:
        kafka = {"bootstrap.servers": self.bootstrap}
        topics.apply(kafka, prefix=self.prefix, partitions=PARTITIONS, replication=self.replication)
        keyring(self.folder / "keyring.json", **self.endpoints)
        self._producer = records.producer(self.bootstrap)

    @property
    def group(self) -> str:
        return self.prefix + LEDGER_APP

    def start(
        self, *flags: str, disk: str = "state", command: Sequence[str] = _COMMAND, **environment: str
    ) -> child_process.Child:
        """The command `lifecycle ledger`."""
        own = {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "TOPIC_PREFIX": self.prefix,
            "KEYRING_FILE": str(self.folder / "keyring.json"),
            "STATE_DIR": str(self.folder / disk),
            "SESSION_TIMEOUT_S": "4",
            "COMMIT_INTERVAL_S": "0.3",
        }
        return child_process.start(
            (*command, *flags), env={**os.environ, **own, **environment}, log_path=self.folder / "ledger.log"
        )

    @contextmanager
    def ledger(self, *flags: str, disk: str = "state", **environment: str) -> Iterator[str]:
        """The base URL of a ledger's health, once it is ready. SIGTERM must end it cleanly."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        worker = self.start(*flags, disk=disk, METRICS_PORT=str(port), **environment)
        url = f"http://127.0.0.1:{port}"
        try:
            eventually(lambda: _ready(url), 60)
            yield url
        except BaseException:
            worker.kill()
            raise
        assert worker.stop(30) == 0, child_process.last_lines(worker.log_path)

    def receive(self, raw: bytes | None, key: str | None, *, kind: str = webhook.CE_TYPE, **headers: str) -> None:
        """Write one record to `lifecycle.received`."""
        named_headers = {"ce_type": kind, "endpoint": "default", "received_at": rfc3339(now_us()), **headers}
        self._write(
            RECEIVED,
            None if key is None else key.encode(),
            raw,
            [(name, text.encode()) for name, text in named_headers.items()],
        )

    def receive_all(self, deliveries: Iterable[tuple[str, bytes]]) -> None:
        """Write many deliveries to `lifecycle.received`, in this order."""
        headers: list[tuple[str, Any]] = [("ce_type", webhook.CE_TYPE.encode()), ("endpoint", b"default")]
        for key, raw in deliveries:
            self._producer.produce(named(RECEIVED, self.prefix), value=raw, key=key.encode(), headers=headers)
            self._producer.poll(0)
        assert self._producer.flush(60) == 0

    def tell(self, record: Record, key: str) -> None:
        """Write an observation or a re-check to `lifecycle.received`."""
        message = codec.encode(record, key=key, ce_id=str(uuid4()), source=_LEDGER, at_us=now_us())
        self._send(RECEIVED, message)

    def conclude(self, outcome: Outcome) -> None:
        """Write to `lifecycle.outcomes`."""
        message = codec.encode(outcome, key=outcome.key, ce_id=str(uuid4()), source=_LEDGER, at_us=now_us())
        self._send(OUTCOMES, message)

    def out(self, topic: Topic, key: str | None = None) -> list[Out]:
        """The records of a topic, for one key, in order."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "reads", "enable.auto.commit": False})
        name = named(topic, self.prefix)
        ends = dict(enumerate(records.end_offsets(self.bootstrap, name, PARTITIONS)))
        partitions = {number: TopicPartition(name, number, OFFSET_BEGINNING) for number in ends}
        left = {number for number, end in ends.items() if consumer.get_watermark_offsets(partitions[number])[0] < end}
        consumer.assign([partitions[number] for number in left])
        found: list[Out] = []
        while left:
            for message in consumer.consume(500, timeout=0.2):
                assert not message.error(), message.error()
                spoken = message.key().decode() if message.key() else None  # type: ignore[union-attr]
                if key is None or spoken == key:
                    found.append(Out(spoken, codec.texts(cast("Any", message.headers())), message.value() or b""))
                if (message.offset() or 0) + 1 >= ends[message.partition() or 0]:
                    left.discard(message.partition() or 0)
        consumer.close()
        return found

    def drained(self) -> None:
        """Return when every input is committed."""
        names = [named(topic, self.prefix) for topic in (RECEIVED, OUTCOMES)]
        eventually(lambda: records.behind(self.bootstrap, self.group, names, PARTITIONS) == 0, 60)

    def set_back(self) -> None:
        """Let the next ledger read everything again."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.group})
        for topic in (RECEIVED, OUTCOMES):
            partitions = [TopicPartition(named(topic, self.prefix), number, 0) for number in range(PARTITIONS)]
            consumer.commit(offsets=partitions, asynchronous=False)
        consumer.close()

    def _send(self, topic: Topic, message: Message) -> None:
        self._write(topic, message.key, message.value, message.headers)

    def _write(
        self, topic: Topic, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        self._producer.produce(named(topic, self.prefix), value=value, key=key, headers=list(headers))
        assert self._producer.flush(30) == 0


def _ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False
