"""`lifecycle logs`: the last lines of a process of `lifecycle up`, or the story of a key over all services.

`logs SERVICE` prints and follows one file. `logs --key KEY` prints the lines of every service about one tenant, in the
order of time.
"""

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
"""Bytes by which the read window grows towards the beginning of the file."""
_POLL_S: Final = 0.2
"""Seconds between two reads of a file that has no new line."""
_STYLES: Final = {"error": "red", "critical": "red", "warning": "yellow", "debug": "dim"}
_SHOWN_FIRST: Final = frozenset({"at", "level", "event", "service"})


def logs(
    service: Annotated[
        str | None, typer.Argument(metavar="SERVICE", help="A name listed by `lifecycle status`; all with --key.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help=f"Only lines about one tenant: {options.KEY_HELP}")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print further lines as they are written, until Ctrl-C.")
    ] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="Number of last lines.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as written, also on a terminal.")] = False,
    state_dir: Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")] = None,
) -> None:
    """Show the log of one process of `lifecycle up`, also of an ended process, or all lines about one tenant."""
    from services.cli import show

    folder = options.folder(environment.state_dir(state_dir))
    pretty = show.shows_results() and not as_json
    if key is not None:
        if follow:
            raise CommandError(Exit.UNUSABLE, "--follow: --key reads the logs of all services once; say only one")
        _print_story(_paths(folder), service, _whole_key(key, state_dir), tail, pretty=pretty)
        return
    if service is None:
        raise CommandError(Exit.UNUSABLE, "SERVICE: missing; name a process, or a tenant with --key")
    path = _path(folder, service)
    try:
        with path.open("rb") as file:
            for line in _last_lines(file, tail):
                _write(line, pretty=pretty)
            if follow:
                _follow(path, file, pretty=pretty)
    # `lifecycle logs … | head` is a normal use: the reader has closed the pipe, which is no error of ours.
    except BrokenPipeError:
        show.discard_output()
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"{path}: {error.strerror}") from None


def _path(folder: Path, service: str) -> Path:
    """Returns the path of a service's log.

    Raises:
        CommandError: the folder holds no log at all, or none of this service (UNUSABLE).
    """
    found = _paths(folder)
    return found[options.one_of(service, found, "SERVICE", "process with a log here")]


def _paths(folder: Path) -> dict[str, Path]:
    """Returns the path of every log by the name of the process.

    Raises:
        CommandError: the folder holds no log at all (UNUSABLE).
    """
    found = {path.stem: path for path in sorted((folder / "logs").glob("*.log"))}
    if not found:
        raise CommandError(Exit.UNUSABLE, f"--state-dir: {folder}: no logs; nothing was ever started here")
    return found


def _whole_key(given: str, state_dir: Path | None) -> str:
    """Returns the key of a tenant; asks the running `up` unless the name is a key already."""
    from services.cli import naming

    if naming.is_full_key(given):
        return given.lower()
    return naming.keys_of([given], environment.settings_of_operator(state_dir))[0]


def _print_story(paths: dict[str, Path], service: str | None, key: str, tail: int, *, pretty: bool) -> None:
    """Prints the last lines about a key, of one process or of all, in the order of time."""
    chosen = paths.values() if service is None else (paths[options.one_of(service, paths, "SERVICE", "process")],)
    needle, found = key.encode(), list[tuple[str, bytes]]()
    for path in chosen:
        with path.open("rb") as file:
            for line in file:
                # The search of the bytes first: parsing every line of a long log would take a hundred times as long.
                entry = _parse(line.decode("utf-8", "replace")) if needle in line else None
                if entry is not None and entry.get("key") == key:
                    found.append((str(entry["at"]), line.rstrip(b"\n")))
    found.sort(key=lambda one: one[0])
    for _, line in found[-tail:] if tail else ():
        _write(line, pretty=pretty, with_service=True)


def _last_lines(file: IO[bytes], count: int) -> list[bytes]:
    """Returns the last lines of a file and leaves the file at the end.

    The file is read backwards in blocks, since logs grow large.
    """
    position = end = file.seek(0, os.SEEK_END)
    text = b""
    while position > 0 and text.count(b"\n") <= count:
        position = max(0, position - _BLOCK_BYTES)
        file.seek(position)
        text = file.read(end - position)
    # `_follow` continues here, so no line is printed twice and none is skipped.
    file.seek(end)
    return text.splitlines()[-count:] if count else []


def _follow(path: Path, file: IO[bytes], *, pretty: bool) -> None:
    """Prints lines as they are appended; never returns.

    A file that was replaced or truncated is read from its beginning.

    Args:
        path: Path of the log.
        file: The log, open, at the first byte to be printed; closed once the log was replaced.
        pretty: True to format the lines for a terminal.
    """
    partial = b""
    try:
        while True:
            fresh = _replacement(path, file)
            # Read after the look at the path: lines written before the replacement are in the former file.
            partial += file.read()
            # The last piece has no newline yet: its writer may be in the middle of the line.
            *whole, partial = partial.split(b"\n")
            for line in whole:
                _write(line, pretty=pretty)
            if fresh:
                file.close()
                file, partial = fresh, b""
            # The file was truncated: our offset lies behind its end, where a read would return nothing for ever.
            elif os.fstat(file.fileno()).st_size < file.tell():
                file.seek(0)
                partial = b""
            elif not whole:
                time.sleep(_POLL_S)
    finally:
        file.close()


def _replacement(path: Path, file: IO[bytes]) -> IO[bytes] | None:
    """Opens the file at a path if the file is not `file`; None while the path leads to `file`, or to nothing."""
    # The path is opened first and compared afterwards: between a question about the path and the opening, the log may
    # be replaced again. A moment without any file is normal while a log is rotated.
    try:
        fresh = path.open("rb")
    except FileNotFoundError:
        return None
    if os.path.samestat(os.fstat(fresh.fileno()), os.fstat(file.fileno())):
        fresh.close()
        return None
    return fresh


def _write(line: bytes, *, pretty: bool, with_service: bool = False) -> None:
    """Prints one line of a log: as written, or formatted and coloured for a terminal."""
    from services.cli import show

    text = line.decode("utf-8", "replace")
    entry = _parse(text) if pretty else None
    if entry is None:
        print(text, flush=True)
    else:
        level = str(entry.get("level", ""))
        service = (f"{entry.get('service', '')!s:<11}",) if with_service else ()
        words = [str(entry["at"])[11:23], f"{level:<7}", *service, str(entry.get("event", "")), *_fields(entry)]
        show.styled(" ".join(words), _STYLES.get(level, ""))


def _parse(text: str) -> dict[str, Any] | None:
    """Parses a line of our own logs; returns None for a line of a foreign program (an engine, a traceback)."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "at" in found else None


def _fields(entry: dict[str, Any]) -> Iterator[str]:
    yield from (
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in entry.items()
        if name not in _SHOWN_FIRST and value is not None
    )
