"""Deliveries on disk while Kafka is slow or unreachable: each one answered 200 arrives unchanged.

A broker of its own, which is stopped and killed. How soon answers come is the benchmark's to judge.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schemas.topics import DEAD_LETTERS, RECEIVED, RECORD_MAX_BYTES
from services.core.delivery.kafka_breaker import FAILURES
from services.engines.kafka import KafkaBroker
from tests.faults.chaos import own_broker
from tests.faults.genesys_sender import Kind, attempt, together
from tests.faults.ingress_checker import in_order
from tests.faults.ingress_world import (
    BREAKER,
    CLOSED,
    DEPTH,
    DRAINED,
    LETTERS,
    OLDEST_S,
    OPEN,
    IngressWorld,
    copies,
    deviations,
    drained,
    folders,
    notes,
    opened,
    readiness,
    said,
    sent,
    world_of,
)
from tests.support.eventually import eventually
from tests.support.ingress_process import body, headers_of, key, make_topics, now_us, raw

pytestmark = pytest.mark.engines

_MINUTE_US = 60_000_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    with own_broker(tmp_path_factory.mktemp("broker")) as own:
        yield own


@pytest.fixture
def world(broker: KafkaBroker, topic_prefix: str, tmp_path: Path) -> Iterator[IngressWorld]:
    with world_of(broker, topic_prefix, tmp_path) as whole:
        yield whole


def test_deliveries_spooled_while_kafka_is_stalled_arrive_unchanged_and_in_order(world: IngressWorld) -> None:
    with world.ready() as running:
        world.stop()
        slow = opened(running)
        assert {one.fields.get("retry-after") for one in slow} == {"5"}
        first = body()
        quick = sent(running, *(first | {"tenantId": f"tenant-{number}"} for number in range(20)))
        print(f"slowest: {max(one.took_s for one in slow):.2f} s, then {max(one.took_s for one in quick):.3f} s")
        assert set(said(quick)) == {"spooled"}
        odd = [
            attempt(running.port, raw(body(event="upgraded")), Kind.UNKNOWN),
            attempt(running.port, raw(body(tenantId="")), Kind.MALFORMED),
            attempt(running.port, raw(body()), Kind.FORGED),
        ]
        assert [(one.status, one.said) for one in odd[:2]] == [(200, "spooled"), (400, "400")]
        assert odd[2].status == 401

        kept = len(slow) + len(quick) + 2
        assert running.metric(DEPTH) == kept
        assert running.metric("lifecycle_ingress_spool_bytes") > sum(len(one.payload) for one in quick)
        assert running.metric(OPEN) == 1
        assert running.metric(OLDEST_S) > 0
        eventually(lambda: "deliveries go to the spool" in notes(running).get("kafka", ""))
        found = readiness(running)
        assert (found["status"], found["checks"]["kafka"]) == ("ready", found["notes"]["kafka"])
        assert found["notes"]["waiting"].startswith(f"{kept} spooled records")

        world.go_on()
        eventually(lambda: drained(running))
        eventually(lambda: not notes(running))
        assert deviations(running, [*slow, *quick, *odd]) == []
        order = list(in_order(running.records(RECEIVED), [one.payload for one in quick]))
        assert order == sorted(order)
        assert running.metric(DRAINED, result="written") >= kept
        assert running.metric(BREAKER, state="closed") == 1


def test_a_retry_of_a_spooled_delivery_is_accepted_with_any_header(world: IngressWorld) -> None:
    with world.ready() as running:
        old = body(now_us() - 10 * _MINUTE_US)
        world.stop()
        opened(running)
        (waiting,) = sent(running, old)
        letter = attempt(running.port, raw(body(event="upgraded")), Kind.UNKNOWN)
        while_away = attempt(running.port, waiting.payload, stated_us=now_us() - 10 * _MINUTE_US)
        assert (waiting.said, while_away.said) == ("spooled", "spooled")
        world.go_on()
        eventually(lambda: drained(running))
        again = attempt(running.port, waiting.payload)
        late = attempt(running.port, waiting.payload, stated_us=now_us() - 10 * _MINUTE_US)
        assert (again.said, late.said) == ("duplicate_handled", "duplicate_handled")
        assert attempt(running.port, letter.payload).said == "parked"
        assert deviations(running, [waiting, while_away, letter, again, late]) == []
        assert len(running.records(DEAD_LETTERS)) == 1


@pytest.mark.long
def test_every_spooled_delivery_arrives_after_the_broker_restarts(world: IngressWorld) -> None:
    with world.ready() as running:
        world.broker.kill()
        attempts = together(running.port, [raw(body()) for _ in range(10)]) + sent(
            running, *(body() for _ in range(10))
        )
        assert set(said(attempts)) == {"spooled"}
        world.broker.start()
        eventually(lambda: drained(running), 60)
        assert deviations(running, attempts) == []


def test_the_ingress_spools_deliveries_when_it_starts_without_kafka(world: IngressWorld) -> None:
    world.stop()
    with world.ingress() as running:
        assert readiness(running)["status"] == "ready"
        attempts = together(running.port, [raw(body()) for _ in range(3)])
        assert set(said(attempts)) == {"spooled"}
        world.go_on()
        eventually(lambda: drained(running))
        assert deviations(running, attempts) == []


def test_without_a_spool_folder_no_delivery_is_spooled(world: IngressWorld) -> None:
    with world.ready(SPOOL_DIR="") as running:
        world.stop()
        attempts = together(running.port, [raw(body()) for _ in range(FAILURES + 1)])
        assert {(one.status, one.fields.get("retry-after")) for one in attempts} == {(503, "5")}
        eventually(lambda: readiness(running)["status"] == "unready")
        assert not notes(running)


def test_deliveries_beyond_the_in_flight_limit_are_spooled(world: IngressWorld) -> None:
    with world.ready(INFLIGHT_MAX="2") as running:
        world.stop()
        attempts = together(running.port, [raw(body()) for _ in range(8)])
        assert set(said(attempts)) == {"spooled"}
        world.go_on()
        eventually(lambda: drained(running))
        assert deviations(running, attempts) == []


@pytest.mark.long
def test_a_full_spool_closes_and_a_new_spool_opens_once_it_is_drained(world: IngressWorld) -> None:
    with world.ready(SPOOL_MAX_BYTES=str(1 << 20)) as running:
        world.stop()
        attempts = opened(running)
        while attempts[-1].status == 200:
            attempts += sent(running, body(configuration={"notes": "x" * 200_000}))
        assert len(attempts) == FAILURES + 7
        assert (attempts[-1].status, attempts[-1].fields["retry-after"]) == (503, "5")
        eventually(lambda: running.metric(CLOSED, reason="size") == 1)
        assert running.metric(OPEN) == 0
        assert notes(running)["spool"] == "takes no records: size"
        eventually(lambda: readiness(running)["status"] == "unready")

        world.go_on()
        eventually(lambda: drained(running))
        eventually(lambda: running.metric(OPEN) == 1)
        assert len(folders(world.spool)) == 1
        world.stop()
        attempts += opened(running)
        world.go_on()
        eventually(lambda: drained(running))
        assert deviations(running, attempts) == []


@pytest.mark.slow
def test_a_delivery_spooled_too_long_becomes_a_dead_letter_and_a_recheck(world: IngressWorld) -> None:
    with world.ready(SPOOL_MAX_AGE_S="2") as running:
        world.stop()
        openers = opened(running)
        old = sent(running, body(), body())
        letter = attempt(running.port, raw(body(event="upgraded")), Kind.UNKNOWN)
        assert said([*old, letter]) == ["spooled"] * 3
        eventually(lambda: running.metric(CLOSED, reason="age") == 1)
        assert [one.status for one in sent(running, body())] == [503]

        eventually(lambda: running.metric(OLDEST_S) > 5)  # and so is the youngest older than its age
        world.go_on()
        eventually(lambda: drained(running))
        assert running.metric(DRAINED, result="expired") == len(openers) + len(old) + 1
        assert running.metric(LETTERS, reason="spooled_too_long") == len(openers) + len(old)
        assert running.metric(LETTERS, reason="unknown_event") == 1
        letters = {record.key(): json.loads(record.value() or b"") for record in running.records(DEAD_LETTERS)}
        asked = {record.key() for record in running.records(RECEIVED) if "recheck" in headers_of(record)["ce_type"]}
        for one in old:
            name = key(json.loads(one.payload)).encode()
            assert letters[name]["reason"] == "spooled_too_long"
            assert one.stated == letters[name]["headers"]["event_timestamp_header"]
            assert name in asked
            assert copies(running, one) == 0
        unknown = key(json.loads(letter.payload)).encode()
        assert letters[unknown]["reason"] == "unknown_event"
        assert unknown not in asked
        eventually(lambda: running.metric(OPEN) == 1)


def test_the_spool_of_a_killed_process_is_drained_by_the_next_start(world: IngressWorld) -> None:
    with world.ready() as running:
        world.stop()
        attempts = opened(running) + sent(running, *(body() for _ in range(20)))
        running.process.kill()
        running.process.wait()
    with world.ingress() as running:
        (found,) = running.logged("spool found")
        assert (found["records"], found["damaged"]) == (len(attempts), 0)
        assert running.metric(DEPTH) == len(attempts)
        assert notes(running)["waiting"].startswith(f"{len(attempts)} spooled records")
        attempts += together(running.port, [raw(body()) for _ in range(FAILURES)])
        world.go_on()
        eventually(lambda: drained(running))
        assert deviations(running, attempts) == []
        eventually(lambda: len(folders(world.spool)) == 1)


@pytest.mark.long
def test_the_spool_of_a_running_process_is_not_adopted(world: IngressWorld) -> None:
    with world.ready() as first:
        world.stop()
        opened(first)
        attempts = sent(first, body(), body())
        with world.ingress() as second:
            assert second.metric(DEPTH) == 0
            assert not second.logged("spool found")
            attempts += together(second.port, [raw(body()) for _ in range(FAILURES)])
            assert second.metric(DEPTH) == FAILURES
            assert first.metric(DEPTH) == FAILURES + 2
            world.go_on()
            eventually(lambda: drained(first) and drained(second))
            assert deviations(first, attempts) == []
            assert [copies(first, one) for one in attempts[:2]] == [1, 1]


def test_deliveries_in_flight_at_shutdown_are_spooled_for_the_next_start(world: IngressWorld) -> None:
    with world.ready() as running, ThreadPoolExecutor() as pool:
        world.stop()
        under_way = pool.submit(together, running.port, [raw(body()) for _ in range(3)])
        eventually(lambda: running.metric("lifecycle_ingress_in_flight") == 3)
        running.process.terminate()
        attempts = under_way.result()
        assert said(attempts) == ["spooled"] * 3
        assert running.process.wait(20) == 0
        (ended,) = eventually(lambda: running.logged("stopped"))
        assert ended["spooled"] == 3
    world.go_on()
    with world.ingress() as running:
        assert running.logged("spool found")[0]["records"] == 3
        eventually(lambda: drained(running))
        assert deviations(running, attempts) == []
        running.process.terminate()
        assert running.process.wait(20) == 0
        assert eventually(lambda: running.logged("stopped"))[0]["spooled"] == 0
    assert folders(world.spool) == []


def test_a_delivery_for_a_missing_topic_is_spooled_or_refused(world: IngressWorld) -> None:
    with world.ready() as running:
        world.drop(RECEIVED)
        attempts = together(running.port, [raw(body()) for _ in range(3)])
        assert {one.said for one in attempts} <= {"spooled", "503"}
        make_topics(world.broker.bootstrap, world.prefix)
        eventually(lambda: drained(running))
        attempts += sent(running, body())
        assert deviations(running, attempts) == []


@pytest.mark.long
def test_a_record_that_kafka_refuses_does_not_block_the_drain(world: IngressWorld) -> None:
    with world.ready() as running:
        world.configure(RECEIVED, "max.message.bytes", "5000")
        world.drop(DEAD_LETTERS)
        world.stop()
        letter = attempt(running.port, raw(body(event="upgraded")), Kind.UNKNOWN)
        large = attempt(running.port, raw(body(configuration={"notes": "x" * 20_000})))
        assert said([letter, large]) == ["spooled"] * 2
        running.process.kill()
        running.process.wait()
    # They are the oldest, and so the first that probe.
    with world.ingress() as running:
        attempts = opened(running) + sent(running, body())
        world.go_on()
        eventually(lambda: running.metric(DEPTH) <= 2)
        eventually(lambda: said(sent(running, body())) == ["queued"])
        world.configure(RECEIVED, "max.message.bytes", str(RECORD_MAX_BYTES))
        make_topics(world.broker.bootstrap, world.prefix)
        eventually(lambda: drained(running))
        assert deviations(running, [letter, large, *attempts]) == []


@pytest.mark.slow
def test_records_of_an_unwritable_topic_use_no_probe(world: IngressWorld) -> None:
    world.configure(DEAD_LETTERS, "retention.ms", "1000")
    with world.ready() as running:
        letters = [attempt(running.port, raw(body(event="upgraded")), Kind.UNKNOWN) for _ in range(20)]
        assert said(letters) == ["spooled"] * 20
        running.process.kill()
        running.process.wait()
    # They are the oldest, and so the first that would probe: one every five seconds.
    world.stop()
    with world.ingress() as running:
        attempts = opened(running) + sent(running, body())
        world.go_on()
        eventually(lambda: running.metric(DEPTH) == len(letters))
        eventually(lambda: said(sent(running, body())) == ["queued"])
        assert deviations(running, attempts) == []
