"""The simulator's memory: tables of JSON values that survive its own death.

Rule: a change is in the file before anyone is told of it. The file is a journal of changes, since writing a whole
snapshot per change would cost the square of a burst; it is compacted at each start. Nothing is forced to disk: a killed
process loses nothing, a killed machine may.
"""

import json
from pathlib import Path
from typing import Any, BinaryIO

_COMPACT = (",", ":")


class Memory:
    """Tables by name; a row is a JSON value by its id. Read the tables, never write them."""

    def __init__(self, path: Path) -> None:
        """Read what the file holds, compact it and keep it open for appending."""
        self._path = path
        self._tables: dict[str, dict[str, Any]] = {}
        self._file: BinaryIO = self._open()

    def table(self, name: str) -> dict[str, Any]:
        """The rows of one table, in order of insertion."""
        return self._tables.setdefault(name, {})

    def put(self, table: str, row_id: str, value: Any) -> None:
        """Write one row; None removes it."""
        self._apply(table, row_id, value)
        self._file.write(_line(table, row_id, value))

    def close(self) -> None:
        """Close the file; nothing more can be put."""
        self._file.close()

    def _apply(self, table: str, row_id: str, value: Any) -> None:
        if value is None:
            self.table(table).pop(row_id, None)
        else:
            self.table(table)[row_id] = value

    def _open(self) -> BinaryIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            for line in self._path.read_bytes().split(b"\n")[:-1]:  # what follows the last newline was cut short
                self._apply(*json.loads(line))
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.writelines(_line(t, i, value) for t, rows in self._tables.items() for i, value in rows.items())
        fresh.replace(self._path)
        return self._path.open("ab", buffering=0)


def _line(table: str, row_id: str, value: Any) -> bytes:
    return json.dumps([table, row_id, value], separators=_COMPACT).encode() + b"\n"
