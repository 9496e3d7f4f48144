"""Whether the log itself has nothing between two offsets: the mark of a transaction, or what compaction removed.

Rule: a hole in what Faust read is believed only where another reader of the same log finds it too.
"""

from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import KafkaError as Code
from faust.types import TP

_PATIENCE_S: Final = 10.0


def first_from(kafka: Mapping[str, Any], tp: TP, offset: int) -> int | None:
    """The offset of the first record of a partition at or after an offset; None where there is none. Blocks.

    Args:
        kafka: librdkafka's settings.
        tp: The partition.
        offset: Inside the log.

    Raises:
        KafkaException: nobody says.
    """
    ours = {
        "group.id": "lifecycle-looks",  # librdkafka wants one; it is never joined and nothing is committed
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "isolation.level": "read_uncommitted",
    }
    consumer = Consumer({**kafka, **ours})
    try:
        consumer.assign([TopicPartition(tp.topic, tp.partition, offset)])
        found = consumer.poll(_PATIENCE_S)
        if found is None:
            raise KafkaException(Code(Code._TIMED_OUT))
        if (error := found.error()) is not None:
            if error.code() == Code._PARTITION_EOF:
                return None
            raise KafkaException(error)
        return found.offset()
    finally:
        consumer.close()
