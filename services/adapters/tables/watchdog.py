"""Notices what stands still, and ends the process.

Faust never asks aiokafka for its errors (`check_errors`), so a dead group coordinator hangs in silence; a partition
can lose its place in the fetcher and stand still with work waiting. Rule: a worker that was itself paused gives every
partition a fresh start before it judges.
"""

import time
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError

from services.adapters.process.clock import now_us
from services.adapters.tables.denial import refusal
from services.adapters.tables.exits import WorkerExit

if TYPE_CHECKING:
    from services.adapters.tables.consumer import DurableConsumer

LOOK_S = 1.0
PAUSED_S = 3.0
"""A look that comes this late means that the process was stopped, or the machine overloaded."""

MARKS_S = 1.0
"""How long a partition stands before the log is asked whether only marks are left of it."""

STALL_S = 60.0
"""Longer than a restart of a broker (12 s were seen); below that a healthy worker would be ended."""

RECOVERY_STALL_S = 120.0
"""A rebalance waits for the slowest member (30 s, twice where it is asked again); then rows must arrive."""


async def watch(consumer: "DurableConsumer") -> None:
    """Look once a second until the consumer stops."""
    recovery = _Recovery(time.monotonic())
    last = time.monotonic()
    while not consumer.should_stop:
        await consumer.sleep(LOOK_S)
        now = time.monotonic()
        paused, last = now - last > PAUSED_S, now
        client = consumer._thread._consumer
        if client is None or client._closed or consumer.should_stop:
            continue
        _coordinator(consumer, client)
        app = consumer.app
        consumer.note_idle(now_us())
        if paused:
            recovery.restart(now)
        if app.rebalancing or app.in_recovery or paused:
            consumer.moved_at = dict.fromkeys(consumer.moved_at, now)
            recovery.judge(app, now)
        else:
            recovery.restart(now)
            await _partitions(consumer, now)


async def watch_ends(consumer: "DurableConsumer") -> None:
    """Count the end of a partition as reached where nothing but marks of transactions stands before it.

    A mark is no record, so no agent finishes it: the partition would pass for behind, and its offset for uncommitted.
    """
    app = consumer.app
    asked: dict[Any, tuple[int, int]] = {}
    while not consumer.should_stop:
        await consumer.sleep(LOOK_S)
        if app.rebalancing or app.in_recovery:
            continue
        now = time.monotonic()
        for tp, expected in list(consumer.expected.items()):
            end = consumer.end(tp)
            stands = now - consumer.moved_at.get(tp, now) > MARKS_S and consumer.has_read_to(tp, end)
            if stands and end > expected and asked.get(tp) != (expected, end):
                asked[tp] = (expected, end)  # once: an agent that takes its time stands so too
                await consumer.pass_over_end(tp, end)


async def watch_changelogs(consumer: "DurableConsumer") -> None:
    """Look from time to time whether somebody else has written the changelogs of our tables."""
    app = consumer.app
    while not consumer.should_stop:
        await consumer.sleep(app.foreign_look_s)
        if app.rebalancing or app.in_recovery:
            continue
        for table in app.tables.values():
            try:
                await table.look_for_foreign_writers()
            except (KafkaError, TimeoutError):
                continue  # no answer is no evidence; the next look asks again


def _coordinator(consumer: "DurableConsumer", client: Any) -> None:
    coordinator = client._coordinator
    task = getattr(coordinator, "_coordination_task", None)
    if task is not None and task.done():
        consumer.app.end(WorkerExit.COORDINATOR, "the group coordination task has ended")
    if (error := getattr(coordinator, "_pending_exception", None)) is not None:
        if denied := refusal(error):
            consumer.app.end(WorkerExit.DENIED, denied)
        consumer.app.end(WorkerExit.COORDINATOR, f"the group coordinator reports {type(error).__name__}")


async def _partitions(consumer: "DurableConsumer", now: float) -> None:
    for tp, expected in list(consumer.expected.items()):
        end = consumer.end(tp)
        still_s = now - consumer.moved_at.get(tp, now)
        if end <= expected or still_s <= STALL_S:
            continue
        if not await consumer.pass_over_end(tp, end):
            still = f"at offset {expected} of {end} for {STALL_S:.0f} s"
            consumer.app.end(WorkerExit.STALL, f"{tp.topic}[{tp.partition}]: stands still {still}")
        consumer.moved_at[tp] = now  # an open transaction holds the rest back: to begin anew would not help


class _Recovery:
    """How long a rebalance or a recovery has made no progress."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._seen: Any = None

    def restart(self, now: float) -> None:
        self._since = now

    def judge(self, app: Any, now: float) -> None:
        read = dict(app.tables.recovery.active_offsets)
        seen = (app.consumer_generation_id, read, app.log_of_writes.sent, app.looked_at)
        if seen != self._seen:
            self._seen, self._since = seen, now
        if now - self._since > RECOVERY_STALL_S:
            app.end(WorkerExit.STALL, f"the recovery of the tables has stood still for {RECOVERY_STALL_S:.0f} s")
