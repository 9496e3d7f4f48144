"""Keeps processes running: restarts each ended process, at once the first time, with growing delays after young deaths.

Rule: one thread watches one process, and the slow start of an engine delays no restart of a service. Every end is
reported with the exit status. No process is given up: after an operator repairs the cause, the next start succeeds.
"""

# Each watcher thread owns the restarts of one process; the main thread only adds processes and stops all. A stop must
# not race with a restart: `stop` sets the event first and joins each watcher before it stops the watcher's process. A
# process stopped before its watcher has ended would be started again.

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

_POLL_S: Final = 0.05
"""Seconds between two polls of a process."""

_YOUNG_S: Final = 10.0
"""A process that lived less than these seconds died young."""

_YOUNG_IF_KILLED_S: Final = 1.0
"""Replaces `_YOUNG_S` after SIGKILL or SIGTERM: a killed process is not at fault unless it dies at its very start."""

_KILLED: Final = frozenset({-signal.SIGKILL, -signal.SIGTERM})

_STATUSES_AFTER_STOP: Final = frozenset({0, 128 + signal.SIGTERM})
"""Exit statuses of a requested end (the second is Java's): the last lines of the log explain nothing."""

_DELAY_FIRST_S: Final = 0.5
"""Seconds of delay after the second young death in a row; doubled after each further one."""
_DELAY_MOST_S: Final = 15.0
"""Longest delay in seconds."""

Report = Callable[[str], None]
"""Called with one sentence: the end of a process, and the reaction."""


class Process(Protocol):
    """A supervised process: an engine or a service."""

    @property
    def pid(self) -> int | None:
        """Process id; None before the first start and after a stop."""

    @property
    def log_path(self) -> Path:
        """Path of the log."""

    def start(self) -> None:
        """Starts the process, or starts it again after its end."""

    def poll(self) -> int | None:
        """Returns the exit status (negative: the number of the fatal signal), or None while the process runs."""

    def stop(self, timeout_s: float) -> None:
        """Asks the process to end, and kills it after `timeout_s` seconds."""


@dataclass(slots=True)
class ServiceProcess:
    """A service as a child process.

    Attributes:
        name: The command of the service: `lifecycle NAME`.
        environ: The whole environment of the child.
        log_path: Path of the log.
    """

    name: str
    environ: Mapping[str, str]
    log_path: Path
    _child: child_process.Child | None = None

    @property
    def pid(self) -> int | None:
        """Process id; None before the first start."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Starts the service; the kernel ends the child when this process ends."""
        argv = (sys.executable, "-m", "services.cli.main", self.name)
        self._child = child_process.start(argv, env=self.environ, log_path=self.log_path)

    def poll(self) -> int | None:
        """Returns the exit status, or None while the service runs."""
        return self._child.poll() if self._child else None

    def stop(self, timeout_s: float) -> None:
        """Asks the service to end, and kills it after `timeout_s` seconds."""
        if self._child:
            self._child.stop(timeout_s)


def restart_delay_s(young_deaths: int) -> float:
    """Returns the seconds to wait before the next start: 0, 0, 0.5, 1, 2, 4, 8, then 15.

    Args:
        young_deaths: Number of young deaths in a row, the present death included; 0 after a long life.
    """
    if young_deaths <= 1:
        return 0.0
    return min(_DELAY_MOST_S, _DELAY_FIRST_S * 2.0 ** min(young_deaths - 2, 16))


