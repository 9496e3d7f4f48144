"""Whether the log itself has nothing between two offsets: the mark of a transaction, or what compaction removed.

Rule: a hole in what Faust read is believed only where another reader of the same log finds it too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError as Code
from confluent_kafka import KafkaException, TopicPartition
from faust.types import TP

from schemas.topics import looks_group
from services.adapters.kafka import clients, offsets

_PATIENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Next:
    """What stands next in a partition.

    Attributes:
        offset: Of the next record, or where reading ends.
        is_record: False: there is none before `offset`, and behind it nothing can be read yet.
    """

    offset: int
    is_record: bool


def first_from(kafka: Mapping[str, Any], tp: TP, offset: int) -> Next:
    """Finds the first record of a partition at or after an offset. Blocks.

    Args:
        kafka: librdkafka's settings.
        tp: The partition.
        offset: Inside the log.

    Raises:
        KafkaException: nobody says.
    """
    consumer = clients.consumer(
        dict(kafka),
        group_id=looks_group(tp.topic),
        auto_offset_reset="error",
        enable_partition_eof=True,
    )
    try:
        consumer.assign([TopicPartition(tp.topic, tp.partition, offset)])
        found = consumer.poll(_PATIENCE_S)
        if found is None:
            raise KafkaException(Code(Code._TIMED_OUT))
        error = found.error()
        if error is not None and error.code() != offsets.END:
            raise KafkaException(error)
        return Next(int(found.offset() or 0), error is None)
    finally:
        consumer.close()
