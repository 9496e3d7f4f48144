"""Every reader ends at the last record of a partition: markers of transactions are no records."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # re-exported without `as`

from schemas import codec
from schemas.codec import Message
from schemas.stored import StoredRecord
from schemas.topics import TENANTS, named
from services.adapters.kafka import reader as kafka_reader
from services.adapters.kafka import tenant_view
from services.adapters.kafka.audit_trail import AuditTrail
from services.adapters.kafka.offsets import OffsetReader
from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.tenant_view import TenantView
from tests.faults import records
from tests.faults.chaos import own_cluster
from tests.support.eventually import eventually
from tests.support.genesys_worlds import key_of, tenant
from tests.support.transactions import Copier, delete_before

pytestmark = pytest.mark.engines

KEY = key_of(1)


def version(number: int) -> tuple[int, Message]:
    """A record of the key, for partition 0."""
    one = tenant(1, version=number)
    return 0, codec.encode(one, key=one.key, ce_id=str(number), source="/test", at_us=one.updated_at)


@dataclass
class Log:
    """One topic of one partition, and who copies into it."""

    bootstrap: str
    prefix: str
    copier: Copier

    @property
    def topic(self) -> str:
        return named(TENANTS, self.prefix)

    @property
    def config(self) -> dict[str, str]:
        return {"bootstrap.servers": self.bootstrap}

    def write(self, number: int) -> None:
        """Without a transaction."""
        producer = records.producer(self.bootstrap)
        partition, message = version(number)
        producer.produce(self.topic, message.value, message.key, partition=partition, headers=list(message.headers))
        assert producer.flush(30) == 0

    def end(self) -> int:
        return records.end_offsets(self.bootstrap, self.topic, 1)[0]

    def commits(self, group: str, offset: int) -> None:
        consumer = Consumer({**self.config, "group.id": group})
        consumer.commit(offsets=[TopicPartition(self.topic, 0, offset)], asynchronous=False)
        consumer.close()

    def versions(self) -> list[int]:
        return [_version_of(record) for record in kafka_reader.present_records(self.config, [self.topic], timeout_s=10)]


def _version_of(record: StoredRecord) -> int:
    return int(record.headers["ce_id"])


@pytest.fixture
def log(kafka_bootstrap: str, topic_prefix: str) -> Log:
    records.create(kafka_bootstrap, {named(TENANTS, topic_prefix): {}}, 1)
    return Log(kafka_bootstrap, topic_prefix, Copier(kafka_bootstrap, topic_prefix))


def committed(log: Log) -> list[int]:
    log.copier.commit(log.topic, [version(1), version(2)])
    return [1, 2]


def aborted(log: Log) -> list[int]:
    log.write(1)
    log.copier.abort(log.topic, [version(2)])
    return [1]


def in_the_middle(log: Log) -> list[int]:
    log.copier.commit(log.topic, [version(1)])
    log.copier.abort(log.topic, [version(9)])
    log.write(2)
    return [1, 2]


def marks_alone(log: Log) -> list[int]:
    log.copier.commit(log.topic, [version(1)])
    delete_before(log.bootstrap, log.topic, 0, 1)
    assert log.end() == 2
    return []


def many_aborted(log: Log) -> list[int]:
    log.copier.commit(log.topic, [version(1), version(2)])
    for _ in range(3):
        log.copier.abort(log.topic, [version(number) for number in range(3, 150)])
    return [1, 2]


def aborted_alone(log: Log) -> list[int]:
    log.copier.abort(log.topic, [version(1)])
    return []


def all_gone(log: Log) -> list[int]:
    log.write(1)
    delete_before(log.bootstrap, log.topic, 0, 1)
    return []


def beginning_gone(log: Log) -> list[int]:
    log.copier.commit(log.topic, [version(1), version(2)])
    delete_before(log.bootstrap, log.topic, 0, 1)
    return [2]


SHAPES = (committed, aborted, in_the_middle, marks_alone, many_aborted, aborted_alone, all_gone, beginning_gone)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape.__name__))
def test_every_reader_reads_all_records_and_reaches_the_end(log: Log, shape: Callable[[Log], list[int]]) -> None:
    known = shape(log)
    last = known[-1:]
    assert log.versions() == known
    assert [_version_of(record) for record in kafka_reader.last_per_partition(log.config, log.topic)] == last
    view = tenant_view.read(log.config, log.prefix, timeout_s=10)
    assert [one.version for one in view.values()] == last
    assert asyncio.run(_trail(log)) == len(known)

    log.commits(log.prefix, log.end())
    assert [
        _version_of(record) for record in kafka_reader.last_per_partition(log.config, log.topic, group=log.prefix)
    ] == last


async def _trail(log: Log) -> int:
    trail = AuditTrail(dict(log.config), log.topic, timeout_s=10)
    whole, since = await trail.records_of(KEY, None), await trail.records_of(KEY, 1)
    assert whole == since
    return len(whole)


def test_the_last_read_record_is_found_behind_a_transaction_marker(log: Log) -> None:
    log.copier.commit(log.topic, [version(1)])
    log.copier.commit(log.topic, [version(2)])
    for offset, read in ((0, []), (1, [1]), (2, [1]), (3, [2]), (4, [2])):
        log.commits(log.prefix, offset)
        found = kafka_reader.last_per_partition(log.config, log.topic, group=log.prefix)
        assert [_version_of(record) for record in found] == read, offset


def test_what_a_group_commits_while_it_is_asked_about_is_found(log: Log) -> None:
    begun, ended = threading.Event(), threading.Event()

    def read_on() -> None:
        consumer, number = Consumer({**log.config, "group.id": log.prefix}), 0
        while not ended.is_set():
            number += 1
            log.write(number)
            consumer.commit(offsets=[TopicPartition(log.topic, 0, number)], asynchronous=False)
            begun.set()
        consumer.close()

    group = threading.Thread(target=read_on)
    group.start()
    try:
        assert begun.wait(30)
        for _ in range(10):
            before = log.end()
            (found,) = kafka_reader.last_per_partition(log.config, log.topic, group=log.prefix)
            assert _version_of(found) >= before - 1
    finally:
        ended.set()
        group.join()


def test_a_following_view_catches_up_past_transaction_markers(log: Log) -> None:
    with closing(TenantView(dict(log.config), log.prefix)) as view:
        for number in (1, 2, 3):
            log.copier.commit(log.topic, [version(number)])
            log.copier.abort(log.topic, [version(9)])
            assert view.catch_up(10)[KEY].version == number


@pytest.mark.long
def test_an_open_transaction_is_reported_and_no_partial_read_is_returned(log: Log) -> None:
    log.write(1)
    readers: list[Callable[[], object]] = [
        log.versions,
        lambda: kafka_reader.last_per_partition(log.config, log.topic),
        lambda: tenant_view.read(log.config, log.prefix, timeout_s=10),
        lambda: asyncio.run(AuditTrail(dict(log.config), log.topic, timeout_s=1).records_of(KEY, None)),
    ]
    with log.copier.open(log.topic, [version(2)]):
        log.write(3)
        for reader in readers:
            with pytest.raises(KafkaError, match=r"lifecycle.tenants/0: an open transaction holds back .* offset 1 on"):
                reader()
    assert log.versions() == [1, 2, 3]


@pytest.mark.long
@pytest.mark.timeout(240)
def test_an_offset_reader_survives_a_partition_without_a_leader(tmp_path: Path) -> None:
    with own_cluster(tmp_path, 3) as members:
        admin = AdminClient({"bootstrap.servers": members[0].bootstrap})
        for future in admin.create_topics([NewTopic("spread", 3, 1)]).values():
            future.result(20)
        partition_ids = [("spread", number) for number in range(3)]
        everyone = {"bootstrap.servers": ",".join(member.bootstrap for member in members)}
        with OffsetReader(everyone, "spread") as asker:
            eventually(lambda: set(asker.spans(partition_ids, 5)) == set(partition_ids))
            members[2].kill()
            eventually(lambda: is_refused(asker, partition_ids), 60)
            members[2].start()
            eventually(lambda: not is_refused(asker, partition_ids), 60)


def is_refused(asker: OffsetReader, partition_ids: list[tuple[str, int]]) -> bool:
    try:
        asker.spans(partition_ids, 5)
    except KafkaError:
        return True
    return False
