"""A broker that is stopped, not dead: every sender gets an answer, and every 200 is true.

A broker of its own: stopping the run's would stop every other test.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.topics import DEAD_LETTERS, RECEIVED
from services import engines
from services.engines import Engine
from services.engines.choice import ENGINES_VARIABLE, KAFKA_VARIABLE
from tests.support.eventually import eventually
from tests.support.ingress_process import Ingress, Line, Reply, body, ingress, key, make_topics, raw, request
from tests.support.stop_process import stop

pytestmark = pytest.mark.engines


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Ingress, int]]:
    """An ingress, and the process id of its broker."""
    environ = {name: value for name, value in os.environ.items() if name not in {KAFKA_VARIABLE, ENGINES_VARIABLE}}
    with engines.running(tmp_path / "engines", environ, wanted=(Engine.KAFKA,)) as started:
        assert started.kafka is not None
        pid = started.kafka.pid
        assert pid is not None
        make_topics(started.kafka_bootstrap, "")
        try:
            with ingress(started.kafka_bootstrap, "", tmp_path) as running:
                eventually(lambda: running.get("/readyz").status == 200)
                yield running, pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_a_stalled_broker_delays_answers_and_loses_no_delivery(own: tuple[Ingress, int]) -> None:
    running, pid = own
    assert running.post(body()).status == 200
    told = [body() for _ in range(20)]
    stale = body(event="upgraded")

    stop(pid)
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(contextlib.closing(Line(running.port))) for _ in [*told, stale]]
        for line, one in zip(lines, [*told, stale], strict=True):
            line.write(request(raw(one)))
        replies = [line.reply() for line in lines]
    # The time of each answer is the benchmark's to judge (2.7 s): here a busy machine decides it.
    assert [reply and reply.status for reply in replies] == [503] * 21
    assert running.post(body(), secret="x" * 32).status == 401, "a forger is refused as ever"
    assert running.get("/livez").status == 200
    os.kill(pid, signal.SIGCONT)

    # The sender tries again, with the same bytes; a report that came late makes it a duplicate, never a loss.
    said = [eventually(lambda one=one: running.post(one).said.get("status")) for one in told]  # type: ignore[misc]  # a lambda's default has no type
    assert set(said) <= {"queued", "duplicate_handled"}
    assert eventually(lambda: running.post(stale).said) == {"status": "parked"}
    written = [record.key() for record in running.records(RECEIVED)]
    assert all(key(one).encode() in written for one in told)
    assert len(running.records(DEAD_LETTERS)) >= 1
    eventually(lambda: running.metric("lifecycle_ingress_in_flight") == 0)


def test_a_retry_is_a_duplicate_if_the_report_arrives_after_the_answer(own: tuple[Ingress, int]) -> None:
    running, pid = own
    assert running.post(body()).status == 200
    told = body()
    stop(pid)
    with contextlib.closing(Line(running.port)) as line:
        line.write(request(raw(told)))
        # Seen in flight, so it stands in the stopped broker's socket and will be written when the broker goes on.
        eventually(lambda: running.metric("lifecycle_ingress_in_flight") == 1)
        reply = line.reply()
    os.kill(pid, signal.SIGCONT)
    assert reply is not None
    assert reply.status == 503
    eventually(lambda: running.metric("lifecycle_ingress_in_flight") == 0)
    again = eventually(lambda: running.post(told).said.get("status"))
    copies = sum(record.key() == key(told).encode() for record in running.records(RECEIVED))
    # Whether the report came in time for librdkafka is the machine's to say; what is said must fit what is there.
    assert (again, copies) in {("duplicate_handled", 2), ("queued", 1), ("queued", 2)}


@pytest.mark.long
def test_deliveries_beyond_the_in_flight_limit_are_refused_at_once(own: tuple[Ingress, int], tmp_path: Path) -> None:
    other, pid = own
    with ingress(other.bootstrap, "", tmp_path, INFLIGHT_MAX="2") as running, contextlib.ExitStack() as stack:
        eventually(lambda: running.get("/readyz").status == 200)
        stop(pid)
        lines = [stack.enter_context(contextlib.closing(Line(running.port))) for _ in range(8)]
        for line in lines:
            line.write(request(raw(body())))
        assert {(line.reply() or Reply(0, {}, b"")).status for line in lines} == {503}
        assert running.metric("lifecycle_ingress_answers_total", status="503", reason="saturated") >= 6
        eventually(lambda: running.get("/readyz").status == 503)
