"""The same counting work on durable tables and on Faust as it comes: `python -m tests.bench.table_work ARGUMENTS`.

ARGUMENTS is a JSON object (`Work`). Says on standard output when its tables are whole, and what so many events cost.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import faust
from faust.types import EventT, StreamT

from schemas.codec import Message
from services.adapters.kafka.producer import Producer
from services.adapters.tables.app import Config, DurableApp, create_app
from services.adapters.tables.table import DurableTable
from tests.bench import machine
from tests.faults.table_worker import Row

TABLE: Final = "seen"
KEPT: Final = 8
"""Entries in a row's journal, so that a row costs the same however many keys there are."""

_LINGER_MS: Final = 5
_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Work:
    """Work of a table worker.

    Attributes:
        kind: `durable` or `plain`.
        brokers: `host:port`.
        app_id: Of the group; the changelog is `{app_id}-seen-changelog`.
        source: Topic of the events.
        sink: Topic of what is said.
        partitions: Of each.
        folder: Of the local copies.
        events: How many to process; 0 only recovers.
        core: The worker's.
    """

    kind: str
    brokers: str
    app_id: str
    source: str
    sink: str
    partitions: int
    folder: str
    events: int
    core: int


class _Clock:
    """Counts events, and what they cost."""

    def __init__(self, events: int, settle: Callable[[], Awaitable[Any]]) -> None:
        self._left = self._events = events
        self._settle = settle
        self._began = (0.0, 0.0)
        self.done = asyncio.Event()
        self.cost: dict[str, float] = {}

    async def one(self) -> None:
        if self._left == self._events:
            self._began = time.perf_counter(), time.process_time()
        self._left -= 1
        if self._left == 0:
            await self._settle()
            seconds, cpu_s = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
            self.cost = {"seconds": seconds, "cpu_us": cpu_s / self._events * 1e6}
            self.done.set()


def _counted(row: Row, event: EventT[bytes], table: str) -> bytes | None:
    message = event.message
    assert message.key is not None
    assert message.value is not None
    sequence = row.receive(message.value, message.offset)
    if sequence is None:
        return None
    if len(row.journal) > KEPT:
        del row.journal[next(iter(row.journal))]
    return b"|".join((table.encode(), message.value, message.key, str(sequence).encode()))


def _durable(work: Work) -> tuple[DurableApp, _Clock]:
    producer = Producer({"bootstrap.servers": work.brokers, "log_level": 0}, linger_ms=_LINGER_MS, timeout_ms=60_000)
    config = Config(work.app_id, work.brokers, work.partitions, Path(work.folder), 0.7, 10.0)
    app = create_app(config, producer)
    table: DurableTable = app.durable_table(TABLE)
    clock = _Clock(work.events, producer.flush)

    async def read(stream: StreamT[bytes]) -> None:
        async for event in stream.events():
            if await app.begin(event):
                with app.guard_decision(event):
                    message = event.message
                    assert message.key is not None
                    row = Row(table.row(message.partition, message.key))
                    said = _counted(row, event, TABLE)
                    if said is not None:
                        table.put(message.partition, message.key, row.pack())
                        app.emit(work.sink, Message(message.key, said))
                app.finish(event)
                await clock.one()

    app.bind_agents({work.source: read})
    return app, clock


def _plain(work: Work) -> tuple[faust.App, _Clock]:
    app = faust.App(
        work.app_id,
        broker=f"kafka://{work.brokers}",
        store="rocksdb://",
        datadir=work.folder,
        autodiscover=False,
        web_enabled=False,
        topic_partitions=work.partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        worker_redirect_stdouts=False,
    )
    raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    table: Any = app.Table(TABLE, key_type=bytes, value_type=bytes, partitions=work.partitions)
    sink = app.topic(work.sink, **raw)

    async def settle() -> None:
        await app.producer.flush()

    clock = _Clock(work.events, settle)

    async def read(stream: StreamT[bytes]) -> None:
        async for event in stream.events():
            message = event.message
            row = Row(table.get(message.key))
            said = _counted(row, event, TABLE)
            if said is not None:
                table[message.key] = row.pack()
                await sink.send(key=message.key, value=said)
            await clock.one()

    app.agent(app.topic(work.source, **raw), name="reads")(read)
    return app, clock


async def main(work: Work) -> None:
    """Recover, work, say what it took, and leave the group when asked to."""
    began_s, stop = time.perf_counter(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app, clock = _durable(work) if work.kind == "durable" else _plain(work)
    starting = asyncio.create_task(app.start())
    recovery: Any = app.tables.recovery  # type: ignore[attr-defined]  # of the table manager
    while not recovery.completed.is_set():
        await asyncio.sleep(_LOOK_S)
    ready_s = time.perf_counter() - began_s
    print(json.dumps({"ready_s": ready_s, "rss_bytes": machine.rss_bytes(os.getpid())}), flush=True)
    if work.events:
        await clock.done.wait()
        print(json.dumps({**clock.cost, "rss_bytes": machine.rss_bytes(os.getpid())}), flush=True)
    await stop.wait()
    await app.stop()
    await starting


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    asked = Work(**json.loads(sys.argv[1]))
    machine.pin(os.getpid(), asked.core)  # before there are threads
    asyncio.run(main(asked))
