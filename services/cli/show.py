"""What a person, or a program, sees: JSON when it was asked for, tables else, progress on a terminal only.

Rule: results go to standard output, everything about the way there to standard error.
"""

import json
import os
import shutil
import sys
import textwrap
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from services.cli import environment

if TYPE_CHECKING:
    from rich.console import Console as Terminal

_lock = threading.Lock()
_ANY_WIDTH = 10_000
_GAP: Final = "  "
_LEAST_WIDTH: Final = 8
"""A column of a listing is not made narrower, however narrow the terminal is."""


@dataclass(frozen=True, slots=True)
class ListingRow:
    """One line of a listing.

    Attributes:
        cells: One text a column.
        styles: Number of a column to its style, on a terminal only.
        note: What is to be said beside them: below on a terminal, in a last column elsewhere.
    """

    cells: Sequence[str]
    styles: Mapping[int, str] = field(default_factory=dict)
    note: str = ""


def say(text: str) -> None:
    """One line about the way there; whole, whichever thread it comes from, and folded between words on a terminal."""
    if is_terminal():
        text = "\n".join(_folded(line) for line in text.splitlines())
    with _lock:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def as_json(value: Any) -> None:
    """A result for a program."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def is_enough() -> None:
    """Whoever read our results, as `head` does, has read enough: what is still to be written goes nowhere."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None, *, whole: int = 0
) -> None:
    """A result for a person; columns that hold nothing but numbers stand to the right.

    Args:
        columns: Their heads.
        rows: Their cells.
        title: Above them.
        whole: How many of the first columns are never folded.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [tuple("" if cell is None else str(cell) for cell in row) for row in rows]
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        numeric = bool(cells) and all(row[number].isdecimal() for row in cells)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=number < whole)
    for row in cells:
        drawn.add_row(*map(Text, row))
    console = _console()
    if not console.is_terminal:
        # A pipe has no width: lines are as long as their contents.
        console = Console(width=Console(width=_ANY_WIDTH).measure(drawn).maximum)
    console.print(drawn)


def listing(columns: Sequence[str], entries: Sequence[ListingRow]) -> None:
    """A result of one line an entry, whatever the width: on a terminal cells are cut and notes stand below.

    Args:
        columns: Their heads; the first is the first to be cut.
        entries: In order.
    """
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    console = _console()
    if not console.is_terminal:
        table((*columns, "notes"), [(*entry.cells, entry.note) for entry in entries])
        return
    widths = [max(map(cell_len, column)) for column in zip(columns, *(entry.cells for entry in entries), strict=True)]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - console.width
    for number, width in enumerate(widths):
        widths[number] = min(width, max(_LEAST_WIDTH, width - max(0, over)))
        over -= width - widths[number]

    def line(cells: Sequence[str], styles: Mapping[int, str]) -> Text:
        drawn = Text(no_wrap=True, overflow="crop")
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            shown = cell if cell_len(cell) <= width else set_cell_size(cell, width - 1) + "…"
            drawn.append(shown, styles.get(number))
            drawn.append(" " * (width - cell_len(shown)) + _GAP)
        drawn.rstrip()
        return drawn

    console.print(line(columns, dict.fromkeys(range(len(columns)), "bold")))
    for entry in entries:
        console.print(line(entry.cells, entry.styles))
        if entry.note:
            for part in textwrap.wrap(entry.note, console.width, initial_indent=_GAP, subsequent_indent=_GAP):
                console.print(Text(part, "dim"))


def styled(text: str, style: str) -> None:
    """One line of a result, with a style on a terminal."""
    from rich.text import Text

    console = _console()
    console.print(Text(text, style if console.is_terminal else ""), soft_wrap=not console.is_terminal)


def is_terminal() -> bool:
    """True if standard error is a terminal."""
    return sys.stderr.isatty()


def shows_results() -> bool:
    """True if results go to a terminal."""
    return bool(_console().is_terminal)


def _folded(line: str) -> str:
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) if len(line) > width else line


def _console(*, stderr: bool = False) -> "Terminal":
    """Of standard output, or of standard error; with NO_COLOR no colour and no other style (no-color.org)."""
    from rich.console import Console

    plain = bool(environment.process().get("NO_COLOR"))
    return Console(stderr=stderr, color_system=None) if plain else Console(stderr=stderr)


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


class Doing:
    """Says on a terminal what is being done, in a line that goes away; silent elsewhere. Use it as a context."""

    def __init__(self) -> None:
        self._status: Any = None

    def __call__(self, what: str) -> None:
        """This is being done now."""
        if not is_terminal():
            return
        if self._status is None:
            from rich.status import Status

            self._status = Status(what, console=_console(stderr=True))
            self._status.start()
        self._status.update(what)

    def end(self) -> None:
        """It is done."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


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
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        if self._bar is None:
            columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Bar(*columns, console=_console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(what, total=of)
        self._bar.update(self._bar.task_ids[0], completed=done)
        if done == of:
            self._end()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
