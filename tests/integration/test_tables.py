"""A table worker and each fault of its topics, its disk or its events."""

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.codec import Message
from services.adapters.kafka.producer import KafkaError, Producer
from services.adapters.tables.exits import WorkerExit
from services.engines import child_process
from tests.faults import records
from tests.faults.counted import PARTITIONS, Counted
from tests.support.eventually import eventually
from tests.support.transactions import Copier

pytestmark = pytest.mark.engines

SESSION_S = 3.0


@dataclass(frozen=True)
class Bench:
    """One prefix on the run's broker, with its topics made."""

    counted: Counted
    folder: Path

    @property
    def bootstrap(self) -> str:
        return self.counted.bootstrap

    @property
    def changelog(self) -> str:
        return f"{self.counted.prefix}chaos-seen-changelog"

    @property
    def events(self) -> str:
        return f"{self.counted.prefix}events"

    def write(self, topic: str, *pairs: tuple[bytes, bytes], partition: int = 0) -> None:
        producer = records.producer(self.bootstrap)
        for key, value in pairs:
            producer.produce(topic, key=key, value=value, partition=partition)
        assert producer.flush(30) == 0

    def said(self) -> list[bytes]:
        return [value for *_, value in records.read(self.bootstrap, f"{self.counted.prefix}said", PARTITIONS)]

    def logged(self) -> list[bytes]:
        return [value for *_, value in records.read(self.bootstrap, self.changelog, PARTITIONS)]

    def start(self, disk: str = "disk", done_to_it: str = "") -> child_process.Child:
        *argv, arguments = self.counted.worker(self.folder / disk).argv
        argv.append(json.dumps(json.loads(arguments) | {"done_to_it": done_to_it}))
        return child_process.start(argv, env=dict(os.environ), log_path=self.folder / "worker.log")

    @contextmanager
    def worker(self, disk: str = "disk") -> Iterator[child_process.Child]:
        """Stopped by SIGTERM, which must end it cleanly."""
        worker = self.start(disk)
        try:
            yield worker
        except BaseException:
            worker.kill()
            raise
        assert worker.stop(30) == 0, child_process.last_lines(worker.log_path)

    def ends_with(self, worker: child_process.Child, reason: WorkerExit) -> str:
        """The last words of a worker that ends itself for this reason."""
        status = worker.wait(60)
        assert status == reason, f"{status}: {child_process.last_lines(worker.log_path)}"
        last = json.loads(child_process.last_lines(worker.log_path, 1))
        assert last["exit_status"] == reason
        event: str = last["event"]
        assert event.startswith(reason.name)
        return event


