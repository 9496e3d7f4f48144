"""The durable tables beside Faust as it comes: speed, cost by keys, recovery, memory; for docs/performance.md.

Each event costs a read of its key's row, a write of it and one record said (`tests/bench/table_work.py`). The events
are there before a worker starts; worker on one core, Kafka on the other. A recovery is counted from its start, less
the start of a worker whose topics are empty.
"""

import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from services.adapters.process.clock import now_us
from tests.bench import contenders, machine, publish_result, report
from tests.bench.table_work import KEPT, TABLE, Work
from tests.bench.verdict import GateResult, Standing, exit_status, in_words, noise, quartiles
from tests.faults import records
from tests.faults.table_worker import Row

_COMMAND: Final = "bench-tables"
_PARTITIONS: Final = 4
_FEW: Final = 1_000
_KINDS: Final = ("durable", "plain")
_MIB: Final = 1 << 20
_LEAST_SPEED: Final = 1.5
_MOST_GROWTH: Final = 1.5
_MOST_RECOVERY: Final = 1.2
_MOST_RSS_MIB: Final = 400
_ANSWER_S: Final = 600.0
_STOP_S: Final = 20.0
_COMPACTED: Final = {"cleanup.policy": "compact", "min.compaction.lag.ms": "3600000"}


@dataclass(frozen=True, slots=True)
class WorkRound:
    """One worker's work in one round; what it did not do is 0."""

    round: int
    kind: str
    keys: int
    per_s: float
    cpu_us: float
    rss_bytes: int
    recovery_s: float
    recovered: int
    strangers_cores: float


def main() -> int:
    """Run the benchmark; its exit status."""
    asked = _asked()
    began_us = now_us()
    cores = machine.choose_cores(os.sched_getaffinity(0))
    machine.pin(os.getpid(), cores.sender)
    turns = _measure(asked, cores)
    verdicts = _judge(turns, asked.many, cores_shared=cores.shared)
    where = f"worker on core {cores.server}, Kafka on core {cores.sender}"
    how = f"{asked.rounds} rounds of {asked.events:,} events; {where}."
    result = publish_result.Result(
        _COMMAND, began_us, how, _table(turns), verdicts, {"turns": [asdict(turn) for turn in turns]}, picture=False
    )
    publish_result.tell(result, asked.docs, asked.json)
    return exit_status(verdicts, [])


def _measure(asked: argparse.Namespace, cores: machine.Cores) -> list[WorkRound]:
    chance, turns = random.Random(asked.seed), []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-bench-")))
        publish_result.progress("starting Kafka")
        bootstrap = stack.enter_context(contenders.broker(folder)).bootstrap
        bench = _Bench(bootstrap, folder, cores.server)
        many = bench.work("durable", "many")
        publish_result.progress(f"writing {asked.many:,} rows")
        bench.fill(many, asked.many)
        publish_result.progress(f"recovering {asked.many:,} rows")
        began = machine.read()
        [ready] = bench.run(replace(many, events=0))
        [started] = bench.run(bench.work("durable", "nothing"))
        ready["ready_s"] -= started["ready_s"]
        strangers = machine.strangers_cores(began, machine.read())
        rss_bytes = int(ready["rss_bytes"])
        turns.append(WorkRound(0, "durable", asked.many, 0, 0, rss_bytes, ready["ready_s"], asked.many, strangers))
        for number in range(1, asked.rounds + 1):
            kinds = [*_KINDS, "many"]
            chance.shuffle(kinds)
            for kind in kinds:
                publish_result.progress(f"round {number} of {asked.rounds}: {kind}")
                work = many if kind == "many" else bench.work(kind, f"{kind}{number}")
                keys = asked.many if kind == "many" else _FEW
                bench.preload(work, asked.events, keys, number)
                began = machine.read()
                _, cost = bench.run(replace(work, events=asked.events))
                recovery_s = 0.0
                if kind != "many":
                    [ready] = bench.run(replace(work, events=0, folder=f"{work.folder}-empty"))
                    [started] = bench.run(bench.work(kind, f"{kind}{number}-nothing"))
                    recovery_s = ready["ready_s"] - started["ready_s"]
                strangers = machine.strangers_cores(began, machine.read())
                turns.append(
                    WorkRound(
                        number,
                        work.kind,
                        keys,
                        asked.events / cost["seconds"],
                        cost["cpu_us"],
                        int(cost["rss_bytes"]),
                        recovery_s,
                        asked.events if recovery_s else 0,
                        strangers,
                    )
                )
    return turns


