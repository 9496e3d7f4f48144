"""`lifecycle up`: runs everything on this machine until SIGTERM, SIGINT or SIGHUP."""

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
from services.cli.show import Download, Spinner, say
from services.engines import Durability

_STANDARD_ERROR: Final = 2
"""File descriptor of standard error."""
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def up(
    state_dir: Path, environ: Mapping[str, str], endpoints_file: Path | None, *, scrape_s: float | None = None
) -> None:
    """Runs the installation until a signal, then stops it cleanly.

    Args:
        state_dir: The state folder.
        environ: The environment of this process.
        endpoints_file: A second location of the endpoints file; None for the state folder alone.
        scrape_s: As for `stack`.

    Raises:
        EngineError: an engine can be neither found nor started.
        CommandError: a service did not become ready, or the endpoints file cannot be written.
    """
    if endpoints_file is not None:
        writable(endpoints_file, "--endpoints-file")
    with (
        # Outermost: KeyboardInterrupt first travels through `stack`, which stops everything, and ends here.
        suppress(KeyboardInterrupt),
        interruptible(),
        Spinner() as spinner,
        stack(
            state_dir,
            environ,
            report=say,
            durability=Durability.DURABLE,
            endpoints_file=endpoints_file,
            progress=Download(),
            on_activity=spinner,
            scrape_s=scrape_s,
        ) as installation,
    ):
        spinner.end()
        _print_addresses(installation, endpoints_file or installation.folders.endpoints)
        # Waits for ever; `interruptible` ends the wait with KeyboardInterrupt.
        threading.Event().wait()
    say("stopped")


@contextmanager
def interruptible() -> Iterator[None]:
    """Turns the first SIGTERM, SIGINT or SIGHUP into KeyboardInterrupt; later signals are ignored.

    Usable in the main thread only, where Python runs signal handlers.
    """

    def interrupt(_: int, __: object) -> None:
        # Ignored from here on: a second Ctrl-C would break off the orderly stop.
        for number in _ENDS:
            signal.signal(number, signal.SIG_IGN)
        # Not by `say`: the interrupted thread may be inside `say` and hold its lock.
        with suppress(OSError):
            os.write(_STANDARD_ERROR, b"stopping\n")
        raise KeyboardInterrupt

    former = {number: signal.signal(number, interrupt) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _print_addresses(installation: Stack, endpoints_file: Path) -> None:
    """Prints the addresses, files and logs of the installation."""
    prometheus = installation.prometheus
    for line in (
        f"ready: {installation.chosen}",
        f"webhooks   POST {installation.ingress}{WEBHOOK_PATH}",
        f"simulator  {installation.simulator}/inventory",
        f"endpoints  {endpoints_file}",
        f"logs       {installation.folders.logs}",
        *([f"prometheus {prometheus.url}"] if prometheus else []),
        "Ctrl-C stops everything; the data stays.",
    ):
        say(line)
