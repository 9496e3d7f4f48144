"""Keeps processes running: what dies is started again, at once the first time, later and later when it dies young.

Rule: one thread watches one process, so a slow start of one (an engine) delays no other. Every end is told with its
status; nothing is given up, since an operator who repairs the cause should not have to start anything.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from services.engines import child_process

_LOOK_S: Final = 0.05
"""How often a process is asked whether it still runs."""

_YOUNG_S: Final = 10.0
"""A process that lived less than this died young."""

_YOUNG_IF_KILLED_S: Final = 1.0
"""The same where somebody killed it: that is no fault of its own, unless it happens before it did anything."""

_KILLED: Final = frozenset({-signal.SIGKILL, -signal.SIGTERM})

_ASKED: Final = frozenset({0, 128 + signal.SIGTERM})
"""Statuses of processes that were asked to end and did (the second is Java's): their last lines are no news."""

_PAUSE_FIRST_S: Final = 0.5
_PAUSE_MOST_S: Final = 15.0

Report = Callable[[str], None]
"""Told in one sentence what ended and what is done about it."""


class Process(Protocol):
    """What can be supervised: an engine, or a service of ours."""

    @property
    def pid(self) -> int | None:
        """Its process id; None before the first start and after a stop."""

    @property
    def log_path(self) -> Path:
        """Where it writes."""

    def start(self) -> None:
        """Start it, again when it ended."""

    def poll(self) -> int | None:
        """Its exit status (negative: the signal that ended it), or None while it runs."""

    def stop(self, timeout_s: float) -> None:
        """Ask it to end, and kill it when it does not."""


@dataclass(slots=True)
class ServiceProcess:
    """One of our services as a child process.

    Attributes:
        name: Its command: `lifecycle NAME`.
        environ: Its whole environment.
        log_path: Where it writes.
    """

    name: str
    environ: Mapping[str, str]
    log_path: Path
    _child: child_process.Child | None = None

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Start it; it ends with us."""
        argv = (sys.executable, "-m", "services.cli.main", self.name)
        self._child = child_process.start(argv, env=self.environ, log_path=self.log_path)

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._child.poll() if self._child else None

    def stop(self, timeout_s: float) -> None:
        """Ask it to end, and kill it when it does not."""
        if self._child:
            self._child.stop(timeout_s)


def pause_s(young_deaths: int) -> float:
    """How long to wait before the next start.

    Args:
        young_deaths: How many times in a row it died young, this time included; 0 when it had lived long enough.
    """
    if young_deaths <= 1:
        return 0.0
    return min(_PAUSE_MOST_S, _PAUSE_FIRST_S * 2.0 ** min(young_deaths - 2, 16))


def ended(status: int) -> str:
    """An exit status in words: `exit status 2`, `SIGKILL`."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:  # most real-time signals have no name
        return f"signal {-status}"


class Supervisor:
    """Starts processes, watches them and stops them in reverse order."""

    def __init__(self, report: Report, on_change: Callable[[], None]) -> None:
        """Supervise nothing yet.

        Args:
            report: Told of every end and every failed start.
            on_change: Called when a process was started again: its pid is another one.
        """
        self._report = report
        self._on_change = on_change
        self._processes: dict[str, Process] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = threading.Event()
        self.deaths: dict[str, int] = {}
        """How often each process ended without being asked."""

    def add(self, name: str, process: Process) -> None:
        """Start a process, unless it runs already, and watch it."""
        if process.pid is None:
            process.start()
        self._processes[name] = process
        self.deaths[name] = 0
        watcher = threading.Thread(target=self._watch, args=(name, process), name=f"watches-{name}", daemon=True)
        self._threads[name] = watcher
        watcher.start()

    def pids(self) -> dict[str, int]:
        """The process id of each."""
        return {name: process.pid for name, process in self._processes.items() if process.pid is not None}

    def log_path(self, name: str) -> Path:
        """Where a process writes."""
        return self._processes[name].log_path

    def stop(self, timeout_s: float, leave: frozenset[str] = frozenset()) -> None:
        """Stop watching, then stop the processes in reverse order of their start.

        Args:
            timeout_s: For all together; what is late is killed.
            leave: Names of processes that somebody else stops.
        """
        self._stopping.set()
        deadline = time.monotonic() + timeout_s
        for name, process in reversed(self._processes.items()):
            self._threads[name].join(max(0.1, deadline - time.monotonic()))
            if name not in leave:
                process.stop(max(0.5, deadline - time.monotonic()))

    def _watch(self, name: str, process: Process) -> None:
        young_deaths, began = 0, time.monotonic()
        while not self._stopping.wait(_LOOK_S):
            # A process without an id is one that could not be started again.
            if process.pid is not None and process.poll() is None:
                continue
            self.deaths[name] += 1
            lived = time.monotonic() - began
            young_deaths = young_deaths + 1 if lived < _young_s(process.poll()) else 0
            pause = pause_s(young_deaths)
            self._tell(f"{name} {_end_of(process)} after {lived:.1f} s; it starts again {_when(pause)}")
            if self._stopping.wait(pause):
                return
            began = time.monotonic()
            self._start_again(name, process)

    def _start_again(self, name: str, process: Process) -> None:
        # Whatever goes wrong here is told: a watch that ends in silence leaves its process without anybody.
        try:
            process.start()
        except Exception as error:  # noqa: BLE001 - see above
            self._tell(f"{name} did not start: {error}")
        try:
            self._on_change()
        except Exception as error:  # noqa: BLE001 - see above
            self._tell(f"the new process id of {name} could not be told: {error}")

    def _tell(self, text: str) -> None:
        with suppress(OSError):  # a terminal that is gone, a log on a full disk
            self._report(text)


def _young_s(status: int | None) -> float:
    return _YOUNG_IF_KILLED_S if status in _KILLED else _YOUNG_S


def _when(pause: float) -> str:
    return f"in {pause:g} s" if pause else "at once"


def _end_of(process: Process) -> str:
    """How it ended, with its last lines when it ended by itself."""
    status = process.poll()
    if status is None:
        return "was not there"
    if status < 0:
        return f"was ended by {ended(status)}"
    if status in _ASKED:
        return f"ended as asked ({ended(status)})"
    try:
        last = f"its log {process.log_path} ends: {child_process.last_lines(process.log_path, 3)}"
    except OSError as error:
        last = f"its log {process.log_path} cannot be read: {error.strerror}"
    return f"ended with {ended(status)} ({last})"
