"""`lifecycle logs SERVICE`: prints the last lines of a process of `lifecycle up`, and follows the file."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from services.cli import environment, options
from services.cli.exits import CommandError, Exit

_BLOCK_BYTES: Final = 65_536
_LOOK_S: Final = 0.2
_STYLES: Final = {"error": "red", "critical": "red", "warning": "yellow", "debug": "dim"}
_SHOWN_FIRST: Final = frozenset({"at", "level", "event", "service"})


def logs(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="As `lifecycle status` names it.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it is written, until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="How many of its last lines.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they are written, on a terminal too.")] = False,
    state_dir: Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")] = None,
) -> None:
    """Show the log of one process of `lifecycle up`, also after that has ended."""
    from services.cli import show

    folder = options.folder(environment.state_dir(state_dir))
    path = _path(folder, service)
    pretty = show.shows_results() and not as_json
    try:
        with path.open("rb") as file:
            for line in _ends(file, tail):
                _write(line, pretty=pretty)
            if follow:
                _follow(path, file, pretty=pretty)
    except BrokenPipeError:
        show.is_enough()
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"{path}: {error.strerror}") from None


def _path(folder: Path, service: str) -> Path:
    """Returns the path of a service's log.

    Raises:
        Failure: no such service, or no log of it.
    """
    found = {path.stem: path for path in sorted((folder / "logs").glob("*.log"))}
    if not found:
        raise CommandError(Exit.UNUSABLE, f"--state-dir: {folder}: no logs; nothing was ever started here")
    return found[options.one_of(service, found, "SERVICE", "process with a log here")]


def _ends(file: IO[bytes], count: int) -> list[bytes]:
    """Returns the last lines of a file and leaves it at its end; read backwards, since logs grow large."""
    position = end = file.seek(0, os.SEEK_END)
    text = b""
    while position > 0 and text.count(b"\n") <= count:
        position = max(0, position - _BLOCK_BYTES)
        file.seek(position)
        text = file.read(end - position)
    file.seek(end)
    return text.splitlines()[-count:] if count else []


def _follow(path: Path, file: IO[bytes], *, pretty: bool) -> None:
    """Prints lines as they are appended, for ever; a file that was replaced or emptied is read from its beginning."""
    held = b""
    while True:
        held += file.read()
        *whole, held = held.split(b"\n")
        for line in whole:
            _write(line, pretty=pretty)
        if not whole:
            time.sleep(_LOOK_S)
        if path.exists() and not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            with path.open("rb") as fresh:
                _follow(path, fresh, pretty=pretty)
        if os.fstat(file.fileno()).st_size < file.tell():
            file.seek(0)


def _write(line: bytes, *, pretty: bool) -> None:
    from services.cli import show

    text = line.decode("utf-8", "replace")
    told = _told(text) if pretty else None
    if told is None:
        print(text, flush=True)
    else:
        level = str(told.get("level", ""))
        words = " ".join([str(told["at"])[11:23], f"{level:<7}", str(told.get("event", "")), *_fields(told)])
        show.styled(words, _STYLES.get(level, ""))


def _told(text: str) -> dict[str, Any] | None:
    """Parses a line of our own logs; None for a line of another program."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "at" in found else None


def _fields(told: dict[str, Any]) -> Iterator[str]:
    yield from (
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in told.items()
        if name not in _SHOWN_FIRST and value is not None
    )
