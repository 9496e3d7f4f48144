"""Feeds a subject while everything around it is killed and paused, and counts what was lost, doubled or miscounted.

Long form: `python -m tests.faults.chaos --seed 61 --n 20000`. A seed fixes the schedule, not the interleaving of the
processes: a run that fails is repeated with the same seed several times.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services import engines
from services.adapters.tables.exits import WorkerExit
from services.cli.exits import Exit as CliExit
from services.engines import Engine
from services.engines.kafka import BrokerPorts, KafkaBroker
from services.engines.ports import HOST, free_ports
from tests.faults.counted import Counted
from tests.faults.lifecycles import Lifecycles
from tests.faults.nemesis import Fault, Nemesis
from tests.faults.subject import AppUnderTest, ChaosVerdict

EXPECTED_EXITS = frozenset(
    {
        *(WorkerExit.UNDELIVERED, WorkerExit.FOREIGN_WRITER, WorkerExit.COORDINATOR, WorkerExit.STALL),
        *(WorkerExit.METADATA, WorkerExit.CRASHED, WorkerExit.STUCK),
        CliExit.UNREACHABLE,  # at the very start
    }
)
"""With which a worker may end itself under these faults; the others name a bug or a loss: a fence that had to do
something means that another cure did not."""


_STOPPED = frozenset({0, -signal.SIGTERM, WorkerExit.STUCK})
"""Asked to stop: by itself, before it could listen, or by its own hand when it could not in time: a call to a
coordinator that is just being found again may take Faust longer than a stop may. Nothing is lost by it."""


@dataclass(frozen=True, slots=True)
class Form:
    """Duration and intensity of a run.

    Attributes:
        deliveries: Without the duplicates.
        rate: Deliveries a second.
        steps: Faults.
        broker_kills: How many of them kill the broker.
        rest_s: Least and most between two.
        session_s: Of the workers; a pause is longer than that.
        drain_s: How long everything may take to be read afterwards.
        workers: How many at once.
    """

    deliveries: int
    rate: float
    steps: int
    broker_kills: int
    rest_s: tuple[float, float]
    session_s: float = 4.0
    drain_s: float = 180.0
    workers: int = 2


SHORT = Form(deliveries=3_000, rate=300, steps=4, broker_kills=1, rest_s=(0.5, 1.0), session_s=2.5)


@dataclass(frozen=True, slots=True)
class ChaosRun:
    """Events of a run."""

    seed: int
    verdict: ChaosVerdict
    odd_exits: tuple[int, ...]
    stops: tuple[int, ...]
    story: str

    @property
    def clean(self) -> bool:
        """Nothing lost, and nobody ended for a reason that these faults do not explain."""
        return self.verdict.clean and not self.odd_exits and not set(self.stops) - _STOPPED

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.verdict}\n    {self.story}"


def schedule(form: Form, draw: random.Random) -> list[Fault]:
    """Broker kills at drawn places among other faults, each kind once before any comes again."""
    others = [fault for fault in Fault if fault is not Fault.BROKER_KILL]
    faults: list[Fault] = []
    wanted = form.steps - form.broker_kills
    while len(faults) < wanted:
        faults += draw.sample(others, len(others))
    faults = faults[:wanted]
    for _ in range(form.broker_kills):
        faults.insert(draw.randrange(len(faults) + 1), Fault.BROKER_KILL)
    return faults


@contextmanager
def own_broker(folder: Path) -> Iterator[KafkaBroker]:
    """A broker of this test's own, to be killed."""
    ignored = {"KAFKA_BOOTSTRAP_SERVERS", "LIFECYCLE_ENGINES"}
    environ = {name: value for name, value in os.environ.items() if name not in ignored}
    with engines.running(folder, environ, wanted=(Engine.KAFKA,)) as running:
        assert running.kafka is not None
        yield running.kafka


