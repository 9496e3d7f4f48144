"""`make bench-latency`: how long a sender waits, at steady rates, in storms, and while the broker stands still.

Rule: requests are sent when they are due and timed from that instant, whatever the server does (`openloop`); a bare
server stands beside each figure, so that what this machine and this sender cost can be told from what we cost.
"""

import argparse
import os
import random
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from services.adapters.process.clock import now_us
from tests.bench import contenders, latency_gates, machine, produced, publish_result, report, schedule, stopped
from tests.bench.contenders import Contender
from tests.bench.figures import Name, Stop, Storm
from tests.bench.latency_gates import STOPPED_CASE
from tests.bench.machine import Cores
from tests.bench.storms import StormCase, brave
from tests.bench.verdict import exit_status

RATES_PER_S: Final = (8, 1_000, 4_000)
STORMS: Final = (500, 5_000, 20_000)

_COMMAND: Final = "bench-latency"
_CONNECTIONS: Final = 256
_STEADY: Final = (Name.ASGI, Name.STARLETTE, Name.ACKED)
_ALL: Final = (*_STEADY, Name.SPOOLED)
_AT_A_RATE: Final = (*_STEADY, Name.KAFKA)
_CEILING: Final = StormCase("ceiling", partial(schedule.at_once, 30_000), _CONNECTIONS, _ALL)
"""As many as possible, as fast as both sides can: what the sender itself costs, and a warm-up for all."""

_FILES_WANTED: Final = 64_000
_OTHER_FILES: Final = 300
"""What a server has open besides connections."""


@dataclass(slots=True)
class Found:
    """Measured results.

    Attributes:
        storms: Each run of each case.
        stops: What stopping the broker cost, by server.
        ceilings: The sender at its limit, a run a server.
        notes: Sentences for the report.
    """

    storms: list[Storm] = field(default_factory=list)
    stops: dict[Name, Stop] = field(default_factory=dict)
    ceilings: list[Storm] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def main() -> int:
    """Run the benchmark; its exit status."""
    asked = _asked()
    began_us = now_us()
    cores = machine.choose_cores(os.sched_getaffinity(0))
    machine.pin(os.getpid(), cores.sender)
    cases = _cases(asked.seconds, machine.raise_file_limit(_FILES_WANTED))
    found = _measure(asked, cores, cases)
    how = (
        f"{asked.rounds} rounds, rates for {asked.seconds:.0f} s each; servers on core {cores.server}, "
        f"sender and Kafka on core {cores.sender}."
    )
    names = [*(case.name for case in cases), STOPPED_CASE]
    figures: dict[str, Any] = {
        "seed": asked.seed,
        "cases": names,
        "lines": latency_gates.lines(found.storms),
        "storms": [asdict(storm) for storm in found.storms],
        "stops": {name: asdict(stop) for name, stop in found.stops.items()},
        "ceilings": [asdict(storm) for storm in found.ceilings],
    }
    tables = "\n\n".join([report.latency(found.storms, names), *found.notes])
    verdicts = latency_gates.judge(found.storms, found.stops, cores_shared=cores.shared)
    publish_result.tell(
        publish_result.Result(_COMMAND, began_us, how, tables, verdicts, figures), asked.docs, asked.json
    )
    return exit_status(verdicts, [])


def _measure(asked: argparse.Namespace, cores: Cores, cases: Sequence[StormCase]) -> Found:
    chance, found = random.Random(asked.seed), Found()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-bench-")))
        publish_result.progress("compiling the ingress, starting Kafka and the servers")
        kafka = stack.enter_context(contenders.broker(folder))
        starts = {
            Name.ASGI: contenders.bare(Name.ASGI),
            Name.STARLETTE: contenders.bare(Name.STARLETTE),
            Name.ACKED: contenders.acked(folder, kafka, "bench."),
            Name.SPOOLED: contenders.acked(folder, kafka, "spooled.", SPOOL_DIR=str(folder / "spool")),
        }
        servers = stack.enter_context(contenders.up(starts, cores, folder))
        for server in servers.values():
            publish_result.progress(f"warming up: {server.name}")
            found.ceilings.append(brave(_CEILING, server, folder, 0))
        for number in range(1, asked.rounds + 1):
            turns = [(case, name) for case in cases for name in case.servers]
            chance.shuffle(turns)
            for case, name in turns:
                publish_result.progress(f"round {number} of {asked.rounds}: {case.name}, {name}")
                if name is Name.KAFKA:
                    found.storms.append(produced.alone(case, kafka, "bench.", cores.server, folder, number))
                else:
                    found.storms.append(brave(case, servers[name], folder, number))
        _stop(found, kafka, cores, folder, servers[Name.STARLETTE])
    found.notes.append(_ceiling_in_words(found.ceilings))
    found.notes += [] if contenders.compiled_environ() else [contenders.UNCOMPILED]
    return found


def _stop(found: Found, kafka: contenders.BenchBroker, cores: Cores, folder: Path, bare: Contender) -> None:
    """Stop the broker under an ingress without and one with a spool."""
    found.storms.append(stopped.beside(bare, folder))
    settings: dict[Name, dict[str, str]] = {Name.ACKED: {}, Name.SPOOLED: {"SPOOL_DIR": str(folder / "spool-stopped")}}
    for number, name in enumerate(settings):
        publish_result.progress(f"{STOPPED_CASE}: {name}")
        stop = stopped.run(name, kafka, cores, folder / f"stopped-{number}", **settings[name])
        found.stops[name] = stop
        found.storms.append(stop.storm)
        found.notes.append(
            f"{STOPPED_CASE.capitalize()}, {name}: {stop.promised:,} answered 200, {stop.lost:,} of them lost; "
            f"the last was in Kafka {stop.there_s:.1f} s after the broker went on."
        )


def _cases(seconds: float, files: int) -> list[StormCase]:
    """All cases; a storm has a connection for each request, as far as files are allowed."""
    rates = [
        StormCase(f"{rate:,}/s", partial(schedule.poisson, rate, seconds), _CONNECTIONS, _AT_A_RATE)
        for rate in RATES_PER_S
    ]
    storms = [
        StormCase(f"{count:,} at once", partial(schedule.at_once, count), min(count, files - _OTHER_FILES), _ALL)
        for count in STORMS
    ]
    return rates + storms


def _ceiling_in_words(ceilings: Sequence[Storm]) -> str:
    fastest = max(ceilings, key=lambda storm: storm.per_s)
    cost_us = fastest.sender_cores / fastest.per_s * 1e6
    return (
        f"The sender itself uses {cost_us:.0f} µs of CPU a request, so that it can send {1e6 / cost_us:,.0f}/s; "
        f"it drove {fastest.server} at {fastest.per_s:,.0f}/s."
    )


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.latency", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="of a steady rate; default 3")
    return publish_result.asked(parser, _COMMAND, rounds=5)


if __name__ == "__main__":
    publish_result.finish(main)
