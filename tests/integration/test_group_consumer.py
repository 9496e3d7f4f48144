"""The consumer of a group: every error of librdkafka's threads is raised, and no call waits for ever."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from services.adapters.kafka.group_consumer import Consumer, OffsetLoss, call_librdkafka
from services.adapters.kafka.producer import KafkaError
from tests.faults import records
from tests.support.own_broker import own_broker
from tests.support.stop_process import stop

pytestmark = pytest.mark.engines


def _written(bootstrap: str, topic: str, count: int) -> None:
    records.create(bootstrap, {topic: {}}, 2)
    producer = records.producer(bootstrap)
    for number in range(count):
        producer.produce(topic, value=b"%d" % number, partition=number % 2)
    assert producer.flush(30) == 0


def _consumer(bootstrap: str, topic: str, **more: Any) -> Consumer:
    config = {"bootstrap.servers": bootstrap, "log_level": 0, **more}
    return Consumer(config, topic=topic, group=topic, member=None, session_timeout_s=6)


async def _all(consumer: Consumer, count: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            found += [record.value for record in await consumer.batch(10, 0.2)]
    return found


async def test_the_consumer_overrides_settings_of_assignment_and_commit(
    kafka_bootstrap: str, topic_prefix: str
) -> None:
    _written(kafka_bootstrap, topic_prefix, 6)
    odd = {"partition.assignment.strategy": "cooperative-sticky", "enable.auto.commit": True}
    consumer = _consumer(kafka_bootstrap, topic_prefix, **odd)
    assert len(await _all(consumer, 6)) == 6
    await consumer.close()
    assert not await _consumer(kafka_bootstrap, topic_prefix).has_committed()


async def test_an_offset_outside_the_log_is_raised_by_the_awaited_batch(
    kafka_bootstrap: str, topic_prefix: str
) -> None:
    _written(kafka_bootstrap, topic_prefix, 6)
    committed = confluent_kafka.TopicPartition(topic_prefix, 0, 99)
    committing = confluent_kafka.Consumer({"bootstrap.servers": kafka_bootstrap, "group.id": topic_prefix})
    committing.commit(offsets=[committed], asynchronous=False)
    committing.close()
    consumer = _consumer(kafka_bootstrap, topic_prefix)
    with pytest.raises(OffsetLoss, match="the group stands at 99, the log has 0 to 3"):
        await _all(consumer, 1)
    await consumer.close()


async def test_a_committed_offset_of_0_does_not_count_as_read(kafka_bootstrap: str, topic_prefix: str) -> None:
    _written(kafka_bootstrap, topic_prefix, 2)
    committing = confluent_kafka.Consumer({"bootstrap.servers": kafka_bootstrap, "group.id": topic_prefix})
    for offset in (0, 1):
        committed = confluent_kafka.TopicPartition(topic_prefix, 0, offset)
        committing.commit(offsets=[committed], asynchronous=False)
        consumer = _consumer(kafka_bootstrap, topic_prefix)
        assert await consumer.has_committed() is (offset > 0)
        await consumer.close()
    committing.close()


async def test_an_error_in_a_rebalance_callback_is_raised_as_an_exception(
    kafka_bootstrap: str, topic_prefix: str
) -> None:
    _written(kafka_bootstrap, topic_prefix, 1)
    odd = confluent_kafka.Consumer({
        "bootstrap.servers": kafka_bootstrap, "group.id": topic_prefix, "log_level": 0,
        "partition.assignment.strategy": "cooperative-sticky",
    })  # fmt: skip
    # What such a group refuses; confluent_kafka lets its KafkaError out, which is no exception.
    odd.subscribe([topic_prefix], on_assign=lambda consumer, assigned: consumer.assign(assigned))
    with pytest.raises(RuntimeError, match="_STATE"):
        async with asyncio.timeout(60):
            await _consumed(odd)


async def _consumed(consumer: confluent_kafka.Consumer) -> None:
    while True:
        await asyncio.to_thread(call_librdkafka, lambda: consumer.consume(5, 0.3))


@pytest.mark.long
async def test_assignment_and_close_end_in_time_while_the_broker_is_stalled(tmp_path: Path) -> None:
    with own_broker(tmp_path) as broker:
        assert broker.pid is not None
        _written(broker.bootstrap, "t", 2)
        consumer = _consumer(broker.bootstrap, "t")
        assert len(await _all(consumer, 2)) == 2
        stop(broker.pid)
        try:
            begun = time.monotonic()
            with pytest.raises(KafkaError):
                await consumer.has_committed()
            await consumer.close()
            # Ten seconds are asked for in all, and five; the rest is the machine's.
            assert time.monotonic() - begun < 40
        finally:
            os.kill(broker.pid, signal.SIGCONT)
