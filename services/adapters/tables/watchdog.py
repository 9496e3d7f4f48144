"""Detects a worker that stands still, and ends the process.

Problem: Faust never asks aiokafka for its errors (`check_errors`), so a worker with a dead group coordinator hangs in
silence. A partition may also drop out of aiokafka's fetcher and stand still with work waiting.

Approach: two loops beside the app, started by `worker.run`. `watch` checks the coordinator, and the progress of
partitions and of a recovery. `watch_changelogs` looks for foreign writers of quiet changelogs.

Rules:
- Only time during which this process ran counts as standstill. After a pause of the process (a stopped virtual machine,
  an overloaded host) every deadline starts anew.
- The watchdog reads the consumer (`ConsumerState`) and changes nothing there. The deadlines are the watchdog's own.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

from aiokafka.errors import KafkaError as ClientError
from faust.types import TP

from services.adapters.kafka.producer import KafkaError
from services.adapters.tables.denial import refusal
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.log_gap import Next
from services.adapters.tables.protocol import TableApp

LOOK_S = 1.0
"""Seconds between two checks."""
PAUSED_S = 3.0
"""A check that comes later than this means that the process was stopped, or the machine overloaded."""

STALL_S = 60.0
"""Seconds without progress before a partition counts as stalled. A restart of a broker took up to 12 s, so a smaller
value would end healthy workers."""

RECOVERY_STALL_S = 120.0
"""Seconds without progress before a recovery counts as stalled. A rebalance waits for the slowest member (30 s, twice
if the members are asked again); only then do rows arrive."""


class ConsumerState(Protocol):
    """The part of `DurableConsumer` that the watchdog reads."""

    @property
    def should_stop(self) -> bool:
        """True if the consumer stops, has stopped or has crashed."""

    @property
    def coordinator(self) -> Any:
        """The group coordinator of aiokafka's client; None before the client's start and after its end."""

    @property
    def expected(self) -> Mapping[TP, int]:
        """The offset of the next event of each input partition; empty outside the work."""

    @property
    def moved_at(self) -> Mapping[TP, float]:
        """Time of the last progress of each input partition, monotonic seconds."""

    def end(self, tp: TP) -> int:
        """Returns the end of an input partition, as far as known."""

    async def next_in_log(self, tp: TP) -> Next | None:
        """Returns the first record at or after the expected offset, or the end of the log.

        Returns None if the partition has moved during the question.

        Raises:
            KafkaError: No broker answers, or the broker refuses.
        """


class Watchdog:
    """Watches a worker from the start of the app until the consumer stops.

    Args:
        app: The app of the worker.
        consumer: The consumer of the app.
        now: Time of the start, monotonic seconds.
    """

    def __init__(self, app: TableApp, consumer: ConsumerState, now: float) -> None:
        self._app = app
        self._consumer = consumer
        self._recovery = _RecoveryProgress(now)
        self._checked_at = now
        self._counts_from = now
        """Time before which no standstill of a partition counts: the last rebalance, recovery or pause."""
        self._excused_at: dict[TP, float] = {}
        """Time at which the log had no record for a partition that stood still."""

    async def watch(self) -> None:
        """Checks the worker once a second."""
        while not self._consumer.should_stop:
            await asyncio.sleep(LOOK_S)
            await self.check(time.monotonic())

    async def watch_changelogs(self) -> None:
        """Looks for foreign writers of the changelogs, every `foreign_look_s` seconds."""
        app = self._app
        while not self._consumer.should_stop:
            await asyncio.sleep(app.foreign_look_s)
            if app.rebalancing or app.in_recovery:
                continue
            for table in app.durable_tables:
                try:
                    await table.look_for_foreign_writers()
                except (ClientError, TimeoutError):
                    continue  # no answer is no evidence of a foreign writer; the next check asks again

    async def check(self, now: float) -> None:
        """Ends the process if the coordinator has failed, or a partition or a recovery stands still.

        Args:
            now: Monotonic seconds; a late check counts as a pause of the process.
        """
        app = self._app
        is_late, self._checked_at = now - self._checked_at > PAUSED_S, now
        coordinator = self._consumer.coordinator
        if coordinator is None or self._consumer.should_stop:
            return
        self._check_coordinator(coordinator)
        is_recovering = app.rebalancing or app.in_recovery
        if is_late or not is_recovering:
            self._recovery.restart(now)
        if is_late or is_recovering:
            # No event moves a partition during a rebalance or a recovery, so the time does not count against the
            # partitions.
            self._counts_from = now
            self._recovery.check(app, now)
        else:
            await self._check_partitions(now)

    def _check_coordinator(self, coordinator: Any) -> None:
        # Private attributes of aiokafka; tests/contract/test_faust_internals.py looks for both.
        task = getattr(coordinator, "_coordination_task", None)
        if task is not None and task.done():
            self._app.end(WorkerExit.COORDINATOR, "the group coordination task has ended")
        if (error := getattr(coordinator, "_pending_exception", None)) is not None:
            if sentence := refusal(error):
                self._app.end(WorkerExit.DENIED, sentence)
            self._app.end(WorkerExit.COORDINATOR, f"the group coordinator reports {type(error).__name__}")

    async def _check_partitions(self, now: float) -> None:
        for tp, expected in list(self._consumer.expected.items()):
            end = self._consumer.end(tp)
            moved_at = self._consumer.moved_at.get(tp, now)
            still_s = now - max(moved_at, self._counts_from, self._excused_at.get(tp, moved_at))
            if end <= expected or still_s <= STALL_S:
                continue
            if await self._has_work(tp):
                position = f"at offset {expected} of {end} for {STALL_S:.0f} s"
                self._app.end(WorkerExit.STALL, f"{tp.topic}[{tp.partition}]: stands still {position}")
            # Only marks, or the records behind an open transaction, are left; a restart of the worker would not help.
            self._excused_at[tp] = now

    async def _has_work(self, tp: TP) -> bool:
        """True if the log has a record for a partition that stands still, or no broker answers."""
        try:
            found = await self._consumer.next_in_log(tp)
        except KafkaError:
            return True
        return found is not None and found.is_record


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
