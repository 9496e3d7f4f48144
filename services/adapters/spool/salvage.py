"""What RocksDB's files hold, read without RocksDB: to know whether it may see them, and to save what it cannot.

Of RocksDB this knows how it cuts a log into chunks, and that values are whole where nothing is compressed; of a record,
that it has a sum of its own. So a record is lost with its own bytes only, not with those around it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from schemas.spooled import carve

_BLOCK: Final = 32 << 10
_HEADER: Final = 7
_KINDS: Final = frozenset({1, 2, 3, 4})
"""RocksDB's log (db/log_format.h): blocks of 32 KiB; a chunk is its CRC (4 bytes), size (2), kind (1), data."""


def is_sound(log: Path) -> bool:
    """Whether a log, or a manifest, has only those kinds of chunk that RocksDB writes with our options.

    Raises:
        OSError: it cannot be read.
    """
    return all(kind in _KINDS for kind, _ in _chunks(log.read_bytes()))


def remains(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Every whole record in the files of a database, with its number; deleted ones that are still there as well.

    Needs memory for a file at a time.

    Raises:
        OSError: a file cannot be read.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix == ".log":
            yield from carve(b"".join(data for _, data in _chunks(path.read_bytes())))
        elif path.suffix == ".sst":
            yield from carve(path.read_bytes())


def _chunks(log: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and data of each chunk. A block ends with zeros, or with a chunk of a size that cannot be."""
    at = 0
    while at + _HEADER <= len(log):
        end = at + _BLOCK - at % _BLOCK
        size, kind = int.from_bytes(log[at + 4 : at + 6], "little"), log[at + 6]
        if end - at < _HEADER or kind == size == 0:
            at = end
        elif at + _HEADER + size > end:
            yield kind, b""
            at = end
        else:
            yield kind, log[at + _HEADER : at + _HEADER + size]
            at += _HEADER + size
