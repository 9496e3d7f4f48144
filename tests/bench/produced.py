"""Kafka alone: the instants of a case, and a bare producer: `python -m tests.bench.produced PLAN BOOTSTRAP CORE`.

What waiting for Kafka costs on these two cores, which a ratio with a server that writes nothing cannot say.
"""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import confluent_kafka

from schemas.topics import PARTITIONER, RECEIVED, named
from services.adapters.process.clock import now_us
from tests.bench import deliveries, machine
from tests.bench.contenders import BenchBroker
from tests.bench.figures import UNANSWERED, Name, Storm
from tests.bench.openloop import Answers, Plan
from tests.bench.storms import StormCase, summed

_ACKED: Final = "acked"
_PATIENCE_S: Final = 10.0
_BESIDES_S: Final = 60.0


def alone(case: StormCase, kafka: BenchBroker, prefix: str, core: int, folder: Path, number: int) -> Storm:
    """Produce a case.

    Args:
        case: Its instants.
        kafka: To whom.
        prefix: Of topics that exist.
        core: Of the servers; the producer takes their place.
        folder: For the files it needs.
        number: Of the round; also the seed.
    """
    due_s = case.due_s(number)
    file, told = folder / "produced.tsv", folder / "produced.json"
    deliveries.write(file, len(due_s), now_us())
    plan = Plan(0, named(RECEIVED, prefix), str(file), 1, due_s, _PATIENCE_S)  # its path is the topic
    told.write_text(json.dumps(asdict(plan)))
    machine.settle(kafka.pid)
    before = machine.read()
    argv = (sys.executable, "-m", "tests.bench.produced", str(told), kafka.bootstrap, str(core))
    ran = subprocess.run(
        argv, check=True, stdout=subprocess.PIPE, text=True, timeout=due_s[-1] + _PATIENCE_S + _BESIDES_S
    )
    answers = Answers(**json.loads(ran.stdout))
    return summed(number, Name.KAFKA, case.name, plan, answers, machine.strangers_cores(before, machine.read()))


def main() -> int:
    """Produce; says on standard output what became of it."""
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    machine.pin(os.getpid(), int(sys.argv[3]))
    lines = [line.partition(b"\t")[2] for line in Path(plan.deliveries).read_bytes().splitlines()]
    count = len(plan.due_s)
    waited_us, said, late_us, left = [0] * count, [1] * count, [0] * count, [count]
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": sys.argv[2], "acks": "all", "enable.idempotence": True, "linger.ms": 0,
         "partitioner": PARTITIONER},
    )  # fmt: skip
    producer.list_topics(plan.path, timeout=_PATIENCE_S)
    stop = threading.Event()
    poller = threading.Thread(target=_poll, args=(producer, stop), daemon=True)
    poller.start()
    _warm(producer, plan, lines)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()

    def reported(number: int, error: Any, _: Any) -> None:
        waited_us[number] = round((time.perf_counter() - began_s - plan.due_s[number]) * 1e6)
        said[number] = 1 if error else 0
        left[0] -= 1

    for number, (due_s, line) in enumerate(zip(plan.due_s, lines, strict=True)):
        ahead_s = began_s + due_s - time.perf_counter()
        if ahead_s > 0:
            time.sleep(ahead_s)
        late_us[number] = round((time.perf_counter() - began_s - due_s) * 1e6)
        producer.produce(plan.path, line, b"%d" % number, on_delivery=partial(reported, number))
    end_s = time.perf_counter() + plan.patience_s
    while left[0] and time.perf_counter() < end_s:
        time.sleep(0.001)
    lasted_s = time.perf_counter() - began_s
    stop.set()
    poller.join()
    found = Answers(waited_us, said, [_ACKED, UNANSWERED], late_us, time.process_time() - began_cpu_s, lasted_s)
    print(json.dumps(asdict(found)))
    return 0


def _warm(producer: confluent_kafka.Producer, plan: Plan, lines: list[bytes]) -> None:
    """The first records find out leaders and a producer id."""
    for line in lines[:100]:
        producer.produce(plan.path, line, line[:40])
    producer.flush(plan.patience_s)


def _poll(producer: confluent_kafka.Producer, stop: threading.Event) -> None:
    while not stop.is_set():
        producer.poll(0.1)


if __name__ == "__main__":
    sys.exit(main())
