"""Brings the local copies of the tables up to date without joining the consumer group.

`lifecycle ledger --recover-only` runs this reading. No partition moves meanwhile.

Rule: a record is applied by the code of a normal recovery (`DurableStore`), and the copy's position is stored with the
rows. The next start continues at this position. A copy ahead of its changelog ends the process.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from confluent_kafka import Consumer, KafkaException, TopicPartition
from faust.types import TP

from schemas.topics import looks_group
from services.adapters.kafka import clients, offsets
from services.adapters.kafka.producer import KafkaError, fault, to_read
from services.adapters.process.logs import Logger
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.table import DurableTable

_BATCH: Final = 2_000
_POLL_S: Final = 0.2
_TIMEOUT_S: Final = 30.0
_LOG_EVERY: Final = 100_000
"""Offsets between two progress lines of one changelog partition."""


class _Message(NamedTuple):
    """The fields of Faust's message for a store."""

    tp: TP
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None


class _Event(NamedTuple):
    """The field of Faust's event for a store."""

    message: _Message


def warm(tables: Sequence[DurableTable], kafka: Mapping[str, Any], partitions: int, log: Logger) -> None:
    """Reads every changelog from the position of the local copy to the end of the changelog. Blocks.

    Args:
        tables: Tables of one app. The app must not run: RocksDB locks the folder of each copy.
        kafka: librdkafka's settings.
        partitions: Partition count of each changelog.
        log: Gets a line per finished partition, and one per 100,000 offsets.

    Raises:
        KafkaError: No broker answers, or no records arrive for 30 s.
    """
    consumer = clients.consumer(
        dict(kafka),
        group_id=looks_group(tables[0].changelog(0).topic),
        auto_offset_reset="error",
        enable_partition_eof=True,
    )
    try:
        with offsets.OffsetReader(kafka, tables[0].changelog(0).topic) as offset_reader:
            for table in tables:
                for partition in range(partitions):
                    _read(consumer, offset_reader, table, partition, log)
    except KafkaException as error:
        raise fault(error.args[0], *to_read(tables[0].changelog(0).topic)) from None
    finally:
        consumer.close()


def _read(
    consumer: Consumer, offset_reader: offsets.OffsetReader, table: DurableTable, partition: int, log: Logger
) -> None:
    tp = table.changelog(partition)
    place = (tp.topic, partition)
    span = offset_reader.settled([place], _TIMEOUT_S)[place]
    end, held = span.end, table.store.persisted_offset(tp)
    # The persisted offset is the last record applied; reading continues behind.
    start = span.first if held is None else max(span.first, held + 1)
    # A changelog that was made anew, or lost its end, must not pass for the old one: the copy may be all that is left.
    if start > end:
        table.app.end(
            WorkerExit.CHANGELOG_BEHIND, f"{tp.topic}[{partition}]: the local copy has read to {held}, it ends at {end}"
        )
    consumer.assign([TopicPartition(tp.topic, partition, start)])
    position, left_s = start, _TIMEOUT_S
    while position < end:
        messages = consumer.consume(_BATCH, timeout=_POLL_S)
        left_s = _TIMEOUT_S if messages else left_s - _POLL_S
        if left_s <= 0:
            raise KafkaError("_TIMED_OUT")
        if not messages:
            continue
        # The client may still deliver messages of the partition read before, for example its end; those are dropped. An
        # error of a message concerns the whole client, whatever partition the message names.
        relevant = [
            message for message in messages if (message.topic(), message.partition()) == place or _is_error(message)
        ]
        batch = [_event(tp, message) for message in relevant if not _is_end(tp, message)]
        table.store.apply_changelog_batch(cast("Any", batch), None, None)
        previous, position = position, max((_next_position(message) for message in relevant), default=position)
        if position // _LOG_EVERY > previous // _LOG_EVERY:
            log.info("recovering", table=table.name, partition=partition, offset=position, end=end)
    log.info("recovered", table=table.name, partition=partition, records=end - start, end=end)


def _is_error(message: Any) -> bool:
    error = message.error()
    return error is not None and error.code() != offsets.END


def _is_end(tp: TP, message: Any) -> bool:
    """True if the message marks the end of the partition.

    Raises:
        KafkaError: The message carries an error other than the end.
    """
    error = message.error()
    if error is not None and error.code() != offsets.END:
        raise fault(error, *to_read(tp.topic))
    return error is not None


def _next_position(message: Any) -> int:
    """Returns the next offset to read after a message.

    The end-of-partition message has the offset of the end, behind any marks of transactions.
    """
    return int(message.offset()) + (message.error() is None)


def _event(tp: TP, message: Any) -> _Event:
    return _Event(_Message(tp, tp.topic, tp.partition, message.offset(), message.key(), message.value()))
