"""Detects a worker that stands still, and ends the process.

Problem: Faust never asks aiokafka for its errors (`check_errors`), so a worker with a dead group coordinator hangs in
silence. A partition may also lose its place in aiokafka's fetcher and stand still with work waiting.

Approach: three loops. `watch` checks the coordinator, and the progress of partitions and of a recovery. `watch_ends`
counts marks of transactions at the end of a partition as read. `watch_changelogs` looks for foreign writers of quiet
changelogs.

Rule: only time during which this process ran counts as standstill. After a pause of the process (a stopped virtual
machine, an overloaded host) every deadline starts anew.
"""

import time
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError

from services.adapters.process.clock import now_us
from services.adapters.tables.denial import refusal
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.protocol import TableApp

if TYPE_CHECKING:
    from services.adapters.tables.consumer import DurableConsumer

LOOK_S = 1.0
"""Seconds between two checks."""
PAUSED_S = 3.0
"""A check that comes later than this means that the process was stopped, or the machine overloaded."""

MARKS_S = 1.0
"""Seconds without progress before the log is asked if only marks of transactions are left."""

STALL_S = 60.0
"""Seconds without progress before a partition counts as stalled. A restart of a broker took up to 12 s, so a smaller
value would end healthy workers."""

RECOVERY_STALL_S = 120.0
"""Seconds without progress before a recovery counts as stalled. A rebalance waits for the slowest member (30 s, twice
if the members are asked again); only then do rows arrive."""


async def watch(consumer: "DurableConsumer") -> None:
    """Checks the worker once a second until the consumer stops."""
    recovery = _RecoveryProgress(time.monotonic())
    last = time.monotonic()
    while not consumer.should_stop:
        await consumer.sleep(LOOK_S)
        now = time.monotonic()
        paused, last = now - last > PAUSED_S, now
        client = consumer._thread._consumer
        if client is None or client._closed or consumer.should_stop:
            continue
        _check_coordinator(consumer, client)
        app = consumer.app
        consumer.note_idle(now_us())
        if paused:
            recovery.restart(now)
        if app.rebalancing or app.in_recovery or paused:
            # No event moves a partition during a rebalance or a recovery, so the time does not count against the
            # partitions.
            consumer.moved_at = dict.fromkeys(consumer.moved_at, now)
            recovery.check(app, now)
        else:
            recovery.restart(now)
            await _check_partitions(consumer, now)


async def watch_ends(consumer: "DurableConsumer") -> None:
    """Counts the end of a partition as reached if only marks of transactions stand before the end.

    A mark is not a record, so no agent finishes a mark. Without this loop the partition would show a lag for ever, and
    its last offset would stay uncommitted.
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
            is_still = now - consumer.moved_at.get(tp, now) > MARKS_S and consumer.has_read_to(tp, end)
            if is_still and end > expected and asked.get(tp) != (expected, end):
                asked[tp] = (expected, end)  # one question per position: a slow agent looks the same from here
                await consumer.skip_marks_at_end(tp, end)


async def watch_changelogs(consumer: "DurableConsumer") -> None:
    """Looks for foreign writers of the changelogs, every `foreign_look_s` seconds."""
    app = consumer.app
    while not consumer.should_stop:
        await consumer.sleep(app.foreign_look_s)
        if app.rebalancing or app.in_recovery:
            continue
        for table in app.durable_tables:
            try:
                await table.look_for_foreign_writers()
            except (KafkaError, TimeoutError):
                continue  # no answer is no evidence of a foreign writer; the next check asks again


def _check_coordinator(consumer: "DurableConsumer", client: Any) -> None:
    coordinator = client._coordinator
    # Private attributes of aiokafka; tests/contract/test_faust_internals.py looks for both.
    task = getattr(coordinator, "_coordination_task", None)
    if task is not None and task.done():
        consumer.app.end(WorkerExit.COORDINATOR, "the group coordination task has ended")
    if (error := getattr(coordinator, "_pending_exception", None)) is not None:
        if sentence := refusal(error):
            consumer.app.end(WorkerExit.DENIED, sentence)
        consumer.app.end(WorkerExit.COORDINATOR, f"the group coordinator reports {type(error).__name__}")


async def _check_partitions(consumer: "DurableConsumer", now: float) -> None:
    for tp, expected in list(consumer.expected.items()):
        end = consumer.end(tp)
        still_s = now - consumer.moved_at.get(tp, now)
        if end <= expected or still_s <= STALL_S:
            continue
        if not await consumer.skip_marks_at_end(tp, end):
            position = f"at offset {expected} of {end} for {STALL_S:.0f} s"
            consumer.app.end(WorkerExit.STALL, f"{tp.topic}[{tp.partition}]: stands still {position}")
        # Only marks, or the records behind an open transaction, are left; a restart of the worker would not help.
        consumer.moved_at[tp] = now


class _RecoveryProgress:
    """Measures how long a rebalance or a recovery has made no progress."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._seen: tuple[object, ...] = ()

    def restart(self, now: float) -> None:
        """Starts the measurement anew."""
        self._since = now

    def check(self, app: TableApp, now: float) -> None:
        """Ends the process after `RECOVERY_STALL_S` without progress.

        Progress is a new generation of the group, a changelog record read, a record sent, or a row read by the
        takeover.
        """
        read = dict(app.tables.recovery.active_offsets)
        seen = (app.consumer_generation_id, read, app.log_of_writes.sent, app.looked_at)
        if seen != self._seen:
            self._seen, self._since = seen, now
        if now - self._since > RECOVERY_STALL_S:
            app.end(WorkerExit.STALL, f"the recovery of the tables has stood still for {RECOVERY_STALL_S:.0f} s")
