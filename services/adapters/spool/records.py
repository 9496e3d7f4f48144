"""Records by number in RocksDB. What is hidden here is how its Python binding and its recovery behave (measured).

Rules kept here (rocksdict 0.3.29, RocksDB 9.8.4; tests/faults/test_spool_disk.py):
- `write` holds the GIL, so it may touch memory only: the log is written and synced by `flush_wal`, and a full memtable
  is handed over by `flush`, which both let go of it. Opening holds it too: do that before anybody is served.
- After an error nothing is tried again, neither by us nor in RocksDB's background.
- Only a torn tail of the log is forgiven. Recovery never returns from some flipped bits (facebook/rocksdb#13333), with
  the GIL, and passes over a whole log for another: so a log is looked through before RocksDB sees it.

Records are deleted at the front only, and record 0 says where that is; the file `kept` says what was synced at least.
So a hole, or an end before that, is damage, and known to be.
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
from services.adapters.spool.salvage import is_sound, remains

BATCH_BYTES: Final = 4 << 20
"""At most this much is written at once, or one record: `write` then holds the GIL for some 10 ms at most."""

_MEMTABLE_BYTES: Final = 8 << 20
"""Handed over when it holds this much; RocksDB would do so in `write` at twice that, and wait there for the disk."""
_ENTRY_BYTES: Final = 64
_TRIM: Final = 10_000

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
"""In RocksDB's own form, since the binding has no other name for half of them. No write ever waits for a compaction."""

_MARK: Final = 0
_KEPT: Final = "kept"


class DiskError(Exception):
    """The disk refused: `reason` is one of `full`, `write`, `fsync`, `open`."""

    def __init__(self, reason: str, error: BaseException) -> None:
        super().__init__(f"{reason}: {error}")
        self.reason = "full" if "No space left" in str(error) else reason


class Damaged(Exception):
    """What is on disk is not what was written."""


class Records:
    """An open database. Use from one thread."""

    def __init__(self, folder: Path) -> None:
        """Open it, or make it where nothing was ever written.

        Args:
            folder: Has a subfolder `records`.

        Raises:
            Damaged: its files are not what was written.
            Newer: a later version wrote it.
            DiskError: it cannot be opened here and now.
        """
        path = folder / RECORDS
        try:
            logs = list(path.glob("*.log"))
            if not all(is_sound(log) for log in [*logs, *path.glob("MANIFEST-*")]):
                raise Damaged(f"{path}: a log holds what RocksDB never writes")
            options = _options(folder / "options", is_new=not logs and not any(path.glob("*.sst")))
        except OSError as error:
            raise DiskError("open", error) from None
        try:
            self._db = Rdict(str(path), *options)
        except Exception as error:  # noqa: BLE001 - the binding has no other
            if any(text in str(error) for text in ("Corruption", "does not exist", "No such file")):
                raise Damaged(str(error)) from None
            raise DiskError("open", error) from None
        self._unflushed = 0
        # Recovery has put everything into files, and these say their last key without being read.
        ends = [int.from_bytes(file["end_key"], "big") for file in self._db.live_files()]
        self.last = max([_kept(folder), *ends])
        try:
            self.front = self._marked_front()
        except (NewerFormat, Damaged):
            self._db.close()
            raise
        self._kept = os.open(folder / _KEPT, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def commit(self, batch: Sequence[tuple[int, bytes]]) -> None:
        """Write records under their numbers and sync them.

        Raises:
            DiskError: some may be on disk. Write no more.
        """
        writes = WriteBatch(raw_mode=True)
        for number, raw in batch:
            writes.put(_key(number), raw)
        self._write(writes, sum(len(raw) for _, raw in batch) + len(batch) * _ENTRY_BYTES, sync=True)
        self._keep(max(number for number, _ in batch))

    def trim(self, front: int) -> None:
        """Delete what is before `front`, without a sync: what comes back after a crash is a duplicate.

        Raises:
            DiskError: it may come back. Write no more.
        """
        while self.front < front:
            end = min(front, self.front + _TRIM)
            writes = WriteBatch(raw_mode=True)
            for number in range(self.front, end):
                writes.delete(_key(number))
            writes.put(_key(_MARK), _mark(end))
            self._write(writes, (end - self.front) * _ENTRY_BYTES, sync=False)
            self.front = end

    def salvage(self, folder: Path) -> None:
        """Take over every whole record in the files of a damaged one, and what it says was kept.

        Raises:
            DiskError: it was not taken over.
            OSError: a file cannot be read.
        """
        path = folder / RECORDS
        front = max((_marked(raw) for number, raw in remains(path) if number == _MARK), default=1)
        live = ((number, raw) for number, raw in remains(path) if number >= front)
        for batch in _batches(chain([(_MARK, _mark(front))], live)):
            self.commit(batch)
        self._keep(_kept(folder))

    def read(self, numbers: Sequence[int]) -> list[bytes | None]:
        """The records under these numbers; None for each that is not there or cannot be read."""
        keys = [_key(number) for number in numbers]
        try:
            return self._get(keys)
        except Exception:  # noqa: BLE001 - the binding has no other; one bad block fails all of them
            return [self._one(key) for key in keys]

    def close(self) -> None:
        """Close it. What RocksDB still has to say about its disk changes nothing: what was promised is synced."""
        with suppress(Exception):
            self._db.close()
        os.close(self._kept)

    def _write(self, writes: Any, size_bytes: int, *, sync: bool) -> None:
        step = "write"
        try:
            if self._unflushed + size_bytes > _MEMTABLE_BYTES:
                self._db.flush(wait=False)  # waits until there is room for another memtable
                self._unflushed = 0
            self._unflushed += size_bytes
            self._db.write(writes)
            step = "fsync" if sync else "write"
            self._db.flush_wal(sync)
        except Exception as error:  # noqa: BLE001 - the binding has no other
            raise DiskError(step, error) from None

    def _keep(self, number: int) -> None:
        # Not synced: after a power cut it says less, and never more. It only grows, so that it is overwritten whole.
        self.last = max(self.last, number)
        with suppress(OSError):
            os.pwrite(self._kept, _mark(self.last), 0)

    def _one(self, key: bytes) -> bytes | None:
        try:
            return self._get([key])[0]
        except Exception:  # noqa: BLE001 - the binding has no other
            return None

    def _get(self, keys: list[bytes]) -> list[bytes | None]:
        found: Any = self._db.get(cast("Any", keys))  # a list even of one: else it holds the GIL while it reads
        return cast("list[bytes | None]", found)

    def _marked_front(self) -> int:
        try:
            raw = self._get([_key(_MARK)])[0]
            return 1 if raw is None else _marked(raw)
        except NewerFormat:
            raise
        except Exception as error:  # noqa: BLE001 - the binding has no other
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


def _mark(number: int) -> bytes:
    return encode(_MARK, Spooled("", Message(None, b"%d" % number), 0))


def _marked(raw: bytes) -> int:
    return int(decode(_MARK, raw).message.value)


def _kept(folder: Path) -> int:
    try:
        return _marked((folder / _KEPT).read_bytes())
    except (OSError, Corrupt):
        return 0


def _key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _options(folder: Path, *, is_new: bool) -> tuple[Any, Any]:
    """Those of the database and those of its columns: left out, the columns' would be what the folder says."""
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "OPTIONS-000001").write_text(_OPTIONS % str(is_new).lower())
    return Options.load_latest(str(folder), cache=Cache(1 << 20))
