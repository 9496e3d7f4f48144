"""Prints results and progress: JSON on request, else tables; progress bars and spinners on a terminal only.

Rules:
- Results go to standard output, progress and messages to standard error.
- A control character of a text from outside is printed as an escape (`visible`).
"""

import json
import os
import shutil
import sys
import textwrap
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from unicodedata import category

from services.cli import environment

if TYPE_CHECKING:
    from rich.console import Console as Terminal

_lock = threading.Lock()
_ANY_WIDTH = 10_000
"""Width without a limit, for measuring a table."""
_GAP: Final = "  "
_LEAST_WIDTH: Final = 8
"""Least columns of a listing's cell, even on a narrow terminal."""

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of characters that steer a terminal, the order of the letters, or the lines."""


@dataclass(frozen=True, slots=True)
class ListingRow:
    """A line of a listing.

    Attributes:
        cells: A text per column.
        styles: Number of a column to the style, used on a terminal only.
        note: A remark; printed below the line on a terminal, as a last column in a pipe.
    """

    cells: Sequence[str]
    styles: Mapping[int, str] = field(default_factory=dict)
    note: str = ""


def visible(text: str) -> str:
    r"""Returns a text with every control and formatting character as an escape like `\x1b`; keeps line breaks and tabs.

    Texts of Genesys and of outside systems reach the terminal, and must not move its cursor or hide what was printed.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in "\n\t" or category(char) not in _UNSEEN else char.encode("unicode_escape").decode()
        for char in text
    )


def say(text: str) -> None:
    """Prints a message to standard error, folded between words on a terminal; lines of several threads do not mix."""
    text = visible(text)
    if is_terminal():
        text = "\n".join(_folded(line) for line in text.splitlines())
    with _lock:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def as_json(value: Any) -> None:
    """Prints a result as JSON."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def discard_output() -> None:
    """Redirects standard output to nowhere, after the reader (`head`, say) has closed the pipe."""
    with Path(os.devnull).open("wb") as nowhere:
        # At its exit Python flushes standard output; on the closed pipe this would print an error and end with status
        # 120.
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None, *, whole: int = 0
) -> None:
    """Prints a result as a table; columns of numbers are aligned to the right.

    Args:
        columns: Heads of the columns.
        rows: Cells of each row; None is printed as empty.
        title: A line above the table.
        whole: Number of leading columns never folded.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [tuple("" if cell is None else visible(str(cell)) for cell in row) for row in rows]
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        numeric = bool(cells) and all(row[number].isdecimal() for row in cells)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=number < whole)
    for row in cells:
        # `Text` and not `str`: rich would interpret square brackets in a cell as markup.
        drawn.add_row(*map(Text, row))
    console = _console()
    if not console.is_terminal:
        # A pipe has no width. Rich would fold at 80 columns and break lines for `grep`, so the writer is as wide as
        # the table.
        console = Console(width=Console(width=_ANY_WIDTH).measure(drawn).maximum)
    console.print(drawn)


def listing(columns: Sequence[str], entries: Sequence[ListingRow]) -> None:
    """Prints a line per entry at any width: on a terminal, cells are cut and notes are printed below.

    Args:
        columns: Heads of the columns; the first column is cut first.
        entries: The lines, in order.
    """
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    entries = [replace(one, cells=tuple(map(visible, one.cells)), note=visible(one.note)) for one in entries]
    console = _console()
    if not console.is_terminal:
        table((*columns, "notes"), [(*entry.cells, entry.note) for entry in entries])
        return
    widths = [max(map(cell_len, column)) for column in zip(columns, *(entry.cells for entry in entries), strict=True)]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - console.width
    # The first column is narrowed first, down to its least width, then the next, until the line fits.
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
    """Prints a line of a result, styled on a terminal."""
    from rich.text import Text

    console, text = _console(), visible(text)
    # `soft_wrap`: in a pipe the line stays whole.
    console.print(Text(text, style if console.is_terminal else ""), soft_wrap=not console.is_terminal)


def folded(text: str, indent: str = "") -> None:
    """Prints a line of a result; on a terminal folded to the width, the further lines indented by two columns more."""
    text = visible(text).replace("\n", r"\n")
    if not shows_results():
        sys.stdout.write(f"{indent}{text}\n")
        return
    inner = indent + text[: len(text) - len(text.lstrip())]
    for line in textwrap.wrap(
        text.strip(),
        _console().width,
        initial_indent=inner,
        subsequent_indent=inner + _GAP,
        break_on_hyphens=False,
    ):
        sys.stdout.write(f"{line}\n")


def is_terminal() -> bool:
    """True if standard error is a terminal."""
    return sys.stderr.isatty()


def shows_results() -> bool:
    """True if standard output is a terminal."""
    return bool(_console().is_terminal)


def _folded(line: str) -> str:
    """Folds a line between words to the width of the terminal."""
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) if len(line) > width else line


def _console(*, stderr: bool = False) -> "Terminal":
    """Returns rich's writer of standard output or standard error. NO_COLOR drops colour and style (no-color.org)."""
    from rich.console import Console

    # Rich drops only colours under NO_COLOR; `color_system=None` drops bold and dim as well.
    plain = bool(environment.process().get("NO_COLOR"))
    return Console(stderr=stderr, color_system=None) if plain else Console(stderr=stderr)


class Download:
    """Prints the progress of a download, at about every tenth."""

    def __init__(self) -> None:
        self._told = -1

    def __call__(self, here_bytes: int, all_bytes: int) -> None:
        """Prints a line at each new tenth; called by several threads."""
        tenths = here_bytes * 10 // max(all_bytes, 1)
        with _lock:
            news, self._told = tenths > self._told, max(self._told, tenths)
        if news:
            say(f"fetching Apache Kafka: {here_bytes / 1e6:.0f} of {all_bytes / 1e6:.0f} MB")


class Spinner:
    """Shows the present activity on a terminal, in a disappearing line; silent in a pipe. A context manager."""

    def __init__(self) -> None:
        self._status: Any = None

    def __call__(self, what: str) -> None:
        """Shows an activity in place of the former."""
        if not is_terminal():
            return
        if self._status is None:
            from rich.status import Status

            self._status = Status(what, console=_console(stderr=True))
            self._status.start()
        self._status.update(what)

    def end(self) -> None:
        """Removes the line; a later call shows a new line."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Progress:
    """Shows a progress bar on a terminal, a line per tenth in a pipe. A context manager."""

    def __init__(self) -> None:
        """Shows no bar yet."""
        self._bar: Any = None
        self._told = -1

    def __call__(self, what: str, done: int, of: int) -> None:
        """Shows the number of finished items, `done` of `of`."""
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
