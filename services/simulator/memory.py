"""The simulator's memory: tables of JSON values that survive the death of the process.

Rule: a change is in the file before the caller answers a request. The file is a journal, with one line for each change;
a snapshot for each change would cost quadratic time in a burst of changes. Each start compacts the journal.

Durability: every change is one unbuffered write without fsync. A killed process loses nothing; a crash of the machine
may lose changes. A last line without a newline was cut short and is dropped.
"""

import json
from pathlib import Path
from typing import Any, BinaryIO

_COMPACT = (",", ":")


class Memory:
    """Tables by name; each table maps the id of a row to a JSON value. Only `put` may change a table."""

    def __init__(self, path: Path) -> None:
        """Reads and compacts the file, and keeps the file open for appending. Creates missing folders."""
        self._path = path
        self._tables: dict[str, dict[str, Any]] = {}
        self._file: BinaryIO = self._open()

    def table(self, name: str) -> dict[str, Any]:
        """Returns the rows of a table, in order of insertion. The result is the table itself, not a copy."""
        return self._tables.setdefault(name, {})

    def put(self, table: str, row_id: str, value: Any) -> None:
        """Writes a row to memory and file; the value None removes the row."""
        self._apply(table, row_id, value)
        self._file.write(_line(table, row_id, value))

    def close(self) -> None:
        """Closes the file. A later `put` raises ValueError."""
        self._file.close()

    def _apply(self, table: str, row_id: str, value: Any) -> None:
        if value is None:
            self.table(table).pop(row_id, None)
        else:
            self.table(table)[row_id] = value

    def _open(self) -> BinaryIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            # [:-1]: the last part is empty, or a line that the death of a former process cut short.
            for line in self._path.read_bytes().split(b"\n")[:-1]:
                self._apply(*json.loads(line))
        # By rename: a process that dies here leaves the former journal whole.
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.writelines(_line(t, i, value) for t, rows in self._tables.items() for i, value in rows.items())
        fresh.replace(self._path)
        # Unbuffered: a change must be with the kernel, out of reach of SIGKILL, when `put` returns.
        return self._path.open("ab", buffering=0)


def _line(table: str, row_id: str, value: Any) -> bytes:
    return json.dumps([table, row_id, value], separators=_COMPACT).encode() + b"\n"
