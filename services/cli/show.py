"""What a person, or a program, sees: JSON when it was asked for, tables else, progress on a terminal only.

Rule: results go to standard output, everything about the way there to standard error.
"""

import json
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Any

_lock = threading.Lock()


def say(text: str) -> None:
    """One line about the way there; whole, whichever thread it comes from."""
    with _lock:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def as_json(value: Any) -> None:
    """A result for a program."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A result for a person; columns that hold nothing but numbers stand to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [tuple("" if cell is None else str(cell) for cell in row) for row in rows]
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        numeric = bool(cells) and all(row[number].isdecimal() for row in cells)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*map(Text, row))
    # A pipe has no width: lines are as long as their contents.
    Console(width=None if sys.stdout.isatty() else 200).print(drawn)


def is_terminal() -> bool:
    """Whether somebody watches."""
    return sys.stderr.isatty()


class Download:
    """Says how far a download is, about once in ten parts."""

    def __init__(self) -> None:
        self._told = -1

    def __call__(self, here_bytes: int, all_bytes: int) -> None:
        """Told from several threads."""
        tenths = here_bytes * 10 // max(all_bytes, 1)
        with _lock:
            news, self._told = tenths > self._told, max(self._told, tenths)
        if news:
            say(f"fetching Apache Kafka: {here_bytes / 1e6:.0f} of {all_bytes / 1e6:.0f} MB")
