"""The local copy of a table, in RocksDB: of two rows of one key the newer version wins.

Faust keeps the row that was written last (faust/stores/rocksdb.py, `apply_changelog_batch`), so a paused worker that
wakes up turns time back for whoever recovers after it. A row starts with its version; an older one in the changelog
is passed over and remembered as stale, for the table to write the newer row again (`repair`).
"""

from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from faust.stores import rocksdb
from faust.types import TP, EventT
from rocksdict import WriteBatch

from services.adapters.process import open_files
from services.adapters.tables.exits import End, WorkerExit

Place = tuple[int, bytes]
"""Partition and key of a row."""


def version(row: bytes | None) -> int:
    """The version a packed row starts with; below every version for no row."""
    return -(2**63) if row is None else int.from_bytes(row[:8], "big", signed=True)


def _lacks_files(error: Exception) -> bool:
    """True if the process may open no further file; RocksDB says so in words alone."""
    return "Too many open files" in str(error)


class DurableStore(rocksdb.Store):
    """Faust's store, read and written by partition and key, outside of any stream."""

    app: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stale: set[Place] = set()
        """Keys whose last record in the changelog is older than their row."""

    def row(self, partition: int, key: bytes) -> bytes | None:
        """The row of a key of an assigned partition."""
        try:
            found: bytes | None = self._db_for_partition(partition).get(key)
        except Exception as error:  # noqa: BLE001 - whatever RocksDB raises
            self._end(error)
        return found

    def put(self, partition: int, key: bytes, row: bytes) -> None:
        """Write a row locally; durable against the death of the process, not of the machine."""
        try:
            self._db_for_partition(partition).put(key, row)
        except Exception as error:  # noqa: BLE001 - whatever RocksDB raises
            self._end(error)

    def rows(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Every key and row of an assigned partition."""
        return self._visible_items(self._db_for_partition(partition))

    def apply_changelog_batch(self, batch: Iterable[EventT[bytes]], to_key: Any, to_value: Any) -> None:  # noqa: ARG002 - Faust's own
        """Take a batch of changelog records over. Faust logs an error here and waits for ever: end instead."""
        try:
            self._take(batch)
        except Exception as error:  # noqa: BLE001 - whatever RocksDB raises, the copy cannot be trusted
            self._end(error)

    def _open_for_partition(self, partition: int) -> Any:
        try:
            return super()._open_for_partition(partition)
        except Exception as error:
            if _lacks_files(error):
                self._end(error)
            raise  # a lock is waited for by Faust

    def _end(self, error: Exception) -> NoReturn:
        cure = "free its disk; where the copy itself is damaged, remove it, and it is read again from its changelog"
        if _lacks_files(error):
            cure = open_files.CURE
        end: End = self.app.end
        end(WorkerExit.STORE, f"the local copy of {self.table.name}: {type(error).__name__}: {error}; {cure}")

    def _take(self, batch: Iterable[EventT[bytes]]) -> None:
        own = self.table.changelog_topic.get_topic_name()
        newest: dict[Place, bytes] = {}
        read_to: dict[TP, int] = {}
        for event in batch:
            message = event.message
            if message.topic != own:
                continue  # Faust gives what comes of a partition just lost to whichever table it served last
            place = (message.partition, message.key or b"")
            read_to[message.tp] = max(message.offset, read_to.get(message.tp, -1))
            held = newest[place] if place in newest else self.row(*place)
            if held is not None and version(message.value) < version(held):
                self.stale.add(place)
            elif message.value is not None:
                self.stale.discard(place)
                newest[place] = message.value
        self._write(newest)
        # What was read counts as read only while nothing is stale: a repair that is cut short must find it again.
        stale = {partition for partition, _ in self.stale}
        for tp, offset in read_to.items():
            if tp.partition not in stale:
                self.set_persisted_offset(tp, offset)

    def _write(self, newest: dict[Place, bytes]) -> None:
        batches: dict[int, WriteBatch] = {}
        for (partition, key), row in newest.items():
            batch = batches.setdefault(partition, WriteBatch(raw_mode=True))
            batch.put(key, row)
        for partition, batch in batches.items():
            self._db_for_partition(partition).write(batch)