@contextmanager
def own_cluster(folder: Path, size: int) -> Iterator[list[KafkaBroker]]:
    """Brokers of this test's own; of several each holds every record."""
    if size == 1:
        with own_broker(folder) as alone:
            yield [alone]
        return
    with own_broker(folder / "pattern") as pattern:  # it knows Java and the jars
        ports = free_ports(2 * size)
        voters = ",".join(f"{node}@{HOST}:{ports[size + node - 1]}" for node in range(1, size + 1))
        shared = {"controller.quorum.voters": voters, "offsets.topic.replication.factor": str(size)}
        members = [
            KafkaBroker(
                *(folder / str(node), pattern.java, pattern.jars, os.environ),
                BrokerPorts(clients=ports[node - 1], quorum=ports[size + node - 1]),
                {"node.id": str(node), **shared},
                cluster_id="bGlmZWN5Y2xlLWNsdXN0ZQ",
            )
            for node in range(1, size + 1)
        ]
    try:
        with ThreadPoolExecutor(size) as pool:
            list(pool.map(KafkaBroker.start, members))
        yield members
    finally:
        for member in members:
            member.kill()


def unleash(subject: AppUnderTest, brokers: Sequence[KafkaBroker], folder: Path, seed: int, form: Form) -> ChaosRun:
    """One seed, from empty topics to the verdict."""
    draw = random.Random(seed)
    faults = schedule(form, draw)
    subject.prepare()
    nemesis = Nemesis(subject, brokers, folder, dict(os.environ), draw, form.session_s, form.workers)
    try:
        took = _play(subject, nemesis, faults, form, random.Random(seed + 1))
        stops = tuple(nemesis.end())
    finally:
        nemesis.kill_all()
    odd = tuple(status for status in nemesis.exits if status not in EXPECTED_EXITS)
    story = "\n    ".join((" ".join(nemesis.diary), f"{took}, stopped with {stops}", *nemesis.last_words()))
    return ChaosRun(seed, subject.judge(), odd, stops, story)


def _play(subject: AppUnderTest, nemesis: Nemesis, faults: Sequence[Fault], form: Form, feed: random.Random) -> str:
    """Feed and strike, then let everything be read; how long it took."""
    started = time.monotonic()
    nemesis.begin()
    arguments = (form.deliveries, form.rate, feed)
    with ThreadPoolExecutor(1, "feeds") as pool:
        return _strike(subject, nemesis, faults, form, pool.submit(subject.feed, *arguments), started)


def _strike(
    subject: AppUnderTest,
    nemesis: Nemesis,
    faults: Sequence[Fault],
    form: Form,
    feeding: "Future[None]",
    started: float,
) -> str:
    # A worker that is killed before it began has nothing to lose.
    while not subject.begun() and time.monotonic() - started < form.drain_s:
        nemesis.rest(0.5)
    for fault in faults:
        nemesis.strike(fault)
        nemesis.rest(nemesis.draw.uniform(*form.rest_s))
    while not feeding.done():
        nemesis.rest(0.5)
    feeding.result()
    fed = time.monotonic()
    while not subject.drained() and time.monotonic() - fed < form.drain_s:
        nemesis.rest(0.5)
    drained = time.monotonic()
    assert subject.drained(), "not everything was committed in time"
    return f"drained in {drained - fed:.0f} s, {drained - started:.0f} s in all"


def main(arguments: Sequence[str]) -> int:
    """Run seeds one after the other; 1 when one is not clean."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, nargs="+", required=True)
    parser.add_argument("--n", type=int, default=20_000, help="deliveries of each seed, without duplicates")
    parser.add_argument("--steps", type=int, default=8, help="faults of each seed")
    parser.add_argument("--broker-kills", type=int, default=3, help="of these")
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--brokers", type=int, default=1, help="each holds every record (the ledger's topics alone)")
    parser.add_argument("--standbys", type=int, default=0, help="of each partition's copy (the ledger alone)")
    parser.add_argument("--subject", choices=("counted", "ledger"), default="counted")
    given = parser.parse_args(arguments)
    form = Form(given.n, given.rate, given.steps, given.broker_kills, (1.0, 6.0), drain_s=300.0, workers=given.workers)
    clean = True
    for seed in given.seed:
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
        with own_cluster(folder / "broker", given.brokers) as brokers:
            prefix, bootstrap = f"c{seed}-", ",".join(broker.bootstrap for broker in brokers)
            subject: AppUnderTest = Counted(bootstrap, prefix, form.session_s)
            if given.subject == "ledger":
                subject = Lifecycles(bootstrap, prefix, form.session_s, folder, given.brokers, given.standbys)
            run = unleash(subject, brokers, folder, seed, form)
        print(run, folder, sep="\n    ", flush=True)
        clean = clean and run.clean
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
