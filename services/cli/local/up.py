"""`lifecycle up`: everything on this machine until somebody stops it."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from services.cli.local.stack import Stack, stack
from services.cli.local.wiring import WEBHOOK_PATH
from services.cli.options import writable
from services.cli.show import Doing, Download, say
from services.engines import Durability

_STANDARD_ERROR: Final = 2
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def up(state_dir: Path, environ: Mapping[str, str], endpoints_file: Path | None) -> None:
    """Run until SIGTERM or Ctrl-C, then stop cleanly.

    Raises:
        EngineError: an engine cannot be had.
        Failure: something did not become ready, or the file of endpoints cannot be written.
    """
    if endpoints_file is not None:
        writable(endpoints_file, "--endpoints-file")
    with (
        suppress(KeyboardInterrupt),
        interruptible(),
        Doing() as doing,
        stack(
            state_dir,
            environ,
            report=say,
            durability=Durability.DURABLE,
            endpoints_file=endpoints_file,
            progress=Download(),
            doing=doing,
        ) as built,
    ):
        doing.end()
        _tell(built, endpoints_file or built.folders.endpoints)
        threading.Event().wait()
    say("stopped")


@contextmanager
def interruptible() -> Iterator[None]:
    """The first SIGTERM, SIGINT or SIGHUP raises KeyboardInterrupt, wherever we are; those after it change nothing."""

    def interrupt(_: int, __: object) -> None:
        for number in _ENDS:
            signal.signal(number, signal.SIG_IGN)
        # Not by `say`: the thread that is interrupted may be in the middle of it, and hold its lock.
        with suppress(OSError):
            os.write(_STANDARD_ERROR, b"stopping\n")
        raise KeyboardInterrupt

    former = {number: signal.signal(number, interrupt) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _tell(built: Stack, endpoints_file: Path) -> None:
    for line in (
        f"ready: {built.chosen}",
        f"webhooks   POST {built.ingress}{WEBHOOK_PATH}",
        f"simulator  {built.simulator}/inventory",
        f"endpoints  {endpoints_file}",
        f"logs       {built.folders.logs}",
        "Ctrl-C stops everything; the data stays.",
    ):
        say(line)
