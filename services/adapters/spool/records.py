"""Stores encoded records by number in RocksDB, and hides how rocksdict and RocksDB's recovery behave.

The behaviour was measured with rocksdict 0.3.29 and RocksDB 9.8.4 (tests/faults/test_spool_disk.py):

- `write` holds the GIL, so `write` may touch memory only. The options make RocksDB buffer its log in memory
  (`manual_wal_flush`); `flush_wal` writes and syncs the log, and `flush` hands a full memtable to RocksDB's
  background. Both release the GIL.
- Opening a database holds the GIL too. So open before serving, or only on a disk known to be fast.
- After an error nothing is retried, neither here nor in RocksDB's background (`max_bgerror_resume_count=0`).
- Recovery forgives only a torn tail of the log. With some flipped bits recovery never returns and holds the GIL
  forever (facebook/rocksdb#13333); with others it skips a whole log without an error. So `is_sound` checks every log
  before RocksDB opens the database.

How a loss is detected: numbers have no gaps and records are deleted at the front only. Record 0 (the mark) holds the
number of the front; the file `kept` holds the greatest number known to be synced. A missing number between the two is
therefore damage. Both are lower bounds after a crash: a stale mark repeats records, and a stale `kept` only makes the
check weaker.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, Final, cast

from rocksdict import Cache, Options, Rdict, WriteBatch

from schemas.codec import Message
from schemas.spooled import Corrupt, NewerFormat, Spooled, decode, encode
from services.adapters.spool.folder import RECORDS
from services.adapters.spool.salvage import intact_records, is_sound

BATCH_BYTES: Final = 4 << 20
"""Greatest total size of one write, unless a single record is larger: `write` then holds the GIL for about 10 ms."""

_MEMTABLE_BYTES: Final = 8 << 20
"""Size at which `_write` flushes the memtable.

At twice this size (`write_buffer_size`) RocksDB would flush inside `write`, and wait for the disk with the GIL held.
"""
_ENTRY_BYTES: Final = 64
"""Estimated memory of a memtable entry beyond its value."""
_TRIM_RECORDS: Final = 10_000
"""Records deleted in one write."""

_OPTIONS: Final = f"""
[Version]
  rocksdb_version=9.8.4
  options_file_version=1.1
[DBOptions]
  create_if_missing=%s
  wal_recovery_mode=kTolerateCorruptedTailRecords
  paranoid_checks=true
  manual_wal_flush=true
  writable_file_max_buffer_size={4 * BATCH_BYTES}
  max_bgerror_resume_count=0
  max_background_jobs=2
  max_open_files=64
  allow_fallocate=false
  info_log_level=ERROR_LEVEL
  keep_log_file_num=1
  stats_dump_period_sec=0
  stats_persist_period_sec=0
[CFOptions "default"]
  compression=kNoCompression
  write_buffer_size={2 * _MEMTABLE_BYTES}
  max_write_buffer_number=3
  target_file_size_base={_MEMTABLE_BYTES}
  level0_slowdown_writes_trigger=10000
  level0_stop_writes_trigger=10000
  soft_pending_compaction_bytes_limit=0
  hard_pending_compaction_bytes_limit=0
[TableOptions/BlockBasedTable "default"]
"""
"""RocksDB's options-file format, because rocksdict's API lacks half of these options.

The triggers and limits of the last lines are set so high (0 means no limit) that no write waits for a compaction.
Compression must stay off: `salvage.py` reads values straight from the files.
"""

_MARK: Final = 0
"""Number of the record that holds the number of the front; records themselves begin at 1."""
_KEPT: Final = "kept"
"""File beside `records` with the greatest synced number, encoded as a record for the sake of its CRC."""


class DiskError(Exception):
    """The disk refused an operation.

    Attributes:
        reason: `full`, `write`, `fsync` or `open`.
    """

    def __init__(self, reason: str, error: BaseException) -> None:
        super().__init__(f"{reason}: {error}")
        self.reason = "full" if "No space left" in str(error) else reason


class Damaged(Exception):
    """The database's files differ from the ones that were written: corrupt, truncated or missing."""