@pytest.fixture
def bench(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Bench:
    counted = Counted(kafka_bootstrap, topic_prefix, SESSION_S)
    counted.prepare()
    return Bench(counted, tmp_path)


def row(version: int, *uids: bytes) -> bytes:
    """A row of the counting application that has seen these ids at these offsets."""
    entries = (struct.pack(">8sqq", uid, number, number + 1) for number, uid in enumerate(uids))
    return struct.pack(">qq", version, len(uids)) + b"".join(entries)


A, B, C = b"aaaaaaaa", b"bbbbbbbb", b"cccccccc"
OLD, NEW = row(1, A), row(5, A, B)


def test_of_two_rows_the_newer_version_survives_and_is_written_again(bench: Bench) -> None:
    bench.write(bench.changelog, (b"k", NEW), (b"k", OLD))
    with bench.worker():
        eventually(lambda: bench.logged() == [NEW, OLD, NEW])
        bench.write(bench.events, (b"k", C))
        eventually(lambda: bench.said() == [b"seen|cccccccc|k|3"])


@pytest.mark.long
def test_an_interrupted_repair_is_repeated_on_the_same_disk(bench: Bench) -> None:
    bench.write(bench.changelog, (b"k", NEW))
    with bench.worker():
        bench.write(bench.events, (b"x", C))
        eventually(lambda: len(bench.said()) == 1)
    bench.write(bench.changelog, (b"k", OLD))
    with bench.worker():
        eventually(lambda: bench.logged()[-1] == NEW)
    with bench.worker():
        bench.write(bench.events, (b"k", C))
        eventually(lambda: b"seen|cccccccc|k|3" in bench.said())


def test_a_foreign_writer_of_the_changelog_ends_the_worker(bench: Bench) -> None:
    worker = bench.start()
    bench.write(bench.events, (b"k", A))
    eventually(lambda: len(bench.said()) == 1)
    bench.write(bench.changelog, (b"k", row(0)))
    bench.write(bench.events, (b"k", B))
    assert f"{bench.changelog}[0]: expected offset 1, got 2" in bench.ends_with(worker, WorkerExit.FOREIGN_WRITER)
    with bench.worker():
        bench.write(bench.events, (b"k", C))
        eventually(lambda: set(bench.said()) >= {b"seen|bbbbbbbb|k|2", b"seen|cccccccc|k|3"})


@pytest.mark.long
def test_a_foreign_writer_is_noticed_by_an_idle_worker(bench: Bench) -> None:
    watchful = Bench(replace(bench.counted, look_s=0.5), bench.folder)
    worker = watchful.start()
    bench.write(bench.events, (b"k", A), (b"k", B))
    eventually(lambda: bench.counted.drained() and len(bench.said()) == 2)
    bench.write(bench.changelog, (b"k", row(0)))
    assert f"{bench.changelog}[0]: expected offset 2, got 3" in bench.ends_with(worker, WorkerExit.FOREIGN_WRITER)


def _delete(bench: Bench, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    for future in admin.delete_topics([topic]).values():
        future.result(30)
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics)


def test_a_missing_changelog_ends_the_worker(bench: Bench) -> None:
    _delete(bench, bench.changelog)
    assert bench.changelog in bench.ends_with(bench.start(), WorkerExit.METADATA)


def test_a_changelog_with_another_partition_count_is_refused(bench: Bench) -> None:
    _delete(bench, bench.changelog)
    records.create(bench.bootstrap, {bench.changelog: {}}, PARTITIONS + 1)
    assert "one partition count" in bench.ends_with(bench.start(), WorkerExit.METADATA)


@pytest.mark.long
def test_a_recreated_changelog_ends_a_worker_with_a_copy_of_the_former_one(bench: Bench) -> None:
    with bench.worker():
        bench.write(bench.events, (b"k", A), (b"k", B), (b"k", C))
        eventually(lambda: len(bench.logged()) == 3)
    _delete(bench, bench.changelog)
    records.create(bench.bootstrap, {bench.changelog: {"cleanup.policy": "compact"}}, PARTITIONS)
    assert f"{bench.changelog}[0]" in bench.ends_with(bench.start(), WorkerExit.CHANGELOG_BEHIND)


def _commit(bench: Bench, offset: int) -> None:
    consumer = Consumer({"bootstrap.servers": bench.bootstrap, "group.id": f"{bench.counted.prefix}chaos"})
    consumer.commit(offsets=[TopicPartition(bench.events, 0, offset)], asynchronous=False)
    consumer.close()


def test_a_gap_in_the_input_ends_the_worker_before_a_later_offset_is_committed(bench: Bench) -> None:
    bench.write(bench.events, *[(b"k", b"%08d" % number) for number in range(10)])
    assert f"{bench.events}[0]: expected offset 1, got 2" in bench.ends_with(
        bench.start(done_to_it="hole"), WorkerExit.FENCE
    )
    with bench.worker():
        eventually(bench.counted.drained)
    assert sorted(set(bench.said())) == [b"seen|%08d|k|%d" % (number, number + 1) for number in range(10)]


@pytest.mark.parametrize("how", ["silence", pytest.param("unseen", marks=pytest.mark.long)])
def test_a_stalled_partition_ends_the_worker(bench: Bench, how: str) -> None:
    bench.write(bench.events, (b"k", A))
    said = bench.ends_with(bench.start(done_to_it=how), WorkerExit.STALL)
    assert f"{bench.events}[0]: stands still at offset 0 of 1" in said


def test_a_dead_group_coordinator_ends_the_worker(bench: Bench) -> None:
    said = bench.ends_with(bench.start(done_to_it="dead_coordinator"), WorkerExit.COORDINATOR)
    assert "the group coordination task has ended" in said


def test_events_without_the_changelog_of_their_table_end_the_worker(bench: Bench) -> None:
    said = bench.ends_with(bench.start(done_to_it="no_changelog"), WorkerExit.INCOMPLETE_ASSIGNMENT)
    assert f"assigned without {bench.changelog}[0]" in said
    assert bench.said() == []


def test_records_removed_before_they_were_read_are_reported_as_lost(bench: Bench) -> None:
    bench.write(bench.events, *[(b"k", b"%08d" % number) for number in range(10)])
    _commit(bench, 3)
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    for future in admin.delete_records([TopicPartition(bench.events, 0, 7)]).values():
        future.result(30)
    assert f"{bench.events}[0]: committed offset 3" in (said := bench.ends_with(bench.start(), WorkerExit.LOSS))
    assert "records 3 to 6 are gone" in said


@pytest.mark.long
def test_records_removed_after_the_group_lost_its_offsets_are_reported_as_lost(bench: Bench) -> None:
    with bench.worker():
        bench.write(bench.events, *[(b"k", b"%08d" % number) for number in range(10)])
        eventually(bench.counted.drained)
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    for forgotten in admin.delete_consumer_groups([f"{bench.counted.prefix}chaos"]).values():
        forgotten.result(30)
    for removed in admin.delete_records([TopicPartition(bench.events, 0, 7)]).values():
        removed.result(30)
    said = bench.ends_with(bench.start(), WorkerExit.LOSS)
    assert f"{bench.events}[0]: no offset is committed any more (7 to 10): records 0 to 6 are gone" in said


@pytest.mark.long
def test_a_takeover_interrupted_by_a_rebalance_is_left_to_the_next_assignment(bench: Bench) -> None:
    first = bench.start("one", done_to_it="late")
    eventually(lambda: "it takes its time" in first.log_path.read_text())
    bench.write(bench.events, *[(b"k", b"%08d" % number) for number in range(10)])
    with bench.worker("two"):
        eventually(bench.counted.drained)
    assert first.stop(30) == 0, child_process.last_lines(first.log_path)
    assert sorted(set(bench.said())) == [b"seen|%08d|k|%d" % (number, number + 1) for number in range(10)]


def test_an_offset_beyond_the_log_is_reported_as_loss(bench: Bench) -> None:
    bench.write(bench.events, (b"k", A))
    _commit(bench, 12)
    assert "the log ends at 1" in bench.ends_with(bench.start(), WorkerExit.LOSS)


def test_a_record_that_the_broker_refuses_ends_the_worker_before_its_offset_is_committed(bench: Bench) -> None:
    said = f"{bench.counted.prefix}said"
    _delete(bench, said)
    records.create(bench.bootstrap, {said: {"max.message.bytes": "200"}}, PARTITIONS)
    bench.write(bench.events, (b"k" * 500, A))
    assert f"{said}: MSG_SIZE_TOO_LARGE" in bench.ends_with(bench.start(), WorkerExit.UNDELIVERED)
    assert not bench.counted.drained()


def test_an_exception_in_a_decision_ends_the_worker_and_names_the_record_without_its_content(bench: Bench) -> None:
    bench.write(bench.events, (b"k", A), (b"k", None))  # type: ignore[arg-type]  # a tombstone is no id
    said = bench.ends_with(bench.start(), WorkerExit.UNEXPECTED)
    assert f"{bench.events}[0] offset 1: AssertionError in " in said
    assert "table_worker.py" in said


def test_a_lost_disk_is_rebuilt_and_a_kept_one_is_used(bench: Bench) -> None:
    for disk, uid, sequence in (("one", A, 1), ("two", B, 2), ("one", C, 3)):
        with bench.worker(disk):
            bench.write(bench.events, (b"k", uid))
            eventually(lambda said=b"seen|%s|k|%d" % (uid, sequence): said in bench.said())  # type: ignore[misc]


@pytest.mark.long
def test_offsets_set_back_repeat_identical_outputs(bench: Bench) -> None:
    with bench.worker():
        bench.write(bench.events, (b"k", A), (b"k", B), (b"k", A))
        eventually(lambda: len(bench.said()) == 2 and bench.counted.drained())
    _commit(bench, 0)
    with bench.worker():
        eventually(lambda: len(bench.said()) == 4)
        assert bench.said()[:2] == bench.said()[2:]


async def test_a_writer_waits_while_too_much_is_unacknowledged(kafka_bootstrap: str, topic_prefix: str) -> None:
    records.create(kafka_bootstrap, {topic_prefix + "much": {}}, 1)
    producer = Producer({"bootstrap.servers": kafka_bootstrap}, linger_ms=5, timeout_ms=30_000)
    failed: list[object] = []

    def report(result: object) -> None:
        if isinstance(result, KafkaError):
            failed.append(result)

    await producer.wait_for_room()
    for _ in range(25_000):
        producer.send(topic_prefix + "much", Message(None, b"x"), report)
    assert producer.unacknowledged == 25_000
    await producer.wait_for_room()
    assert producer.unacknowledged <= 20_000
    for _ in range(70):
        producer.send(topic_prefix + "much", Message(None, bytes(1_000_000)), report)
    await producer.wait_for_room()
    assert producer.unacknowledged <= 67
    await producer.flush()
    assert not failed
    assert await producer.close(5) == 0


def _copier(bench: Bench) -> Copier:
    return Copier(bench.bootstrap, bench.counted.prefix)


def _in_zero(*pairs: tuple[bytes, bytes]) -> list[tuple[int, Message]]:
    return [(0, Message(*pair)) for pair in pairs]


def _everything_is_committed(bench: Bench) -> None:
    eventually(bench.counted.drained)


@pytest.mark.parametrize("disk", [pytest.param("kept", marks=pytest.mark.long), "lost"])
def test_a_changelog_that_ends_in_transaction_markers_is_recovered_without_aborted_rows(
    bench: Bench, disk: str
) -> None:
    with bench.worker("kept"):
        bench.write(bench.events, (b"k", A))
        _everything_is_committed(bench)
    copier = _copier(bench)
    copier.commit(bench.changelog, _in_zero((b"k", row(5, A, B))))
    copier.abort(bench.changelog, _in_zero((b"k", row(9, A, B, C))))
    with bench.worker(disk):
        bench.write(bench.events, (b"k", C))
        eventually(lambda: b"seen|cccccccc|k|3" in bench.said())
    with bench.worker(disk):
        bench.write(bench.events, (b"k", b"dddddddd"))
        eventually(lambda: b"seen|dddddddd|k|4" in bench.said())


@pytest.mark.long
def test_a_changelog_of_transaction_markers_alone_counts_as_empty(bench: Bench) -> None:
    _copier(bench).abort(bench.changelog, _in_zero((b"k", row(9, B))))
    with bench.worker():
        bench.write(bench.events, (b"k", A))
        eventually(lambda: bench.said() == [b"seen|aaaaaaaa|k|1"])
    with bench.worker("other"):
        bench.write(bench.events, (b"k", C))
        eventually(lambda: b"seen|cccccccc|k|2" in bench.said())


@pytest.mark.long
def test_an_open_transaction_in_a_changelog_ends_the_worker(bench: Bench) -> None:
    with _copier(bench).open(bench.changelog, _in_zero((b"k", row(5, A)))):
        said = bench.ends_with(bench.start(), WorkerExit.STALL)
    assert f"{bench.changelog}/0: an open transaction holds back what stands from offset 0 on" in said
    with bench.worker():
        bench.write(bench.events, (b"k", B))
        eventually(lambda: bench.said() == [b"seen|bbbbbbbb|k|2"])


def test_transaction_markers_in_an_input_count_as_read_and_aborted_records_are_skipped(bench: Bench) -> None:
    copier = _copier(bench)
    copier.abort(bench.events, _in_zero((b"k", A)))
    with bench.worker():
        _everything_is_committed(bench)
        copier.commit(bench.events, _in_zero((b"k", B)))
        copier.abort(bench.events, _in_zero((b"k", A)))
        _everything_is_committed(bench)
        bench.write(bench.events, (b"k", C))
        _everything_is_committed(bench)
    assert bench.said() == [b"seen|bbbbbbbb|k|1", b"seen|cccccccc|k|2"]


@pytest.mark.long
def test_records_held_back_by_an_open_transaction_are_read_once_it_ends(bench: Bench) -> None:
    with bench.worker():
        with _copier(bench).open(bench.events, _in_zero((b"k", A))):
            bench.write(bench.events, (b"k", B))
            bench.write(bench.events, (b"x", C), partition=1)
            eventually(lambda: bench.said() == [b"seen|cccccccc|x|1"])
        eventually(lambda: len(bench.said()) == 3)
        _everything_is_committed(bench)
    assert set(bench.said()) == {b"seen|cccccccc|x|1", b"seen|aaaaaaaa|k|1", b"seen|bbbbbbbb|k|2"}
