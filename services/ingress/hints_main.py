"""Process of the reader of hints: settings → queue, producer, reader; runs until SIGTERM.

Rule: the process starts whenever its configuration is usable, also while Kafka or Amazon is away, and goes on by
itself. `/readyz` and the log name the fault. An unusable configuration is refused with all of its faults at once.
"""

import asyncio
import signal
from typing import Final

from schemas.rights import Service
from schemas.topics import RECEIVED, named
from services.adapters.kafka.producer import Producer
from services.adapters.kafka.rights import RightsWatch
from services.adapters.process import clock, health, logs
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import HintsSettings, required
from services.adapters.sqs import Queue
from services.core.delivery.hint_rule import hint_binding
from services.ingress.hints_queue import POLLS_AT_ONCE, HintReader
from services.ingress.kafka_watch import KafkaWatch

_LINGER_MS: Final = 5
_MESSAGE_TIMEOUT_MS: Final = 30_000
_CLOSE_S: Final = 2.0


def main(settings: HintsSettings) -> int:
    """Runs the reader of hints until SIGTERM or SIGINT.

    Returns:
        Exit status: 0 after a signal; 1 when the producer failed for good, since only a new process can write again.

    Raises:
        Unusable: names every fault of the configuration.
    """
    log = logs.configure("hints", settings.log_level)
    faults = []
    try:
        _ = settings.kafka
    except Unusable as fault:
        faults.append(str(fault))
    try:
        queue = open_queue(settings)
    except Unusable as fault:
        faults.append(str(fault))
    if faults:
        raise Unusable("\n".join(faults))
    return asyncio.run(_serve(settings, queue, log))


def open_queue(settings: HintsSettings) -> Queue:
    """Returns the queue that the settings name.

    Raises:
        Unusable: no queue is named, or the queue cannot be opened.
    """
    url = required(settings, "hints_sqs_queue_url")
    return Queue(url, settings.hints_sqs_region, polls_at_once=POLLS_AT_ONCE)


async def _serve(settings: HintsSettings, queue: Queue, log: logs.Logger) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    received = named(RECEIVED, settings.topic_prefix)
    watch, rights = KafkaWatch(settings, log, (RECEIVED,)), RightsWatch(settings, Service.HINTS, log)
    producer = Producer(settings.kafka, linger_ms=_LINGER_MS, timeout_ms=_MESSAGE_TIMEOUT_MS)

    def unwritable() -> str:
        return rights.fault or watch.topic_fault(received) or watch.fault

    def checks() -> dict[str, str]:
        return {"kafka": rights.fault or watch.fault, "queue": reader.fault}

    binding = hint_binding(settings.hints_sqs_orgs, settings.hints_sqs_accounts)
    reader = HintReader(queue, producer, binding, log, received=received, unwritable=unwritable, now_us=clock.now_us)
    stopping = asyncio.create_task(stop.wait(), name="stop")
    tasks = {
        asyncio.create_task(watch.run(), name="kafka-check"),
        asyncio.create_task(rights.run(producer), name="rights"),
        asyncio.create_task(reader.run(), name="reader"),
    }
    try:
        async with health.serve("hints", checks, host=settings.host, port=settings.metrics_port) as port:
            log.info("started", port=port, queue=settings.hints_sqs_queue_url)
            await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Read before the cancel: the watch of the rights ends by itself when the producer has failed for good.
        ended = [task for task in tasks if task.done()]
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.wait(tasks)
        unreported = await producer.close(_CLOSE_S)
    for task in ended:
        task.result()  # raises the fault that ended the task
    log.info("stopped", unreported=unreported)
    return 1 if ended else 0