class Records:
    """An open database of encoded records. Use from one thread.

    Attributes:
        front: Number of the first record that was not deleted.
        last: Greatest number known to have been written; a missing number up to `last` is damage.
    """

    def __init__(self, folder: Path) -> None:
        """Open the database, or create one if the subfolder `records` is empty. Holds the GIL.

        Args:
            folder: A folder with a subfolder `records`.

        Raises:
            Damaged: the files differ from the ones that were written.
            NewerFormat: a later version of this program wrote the mark.
            DiskError: the database cannot be opened now.
        """
        path = folder / RECORDS
        try:
            logs = list(path.glob("*.log"))
            if not all(is_sound(log) for log in [*logs, *path.glob("MANIFEST-*")]):
                raise Damaged(f"{path}: a log holds what RocksDB never writes")
            # `create_if_missing` only where nothing was ever written: a database that lost its CURRENT file must be
            # reported as damaged, not replaced by an empty one.
            options = _options(folder / "options", is_new=not logs and not any(path.glob("*.sst")))
        except OSError as error:
            raise DiskError("open", error) from None
        try:
            self._db = Rdict(str(path), *options)
        except Exception as error:  # noqa: BLE001 - rocksdict raises no narrower class
            # Only the text distinguishes damage (salvage helps) from a disk that refuses now (a later try may succeed).
            if any(text in str(error) for text in ("Corruption", "does not exist", "No such file")):
                raise Damaged(str(error)) from None
            raise DiskError("open", error) from None
        self._unflushed = 0
        # Recovery has moved every record from the log into `.sst` files, whose metadata holds their last key.
        ends = [int.from_bytes(file["end_key"], "big") for file in self._db.live_files()]
        self.last = max([_read_kept(folder), *ends])
        try:
            self.front = self._read_front()
        except (NewerFormat, Damaged):
            self._db.close()
            raise
        self._kept_file = os.open(folder / _KEPT, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def commit(self, batch: Sequence[tuple[int, bytes]]) -> None:
        """Write records under their numbers and sync the log.

        Raises:
            DiskError: some records may be on disk all the same. The caller must not write again.
        """
        writes = WriteBatch(raw_mode=True)
        for number, raw in batch:
            writes.put(_key(number), raw)
        self._write(writes, sum(len(raw) for _, raw in batch) + len(batch) * _ENTRY_BYTES, sync=True)
        self._write_kept(max(number for number, _ in batch))

    def trim(self, front: int) -> None:
        """Delete the records before `front`, without a sync.

        After a crash deleted records may return. They reach Kafka twice then, which is harmless.

        Raises:
            DiskError: the records may return. The caller must not write again.
        """
        while self.front < front:
            end = min(front, self.front + _TRIM_RECORDS)
            writes = WriteBatch(raw_mode=True)
            for number in range(self.front, end):
                writes.delete(_key(number))
            # In one write batch with the deletions, so that the mark never disagrees with the records.
            writes.put(_key(_MARK), _encode_mark(end))
            self._write(writes, (end - self.front) * _ENTRY_BYTES, sync=False)
            self.front = end

    def salvage(self, folder: Path) -> None:
        """Copy the mark, every whole live record, and the `kept` number from a damaged database's files.

        Raises:
            DiskError: the copy is incomplete.
            OSError: a file cannot be read.
        """
        path = folder / RECORDS
        # The files may hold several old marks; the front only moves forward, so the greatest is the newest.
        front = max((_decode_mark(raw) for number, raw in intact_records(path) if number == _MARK), default=1)
        live = ((number, raw) for number, raw in intact_records(path) if number >= front)
        for batch in _batches(chain([(_MARK, _encode_mark(front))], live)):
            self.commit(batch)
        self._write_kept(_read_kept(folder))

    def read(self, numbers: Sequence[int]) -> list[bytes | None]:
        """Return the encoded records under these numbers; None for each missing or unreadable record."""
        keys = [_key(number) for number in numbers]
        try:
            return self._get(keys)
        except Exception:  # noqa: BLE001 - rocksdict raises no narrower class
            # One bad block fails the whole call: read each record alone, to lose only the bad ones.
            return [self._get_one(key) for key in keys]

    def close(self) -> None:
        """Close the database; errors are ignored, because every record reported as kept is synced already."""
        with suppress(Exception):
            self._db.close()
        os.close(self._kept_file)

    def _write(self, writes: Any, size_bytes: int, *, sync: bool) -> None:
        """Write a batch to the memtable and the log, and sync the log if `sync` is set.

        Raises:
            DiskError: with the reason `full`, `write` or `fsync`.
        """
        step = "write"
        try:
            if self._unflushed + size_bytes > _MEMTABLE_BYTES:
                # Despite `wait=False` the call waits until RocksDB has room for another memtable, without the GIL.
                self._db.flush(wait=False)
                self._unflushed = 0
            self._unflushed += size_bytes
            self._db.write(writes)
            step = "fsync" if sync else "write"
            self._db.flush_wal(sync)
        except Exception as error:  # noqa: BLE001 - rocksdict raises no narrower class
            raise DiskError(step, error) from None

    def _write_kept(self, number: int) -> None:
        """Raise the number in the file `kept`, without a sync; an error is ignored."""
        # After a power cut the file may hold a smaller number, never a greater one. The text never shrinks, because
        # the number only grows, so the new text always covers the old one without a truncation.
        self.last = max(self.last, number)
        with suppress(OSError):
            os.pwrite(self._kept_file, _encode_mark(self.last), 0)

    def _get_one(self, key: bytes) -> bytes | None:
        try:
            return self._get([key])[0]
        except Exception:  # noqa: BLE001 - rocksdict raises no narrower class
            return None

    def _get(self, keys: list[bytes]) -> list[bytes | None]:
        # Always a list: rocksdict releases the GIL for a list of keys only, not for a single key.
        found: Any = self._db.get(cast("Any", keys))
        return cast("list[bytes | None]", found)

    def _read_front(self) -> int:
        """Return the number in the mark; 1 if no mark was written yet.

        Raises:
            Damaged: the mark cannot be read.
            NewerFormat: a later version of this program wrote the mark.
        """
        try:
            raw = self._get([_key(_MARK)])[0]
            return 1 if raw is None else _decode_mark(raw)
        except NewerFormat:
            raise
        except Exception as error:  # noqa: BLE001 - rocksdict raises no narrower class
            raise Damaged(f"the front: {error}") from None


def _batches(records: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    batch: list[tuple[int, bytes]] = []
    size = 0
    for record in records:
        if batch and size + len(record[1]) > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record[1])
    yield batch


def _encode_mark(number: int) -> bytes:
    # The mark has the format of a record, for its CRC and so that salvage finds the mark too.
    return encode(_MARK, Spooled("", Message(None, b"%d" % number), 0))


def _decode_mark(raw: bytes) -> int:
    return int(decode(_MARK, raw).message.value)


def _read_kept(folder: Path) -> int:
    """Return the number in the file `kept`; 0 if the file is missing or damaged."""
    try:
        return _decode_mark((folder / _KEPT).read_bytes())
    except (OSError, Corrupt):
        return 0


def _key(number: int) -> bytes:
    # Big-endian, so that RocksDB's byte order is the order of the numbers.
    return number.to_bytes(8, "big")


def _options(folder: Path, *, is_new: bool) -> tuple[Any, Any]:
    """Return the database options and the column families' options for `Rdict`.

    Both must be passed: without the second, `Rdict` would use the column options stored in the database's folder.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "OPTIONS-000001").write_text(_OPTIONS % str(is_new).lower())
    return Options.load_latest(str(folder), cache=Cache(1 << 20))
