"""The file in which `lifecycle up` lists its processes, for `status`, `restart` and `down`.

Rule: a process id is trusted only together with the start time of its process, because the kernel reuses ids.
"""

# The problem: the file can outlive its writer. SIGKILL or a power cut ends `up` and leaves the file; later the kernel
# gives the recorded process ids to unrelated programs, and `down` would send signals to those.
#
# The approach: the file records the start time of `up` in clock ticks since boot (field 22 of `/proc/PID/stat`). A pair
# of process id and start time names one process. The supervised processes need no start time in the file: each is a
# child of `up`, so a process with a different parent is a foreign one.
#
# The invariant: an id from the file is sent a signal only after `process_info` has confirmed it in this way.

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from services.cli.exits import CommandError, Exit
from services.cli.files import replace_json

FILE: Final = "processes.json"
"""Name in the state folder; the file is present from the first process until `up` ends. A killed `up` leaves it."""

_STATE, _PARENT, _BEGAN = 0, 1, 19
"""Offsets in `/proc/PID/stat` behind the name in brackets (proc_pid_stat(5): fields 3, 4 and 22)."""


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process as the kernel shows it.

    Attributes:
        pid: Process id.
        parent: Process id of the parent.
        began: Start time, in clock ticks since boot.
    """

    pid: int
    parent: int
    began: int

    @property
    def age_s(self) -> float:
        """Seconds since the start of the process."""
        since_boot_s = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        return max(0.0, since_boot_s - self.began / os.sysconf("SC_CLK_TCK"))


@dataclass(frozen=True, slots=True)
class SupervisedProcess:
    """One process under the supervisor, as the file describes it.

    Attributes:
        pid: Process id of the newest start; None while the process could not be started.
        log: Path of the log.
        deaths: Number of ends that `up` did not ask for.
    """

    pid: int | None
    log: str
    deaths: int


@dataclass(frozen=True, slots=True)
class RunningUp:
    """A running `up`.

    Attributes:
        up: The process of `up` itself.
        ready: True from the first moment at which everything was ready.
        processes: Supervised processes by name, in the order of their start.
    """

    up: ProcessInfo
    ready: bool
    processes: Mapping[str, SupervisedProcess]

    def process_of(self, name: str) -> ProcessInfo | None:
        """Returns the running process of a name; None if none runs under this id as a child of `up`."""
        pid = self.processes[name].pid
        found = None if pid is None else process_info(pid)
        # A foreign parent: the id was reused after the supervised process ended.
        return found if found is not None and found.parent == self.up.pid else None


class ProcessFile:
    """Writes the file of a running `up`; safe to use by any thread."""

    def __init__(self, folder: Path) -> None:
        """Replaces the file of a killed `up` by one that names no process yet."""
        self._path = folder / FILE
        self._ready = False
        self._processes: Callable[[], Mapping[str, SupervisedProcess]] = dict
        self._lock = threading.Lock()
        self.write()

    def use_source(self, processes: Callable[[], Mapping[str, SupervisedProcess]]) -> None:
        """Takes the processes from this function from now on, and writes the file."""
        self._processes = processes
        self.write()

    def mark_ready(self) -> None:
        """Records that everything is ready for the first time, and writes the file."""
        self._ready = True
        self.write()

    def write(self) -> None:
        """Rewrites the file from the present processes; called by the main thread and by the supervisor's watchers."""
        own = process_info(os.getpid())
        assert own is not None
        with self._lock:
            processes = {name: asdict(one) for name, one in self._processes().items()}
            replace_json(self._path, {"pid": own.pid, "began": own.began, "ready": self._ready, "processes": processes})

    def withdraw(self) -> None:
        """Removes the file once no process runs any more."""
        self._path.unlink(missing_ok=True)


def process_info(pid: int) -> ProcessInfo | None:
    """Returns the process with this id; None if no process has the id, or if the process is a zombie."""
    try:
        # The name of a program stands in brackets and may itself hold spaces and brackets, so the line is split behind
        # the last ")".
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # A zombie (Z) or dead (X) process has ended: its parent has not yet read its exit status, and no signal reaches it.
    return None if fields[_STATE] in {"Z", "X"} else ProcessInfo(pid, int(fields[_PARENT]), int(fields[_BEGAN]))


def find_up(folder: Path) -> RunningUp | None:
    """Returns the `up` that runs on a state folder; None if none runs.

    Raises:
        CommandError: the file cannot be read, or has the format of a different release (UNUSABLE).
    """
    path = folder / FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        processes = {name: SupervisedProcess(**one) for name, one in content["processes"].items()}
        own = process_info(content["pid"])
        began, ready = content["began"], content["ready"]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"{path}: {error.strerror}; `up` was started by somebody else") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CommandError(Exit.UNUSABLE, f"{path}: not what `lifecycle up` of this release writes") from None
    # The file of a killed `up`: its process id is free, or was given to a younger process.
    if own is None or own.began != began:
        return None
    return RunningUp(own, ready, processes)


def orphans(folder: Path) -> list[int]:
    """Returns the ids of processes that a killed `up` left running.

    The kernel has already sent each of these processes its death signal, so the caller needs only to wait.
    """
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        pids = [one["pid"] for one in content["processes"].values() if one["pid"] is not None]
        newest = content["began"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    alive = [found for found in map(process_info, pids) if found is not None]
    # An id that is older than its `up` was never one of its processes.
    return [one.pid for one in alive if one.began >= newest]