def status_text(status: int) -> str:
    """Returns an exit status in words: `exit status 2`, `SIGKILL`."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:  # most real-time signals have no name
        return f"signal {-status}"


class Supervisor:
    """Starts and watches processes, and stops all in reverse order."""

    def __init__(self, report: Report, on_change: Callable[[], None]) -> None:
        """Supervises no process yet.

        Args:
            report: Called with every end and every failed start, by the thread of the process.
            on_change: Called after every restart, successful or not, since the process id changed.
        """
        self._report = report
        self._on_change = on_change
        self._processes: dict[str, Process] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = threading.Event()
        self.deaths: dict[str, int] = {}
        """Number of unrequested ends of each process, by name."""

    def add(self, name: str, process: Process) -> None:
        """Starts a process, unless the process runs already, and adds a watcher thread."""
        if process.pid is None:
            process.start()
        self._processes[name] = process
        self.deaths[name] = 0
        watcher = threading.Thread(target=self._watch, args=(name, process), name=f"watches-{name}", daemon=True)
        self._threads[name] = watcher
        watcher.start()

    def pids(self) -> dict[str, int]:
        """Returns the process ids, by name; a process without an id is left out. Called by any thread."""
        # A copy: a watcher thread calls this method while the main thread may still be adding processes.
        return {name: pid for name, process in self._processes.copy().items() if (pid := process.pid) is not None}

    def log_path(self, name: str) -> Path:
        """Returns the path of a process's log."""
        return self._processes[name].log_path

    def stop(self, timeout_s: float, leave: frozenset[str] = frozenset()) -> None:
        """Stops the watchers, then the processes in the reverse order of the starts.

        Args:
            timeout_s: Seconds for all processes together; a late process is killed.
            leave: Names of processes stopped by the caller.
        """
        self._stopping.set()
        deadline = time.monotonic() + timeout_s
        for name, process in reversed(self._processes.items()):
            # Without this join a watcher in the middle of `process.start()` would start the process after its stop.
            self._threads[name].join(max(0.1, deadline - time.monotonic()))
            if name not in leave:
                process.stop(max(0.5, deadline - time.monotonic()))

    def _watch(self, name: str, process: Process) -> None:
        """Restarts a process each time it ends; the body of a watcher thread."""
        young_deaths, began = 0, time.monotonic()
        while not self._stopping.wait(_POLL_S):
            # A process without an id failed to start.
            if process.pid is not None and process.poll() is None:
                continue
            self.deaths[name] += 1
            # `poll` returns None for an engine that could not be started; a failed start counts as a young death.
            lived_s = time.monotonic() - began
            young_deaths = young_deaths + 1 if lived_s < _young_age_s(process.poll()) else 0
            delay = restart_delay_s(young_deaths)
            self._report_safely(
                f"{name} {_end_text(process)} after {lived_s:.1f} s; it starts again {_delay_text(delay)}"
            )
            # The delay ends early when the supervisor is stopped.
            if self._stopping.wait(delay):
                return
            began = time.monotonic()
            self._start_again(name, process)

    def _start_again(self, name: str, process: Process) -> None:
        """Starts a process once; reports a failure instead of raising."""
        # Every exception is reported and none ends the watcher: a process without a watcher is never restarted.
        try:
            process.start()
        except Exception as error:  # noqa: BLE001 - see above
            self._report_safely(f"{name} did not start: {error}")
        try:
            self._on_change()
        except Exception as error:  # noqa: BLE001 - see above
            self._report_safely(f"the new process id of {name} could not be told: {error}")

    def _report_safely(self, text: str) -> None:
        """Reports a sentence; an unwritable output is ignored."""
        with suppress(OSError):  # a terminal that is gone, a log on a full disk
            self._report(text)


def _young_age_s(status: int | None) -> float:
    """Returns the age in seconds below which an end with this status is a young death."""
    return _YOUNG_IF_KILLED_S if status in _KILLED else _YOUNG_S


def _delay_text(delay: float) -> str:
    return f"in {delay:g} s" if delay else "at once"


def _end_text(process: Process) -> str:
    """Returns the end of a process in words, with the last lines of the log if the process failed by itself."""
    status = process.poll()
    if status is None:
        return "was not there"
    if status < 0:
        return f"was ended by {status_text(status)}"
    if status in _STATUSES_AFTER_STOP:
        return f"ended as asked ({status_text(status)})"
    try:
        last = f"its log {process.log_path} ends: {child_process.last_lines(process.log_path, 3)}"
    except OSError as error:
        last = f"its log {process.log_path} cannot be read: {error.strerror}"
    return f"ended with {status_text(status)} ({last})"
