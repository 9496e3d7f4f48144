"""Brings the local copies of the tables up to date without joining the consumer group.

`lifecycle ledger --recover-only` runs this reading. No partition moves meanwhile.

Rule: a record is applied by the code of a normal recovery (`DurableStore`), and the copy's position is stored with the
rows. The next start continues at this position. A copy ahead of its changelog ends the process.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from faust.types import TP

from services.adapters.kafka.reader import TopicReader
from services.adapters.process.logs import Logger
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.table import DurableTable

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


def recover_offline(tables: Sequence[DurableTable], kafka: Mapping[str, Any], partitions: int, log: Logger) -> None:
    """Reads every changelog from the position of the local copy to the end of the changelog. Blocks.

    Args:
        tables: Tables of one app. The app must not run: RocksDB locks the folder of each copy.
        kafka: librdkafka's settings.
        partitions: Partition count of each changelog.
        log: Gets a line per finished partition, and one per 100,000 offsets.

    Raises:
        KafkaError: No broker answers, or no records arrive for 30 s.
    """
    # `error`: an offset outside the log must not silently become the beginning.
    with TopicReader(kafka, tables[0].changelog(0).topic, reset="error") as reader:
        for table in tables:
            for partition in range(partitions):
                _read(reader, table, partition, log)


def _read(reader: TopicReader, table: DurableTable, partition: int, log: Logger) -> None:
    tp = table.changelog(partition)
    partition_id = (tp.topic, partition)
    span = reader.ends.settled([partition_id], _TIMEOUT_S)[partition_id]
    end, held = span.end, table.store.persisted_offset(tp)
    # The persisted offset is the last record applied; reading continues behind.
    start = span.first if held is None else max(span.first, held + 1)
    # A changelog that was made anew, or lost its end, must not pass for the old one: the copy may be all that is left.
    if start > end:
        table.app.end(
            WorkerExit.CHANGELOG_BEHIND, f"{tp.topic}[{partition}]: the local copy has read to {held}, it ends at {end}"
        )
    logged = start
    for records in reader.read({partition_id: (start, end)}, _TIMEOUT_S):
        table.store.apply_changelog_batch(cast("Any", [_event(tp, record) for record in records]), None, None)
        position = reader.positions[partition_id]
        if position // _LOG_EVERY > logged // _LOG_EVERY:
            log.info("recovering", table=table.name, partition=partition, offset=position, end=end)
        logged = position
    log.info("recovered", table=table.name, partition=partition, records=end - start, end=end)


def _event(tp: TP, message: Any) -> _Event:
    return _Event(_Message(tp, tp.topic, tp.partition, message.offset(), message.key(), message.value()))
