"""Faults of workers and brokers in an order that a seed decides; each fault hits a real process.

Rule: whatever ends a worker, the supervisor in here starts it again at once, sometimes on an empty disk.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from services.engines import child_process
from services.engines.kafka import KafkaBroker
from tests.faults.subject import AppUnderTest

EMPTY_DISK = 0.35
_POLL_S = 0.1


class Fault(StrEnum):
    """One step of a schedule."""

    KILL = "kill"
    """SIGKILL to a worker."""
    BOTH = "both"
    """SIGKILL to all at once."""
    TERM = "term"
    """SIGTERM: it stops by itself."""
    PAUSE = "pause"
    """SIGSTOP to a worker for longer than its session, then SIGCONT: it wakes up without its partitions."""
    BROKER_PAUSE = "broker-pause"
    """SIGSTOP to a broker, then SIGCONT."""
    BROKER_KILL = "broker-kill"
    """SIGKILL to a broker, then a restart."""
    LOST_COMMIT = "lost-commit"
    """A broker stands still, workers are killed while they wait for it, the broker goes on."""


@dataclass(slots=True)
class Nemesis:
    """The workers under its hands, and what became of them.

    Attributes:
        exits: Exit statuses that nobody asked for.
        diary: Every step and every death, in order.
    """

    subject: AppUnderTest
    brokers: Sequence[KafkaBroker]
    folder: Path
    environ: Mapping[str, str]
    draw: random.Random
    session_s: float
    workers: int = 2
    exits: Counter[int] = field(default_factory=Counter)
    diary: list[str] = field(default_factory=list)
    _workers: dict[str, child_process.Child] = field(default_factory=dict)
    _disks: Counter[str] = field(default_factory=Counter)

    def begin(self) -> None:
        """Start the workers."""
        for name in self.names:
            self._start(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the workers."""
        return tuple(str(number + 1) for number in range(self.workers))

    def strike(self, fault: Fault) -> None:
        """One step of the schedule."""
        self.supervise()
        name = self.draw.choice(self.names)
        self.diary.append(f"{fault}:{name}")
        _STRIKES[fault](self, name)

    def rest(self, seconds: float) -> None:
        """Only supervise for a while."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.supervise()
            time.sleep(_POLL_S)

    def supervise(self) -> None:
        """Start what has ended."""
        for name, worker in list(self._workers.items()):
            status = worker.poll()
            if status is not None:
                self._noted(name, status)
                self._start(name)

    def end(self) -> list[int]:
        """Ask every worker to stop; their exit statuses."""
        return [worker.stop(20) for worker in self._workers.values()]

    def kill_all(self) -> None:
        """Leave nobody behind, whatever happened."""
        for worker in self._workers.values():
            worker.kill()

    def last_words(self) -> list[str]:
        """The last lines of those that ended themselves."""
        found = []
        for log in sorted(self.folder.glob("worker-*.log")):
            lines = log.read_text(errors="replace").splitlines()
            found += [f"{log.stem}: {line}" for line in lines if '"exit_status"' in line]
        return found

    def _start(self, name: str) -> None:
        if self.draw.random() < EMPTY_DISK:
            self._disks[name] += 1
        disk = self.folder / f"disk-{name}-{self._disks[name]}"
        log = self.folder / f"worker-{name}.log"
        command = self.subject.worker(disk)
        self._workers[name] = child_process.start(command.argv, env={**self.environ, **command.environ}, log_path=log)

    def _killed(self, name: str) -> None:
        """End a worker; one that had ended itself just before is counted with those that did."""
        status = self._workers[name].kill()
        if status != -signal.SIGKILL:
            self._noted(name, status)

    def _noted(self, name: str, status: int) -> None:
        self.exits[status] += 1
        self.diary.append(f"ended:{name}:{status}")

    def _signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self._workers[name].pid, number)

    def _kill(self, name: str) -> None:
        self._killed(name)
        time.sleep(self.draw.random())
        self._start(name)

    def _both(self, _: str) -> None:
        for name in self.names:
            self._killed(name)
        for name in self.names:
            self._start(name)

    def _term(self, name: str) -> None:
        status = self._workers[name].stop(20)
        if status not in {0, -signal.SIGTERM}:  # it could not listen yet
            self._noted(name, status)
        self._start(name)

    def _pause(self, name: str) -> None:
        self._signal(name, signal.SIGSTOP)
        time.sleep(self.session_s * 1.75)
        self._signal(name, signal.SIGCONT)

    def _broker_pause(self, _: str) -> None:
        self._stand_still(self.draw.uniform(0.5, 1.25) * self.session_s, ())

    def _broker_kill(self, _: str) -> None:
        broker = self.draw.choice(self.brokers)
        broker.kill()
        if len(self.brokers) > 1:  # the others go on without it
            self.rest(self.draw.uniform(1.0, 6.0))
        broker.start()

    def _lost_commit(self, _: str) -> None:
        lost = self.draw.sample(self.names, self.draw.randrange(1, len(self.names) + 1))
        self._stand_still(self.draw.uniform(1.2, 2.5), lost)

    def _stand_still(self, seconds: float, lost: Sequence[str]) -> None:
        """A broker does, and workers are lost while they wait for it."""
        broker = self.draw.choice(self.brokers)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        time.sleep(seconds)
        for name in lost:
            self._killed(name)
        os.kill(broker.pid, signal.SIGCONT)
        for name in lost:
            self._start(name)


_STRIKES: dict[Fault, Callable[[Nemesis, str], None]] = {
    Fault.KILL: Nemesis._kill,
    Fault.BOTH: Nemesis._both,
    Fault.TERM: Nemesis._term,
    Fault.PAUSE: Nemesis._pause,
    Fault.BROKER_PAUSE: Nemesis._broker_pause,
    Fault.BROKER_KILL: Nemesis._broker_kill,
    Fault.LOST_COMMIT: Nemesis._lost_commit,
}
