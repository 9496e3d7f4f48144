"""Clients of librdkafka end where they are no longer used, and never in the garbage collector."""

import gc
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from services.adapters.kafka import backlog, clients, reach, reader, tenant_view, topics
from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.rights import Cluster
from services.adapters.kafka.topic_description import describe
from services.adapters.kafka.topic_state import TopicWatcher
from services.engines.readiness import kafka_answers
from tests.support.eventually import eventually

AWAY: dict[str, Any] = {"bootstrap.servers": "127.0.0.1:9"}
_SERVICES = Path(clients.__file__).parents[2]


def _looked() -> None:
    with TopicWatcher(AWAY, ["a"], timeout_s=0.2) as looking:
        looking.look()


def _allowed() -> None:
    from schemas.rights import Service

    with Cluster(AWAY) as cluster:
        cluster.missing(Service.LEDGER, "", 0.2)


ASKS: dict[str, Callable[[], object]] = {
    "describe": lambda: describe(AWAY, ["a", "b"], 0.2),
    "plan": lambda: topics.plan(AWAY, prefix="", partitions=1, replication=1, timeout_s=0.2),
    "look": _looked,
    "rights": _allowed,
    "reach": lambda: reach.reach(AWAY, timeout_s=0.5),
    "backlog": lambda: backlog.backlog(AWAY, "g", {"a": [0]}, since_us=0, timeout_s=0.2),
    "last": lambda: reader.last_per_partition(AWAY, "a", timeout_s=0.2),
    "view": lambda: tenant_view.read(AWAY, "", 0.2),
    "engine": lambda: kafka_answers("127.0.0.1:9", 0.2),
}


@pytest.fixture
def _uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _threads() -> int:
    """Those of librdkafka count too; Python does not know them."""
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.usefixtures("_uncollected")
@pytest.mark.parametrize("ask", ASKS)
def test_an_unanswered_request_leaves_no_client_open(ask: str) -> None:
    before, known = _threads(), threading.active_count()
    with suppress(KafkaError):
        ASKS[ask]()
    assert eventually(lambda: _threads() - threading.active_count() <= before - known, 10)


def test_every_admin_client_is_a_context_or_closed_by_its_holder() -> None:
    kept = re.compile(r"\s*with (clients\.admin|AdminClient)\(.* as \w+:|\s*self\._admin = |\s*return ")
    made = re.compile(r"clients\.admin\(|(?<!class )AdminClient\(")
    loose = [
        f"{path.name}: {line.strip()}"
        for path in _SERVICES.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if made.search(line) and not kept.match(line)
    ]
    assert not loose
