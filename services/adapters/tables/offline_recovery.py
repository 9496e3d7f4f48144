"""Brings the local copies of tables up to date without being of the group: no partition changes hands for it.

Rule: what is read counts as read exactly as in a recovery (`DurableStore`), so a later start reads on from there, and a
copy that is ahead of its changelog is told.
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
_LOOK_S: Final = 0.2
_PATIENCE_S: Final = 30.0
_TELL_EVERY: Final = 100_000


class _Message(NamedTuple):
    """As much of Faust's as a store looks at."""

    tp: TP
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None


class _Event(NamedTuple):
    message: _Message


def warm(tables: Sequence[DurableTable], kafka: Mapping[str, Any], partitions: int, log: Logger) -> None:
    """Read every changelog from where each copy stands to its end. Blocks.

    Args:
        tables: Of one app, which must not run.
        kafka: librdkafka's settings.
        partitions: How many each changelog has.
        log: Told the progress.

    Raises:
        KafkaError: no broker answers, or records do not come.
    """
    consumer = clients.consumer(
        dict(kafka),
        group_id=looks_group(tables[0].changelog(0).topic),
        auto_offset_reset="error",
        enable_partition_eof=True,
    )
    try:
        with offsets.OffsetReader(kafka, tables[0].changelog(0).topic) as asker:
            for table in tables:
                for partition in range(partitions):
                    _read(consumer, asker, table, partition, log)
    except KafkaException as error:
        raise fault(error.args[0], *to_read(tables[0].changelog(0).topic)) from None
    finally:
        consumer.close()


def _read(consumer: Consumer, asker: offsets.OffsetReader, table: DurableTable, partition: int, log: Logger) -> None:
    tp = table.changelog(partition)
    place = (tp.topic, partition)
    span = asker.settled([place], _PATIENCE_S)[place]
    end, held = span.end, table.store.persisted_offset(tp)
    start = span.first if held is None else max(span.first, held + 1)
    if start > end:
        table.app.end(
            WorkerExit.CHANGELOG_BEHIND, f"{tp.topic}[{partition}]: the local copy has read to {held}, it ends at {end}"
        )
    consumer.assign([TopicPartition(tp.topic, partition, start)])
    at, patience_s = start, _PATIENCE_S
    while at < end:
        found = consumer.consume(_BATCH, timeout=_LOOK_S)
        patience_s = _PATIENCE_S if found else patience_s - _LOOK_S
        if patience_s <= 0:
            raise KafkaError("_TIMED_OUT")
        if not found:
            continue
        # The end of the partition before this one may still come; any other error is of the whole client.
        of_this = [
            message for message in found if (message.topic(), message.partition()) == place or _is_broken(message)
        ]
        batch = [_event(tp, message) for message in of_this if not _is_end(tp, message)]
        table.store.apply_changelog_batch(cast("Any", batch), None, None)
        told, at = at, max((_behind(message) for message in of_this), default=at)
        if at // _TELL_EVERY > told // _TELL_EVERY:
            log.info("recovering", table=table.name, partition=partition, offset=at, end=end)
    log.info("recovered", table=table.name, partition=partition, records=end - start, end=end)


def _is_broken(message: Any) -> bool:
    error = message.error()
    return error is not None and error.code() != offsets.END


def _is_end(tp: TP, message: Any) -> bool:
    """True if Kafka says that a partition ends here.

    Raises:
        KafkaError: it says something else instead of a record.
    """
    error = message.error()
    if error is not None and error.code() != offsets.END:
        raise fault(error, *to_read(tp.topic))
    return error is not None


def _behind(message: Any) -> int:
    """Where reading goes on after a record, or ends: also behind marks of transactions, which are no records."""
    return int(message.offset()) + (message.error() is None)


def _event(tp: TP, message: Any) -> _Event:
    return _Event(_Message(tp, tp.topic, tp.partition, message.offset(), message.key(), message.value()))
