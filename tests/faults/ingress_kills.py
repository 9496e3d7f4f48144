"""Kills the ingress again and again under load, half of the time while Kafka is away, and looks for every 200 in Kafka.

Run the long form with `python -m tests.faults.ingress_kills --cycles 200 --seed 1`; a seed names the schedule exactly,
what the senders are at when a kill comes depends on the machine. The folder of the spools outlives every process, and
one broker lives, stops and dies through all cycles.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from schemas.topics import DEAD_LETTERS, RECEIVED
from services.engines.kafka import KafkaBroker
from services.engines.ports import free_ports
from tests.faults.chaos import own_broker
from tests.faults.genesys_sender import GenesysSender
from tests.faults.ingress_checker import KillVerdict, judge
from tests.faults.ingress_world import DEPTH
from tests.support.eventually import eventually
from tests.support.ingress_process import Ingress, ingress, make_topics, unborn
from tests.support.stop_process import stop

_SENDERS = 24
_PAUSE_S = 0.04
_LOAD_S = (0.2, 2.0)
_UNBORN_S = (0.2, 1.2)
"""Before, in and shortly behind the opening of the spools that are there."""
_AWAY_S = (0.3, 3.0)
"""Beyond 1.2 s deliveries are spooled."""
_HEALED_S = 180.0


class Away(StrEnum):
    """The broker's part in a cycle."""

    NO = "no"
    STOPPED = "stopped"
    """SIGSTOP, later SIGCONT: connections stay open and nobody answers."""
    KILLED = "killed"
    """SIGKILL, later a start on the same folder."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """One life of the ingress, as it is planned.

    Attributes:
        unborn_s: So long after its start one is killed before it, whether it answers or not; 0 where none is.
        load_s: From its first answer to its end.
        away: What the broker does.
        away_from_s: When, after the ingress' first answer.
        away_s: For how long, whatever becomes of the ingress meanwhile; a start comes on top.
    """

    unborn_s: float
    load_s: float
    away: Away = Away.NO
    away_from_s: float = 0.0
    away_s: float = 0.0

    def __str__(self) -> str:
        unborn = f"({self.unborn_s:.1f}) " if self.unborn_s else ""
        away = "" if self.away is Away.NO else f" {self.away} {self.away_from_s:.1f}+{self.away_s:.1f}"
        return f"{unborn}{self.load_s:.1f}{away}"


def schedule(cycles: int, draw: random.Random) -> list[Cycle]:
    """Half of the cycles with the broker away, of these three in four stopped: a start costs seconds.

    A quarter of all begin with a process that is killed before it answers.
    """
    planned = []
    for number in range(cycles):
        load_s = draw.uniform(*_LOAD_S)
        away = Away.NO if number % 2 == 0 else draw.choices((Away.STOPPED, Away.KILLED), (3, 1))[0]
        unborn_s = draw.uniform(*_UNBORN_S) if draw.random() < 0.25 else 0.0
        planned.append(Cycle(unborn_s, load_s, away, draw.uniform(0, load_s), draw.uniform(*_AWAY_S)))
    draw.shuffle(planned)
    return planned


@dataclass
class FlappingBroker:
    """Goes away and comes back beside the cycles; one absence after the other."""

    kafka: KafkaBroker
    counted: Counter[Away] = field(default_factory=Counter)
    _last: threading.Thread | None = None

    def begin(self, cycle: Cycle) -> None:
        """Let it happen while the cycles go on, behind what is still under way."""
        self.counted[cycle.away] += 1
        if cycle.away is not Away.NO:
            self._last = threading.Thread(target=self._absent, args=[cycle, self._last], name="broker")
            self._last.start()

    def join(self) -> None:
        """Until it is back for good."""
        if self._last is not None:
            self._last.join()

    def _absent(self, cycle: Cycle, before: threading.Thread | None) -> None:
        time.sleep(cycle.away_from_s)
        if before is not None:
            before.join()
        assert self.kafka.pid is not None
        if cycle.away is Away.KILLED:
            self.kafka.kill()
            time.sleep(cycle.away_s)
            self.kafka.start()
            return
        stop(self.kafka.pid)
        time.sleep(cycle.away_s)
        os.kill(self.kafka.pid, signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class KillRun:
    """Events of a run.

    Attributes:
        cycles: How many lives the ingress had and lost.
        away: How often the broker was what.
        found: Spools that a start found, and the records in them.
        verdict: Of the checker.
        faults: What else was not as it should be.
        took_s: All of it.
        healed_s: Of these, the last start until the last spool was empty.
    """

    cycles: int
    away: Counter[Away]
    found: tuple[int, int]
    verdict: KillVerdict
    faults: list[str]
    took_s: float
    healed_s: float

    @property
    def deviations(self) -> list[str]:
        return [*self.verdict.deviations, *self.faults]

    def __str__(self) -> str:
        verdict, (spools, records) = self.verdict, self.found
        away = ", ".join(f"{count} {name}" for name, count in sorted(self.away.items()) if name is not Away.NO)
        return (
            f"{self.cycles} cycles (broker {away}), {verdict.answers[200]} answered 200, {verdict.written} in Kafka, "
            f"{verdict.buried} dead letters, {len(verdict.lost)} lost\n"
            f"{verdict}\n"
            f"{spools} spools found at starts, with {records} records; "
            f"{self.took_s:.0f} s, healed in {self.healed_s:.1f} s"
        )


@contextlib.contextmanager
def sending(port: int, draw: random.Random) -> Iterator[list[GenesysSender]]:
    """Senders under way; at the end each finishes what it is at."""
    senders = [GenesysSender(port, random.Random(draw.getrandbits(64)), _PAUSE_S) for _ in range(_SENDERS)]
    threads = [threading.Thread(target=sender.run, name="sender") for sender in senders]
    for thread in threads:
        thread.start()
    try:
        yield senders
    finally:
        for sender in senders:
            sender.over.set()
        for thread in threads:
            thread.join()


def play(kafka: KafkaBroker, folder: Path, planned: Sequence[Cycle], seed: int) -> KillRun:
    """All cycles, the healing and the judgement.

    Args:
        kafka: Runs; runs again afterwards.
        folder: For keyring and spools.
        planned: What happens in which order.
        seed: Of what the senders send; names the topics too.
    """
    draw, prefix = random.Random(seed), f"kills-{seed}-"
    make_topics(kafka.bootstrap, prefix)
    broker, (port,), spools = FlappingBroker(kafka), free_ports(1), folder / "spools"
    start = partial(ingress, kafka.bootstrap, prefix, folder, SPOOL_DIR=str(spools), PORT=str(port))
    lives: list[Ingress] = []
    began_s = time.monotonic()
    with contextlib.ExitStack() as to_end:
        to_end.callback(broker.join)
        with sending(port, draw) as senders:
            for cycle in planned:
                if cycle.unborn_s:
                    with unborn(*start.args, **start.keywords) as running:
                        lives.append(running)
                        time.sleep(cycle.unborn_s)
                with start() as running:
                    lives.append(running)
                    assert running.process.poll() is None, running.lines
                    broker.begin(cycle)
                    time.sleep(cycle.load_s)
                    running.process.kill()
            broker.join()
            running = to_end.enter_context(start())
            lives.append(running)
            healing_s = time.monotonic()
        faults = _ended(running, spools)
        healed_s = time.monotonic() - healing_s
        attempts = [attempt for sender in senders for attempt in sender.attempts]
        verdict = judge(attempts, running.records(RECEIVED), running.records(DEAD_LETTERS))
    faults += [text for life in lives for text in _complaints(life)]
    found = [one["records"] for life in lives for one in life.logged("spool found")]
    took_s = time.monotonic() - began_s
    return KillRun(len(planned), broker.counted, (len(found), sum(found)), verdict, faults, took_s, healed_s)


def _ended(running: Ingress, spools: Path) -> list[str]:
    """Let everything drain and the last process end; what is left that should not be."""
    try:
        eventually(lambda: running.metric(DEPTH) == 0, _HEALED_S)
    except AssertionError:
        return [f"after {_HEALED_S:.0f} s {running.metric(DEPTH):.0f} records are still spooled"]
    running.process.terminate()
    status = running.process.wait(30)
    left = sorted(str(path.relative_to(spools)) for path in spools.iterdir() if path.name != ".lock")
    return [*([f"it ended with {status}"] if status else []), *(f"left: {path}" for path in left)]


def _complaints(life: Ingress) -> list[str]:
    """Log lines that no process should write."""
    texts = [line.strip() for line in life.lines if not line.startswith("{")]
    for event in ("broken", "task ended", "spool left", "spool refused", "spool aside", "spool closed"):
        texts += [str(line) for line in life.logged(event)]
    return [*texts, *(str(line) for line in life.logged("spool found") if line["damaged"])]


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    planned = schedule(asked.cycles, random.Random(asked.seed))
    print(f"seed {asked.seed}; (a start killed after) seconds of load, when and how long the broker is away:")
    print("; ".join(map(str, planned)), flush=True)
    folder = Path(tempfile.mkdtemp(prefix=f"lifecycle-ingress-kills-{asked.seed}-"))
    with own_broker(folder / "engines") as kafka:
        run = play(kafka, folder, planned, asked.seed)
    print(run)
    for text in run.deviations:
        print(f"DEVIATION: {text}")
    if run.deviations:
        print(f"state is kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
