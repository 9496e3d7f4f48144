"""Recovers the tables from their changelogs, and starts the agents in an order in which no event can be dropped.

Invariant: before the first event of a partition, every table of the partition has all rows of its changelog.

Order at the end of a recovery (`on_recovery_completed`), which must not change:
1. Every table finishes its own recovery; an error of a table ends the recovery.
2. The assignment is checked: an input partition comes with the changelogs of all tables.
3. The queues of events are cleared, while the input partitions are still paused.
4. The input partitions are set to their committed offsets.
5. The `on_takeover` callback runs for the partitions that a second worker may have held.
6. The input partitions are un-paused.
Faust un-pauses the partitions before step 3, so events that were just fetched vanish, and Faust swallows errors of
step 1 (faust/tables/recovery.py, `on_recovery_completed`).

A rebalance may begin at any `await`. Faust notices only when the next assignment arrives, so the steps compare the
count of rebalances themselves (`_is_current`) and leave the work to the next recovery.

The end of a changelog: Faust waits until the record before the end of the log was read. That offset may be the mark of
a transaction, which no reader ever gets. So Faust is given the offset of the last record, found by a second reader
(`_build_highwaters`). Records behind an open transaction cannot be read; a recovery waits for the transaction, and ends
the process after `_OPEN_TRANSACTION_LOOKS` attempts. A part of a changelog never counts as the whole.
"""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Final, cast

from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery, ServiceStopped
from faust.types import TP

from services.adapters.kafka import offsets
from services.adapters.kafka.producer import AccessDenied, KafkaError
from services.adapters.kafka.reader import TopicReader
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.protocol import TableApp

WARNING: Final = (
    "The copy may be all that is left of these rows: keep it, and bring the topic back. Without them every tenant "
    "begins anew, with revisions that were given before; only a new installation may remove it"
)

_SILENCE_S: Final = 5.0
"""Longest silence of the broker while the last records of changelogs are read."""
_RETRY_PAUSE_S: Final = 0.3
_OPEN_TRANSACTION_LOOKS: Final = 30
"""Attempts to read behind an open transaction, `_RETRY_PAUSE_S` apart, before the recovery counts as stuck."""


class OwnershipTracker:
    """Tracks the partitions that this worker has held without a break.

    The generation of the group grows by one with each assignment. After a missed generation, a second worker may have
    written rows in between: all partitions of the next assignment count as newly taken.
    """

    def __init__(self) -> None:
        self._generation = -1
        self._held: frozenset[int] = frozenset()

    def newly_held(self, generation: int, held: Collection[int]) -> set[int]:
        """Returns the held partitions that a second worker may have held since the last assignment of this worker."""
        kept = self._held if generation == self._generation + 1 else frozenset()
        return set(held) - kept

    def begin(self, generation: int, held: Collection[int]) -> None:
        """Records the partitions as held in a generation; call after the takeover is finished."""
        self._generation, self._held = generation, frozenset(held)