@dataclass(frozen=True, slots=True)
class _Bench:
    bootstrap: str
    folder: Path
    core: int

    def work(self, kind: str, name: str) -> Work:
        """New topics for a worker of this kind."""
        work = Work(
            kind, self.bootstrap, f"{name}-app", f"{name}-events", f"{name}-said", _PARTITIONS,
            str(self.folder / name), 0, self.core,
        )  # fmt: skip
        records.create(self.bootstrap, {work.source: {}, work.sink: {}}, _PARTITIONS)
        records.create(self.bootstrap, {f"{work.app_id}-{TABLE}-changelog": _COMPACTED}, _PARTITIONS)
        return work

    def fill(self, work: Work, keys: int) -> None:
        """A row for every key, in the changelog."""
        row = Row(None)
        for number in range(KEPT):
            row.receive(b"%08d" % number, number - KEPT)
        packed, producer = row.pack(), records.producer(self.bootstrap)
        for number in range(keys):
            self._produce(producer, f"{work.app_id}-{TABLE}-changelog", _key(number), packed)
        assert producer.flush(120) == 0

    def preload(self, work: Work, events: int, keys: int, seed: int) -> None:
        """Events of random keys, each of them new."""
        chance, producer = random.Random(seed), records.producer(self.bootstrap)
        for number in range(events):
            uid = struct.pack(">II", seed, number)
            self._produce(producer, work.source, _key(chance.randrange(keys)), uid)
        assert producer.flush(120) == 0

    def run(self, work: Work) -> list[dict[str, float]]:
        """What a worker says: when its tables are whole, and what its events cost."""
        argv = (sys.executable, "-m", "tests.bench.table_work", json.dumps(asdict(work)))
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as worker:
            try:
                assert worker.stdout is not None
                return [self._line(worker) for _ in range(2 if work.events else 1)]
            finally:
                worker.terminate()  # who is killed keeps its place in the group for a while
                with suppress(subprocess.TimeoutExpired):
                    worker.wait(_STOP_S)
                worker.kill()
                # Whoever did not commit would hand its events to the next turn, which would pass over them.
                assert worker.wait() == 0, f"a worker ended with {worker.returncode}"

    @staticmethod
    def _line(worker: "subprocess.Popen[str]") -> dict[str, float]:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        assert line, f"the worker ended: {worker.wait(_ANSWER_S)}"
        found: dict[str, float] = json.loads(line)
        return found

    @staticmethod
    def _produce(producer: Any, topic: str, key: bytes, value: bytes) -> None:
        while True:
            try:
                producer.produce(topic, key=key, value=value)
                producer.poll(0)
            except BufferError:
                producer.poll(0.1)
            else:
                return


def _key(number: int) -> bytes:
    return b"%08d-1234-5678-9abc-def012345678" % number


def _table(turns: Sequence[WorkRound]) -> str:
    head = ("", "keys", "events/s", "CPU µs", "RSS MiB", "recovery s", "records", "strangers")
    groups: defaultdict[tuple[str, int], list[WorkRound]] = defaultdict(list)
    for turn in turns:
        groups[turn.kind, turn.keys].append(turn)
    names = {"durable": "durable tables", "plain": "Faust as it comes"}
    rows = []
    for (kind, keys), own in sorted(groups.items()):
        worked, recovered = [turn for turn in own if turn.per_s], [turn for turn in own if turn.recovery_s]
        speed = quartiles(turn.per_s for turn in worked)
        rows.append(
            (
                names[kind],
                f"{keys:,}",
                f"{speed.middle:,.0f} [{speed.low:,.0f}-{speed.high:,.0f}]",
                f"{median(turn.cpu_us for turn in worked):.0f}",
                f"{max(turn.rss_bytes for turn in own) / _MIB:.0f}",
                f"{median(turn.recovery_s for turn in recovered):.1f}" if recovered else "-",
                f"{recovered[0].recovered:,}" if recovered else "-",
                f"{median(turn.strangers_cores for turn in own):.2f}",
            )
        )
    return report.table(head, rows)


def _judge(turns: Sequence[WorkRound], many: int, *, cores_shared: bool) -> list[GateResult]:
    by_round: defaultdict[int, dict[tuple[str, int], WorkRound]] = defaultdict(dict)
    for turn in turns:
        by_round[turn.round][turn.kind, turn.keys] = turn
    rounds = [found for number, found in by_round.items() if number]
    few, plain, much = ("durable", _FEW), ("plain", _FEW), ("durable", many)
    strangers = [turn.strangers_cores for turn in turns if turn.round]

    def ratio(gate: str, found: list[float], limit: float, *, is_least: bool) -> GateResult:
        seen = quartiles(found)
        why = noise(seen, len(found), strangers, cores_shared=cores_shared)
        holds = seen.middle >= limit if is_least else seen.middle <= limit
        standing = Standing.NOISY if why else Standing.HOLDS if holds else Standing.FAILS
        return GateResult(gate, in_words(seen), f"{'≥' if is_least else '≤'} {limit:.2f}", standing, why)

    rss_mib = max(turn.rss_bytes for turn in turns if (turn.kind, turn.keys) == much) / _MIB
    return [
        ratio(
            "durable tables ÷ Faust as it comes, events/s",
            [found[few].per_s / found[plain].per_s for found in rounds],
            _LEAST_SPEED,
            is_least=True,
        ),
        ratio(
            f"CPU an event at {many:,} keys ÷ at {_FEW:,}",
            [found[much].cpu_us / found[few].cpu_us for found in rounds],
            _MOST_GROWTH,
            is_least=False,
        ),
        ratio(
            "recovery, durable tables ÷ Faust as it comes",
            [found[few].recovery_s / found[plain].recovery_s for found in rounds],
            _MOST_RECOVERY,
            is_least=False,
        ),
        GateResult(
            f"memory at {many:,} keys",
            f"{rss_mib:.0f} MiB",
            f"≤ {_MOST_RSS_MIB} MiB",
            Standing.HOLDS if rss_mib <= _MOST_RSS_MIB else Standing.FAILS,
        ),
    ]


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tables", description=__doc__)
    parser.add_argument("--events", type=int, default=40_000, help="of each turn; default 40,000")
    parser.add_argument("--many", type=int, default=1_000_000, help="keys of the large table; default 1,000,000")
    return publish_result.asked(parser, _COMMAND, rounds=3)


if __name__ == "__main__":
    publish_result.finish(main)
