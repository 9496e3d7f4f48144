"""Keeps the local copy of a table in RocksDB; of two rows of a key the newer version wins.

Problem: a paused worker may wake up after its partition moved, and write an old row behind a newer one in the
changelog. Faust keeps the last row of the changelog (faust/stores/rocksdb.py, `apply_changelog_batch`), so every later
recovery would turn back time.

Approach: a row starts with its version. A changelog record with a smaller version is passed over, and its key is
recorded as stale. At the end of the recovery the table writes the newer row again (`DurableTable`), because compaction
would otherwise keep only the old row.

Invariant: while a partition has a stale key, its persisted offset does not advance. A repair that is cut short is found
again by the next recovery from the same disk.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from faust.stores import rocksdb
from faust.types import TP, EventT
from rocksdict import WriteBatch

from services.adapters.process import open_files
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.protocol import TableApp

RowId = tuple[int, bytes]
"""Partition and key of a row."""


def version(row: bytes | None) -> int:
    """Returns the version at the start of a packed row; for no row a value below every version."""
    return -(2**63) if row is None else int.from_bytes(row[:8], "big", signed=True)


def _lacks_files(error: Exception) -> bool:
    """True if the process may open no further file. RocksDB reports this case by the text of the error only."""
    return "Too many open files" in str(error)


class DurableStore(rocksdb.Store):
    """Faust's store, read and written by partition and key, outside of any stream."""

    app: TableApp  # type: ignore[assignment]  # see `protocol`

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stale: set[RowId] = set()
        """Keys with a last changelog record that is older than the row of the local copy."""

    def row(self, partition: int, key: bytes) -> bytes | None:
        """Returns the row of a key in an assigned partition; None if absent."""
        try:
            found: bytes | None = self._db_for_partition(partition).get(key)
        except Exception as error:  # noqa: BLE001 - whatever RocksDB raises
            self._fail(error)
        return found

    def put(self, partition: int, key: bytes, row: bytes) -> None:
        """Writes a row to the local copy. The row survives the death of the process, but not of the machine.

        The changelog makes the row durable; RocksDB is not synced here.
        """
        try:
            self._db_for_partition(partition).put(key, row)
        except Exception as error:  # noqa: BLE001 - whatever RocksDB raises
            self._fail(error)

    def rows(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Returns every key and row of an assigned partition."""
        return self._visible_items(self._db_for_partition(partition))

    def apply_changelog_batch(self, batch: Iterable[EventT[bytes]], to_key: Any, to_value: Any) -> None:  # noqa: ARG002 - Faust's own
        """Applies a batch of changelog records; an error ends the process.

        Faust would log the error and wait for ever for the missing records.
        """
        try:
            self._apply(batch)
        except Exception as error:  # noqa: BLE001 - whatever RocksDB raises, the copy cannot be trusted
            self._fail(error)

    def _open_for_partition(self, partition: int) -> Any:
        try:
            return super()._open_for_partition(partition)
        except Exception as error:
            if _lacks_files(error):
                self._fail(error)
            raise  # for example a locked folder: Faust retries until the other process has closed it

    def _fail(self, error: Exception) -> NoReturn:
        remedy = "free its disk; where the copy itself is damaged, remove it, and it is read again from its changelog"
        if _lacks_files(error):
            remedy = open_files.CURE
        self.app.end(
            WorkerExit.STORE, f"the local copy of {self.table.name}: {type(error).__name__}: {error}; {remedy}"
        )

    def _apply(self, batch: Iterable[EventT[bytes]]) -> None:
        own = self.table.changelog_topic.get_topic_name()
        newest: dict[RowId, bytes] = {}
        read_to: dict[TP, int] = {}
        for event in batch:
            # A record of a partition that was just lost arrives at an arbitrary table: Faust uses the table of the
            # record before. Records of a second table are dropped, so a version of one table never meets a row of
            # another table.
            message = event.message
            if message.topic != own:
                continue
            row_id = (message.partition, message.key or b"")
            read_to[message.tp] = max(message.offset, read_to.get(message.tp, -1))
            # Rows of this batch are not in RocksDB yet.
            known = newest[row_id] if row_id in newest else self.row(*row_id)
            # A tombstone has the least version, so a tombstone never removes a row.
            if known is not None and version(message.value) < version(known):
                self.stale.add(row_id)
            elif message.value is not None:
                self.stale.discard(row_id)
                newest[row_id] = message.value
        self._write(newest)
        # Rows first, offset second: a crash in between applies the same records again, which changes nothing. With a
        # stale key the offset stays, so that a repair that is cut short is found again.
        stale = {partition for partition, _ in self.stale}
        for tp, offset in read_to.items():
            if tp.partition not in stale:
                self.set_persisted_offset(tp, offset)

    def _write(self, newest: dict[RowId, bytes]) -> None:
        batches: dict[int, WriteBatch] = {}
        for (partition, key), row in newest.items():
            batch = batches.setdefault(partition, WriteBatch(raw_mode=True))
            batch.put(key, row)
        for partition, batch in batches.items():
            self._db_for_partition(partition).write(batch)
