"""Reads RocksDB's files without RocksDB: checks logs before RocksDB opens them, and salvages records.

The check exists because recovery from some corrupt logs never returns, or skips a whole log (`records.py`).

Salvage relies on three facts: RocksDB divides a log into chunks of a known format; with compression off, `.sst` files
contain each value unchanged; every record carries its length and CRC (`schemas/spooled.py`). A damaged byte therefore
costs only the record around the byte, not the neighbouring records.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from schemas.spooled import carve

_BLOCK: Final = 32 << 10
_HEADER: Final = 7
_KINDS: Final = frozenset({1, 2, 3, 4})
"""RocksDB's log format (db/log_format.h): blocks of 32 KiB; a chunk is CRC (4 bytes), size (2), kind (1), data.

Kinds 1 to 4 are full, first, middle and last. Higher kinds belong to options that the spool does not set.
"""


def is_sound(log: Path) -> bool:
    """True if a log or manifest contains only the kinds of chunk RocksDB writes with our options.

    Sizes and CRCs are not checked.

    Raises:
        OSError: the file cannot be read.
    """
    return all(kind in _KINDS for kind, _ in _chunks(log.read_bytes()))


def intact_records(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number and bytes of every whole record in a database's files.

    Includes deleted records not yet removed by a compaction, and repeats. Memory: the size of the largest file.

    Raises:
        OSError: a file cannot be read.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix == ".log":
            # A record that does not fit its block is split over several chunks; their headers must be cut out first.
            yield from carve(b"".join(data for _, data in _chunks(path.read_bytes())))
        elif path.suffix == ".sst":
            yield from carve(path.read_bytes())


def _chunks(log: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and data of each chunk.

    Zeros end a block. A chunk larger than the rest of the block yields the kind without data; the next block follows.
    """
    at = 0
    while at + _HEADER <= len(log):
        end = at + _BLOCK - at % _BLOCK
        size, kind = int.from_bytes(log[at + 4 : at + 6], "little"), log[at + 6]
        if end - at < _HEADER or kind == size == 0:
            at = end  # padding: a header never crosses the end of a block
        elif at + _HEADER + size > end:
            yield kind, b""
            at = end
        else:
            yield kind, log[at + _HEADER : at + _HEADER + size]
            at += _HEADER + size
