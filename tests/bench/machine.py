"""The machine under a benchmark: which core does what, who used how much CPU, and what this machine is.

Rule: server and sender never share a core, and every thread of a server is on the server's. CPU is read from /proc, of
whole process trees; what neither we nor the kernel's own threads used is strangers', and it is told, not hidden.
"""

import os
import platform
import resource
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.support.eventually import eventually

_PROC: Final = Path("/proc")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_KERNEL: Final = "kthreadd"
"""The parent of all kernel threads: writing back a broker's log and ending a burst of packets is our doing."""

_IDLE_CORES: Final = 0.1
"""A server that uses less has done with what it was sent."""

_LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores of server and sender."""

    server: int
    sender: int

    @property
    def shared(self) -> bool:
        """True if there is only one core, so that the measured server and the sender share it."""
        return self.server == self.sender


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat, as far as we need it; see proc_pid_stat(5).

    Attributes:
        name: Of the program.
        parent: Its process id.
        own_ticks: What it used itself.
        ended_ticks: What its children used that it has waited for.
    """

    name: str
    parent: int
    own_ticks: int
    ended_ticks: int


@dataclass(frozen=True, slots=True)
class CpuReading:
    """CPU used until a moment, in seconds.

    Attributes:
        at_s: The moment, monotonic.
        busy_s: Everybody on all cores, stolen time included: a hypervisor's other guests are strangers too.
        ours_s: This process, all it started, and the kernel's threads.
        trees_s: Per process that was asked for, with all it started.
    """

    at_s: float
    busy_s: float
    ours_s: float
    trees_s: Mapping[int, float]


def choose_cores(allowed: Iterable[int]) -> Cores:
    """The first is the server's, the second everybody else's."""
    first, *rest = sorted(allowed)
    return Cores(first, rest[0] if rest else first)


def pin(pid: int, core: int) -> None:
    """Put every thread of a process on one core; threads that it starts later inherit it."""

    def moved() -> bool:
        tasks = [int(task.name) for task in (_PROC / str(pid) / "task").iterdir()]
        for task in tasks:
            with suppress(ProcessLookupError):  # it ended meanwhile
                if os.sched_getaffinity(task) != {core}:
                    os.sched_setaffinity(task, {core})
        return set(tasks) == {int(task.name) for task in (_PROC / str(pid) / "task").iterdir()}

    eventually(moved)


def strays(pid: int, core: int) -> list[int]:
    """The threads of a process tree that may run elsewhere."""
    found = []
    for one in tree(pid, processes()):
        for task in (_PROC / str(one) / "task").iterdir():
            with suppress(ProcessLookupError):
                if os.sched_getaffinity(int(task.name)) != {core}:
                    found.append(int(task.name))
    return found


def parse_stat(text: str) -> Process:
    """Read one /proc/PID/stat; the name is in brackets and may hold anything."""
    start, _, end = text.rpartition(")")
    fields = end.split()
    return Process(
        start.partition("(")[2], int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    )


def processes() -> dict[int, Process]:
    """Every process there is."""
    found = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                found[int(folder.name)] = parse_stat((folder / "stat").read_text())
    return found


def tree(root: int, among: Mapping[int, Process]) -> set[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for pid, process in among.items():
        children.setdefault(process.parent, []).append(pid)
    found, waiting = set(), [root] if root in among else []
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, [])
    return found


def read(*roots: int) -> CpuReading:
    """Look once.

    Args:
        roots: Process ids whose trees are of interest.
    """
    among = processes()
    kernel = next((pid for pid, process in among.items() if process.name == _KERNEL and process.parent == 0), 0)
    ours = tree(os.getpid(), among) | tree(kernel, among)
    # user, nice, system, -, -, irq, softirq, steal; the rest is counted in the first two; see proc_stat(5).
    ticks = [int(field) for field in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    return CpuReading(
        at_s=time.monotonic(),
        busy_s=(sum(ticks) - ticks[3] - ticks[4]) / _TICKS_PER_S,
        ours_s=_used_s(ours, among),
        trees_s={root: _used_s(tree(root, among), among) for root in roots},
    )


def strangers_cores(before: CpuReading, after: CpuReading) -> float:
    """Cores that others used between two readings; the counters' grain can make it a little less than nothing."""
    others_s = (after.busy_s - before.busy_s) - (after.ours_s - before.ours_s)
    return max(0.0, others_s / (after.at_s - before.at_s))


def rss_bytes(root: int) -> int:
    """Resident memory of a process tree; pages that two share count twice."""
    pages = 0
    for pid in tree(root, processes()):
        with suppress(FileNotFoundError, ProcessLookupError):
            pages += int((_PROC / str(pid) / "statm").read_text().split()[1])
    return pages * resource.getpagesize()


def settle(*roots: int) -> None:
    """Wait until these process trees have done with what they were sent."""

    def idle() -> bool:
        before = read(*roots)
        time.sleep(_LOOK_S)
        after = read(*roots)
        return all(after.trees_s[root] - before.trees_s[root] <= _IDLE_CORES * _LOOK_S for root in roots)

    eventually(idle)


def raise_file_limit(wanted: int) -> int:
    """Let this process, and whatever it starts, open that many files.

    Returns:
        How many it may: without privilege no more than the hard limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    for limits in ((wanted, max(wanted, hard)), (min(wanted, hard), hard)):
        with suppress(ValueError, PermissionError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            return limits[0]
    return soft


def described() -> str:
    """One line: what the figures were taken on."""
    lines = (_PROC / "cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    packages = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "uvloop", "starlette", "confluent-kafka"))
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}, {packages}"


def _used_s(pids: Iterable[int], among: Mapping[int, Process]) -> float:
    return sum(among[pid].own_ticks + among[pid].ended_ticks for pid in pids) / _TICKS_PER_S
