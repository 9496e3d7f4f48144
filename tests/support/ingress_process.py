"""A real ingress process, a sender that speaks raw bytes, and a reader of what was written; for tests."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka

from schemas import codec
from schemas.times import rfc3339
from schemas.topics import Topic, named
from services.adapters.kafka import topics
from services.core.delivery.signature import sign
from tests.support.eventually import eventually

SECRET = "canary-secret-0123456789-0123456789-abcdef"
PREVIOUS = "canary-previous-0123456789-0123456789-abc"
NARROW = "canary-narrow-0123456789-0123456789-abcd"
HINT_SECRET = "canary-hint-secret-0123456789-0123456789"
HINT_ACCOUNT = "490606849374"
ORG = "98765432-1234-5678-9abc-def012345678"
PATH = "/v1/genesys/lifecycle/default"
_S = 1_000_000
_RUN = (
    "import os, sys\n"
    "from services.adapters.process.environment import read\n"
    "from services.adapters.process.errors import Unusable\n"
    "from services.adapters.process.settings import IngressSettings\n"
    "from services.ingress.main import main\n"
    "try:\n"
    "    sys.exit(main(read(os.environ, IngressSettings)))\n"
    "except Unusable as unusable:\n"
    "    print(unusable, file=sys.stderr)\n"
    "    sys.exit(78)\n"
)


def now_us() -> int:
    return time.time_ns() // 1000


def body(at_us: int | None = None, **changes: Any) -> dict[str, Any]:
    """A valid webhook body of an integration no other test speaks of; None drops a field."""
    whole = {
        "event": "installed",
        "integrationId": str(uuid.uuid4()),
        "orgId": ORG,
        "tenantId": "tenant_acme_corp",
        "configuration": {"crmEndpoint": "https://acme.salesforce.com", "syncInterval": "PT5M"},
        "eventTimestamp": rfc3339(now_us() if at_us is None else at_us),
        "metadata": {"installedBy": "canary-person@acme.com", "source": "marketplace"},
    } | changes
    return {name: value for name, value in whole.items() if value is not None}


def key(told: Mapping[str, Any]) -> str:
    return f"{told['orgId']}:{told['integrationId']}"


def raw(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told).encode()


@dataclass(frozen=True)
class Reply:
    status: int
    fields: dict[str, str]
    content: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.content)


def head(
    payload: bytes,
    *,
    secret: str = SECRET,
    at_us: int | None = None,
    path: str = PATH,
    method: str = "POST",
    fields: Mapping[str, str | None] | None = None,
) -> bytes:
    """The head of a valid request; a field given as None is left out."""
    whole: dict[str, str | None] = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Content-Length": str(len(payload)),
        "X-Genesys-Signature": sign(secret.encode(), payload),
        "X-Genesys-Event-Timestamp": rfc3339(now_us() if at_us is None else at_us),
    }
    whole |= fields or {}
    lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in whole.items() if v is not None), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def request(payload: bytes, **how: Any) -> bytes:
    return head(payload, **how) + payload


class Line:
    """One connection to an ingress."""

    def __init__(self, port: int, timeout_s: float = 20.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._read = self._socket.makefile("rb")

    def write(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def end(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def reply(self) -> Reply | None:
        """The next answer; None when the connection ended instead."""
        try:
            status = self._read.readline()
            if not status:
                return None
            fields = {}
            while (line := self._read.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                fields[name.decode().lower()] = value.strip().decode()
            return Reply(int(status.split()[1]), fields, self._read.read(int(fields.get("content-length", 0))))
        except ConnectionResetError:
            return None

    def replies(self) -> list[Reply]:
        """All answers until the connection ends."""
        found = []
        while (reply := self.reply()) is not None:
            found.append(reply)
        return found

    def close(self) -> None:
        self._read.close()
        self._socket.close()


@dataclass
class Ingress:
    """A running process and what it wrote to its log."""

    process: "subprocess.Popen[str]"
    bootstrap: str
    prefix: str
    lines: list[str] = field(default_factory=list)
    readers: "dict[str, Reader]" = field(default_factory=dict)
    port: int = 0

    def ask(self, data: bytes) -> Reply:
        """One exchange on a connection of its own."""
        with contextlib.closing(Line(self.port)) as line:
            line.write(data)
            reply = line.reply()
        assert reply is not None, "the connection ended without an answer"
        return reply

    def get(self, path: str) -> Reply:
        return self.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def post(self, told: Mapping[str, Any], **how: Any) -> Reply:
        return self.ask(request(raw(told), **how))

    def metric(self, name: str, **labels: str) -> float:
        """The value of one sample; 0 when it is not there."""
        for line in self.get("/metrics").content.decode().splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(f'{n}="{v}"' in sample for n, v in labels.items()):
                return float(value)
        return 0.0

    def records(self, topic: Topic) -> "list[confluent_kafka.Message]":
        """Everything in a topic, from its beginning to its end now."""
        name = named(topic, self.prefix)
        if name not in self.readers:
            self.readers[name] = Reader(self.bootstrap, name)
        return self.readers[name].read()

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in map(_json, list(self.lines)) if line.get("event") == event]


def _json(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def headers_of(record: "confluent_kafka.Message") -> dict[str, str]:
    found = record.headers()
    return codec.texts(found if isinstance(found, list) else None)


class Reader:
    """Everything in a topic, from its beginning; reads on where it stopped."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "reader",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
            }
        )
        partitions = self._consumer.list_topics(topic, timeout=20).topics[topic].partitions
        self._partitions = [confluent_kafka.TopicPartition(topic, number, 0) for number in partitions]
        self._consumer.assign(self._partitions)
        self._next = dict.fromkeys(partitions, 0)
        self._found: list[confluent_kafka.Message] = []

    def read(self) -> "list[confluent_kafka.Message]":
        ends = eventually(self._ends)  # a broker that stood still for long has lost its leadership for a moment
        while any(self._next[number] < end for number, end in ends.items()):
            message = self._consumer.poll(20)
            assert message is not None
            assert message.error() is None, message.error()
            self._found.append(message)
            self._next[message.partition() or 0] = (message.offset() or 0) + 1
        return self._found

    def _ends(self) -> dict[int, int]:
        try:
            return {p.partition: self._consumer.get_watermark_offsets(p, timeout=20)[1] for p in self._partitions}
        except confluent_kafka.KafkaException as error:
            raise AssertionError(str(error)) from error

    def close(self) -> None:
        self._consumer.close()


