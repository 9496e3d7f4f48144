"""The file in which `lifecycle up` lists its processes, for the commands that watch, restart and stop them.

Rule: a process id is believed only together with the instant at which its process began: ids are used again.
"""

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
"""In the state folder from the first process on, until `up` ends; a killed `up` leaves it."""

_STATE, _PARENT, _BEGAN = 0, 1, 19
"""Fields of `/proc/PID/stat` behind the name in brackets (proc_pid_stat(5): 3, 4 and 22)."""


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process as the kernel shows it.

    Attributes:
        pid: Its id.
        parent: Its parent's.
        began: When it began, in clock ticks since boot.
    """

    pid: int
    parent: int
    began: int

    @property
    def age_s(self) -> float:
        """How long it has run."""
        since_boot_s = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        return max(0.0, since_boot_s - self.began / os.sysconf("SC_CLK_TCK"))


@dataclass(frozen=True, slots=True)
class Supervised:
    """One process under the supervisor.

    Attributes:
        pid: Of its newest start; None while it could not be started.
        log: Where it writes.
        deaths: How often it ended without being asked by `up`.
    """

    pid: int | None
    log: str
    deaths: int


@dataclass(frozen=True, slots=True)
class RunningUp:
    """A running `up`.

    Attributes:
        up: Its own process.
        ready: Everything was ready once.
        processes: By name, in order of their start.
    """

    up: ProcessInfo
    ready: bool
    processes: Mapping[str, Supervised]

    def seen(self, name: str) -> ProcessInfo | None:
        """Returns the process of a name, or None where it does not run."""
        pid = self.processes[name].pid
        found = None if pid is None else look(pid)
        return found if found is not None and found.parent == self.up.pid else None


class ProcessFile:
    """Writes the file of a running `up`."""

    def __init__(self, folder: Path) -> None:
        """Replace what a killed `up` left."""
        self._path = folder / FILE
        self._ready = False
        self._processes: Callable[[], Mapping[str, Supervised]] = dict
        self._lock = threading.Lock()
        self.write()

    def follow(self, processes: Callable[[], Mapping[str, Supervised]]) -> None:
        """Tell of these from now on."""
        self._processes = processes
        self.write()

    def ready(self) -> None:
        """Everything is ready for the first time."""
        self._ready = True
        self.write()

    def write(self) -> None:
        """Write the file anew; called by any thread."""
        own = look(os.getpid())
        assert own is not None
        with self._lock:
            processes = {name: asdict(one) for name, one in self._processes().items()}
            replace_json(self._path, {"pid": own.pid, "began": own.began, "ready": self._ready, "processes": processes})

    def withdraw(self) -> None:
        """Remove the file: nothing runs any more."""
        self._path.unlink(missing_ok=True)


def look(pid: int) -> ProcessInfo | None:
    """Returns the process with this id; None where none runs, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[_STATE] in {"Z", "X"} else ProcessInfo(pid, int(fields[_PARENT]), int(fields[_BEGAN]))


def find(folder: Path) -> RunningUp | None:
    """Returns the `up` that runs on a state folder; None where none does.

    Raises:
        Failure: what it wrote cannot be read.
    """
    path = folder / FILE
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        processes = {name: Supervised(**one) for name, one in told["processes"].items()}
        own = look(told["pid"])
        began, ready = told["began"], told["ready"]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"{path}: {error.strerror}; `up` was started by somebody else") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CommandError(Exit.UNUSABLE, f"{path}: not what `lifecycle up` of this release writes") from None
    if own is None or own.began != began:
        return None
    return RunningUp(own, ready, processes)


def left(folder: Path) -> list[int]:
    """Returns the ids of a killed `up` that still run; the kernel has asked these processes to end."""
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        pids = [one["pid"] for one in told["processes"].values() if one["pid"] is not None]
        newest = told["began"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    seen = [found for found in map(look, pids) if found is not None]
    # An id that is older than its `up` was never one of its processes.
    return [one.pid for one in seen if one.began >= newest]
