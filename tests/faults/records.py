"""Reading and writing whole topics of a test's broker, through restarts of it."""

from collections.abc import Iterable, Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # re-exported without `as`

from schemas.topics import RECORD_MAX_BYTES
from tests.support.eventually import eventually

_QUIET: dict[str, str | int | float | bool] = {"log_level": 0}


def producer(bootstrap: str, compression: str = "none") -> Producer:
    """One that outlives a broker that is away for a minute."""
    return Producer(
        _QUIET
        | {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 5,
            "message.max.bytes": RECORD_MAX_BYTES,
            "compression.type": compression,
            "message.timeout.ms": 120_000,
            "partitioner": "murmur2_random",
        }
    )


def create(bootstrap: str, topics: Mapping[str, Mapping[str, str]], partitions: int) -> None:
    """Make topics; name to settings."""
    new = [NewTopic(name, partitions, 1, config=dict(config)) for name, config in topics.items()]
    admin = AdminClient(_QUIET | {"bootstrap.servers": bootstrap})  # it must outlive its answers
    for future in admin.create_topics(new).values():
        future.result(30)


def read(bootstrap: str, topic: str, partitions: int) -> list[tuple[int, int, int, bytes, bytes]]:
    """Partition, offset, time (µs UTC), key and value of every record, in order of each partition."""
    found = []
    consumer = _reader(bootstrap, "reads")
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
    left = set(range(partitions))
    while left:
        for message in consumer.consume(1000, timeout=0.2):
            number, offset, error = message.partition() or 0, message.offset() or 0, message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                left.discard(number)
                continue
            assert not error, error
            at_us = message.timestamp()[1] * 1000
            found.append((number, offset, at_us, message.key() or b"", message.value() or b""))
    consumer.close()
    return found


def end_offsets(bootstrap: str, topic: str, partitions: int) -> list[int]:
    """The end of each partition; asks again while the broker has just started, or the topic was just made."""
    consumer = _reader(bootstrap, "ends")

    def ask() -> list[int] | None:
        asked = [TopicPartition(topic, number) for number in range(partitions)]
        try:
            return [consumer.get_watermark_offsets(partition, timeout=10)[1] for partition in asked]
        except KafkaException:
            return None

    found = eventually(ask)
    consumer.close()
    assert found is not None
    return found


def behind(bootstrap: str, group: str, topics: Iterable[str], partitions: int) -> int | None:
    """Offsets not yet committed, in all; None while the broker does not say."""
    consumer = _reader(bootstrap, group)
    try:
        left = 0
        for topic in topics:
            asked = [TopicPartition(topic, number) for number in range(partitions)]
            for found in consumer.committed(asked, timeout=5):
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, found.partition), timeout=5)
                left += high - (found.offset if found.offset >= 0 else low)
    except KafkaException:
        return None
    else:
        return left
    finally:
        consumer.close()


def _reader(bootstrap: str, group: str) -> Consumer:
    return Consumer(
        _QUIET
        | {"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False, "enable.partition.eof": True}
    )
