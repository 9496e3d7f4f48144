"""Asks the log itself for the next record after an offset, with a second reader beside Faust's.

Problem: offsets of a partition may have gaps. The mark at the end of a transaction takes an offset and is not a record;
aborted records and compacted records leave gaps too. A gap may also be a bug: records that Faust dropped. Faust's data
cannot tell the two apart.

Rule: a gap in the records from Faust is legitimate only if an independent librdkafka reader finds the same gap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from faust.types import TP

from services.adapters.kafka.reader import TopicReader

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


def first_record_from(kafka: Mapping[str, Any], tp: TP, offset: int) -> Next:
    """Returns the first record of a partition at or after an offset, or the end of the readable part. Blocks.

    Args:
        kafka: librdkafka's settings.
        tp: The partition.
        offset: The first offset to look at; inside the log.

    Raises:
        KafkaError: No broker answers within 10 s, or the broker refuses.
    """
    partition_id = (tp.topic, tp.partition)
    # With `earliest`, an offset outside the log would silently become the beginning; with `error` the broker's answer
    # is an error.
    with TopicReader(kafka, tp.topic, reset="error") as reader:
        reader.start({partition_id: offset})
        # The next record or the end of the partition, in the order of the log.
        records = reader.next(1, _TIMEOUT_S)
        return Next(int(records[0].offset() or 0), True) if records else Next(reader.positions[partition_id], False)