class DurableRecovery(Recovery):
    """Faust's recovery, with a different end and a check of the assignment."""

    app: TableApp  # type: ignore[assignment]  # see `protocol`

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ownership = OwnershipTracker()
        self._rebalances_seen = 0
        self.ends: dict[TP, int] = {}
        """The end of each changelog at the begin of its recovery: the offset of the next write, unless a foreign writer
        appends."""

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Starts a recovery for a new assignment."""
        # Before the call of Faust's method, which starts the recovery.
        self._rebalances_seen = self.app.rebalancing_count
        # Faust keeps the buffer size of the first role of a partition, but a standby and an active have different
        # sizes.
        self.buffer_sizes.clear()
        self.app.consumer.forget_positions()
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        """Finishes a recovery and starts the agents, unless a rebalance has begun meanwhile.

        The order of the steps is explained at the top of this file.
        """
        app, consumer = self.app, self.app.consumer
        await app.on_rebalance_complete.send()
        if not self._is_current(generation_id):
            return
        self._set_recovery_ended()
        # One after the other and awaited: Faust collects the tables' tasks and never reads their exceptions.
        for table in self.tables.values():
            await table.on_recovery_completed(self.actives_for_table[table], self.standbys_for_table[table])
        if not self._is_current(generation_id):
            return
        assignment: set[TP] = consumer.assignment()
        events = {tp for tp in assignment if not self._is_changelog_tp(tp)}
        held = self._check_complete(assignment)
        self._clear_events()
        if assignment:
            await self._wait(consumer.seek_events(), timeout=app.conf.broker_request_timeout)
            lost = {tp.partition for tp in app.lost}
            await self._wait(app.on_takeover(self._ownership.newly_held(generation_id, held) | (held & lost)))
            if not self._is_current(generation_id):
                return
            # After `on_takeover`: the keys of lost records were asked about, so the loss may be forgotten.
            consumer.commit_accepted_losses()
        self._ownership.begin(generation_id, held)
        consumer.resume_partitions(events)
        # From here on as in Faust, without `flow_control.resume`: that call would clear the queues of the standbys.
        self.completed.set()
        consumer.resume_flow()
        await app._fetcher.maybe_start()
        self.tables.on_actives_ready()
        if not app.assignor.assigned_standbys():
            self.tables.on_standbys_ready()
        app.on_rebalance_end()

    def _is_current(self, generation_id: int) -> bool:
        """True if no rebalance has begun since the assignment under recovery."""
        return self._rebalances_seen == self.app.rebalancing_count and self.app.consumer_generation_id == generation_id

    async def _wait(self, coro: Any, timeout: Any = None) -> None:  # noqa: ASYNC109 - Faust's own signature
        """Waits for a step of the recovery; ends the process when the step exceeds the time limit."""
        try:
            await super()._wait(coro, timeout)
        except ServiceStopped:
            # Faust reports a timed-out step as a stop of the service: the recovery would end here in silence, and the
            # worker would stay without events.
            if not self.should_stop:
                self.app.end(WorkerExit.STALL, f"no answer within {timeout} s in the recovery of the tables")
            raise

    def _clear_events(self) -> None:
        """Clears the queues of events fetched before the recovery; standbys keep the queue of the changelogs."""
        control = self.app.flow_control
        if not self.standby_tps:
            control.resume()  # also clears every queue it manages
            return
        # With standbys the flow was resumed before; a second resume would drop changelog records on their way to a
        # copy.
        for queue in control._queues:
            if queue is not self.tables.changelog_queue:
                queue.clear()

    def _check_complete(self, assignment: set[TP]) -> set[int]:
        """Returns the partition numbers held; ends the process if an input or a changelog is missing."""
        inputs = {str(topic) for topic in self.app.input_names}
        wanted = inputs | set(self.tables.changelog_topics)
        recovered = {tp for tps in self.actives_for_table.values() for tp in tps}
        whole = {tp for tp in assignment if tp.topic in inputs or tp in recovered}
        held = {tp.partition for tp in assignment if tp.topic in inputs}
        missing = sorted(f"{topic}[{number}]" for topic in wanted for number in held if TP(topic, number) not in whole)
        if missing:
            self.app.end(WorkerExit.INCOMPLETE_ASSIGNMENT, f"assigned without {', '.join(missing)}")
        return held

    async def _build_highwaters(self, consumer: Any, tps: set[TP], destination: Any, title: str) -> None:  # noqa: ARG002 - Faust's own
        """Sets the targets of a recovery to the last records of the changelogs; -1 for a changelog without records.

        Faust's own method takes the offset before the end of the log, which may be the mark of a transaction.
        """
        spans = await self._readable_spans(consumer, tps)
        self.ends.update({tp: spans[tp.topic, tp.partition].end for tp in tps})
        last = await self._last_records({partition_id: (span.first, span.end) for partition_id, span in spans.items()})
        destination.clear()
        destination.update({tp: last.get((tp.topic, tp.partition), -1) for tp in tps})
        if destination is self.standby_highwaters:
            self._settle(tps, self.standby_offsets, destination)

    async def _build_offsets(self, consumer: Any, tps: set[TP], destination: Any, title: str) -> None:
        await super()._build_offsets(consumer, tps, destination, title)
        # Faust builds the targets of actives before their offsets, and the targets of standbys after their offsets. The
        # check needs both, so each role is checked in the method that runs second.
        if destination is self.active_offsets:
            self._settle(tps, destination, self.active_highwaters)

    async def _readable_spans(self, consumer: Any, tps: set[TP]) -> Mapping[offsets.PartitionId, offsets.OffsetSpan]:
        """Returns the offset spans of changelogs once every record in the spans can be read.

        Waits for open transactions; ends the process if a transaction stays open.
        """
        spans: Mapping[offsets.PartitionId, offsets.OffsetSpan] = await consumer.spans(tps)
        # The first ends stay the target. Later records arrive after the recovery began and are read anyway.
        now, attempts = spans, 0
        while unreadable := {
            partition_id: now[partition_id]
            for partition_id, span in spans.items()
            if now[partition_id].stable < span.end
        }:
            attempts += 1
            if attempts > _OPEN_TRANSACTION_LOOKS:
                self.app.end(
                    WorkerExit.STALL,
                    f"the tables cannot be recovered whole: {offsets.describe_open_transactions(unreadable)}",
                )
            await asyncio.sleep(_RETRY_PAUSE_S)
            now = await consumer.spans(tps)
        return spans

    async def _last_records(
        self, ranges: Mapping[offsets.PartitionId, tuple[int, int]]
    ) -> Mapping[offsets.PartitionId, int]:
        """Returns the offset of the last record of each range; repeats the question until the caller's time limit."""
        while True:
            try:
                return await asyncio.to_thread(_last_offsets, self.app.kafka, ranges)
            except AccessDenied as error:
                self.app.end(WorkerExit.DENIED, error.reason)
            except KafkaError:
                await asyncio.sleep(_RETRY_PAUSE_S)

    def _settle(self, tps: set[TP], read: Mapping[TP, int | None], last: dict[TP, int]) -> None:
        """Ends the process if a copy is ahead of its changelog; raises the targets to offsets already read."""
        for tp in tps:
            at, end = read.get(tp), self.ends.get(tp)
            if at is None or end is None:
                continue
            # A copy may have read exactly to the end, never beyond. A changelog that was made anew ends earlier.
            if at >= end:
                self.app.end(
                    WorkerExit.CHANGELOG_BEHIND,
                    f"{tp.topic}[{tp.partition}]: the local copy has read to offset {at}, the topic ends at {end - 1}. "
                    f"{WARNING}",
                )
            # The copy may have read marks behind the last record. Faust treats an offset beyond the target as an error.
            last[tp] = max(last[tp], at)


def _last_offsets(
    kafka: Mapping[str, Any], ranges: Mapping[offsets.PartitionId, tuple[int, int]]
) -> dict[offsets.PartitionId, int]:
    """Returns the offset of the last record of each range. Blocks."""
    topic = next((name for name, _ in ranges), "")
    with TopicReader(kafka, topic) as reader:
        found = reader.last_records(ranges, _SILENCE_S)
    return {partition_id: int(record.offset() or 0) for partition_id, record in found.items()}


class DurableTables(TableManager):
    """Faust's table manager, with `DurableRecovery`."""

    @property
    def recovery(self) -> DurableRecovery:
        """The only recovery of the app, made at the first use."""
        if self._recovery is None:
            self._recovery = DurableRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return cast("DurableRecovery", self._recovery)
