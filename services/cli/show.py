"""What a person, or a program, sees: JSON when it was asked for, tables else, progress on a terminal only.

Rule: results go to standard output, everything about the way there to standard error.
"""

import json
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Self

_lock = threading.Lock()
_ANY_WIDTH = 10_000


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
    console = Console()
    if not console.is_terminal:
        # A pipe has no width: lines are as long as their contents.
        console = Console(width=Console(width=_ANY_WIDTH).measure(drawn).maximum)
    console.print(drawn)


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


class Progress:
    """A bar on a terminal, a line now and then elsewhere; use it as a context."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bar: Any = None
        self._told = -1

    def __call__(self, what: str, done: int, of: int) -> None:
        """So many are done."""
        if is_terminal():
            self._draw(what, done, of)
        elif (tenths := done * 10 // max(of, 1)) > self._told:
            self._told = tenths
            say(f"  {what}: {done} of {of}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _draw(self, what: str, done: int, of: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        if self._bar is None:
            columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(what, total=of)
        self._bar.update(self._bar.task_ids[0], completed=done)
        if done == of:
            self._end()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