def keyring_file(folder: Path) -> Path:
    """The usual endpoint, a rotated one, one rotated and expired, one bound to a single org; the like for hints."""
    far, past = rfc3339(now_us() + 3600 * _S), rfc3339(now_us() - _S)
    path = folder / "keyring.json"
    path.write_text(
        json.dumps(
            {
                "endpoints": {
                    "default": {"current": {"secret": SECRET}},
                    "rotated": {"current": {"secret": SECRET}, "previous": {"secret": PREVIOUS, "not_after": far}},
                    "expired": {"current": {"secret": SECRET}, "previous": {"secret": PREVIOUS, "not_after": past}},
                    "narrow": {"current": {"secret": NARROW}, "orgs": [ORG.upper()]},
                },
                "hints": {
                    "audit": {"current": {"secret": HINT_SECRET}},
                    "audit-rotated": {
                        "current": {"secret": HINT_SECRET},
                        "previous": {"secret": PREVIOUS, "not_after": far},
                    },
                    "audit-narrow": {
                        "current": {"secret": HINT_SECRET},
                        "orgs": [ORG.upper()],
                        "accounts": [HINT_ACCOUNT],
                    },
                    "audit-event": {
                        "current": {"secret": HINT_SECRET},
                        "orgs": [ORG],
                        "accounts": [HINT_ACCOUNT],
                        "authority": "event",
                    },
                },
            }
        )
    )
    return path


@contextlib.contextmanager
def ingress(bootstrap: str, prefix: str, folder: Path, **environment: str) -> Iterator[Ingress]:
    """Start one process and wait until it answers; ends it, if it still runs, with SIGKILL."""
    with unborn(bootstrap, prefix, folder, **environment) as running:
        eventually(lambda: running.logged("started") or running.process.poll() is not None)
        if running.process.poll() is None:
            (listening,) = running.logged("started")
            running.port = listening["port"]
            assert listening["compiled"] is ("/compiled-" in os.environ.get("PYTHONPATH", ""))
        yield running


@contextlib.contextmanager
def unborn(bootstrap: str, prefix: str, folder: Path, **environment: str) -> Iterator[Ingress]:
    """The same, without waiting."""
    environ = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH", "PYTHONSAFEPATH") if name in os.environ},
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "TOPIC_PREFIX": prefix,
        "KEYRING_FILE": str(keyring_file(folder)),
        "PORT": "0",
        "DRAIN_S": "0.2",
        **environment,
    }
    process = subprocess.Popen([sys.executable, "-c", _RUN], env=environ, stderr=subprocess.PIPE, text=True)
    running = Ingress(process, bootstrap, prefix)
    assert process.stderr is not None
    reader = threading.Thread(target=running.lines.extend, args=[process.stderr], daemon=True)
    reader.start()
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()
        for opened in running.readers.values():
            opened.close()


def make_topics(bootstrap: str, prefix: str) -> None:
    topics.apply({"bootstrap.servers": bootstrap}, prefix=prefix, partitions=4, replication=1)
