"""A broker that stands still for seconds under load: when are senders answered, and is what was promised there after?

Rule: it is stopped with SIGSTOP, so that connections stay open and nothing is refused: the worst way to be away. Every
delivery that was answered 200, before, meanwhile or after, must be in `lifecycle.received` once the broker goes on.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Final

from schemas.topics import RECEIVED, named
from services.adapters.process.clock import now_us
from tests.bench import contenders, deliveries, machine, schedule, sending
from tests.bench.contenders import PATH, BenchBroker, Contender
from tests.bench.figures import Name, Stop, Storm
from tests.bench.latency_gates import STOPPED_CASE
from tests.bench.machine import Cores
from tests.bench.openloop import Answers, Plan
from tests.bench.storms import summed
from tests.support.eventually import eventually
from tests.support.ingress_process import Reader
from tests.support.stop_process import stop

_RATE_PER_S: Final = 500.0
_CONNECTIONS: Final = 2_000
"""More than wait at once: 500 a second for 2.7 s."""

_BEFORE_S: Final = 1.5
_STOPPED_S: Final = 4.0
_AFTER_S: Final = 2.5
_PATIENCE_S: Final = 10.0
_THERE_S: Final = 60.0
"""How long a spool may take to be drained before what is in it counts as lost."""


def run(name: Name, kafka: BenchBroker, cores: Cores, folder: Path, **settings: str) -> Stop:
    """Stop the broker once under an ingress of its own.

    Args:
        name: Of this ingress in the report.
        kafka: Is running again afterwards.
        cores: Who runs where.
        folder: For whatever is written; one for each run.
        settings: What else the environment of the ingress says.
    """
    folder.mkdir()
    prefix = f"{folder.name}."
    start = contenders.acked(folder, kafka, prefix, **settings)
    with contenders.up({name: start}, cores, folder) as servers:
        server = servers[name]
        plan = _plan(server, folder)
        before = machine.read()
        with sending.sending(plan, folder) as sender:
            time.sleep(_BEFORE_S)
            try:
                stop(kafka.pid)
                time.sleep(_STOPPED_S)
            finally:
                os.kill(kafka.pid, signal.SIGCONT)
            going_s = time.monotonic()
            answers = sender.answers()
        after = machine.read()
        promised = _promised(plan, answers)
        lost = _missing(kafka, named(RECEIVED, prefix), promised)
        return Stop(
            summed(1, server.name, STOPPED_CASE, plan, answers, machine.strangers_cores(before, after)),
            len(promised),
            len(lost),
            time.monotonic() - going_s,
        )


def beside(server: Contender, folder: Path) -> Storm:
    """The same deliveries for a server that needs no broker."""
    plan = _plan(server, folder)
    before = machine.read()
    answers = sending.send(plan, folder)
    return summed(1, server.name, STOPPED_CASE, plan, answers, machine.strangers_cores(before, machine.read()))


def _plan(server: Contender, folder: Path) -> Plan:
    due_s = schedule.poisson(_RATE_PER_S, _BEFORE_S + _STOPPED_S + _AFTER_S, seed=1)
    file = folder / "stopped.tsv"
    deliveries.write(file, len(due_s), now_us())
    return Plan(server.port, PATH, str(file), _CONNECTIONS, due_s, _PATIENCE_S)


def _promised(plan: Plan, answers: Answers) -> set[str]:
    """The integrations whose delivery was answered 200."""
    with Path(plan.deliveries).open("rb") as file:
        return {
            json.loads(line.partition(b"\t")[2])["integrationId"]
            for line, said in zip(file, answers.said, strict=True)
            if answers.words[said].startswith("200")
        }


def _missing(kafka: BenchBroker, topic: str, promised: set[str]) -> set[str]:
    """Which of them are not in the topic, also after a while."""
    reader = Reader(kafka.bootstrap, topic)
    missing = set(promised)

    def all_there() -> bool:
        for message in reader.read():
            missing.discard(json.loads(message.value() or b"{}").get("integrationId"))
        return not missing

    try:
        eventually(all_there, _THERE_S)
    except AssertionError:
        return missing
    finally:
        reader.close()
    return missing
