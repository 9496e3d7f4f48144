"""Faults seen in Faust and aiokafka, done to a worker on purpose: each cure must notice its own.

Only internals of the two libraries are touched, and what an application may hang in (`on_takeover`).
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from services.adapters.tables import watchdog
from services.adapters.tables.app import DurableApp
from services.adapters.tables.exits import WorkerExit

Sabotage = Callable[[DurableApp, str], None]


def hole(app: DurableApp, topic: str) -> None:
    """A record that was read vanishes between fetcher and agent, once."""
    del app
    lost: list[Any] = []

    def drop(found: dict[TP, list[Any]]) -> None:
        for tp, read in found.items():
            if tp.topic == topic and len(read) > 2 and not lost:
                lost.append(read.pop(1))

    _change_what_is_read(drop)


def silence(app: DurableApp, topic: str) -> None:
    """A partition drops out of the fetcher: nothing of it comes any more, and nobody says so."""
    del app
    watchdog.STALL_S = 3.0

    def drop(found: dict[TP, list[Any]]) -> None:
        found.pop(TP(topic, 0), None)

    _change_what_is_read(drop)


def unseen(app: DurableApp, topic: str) -> None:
    """Likewise, before its first fetch: nothing is known of its end."""
    silence(app, topic)
    consumer: Any = AIOKafkaConsumer
    consumer.highwater = lambda *_: None


def late(app: DurableApp, topic: str) -> None:
    """A takeover ends when the partitions are being shared out anew already."""
    del topic

    async def slow_takeover(_: Any) -> None:
        before = app.rebalancing_count
        app.on_takeover = real
        sys.stderr.write("it takes its time\n")
        sys.stderr.flush()
        while app.rebalancing_count == before:
            await asyncio.sleep(0.05)

    def end_of_rebalance() -> None:
        # Set at each new assignment: an end before it belongs to the takeover that was interrupted.
        if app.tables.recovery._rebalances_seen != app.rebalancing_count:
            app.end(WorkerExit.UNEXPECTED, "it works in the middle of a rebalance")
        real_end()

    real_end, app.on_rebalance_end = app.on_rebalance_end, end_of_rebalance  # type: ignore[method-assign]
    real, app.on_takeover = app.on_takeover, slow_takeover


def dead_coordinator(app: DurableApp, topic: str) -> None:
    """aiokafka's task that keeps the worker in its group ends, as an unexpected exception would end it."""
    del topic

    async def end_it() -> None:
        while not app.tables.actives_ready:
            await asyncio.sleep(0.1)
        thread: Any = app.consumer._thread
        task = thread._consumer._coordinator._coordination_task
        thread.thread_loop.call_soon_threadsafe(task.cancel)

    app._sabotage = asyncio.get_running_loop().create_task(end_it())  # type: ignore[attr-defined]  # kept alive


def no_changelog(app: DurableApp, topic: str) -> None:
    """Events are assigned without the changelog of a table."""
    del topic
    consumer: Any = driver.Consumer
    real = consumer.assignment
    lacks = app.conf.id + "-seen-changelog"

    def assignment(self: Any) -> set[TP]:
        return {tp for tp in real(self) if tp.topic != lacks}

    consumer.assignment = assignment


ALL: Final[dict[str, Sabotage]] = {
    each.__name__: each for each in (hole, silence, unseen, late, dead_coordinator, no_changelog)
}


def _change_what_is_read(change: Callable[[dict[TP, list[Any]]], None]) -> None:
    thread: Any = driver.AIOKafkaConsumerThread
    real = thread._fetch_records

    async def fetch(*args: Any, **kwargs: Any) -> Any:
        found = dict(await real(*args, **kwargs))
        change(found)
        return found

    thread._fetch_records = fetch
