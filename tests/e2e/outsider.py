"""Somebody outside: knows the guide, the endpoints file and the public topics, and nothing of our code."""

import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import confluent_kafka
import psycopg

from tests.support.eventually import eventually

_UP_S = 150
_STOP_S = 30

GUIDE = {
    "crmEndpoint": "https://acme.salesforce.com",
    "syncInterval": "PT5M",
    "featureFlags": ["voice_routing", "omnichannel_queue"],
}


@dataclass(frozen=True)
class Up:
    """A running `lifecycle up`."""

    process: "subprocess.Popen[bytes]"
    state_dir: Path
    file: Path
    log: Path

    @property
    def endpoints(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text())
        return found

    def stop(self, ask_with: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(ask_with)
        return self.process.wait(_STOP_S)

    def lifecycle(self, *words: str) -> tuple[int, Any]:
        """Run a command against it; its status, and its result as JSON."""
        argv = [sys.executable, "-m", "services.cli.main", *words, "--json", "--state-dir", str(self.state_dir)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)


@contextmanager
def folder() -> Iterator[Path]:
    """A state folder that goes away, wherever its parts live: an unprivileged PostgreSQL may walk in."""
    made = Path(tempfile.mkdtemp(prefix="lifecycle-e2e-"))
    made.chmod(0o711)
    try:
        yield made
    finally:
        shutil.rmtree(made)


@contextmanager
def up(state_dir: Path, **environ: str) -> Iterator[Up]:
    """`lifecycle up` as a process with further variables, from ready to stopped."""
    file, log = state_dir / "where.json", state_dir / "up.log"
    argv = [
        sys.executable,
        "-m",
        "services.cli.main",
        "up",
        "--state-dir",
        str(state_dir),
        "--endpoints-file",
        str(file),
    ]
    with log.open("ab") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, env=os.environ | environ)
    running = Up(process, state_dir, file, log)
    try:
        eventually(lambda: file.exists() or process.poll() is not None, _UP_S)
        assert process.poll() is None, log.read_text()
        yield running
    finally:
        if process.poll() is None:
            running.stop()


def secret_of(running: Up) -> bytes:
    """The webhook secret, from the keyring file."""
    found: str = json.loads(Path(running.endpoints["keyring"]).read_text())["endpoints"]["default"]["current"]["secret"]
    return found.encode()


def post(
    running: Up,
    event: str,
    secret: bytes,
    *,
    org: str,
    integration: str,
    tenant: str,
    trace: str | None = None,
    at: str | None = None,
) -> tuple[int, Any]:
    """Sign and send one webhook, perhaps of another time or of a trace of the sender's; the status and the answer."""
    now = at or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    body = json.dumps(
        {
            "event": event,
            "integrationId": integration,
            "orgId": org,
            "tenantId": tenant,
            "configuration": GUIDE,
            "eventTimestamp": now,
            "metadata": {"installedBy": "admin@acme.com", "source": "marketplace"},
        }
    ).encode()
    headers = {
        "Content-Type": "application/json",
        "X-Genesys-Signature": hmac.new(secret, body, hashlib.sha256).hexdigest(),
        "X-Genesys-Event-Timestamp": now,
    }
    headers |= {} if trace is None else {"traceparent": trace}
    request = urllib.request.Request(running.endpoints["ingress"] + "/v1/genesys/lifecycle", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def tenant(running: Up, key: str) -> dict[str, Any]:
    """The newest record of a key in `lifecycle.tenants`, {} while there is none."""
    newest: dict[str, Any] = {}
    for value in read(running, "lifecycle.tenants", key):
        if not newest or value["version"] >= newest["version"]:
            newest = value
    return newest


def read(running: Up, topic: str, key: str) -> list[dict[str, Any]]:
    """Every record of a key in a topic as it is now.

    Raises:
        AssertionError: Kafka did not answer: `eventually` asks again, since a killed broker may still be starting.
    """
    config = {
        "bootstrap.servers": running.endpoints["kafka"],
        "group.id": "somebody",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "log_level": 0,
    }
    consumer = confluent_kafka.Consumer(config)
    try:
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        except confluent_kafka.KafkaException as away:
            raise AssertionError(f"Kafka did not answer: {away}") from away
        consumer.assign([confluent_kafka.TopicPartition(topic, number, 0) for number in partitions])
        found, left = [], set(partitions)
        while left:
            for message in consumer.consume(500, 0.2):
                if message.error() is not None:
                    left.discard(message.partition() or 0)
                elif message.key() == key.encode():
                    found.append(json.loads(message.value() or b"{}"))
        return found
    finally:
        consumer.close()


def inventory(running: Up, key: str) -> dict[str, int]:
    """The number of resources of a key, by system."""
    with urllib.request.urlopen(running.endpoints["simulator"] + "/inventory", timeout=5) as answer:
        found = json.loads(answer.read())
    return {system: len(by_key[key]) for system, by_key in found.items() if by_key.get(key)}


def schemas(running: Up, key: str) -> list[str]:
    """Schemas in PostgreSQL whose comment names the key, and for which a role exists."""
    with psycopg.connect(running.endpoints["database"]) as session:
        rows = session.execute(
            "SELECT nspname FROM pg_namespace n JOIN pg_roles r ON rolname = nspname"
            " WHERE obj_description(n.oid, 'pg_namespace') LIKE %s",
            [f"%{key}%"],
        ).fetchall()
    return [name for (name,) in rows]


def is_running(pid: int) -> bool:
    """True if a process exists and is no zombie."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"
