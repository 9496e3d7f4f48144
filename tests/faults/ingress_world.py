"""An ingress with a spool before a broker that can be stopped and killed, and what a test asks of the two."""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType  # type: ignore[attr-defined]  # re-exported without `as`

from schemas.topics import DEAD_LETTERS, RECEIVED, Topic, named
from services.adapters.kafka import topics
from services.adapters.kafka.producer import KafkaError
from services.core.delivery.kafka_breaker import FAILURES
from services.engines.kafka import KafkaBroker
from tests.faults.genesys_sender import Attempt, attempt, together
from tests.faults.ingress_checker import judge
from tests.support.eventually import eventually
from tests.support.ingress_process import Ingress, body, ingress, raw
from tests.support.stop_process import stop

DEPTH = "lifecycle_ingress_spool_records"
OLDEST_S = "lifecycle_ingress_spool_oldest_seconds"
OPEN = "lifecycle_ingress_spool_open"
CLOSED = "lifecycle_ingress_spool_closed_total"
DRAINED = "lifecycle_ingress_spool_drained_total"
BREAKER = "lifecycle_ingress_breaker"
LETTERS = "lifecycle_ingress_dead_letters_total"


@dataclass
class IngressWorld:
    """A broker, and the folder of the ingresses before it."""

    broker: KafkaBroker
    prefix: str
    folder: Path

    @property
    def spool(self) -> Path:
        """SPOOL_DIR, unless said otherwise."""
        return self.folder / "spool"

    @contextlib.contextmanager
    def ingress(self, **environment: str) -> Iterator[Ingress]:
        own = {"SPOOL_DIR": str(self.spool)} | environment
        with ingress(self.broker.bootstrap, self.prefix, self.folder, **own) as running:
            yield running

    @contextlib.contextmanager
    def ready(self, **environment: str) -> Iterator[Ingress]:
        """One that has written to Kafka."""
        with self.ingress(**environment) as running:
            eventually(lambda: running.post(body()).said.get("status") == "queued")
            yield running

    def stop(self) -> None:
        """The broker stands still; connections stay open."""
        assert self.broker.pid is not None
        stop(self.broker.pid)

    def go_on(self) -> None:
        if self.broker.pid is not None:
            os.kill(self.broker.pid, signal.SIGCONT)

    def configure(self, topic: Topic, name: str, value: str) -> None:
        """Change a setting of a topic."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        change = ConfigResource(ResourceType.TOPIC, named(topic, self.prefix), incremental_configs=[entry])
        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap})
        for future in admin.incremental_alter_configs([change]).values():
            future.result(20)

    def drop(self, topic: Topic) -> None:
        """Let there be no such topic."""
        name = named(topic, self.prefix)
        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap})
        for future in admin.delete_topics([name]).values():
            future.result(20)
        eventually(lambda: name not in admin.list_topics(timeout=20).topics)


@contextlib.contextmanager
def world_of(broker: KafkaBroker, prefix: str, folder: Path) -> Iterator[IngressWorld]:
    """Topics of its own; the broker goes on afterwards."""
    eventually(lambda: _has_topics(broker, prefix))
    whole = IngressWorld(broker, prefix, folder)
    try:
        yield whole
    finally:
        whole.go_on()


def _has_topics(broker: KafkaBroker, prefix: str) -> bool:
    """A broker that has just stood still is let in again meanwhile, and forgets who asked it."""
    with contextlib.suppress(KafkaError, TimeoutError):
        topics.apply({"bootstrap.servers": broker.bootstrap}, prefix=prefix, partitions=4, replication=1, timeout_s=5)
        return True
    return False


def opened(running: Ingress) -> list[Attempt]:
    """Deliveries that Kafka took too long for, so that the breaker is open."""
    found = together(running.port, [raw(body()) for _ in range(FAILURES)])
    assert said(found) == ["spooled"] * FAILURES
    assert running.metric(BREAKER, state="closed") == 0
    return found


def sent(running: Ingress, *told: dict[str, Any]) -> list[Attempt]:
    """One after the other."""
    return [attempt(running.port, raw(one)) for one in told]


def said(attempts: list[Attempt]) -> list[str]:
    return [one.said for one in attempts]


def drained(running: Ingress) -> bool:
    """True if no delivery waits and Kafka is asked again: a delivery is sent to see this."""
    return running.metric(DEPTH) == 0 and said(sent(running, body())) == ["queued"]


def deviations(running: Ingress, attempts: list[Attempt]) -> list[str]:
    """Promised deliveries that Kafka does not have."""
    return judge(attempts, running.records(RECEIVED), running.records(DEAD_LETTERS)).deviations


def copies(running: Ingress, one: Attempt) -> int:
    return sum(record.value() == one.payload for record in running.records(RECEIVED))


def readiness(running: Ingress) -> dict[str, Any]:
    found: dict[str, Any] = running.get("/readyz").said
    return found


def notes(running: Ingress) -> dict[str, str]:
    found: dict[str, str] = readiness(running).get("notes", {})
    return found


def folders(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.glob("*") if path.name != ".lock")
