"""`python -m tests.bench.tracing`: what traces cost the ingress, in CPU time of a delivery.

Rule: processes with and without traces take turns of some thousand deliveries, in an order that chance decides anew in
each round: whatever else the machine does meets all of them. The time is that of the processor (user and system, all
threads of the process, also between two turns), not that of the clock. The producer acknowledges at once, so that
Kafka's share does not dilute the figure.
"""

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Final

from services.adapters.process.clock import now_us
from tests.bench.deliveries import SECRET, prepare

_CONNECTIONS: Final = 64
_TURN: Final = 6_400
_ROUNDS: Final = 40
OFF: Final = "off"


async def _work(sampled: str) -> None:
    """Take a turn for every line of standard input; print the microseconds of CPU per delivery."""
    from uvicorn.server import ServerState

    from services.ingress.http.connection import Connection
    from services.ingress.main import tune_garbage_collector
    from tests.support.ingress_site import Site, Wire

    class Deaf(Wire):
        answers = 0

        def write(self, data: object) -> None:  # noqa: ARG002 - the transport's signature
            self.answers += 1

    if sampled == OFF:
        site = Site(SECRET.encode(), now_us)
    else:
        from services.adapters.process import tracing

        site = Site(SECRET.encode(), now_us, roots=tracing.roots(float(sampled), tracing.SpanKind.SERVER))
    connections = [(Connection(site.application, server_state=ServerState()), Deaf()) for _ in range(_CONNECTIONS)]
    for connection, wire in connections:
        connection.connection_made(wire)
    tune_garbage_collector()  # as a service does: else the collector walks through the exporter's modules
    before_s = time.process_time()
    for _ in sys.stdin:
        between_s = time.process_time() - before_s  # what the exporter did meanwhile
        stated = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()).encode()
        requests = [
            b"POST /v1/genesys/lifecycle HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            b"X-Genesys-Signature: %s\r\nX-Genesys-Event-Timestamp: %s\r\nContent-Length: %d\r\n\r\n%s"
            % (signature.encode(), stated, len(body), body)
            for signature, body in prepare(_TURN, now_us())
        ]
        began_s = time.process_time()
        for first in range(0, _TURN, _CONNECTIONS):
            due = [wire.answers + 1 for _, wire in connections]
            for (connection, _), request in zip(connections, requests[first : first + _CONNECTIONS], strict=True):
                connection.data_received(request)
            while any(wire.answers < answers for (_, wire), answers in zip(connections, due, strict=True)):
                await asyncio.sleep(0)
        before_s = time.process_time()
        print((before_s - began_s + between_s) / _TURN * 1e6, flush=True)


def _worker(sampled: str) -> None:
    """One process of the ingress."""
    if sampled == OFF:
        context: object = nullcontext()
    else:
        from services.adapters.process import tracing
        from services.adapters.process.environment import read
        from services.adapters.process.settings import IngressSettings

        context = tracing.exporting("ingress", read(os.environ, IngressSettings))
    with context:  # type: ignore[attr-defined]
        asyncio.run(_work(sampled))


def main() -> int:
    """Measure, and print the ratios."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--work", help="internal: a process that is measured")
    asked.add_argument("--before", type=Path, help="a checkout without traces, to compare with")
    asked.add_argument("--packages", type=Path, help="where the compiled packages are; absent: the sources")
    asked.add_argument("--rounds", type=int, default=_ROUNDS)
    given = asked.parse_args()
    if given.work:
        _worker(given.work)
        return 0
    from tests.support.otlp_receiver import otlp_receiver

    with ExitStack() as running:
        receiver = running.enter_context(otlp_receiver())
        environ = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        subjects = {"off": (OFF, Path.cwd()), "at 1 %": ("0.01", Path.cwd()), "at 100 %": ("1", Path.cwd())}
        if given.before is not None:
            # Nothing but the two: the fewer take turns, the closer together are those that are compared.
            subjects = {"off": subjects["off"]}
            subjects["before"] = (OFF, given.before)
        script = [sys.executable, __file__, "--work"]
        workers = {
            name: running.enter_context(
                subprocess.Popen(
                    [*script, sampled],
                    cwd=folder,
                    env=environ
                    | {"PYTHONSAFEPATH": "1", "PYTHONPATH": ":".join(map(str, filter(None, (given.packages, folder))))},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for name, (sampled, folder) in subjects.items()
        }
        figures: dict[str, list[float]] = {name: [] for name in workers}
        for number in range(given.rounds + 1):
            for name in random.sample(sorted(workers), len(workers)):
                worker = workers[name]
                assert worker.stdin is not None
                assert worker.stdout is not None
                worker.stdin.write("go\n")
                worker.stdin.flush()
                took_us = float(worker.stdout.readline())
                if number:  # the first turn warms up
                    figures[name].append(took_us)
        for worker in workers.values():
            assert worker.stdin is not None
            worker.stdin.close()
        base = "before" if given.before is not None else "off"
        for name, found in figures.items():
            ratios = [one / other for one, other in zip(found, figures[base], strict=True)]
            low, _, high = statistics.quantiles(ratios, n=4)
            whole, least = sum(found) / sum(figures[base]), min(found) / min(figures[base])
            print(
                f"{name:9} {statistics.fmean(found):6.1f} us a delivery; beside `{base}` {whole:.3f} "
                f"(least beside least {least:.3f}, half of the rounds {low:.3f} to {high:.3f})"
            )
        print(f"{given.rounds} rounds of {_TURN} deliveries; {len(receiver.spans())} spans received")
    return 0


if __name__ == "__main__":
    sys.exit(main())
