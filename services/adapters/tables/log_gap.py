"""Asks the log itself for the next record after an offset, with a second reader beside Faust's.

Problem: offsets of a partition may have gaps. The mark at the end of a transaction takes an offset and is not a record;
aborted records and compacted records leave gaps too. A gap may also be a bug: records that Faust dropped. Faust's data
cannot tell the two apart.

Rule: a gap in the records from Faust is legitimate only if an independent librdkafka reader finds the same gap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError as Code
from confluent_kafka import KafkaException, TopicPartition
from faust.types import TP

from schemas.topics import looks_group
from services.adapters.kafka import clients, offsets

_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Next:
    """The position after a gap.

    Attributes:
        offset: The offset of the next record, or the offset at which reading ends.
        is_record: False: `offset` is the end of the readable part, with no record before.
    """

    offset: int
    is_record: bool


def first_from(kafka: Mapping[str, Any], tp: TP, offset: int) -> Next:
    """Returns the first record of a partition at or after an offset, or the end of the readable part. Blocks.

    Args:
        kafka: librdkafka's settings.
        tp: The partition.
        offset: The first offset to look at; inside the log.

    Raises:
        KafkaException: No broker answers within 10 s, or the broker refuses.
    """
    # With `earliest`, an offset outside the log would silently become the beginning; with `error` the broker's answer
    # is an error.
    consumer = clients.consumer(
        dict(kafka),
        group_id=looks_group(tp.topic),
        auto_offset_reset="error",
        enable_partition_eof=True,
    )
    try:
        consumer.assign([TopicPartition(tp.topic, tp.partition, offset)])
        # One poll returns the next record or the end of the partition, in the order of the log.
        found = consumer.poll(_TIMEOUT_S)
        if found is None:
            raise KafkaException(Code(Code._TIMED_OUT))
        error = found.error()
        if error is not None and error.code() != offsets.END:
            raise KafkaException(error)
        return Next(int(found.offset() or 0), error is None)
    finally:
        consumer.close()
