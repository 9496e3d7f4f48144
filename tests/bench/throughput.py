"""`make bench`: how much of a bare server's throughput is left when every delivery is proved and acknowledged by Kafka.

Rule: all servers are up together and take turns of one second in an order that chance decides anew in each round, so
that whatever else this machine does meets all of them; a ratio is taken inside a round.
"""

import argparse
import os
import random
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Final

from services.adapters.process.clock import now_us
from tests.bench import contenders, express, load, machine, publish_result, report
from tests.bench.figures import Name, Slice
from tests.bench.verdict import Gate, Weight, exit_status, judge, refusals

_COMMAND: Final = "bench"
CONNECTIONS: Final = (64, 256)

GATES: Final = (
    Gate(Name.ACKED, Name.STARLETTE, 64, 0.60),
    Gate(Name.ACKED, Name.STARLETTE, 256, 0.80),
    Gate(Name.ACKED, Name.ASGI, 64, 0.40),
    Gate(Name.ACKED, Name.ASGI, 256, 0.50),
    Gate(Name.ACKED, Name.GUIDE, 64, 5.0),
    Gate(Name.ACKED, Name.GUIDE, 256, 5.0),
    Gate(Name.ACKED, Name.UNWRITTEN, 64, 0.55, Weight.PRINTED),
    Gate(Name.ACKED, Name.UNWRITTEN, 256, 0.55, Weight.PRINTED),
)

_DELIVERIES_LEAST: Final = 30_000
_DELIVERIES_SPARE: Final = 1.5
"""A slice must not come to the end of its file, also when the machine is faster than at the warm-up."""

_WARM_UP_S: Final = 2.0


def main() -> int:
    """Run the benchmark; its exit status."""
    asked = _asked()
    if fault := load.no_wrk():
        print(fault, file=sys.stderr)
        return 2
    began_us = now_us()
    cores = machine.choose_cores(os.sched_getaffinity(0))
    machine.pin(os.getpid(), cores.sender)
    slices, missing = _measure(asked, cores)
    verdicts = [judge(gate, slices, cores_shared=cores.shared) for gate in GATES]
    faults = refusals(slices)
    how = (
        f"{asked.rounds} rounds of {asked.seconds:.0f}-s slices; servers on core {cores.server}, "
        f"wrk, Kafka and Redis on core {cores.sender}."
    )
    notes = [f"Not run: {Name.GUIDE} ({missing})."] if missing else []
    notes += [] if contenders.compiled_environ() else [contenders.UNCOMPILED]
    notes += [f"NOT 2xx: {fault}." for fault in faults]
    twice = {each.server for each in slices if each.repeated} - {Name.ASGI, Name.STARLETTE}
    notes += [f"{server} was sent some deliveries twice: it is faster than at the warm-up." for server in sorted(twice)]
    tables = [
        f"At {count} connections:\n\n" + report.throughput(slices, count, (Name.ASGI, Name.STARLETTE))
        for count in CONNECTIONS
    ]
    figures = {"seed": asked.seed, "slices": [asdict(each) for each in slices], "notes": notes}
    gates = [asdict(gate) for gate in GATES]
    result = publish_result.Result(
        _COMMAND, began_us, how, "\n\n".join([*tables, *notes]), verdicts, figures | {"gates": gates}
    )
    publish_result.tell(result, asked.docs, asked.json)
    return exit_status(verdicts, faults)


def _measure(asked: argparse.Namespace, cores: machine.Cores) -> tuple[list[Slice], str]:
    """All slices, and why the guide's design was not run."""
    chance, missing = random.Random(asked.seed), ""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-bench-")))
        publish_result.progress("compiling the ingress, starting Kafka and the servers")
        kafka = stack.enter_context(contenders.broker(folder))
        starts = {
            Name.ASGI: contenders.bare(Name.ASGI),
            Name.STARLETTE: contenders.bare(Name.STARLETTE),
            Name.UNWRITTEN: contenders.unwritten(folder),
            Name.ACKED: contenders.acked(folder, kafka, "bench."),
        }
        if contenders.compiled_environ():
            starts[Name.SOURCE] = contenders.source(folder, kafka, "source.")
        try:
            starts[Name.GUIDE] = stack.enter_context(express.design(folder))
        except express.ExpressUnavailable as error:
            missing = str(error)
        servers = list(stack.enter_context(contenders.up(starts, cores, folder)).values())
        publish_result.progress("warming up")
        file = load.fresh(folder / "warm-up.tsv", _DELIVERIES_LEAST)
        warm = [load.press(server, CONNECTIONS[-1], _WARM_UP_S, file, 0) for server in servers]
        count = max(_DELIVERIES_LEAST, int(max(each.per_s for each in warm) * asked.seconds * _DELIVERIES_SPARE))
        slices = []
        for number in range(1, asked.rounds + 1):
            files = {connections: load.fresh(folder / f"{connections}.tsv", count) for connections in CONNECTIONS}
            turns = [(server, connections) for server in servers for connections in CONNECTIONS]
            chance.shuffle(turns)
            for server, connections in turns:
                publish_result.progress(f"round {number} of {asked.rounds}: {server.name}, {connections} connections")
                slices.append(load.press(server, connections, asked.seconds, files[connections], number))
    return slices, missing


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.throughput", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1, help="of a slice, whole; default 1")
    return publish_result.asked(parser, _COMMAND, rounds=10)


if __name__ == "__main__":
    publish_result.finish(main)
