"""The end of a recovery, in an order in which nothing can be dropped: seek, then un-pause.

Faust un-pauses the input partitions and clears the queues afterwards, so events already fetched vanish
(faust/tables/recovery.py, `on_recovery_completed`); it also swallows what its tables raise there. Rule: both tables
of a partition are whole before any of its events is seen.
"""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Final

from confluent_kafka import KafkaException
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery, ServiceStopped
from faust.types import TP

from schemas.topics import looks_group
from services.adapters.kafka import clients, offsets
from services.adapters.kafka.producer import AccessDenied, KafkaError, fault, to_read
from services.adapters.tables.exits import WorkerExit

WARNING: Final = (
    "The copy may be all that is left of these rows: keep it, and bring the topic back. Without them every tenant "
    "begins anew, with revisions that were given before; only a new installation may remove it"
)

_LOOK_S: Final = 5.0
_AGAIN_S: Final = 0.3
_HELD_LOOKS: Final = 30
"""So often an open transaction is looked at again before a recovery counts as stuck behind it."""


class OwnershipTracker:
    """Which partitions are held without a break, so that nobody else can have worked on them in between."""

    def __init__(self) -> None:
        self._generation = -1
        self._held: frozenset[int] = frozenset()

    def taken(self, generation: int, held: Collection[int]) -> set[int]:
        """Those of the partitions held now that somebody else may have held since."""
        kept = self._held if generation == self._generation + 1 else frozenset()
        return set(held) - kept

    def begin(self, generation: int, held: Collection[int]) -> None:
        """They are taken over."""
        self._generation, self._held = generation, frozenset(held)


class DurableRecovery(Recovery):
    """Faust's recovery with another end, and a look at what was assigned."""

    app: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tenure = OwnershipTracker()
        self._round = 0
        self.ends: dict[TP, int] = {}
        """Where each changelog ended when its recovery began: the offset of the next write, if nobody else writes."""

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Begin anew, with the sizes of buffers that the new roles ask for: Faust keeps those of the first."""
        self._round = self.app.rebalancing_count
        self.buffer_sizes.clear()
        self.app.consumer.forget()
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        """Hand the partitions over to the agents, unless they are being shared out anew by then.

        Faust tells a recovery of that only when the next assignment has come.
        """
        app, consumer = self.app, self.app.consumer
        await app.on_rebalance_complete.send()
        if not self._is_current(generation_id):
            return
        self._set_recovery_ended()
        for table in self.tables.values():
            await table.on_recovery_completed(self.actives_for_table[table], self.standbys_for_table[table])
        if not self._is_current(generation_id):
            return
        assignment: set[TP] = consumer.assignment()
        events = {tp for tp in assignment if not self._is_changelog_tp(tp)}
        held = self._complete(assignment)
        self._clear_events()
        if assignment:
            await self._wait(consumer.seek_events(), timeout=app.conf.broker_request_timeout)
            lost = {tp.partition for tp in app.lost}
            await self._wait(app.taken(self._tenure.taken(generation_id, held) | (held & lost)))
            if not self._is_current(generation_id):
                return
            consumer.losses_were_told()
        self._tenure.begin(generation_id, held)
        consumer.resume_partitions(events)
        self.completed.set()
        consumer.resume_flow()
        await app._fetcher.maybe_start()
        self.tables.on_actives_ready()
        if not app.assignor.assigned_standbys():
            self.tables.on_standbys_ready()
        app.on_rebalance_end()

    def _is_current(self, generation_id: int) -> bool:
        """Whether no rebalance has begun since the assignment that is being recovered."""
        same: bool = self._round == self.app.rebalancing_count and self.app.consumer_generation_id == generation_id
        return same

    async def _wait(self, coro: Any, timeout: Any = None) -> None:  # noqa: ASYNC109 - Faust's own signature
        try:
            await super()._wait(coro, timeout)
        except ServiceStopped:
            if not self.should_stop:
                # Faust takes a wait that ran out for a stop: the recovery would end here, and nobody would know.
                self.app.end(WorkerExit.STALL, f"no answer within {timeout} s in the recovery of the tables")
            raise

    def _clear_events(self) -> None:
        """Forget events fetched for others, while the input is still paused; what comes for standbys goes on."""
        control = self.app.flow_control
        if not self.standby_tps:
            control.resume()
            return
        for queue in control._queues:  # it was resumed for the standbys already
            if queue is not self.tables.changelog_queue:
                queue.clear()

    def _complete(self, assignment: set[TP]) -> set[int]:
        """The partition numbers held; each with all inputs and all changelogs."""
        inputs = {str(topic) for topic in self.app.input_names}
        wanted = inputs | set(self.tables.changelog_topics)
        recovered = {tp for tps in self.actives_for_table.values() for tp in tps}
        whole = {tp for tp in assignment if tp.topic in inputs or tp in recovered}
        held = {tp.partition for tp in assignment if tp.topic in inputs}
        lacking = sorted(f"{topic}[{number}]" for topic in wanted for number in held if TP(topic, number) not in whole)
        if lacking:
            self.app.end(WorkerExit.INCOMPLETE_ASSIGNMENT, f"assigned without {', '.join(lacking)}")
        return held

    async def _build_highwaters(self, consumer: Any, tps: set[TP], destination: Any, title: str) -> None:  # noqa: ARG002 - Faust's own
        """Notes the last records of changelogs: Faust notes where the logs end, and waits for marks of transactions."""
        spans = await self._whole(consumer, tps)
        self.ends.update({tp: spans[tp.topic, tp.partition].end for tp in tps})
        last = await self._last_records({place: (span.first, span.end) for place, span in spans.items()})
        destination.clear()
        destination.update({tp: last.get((tp.topic, tp.partition), -1) for tp in tps})
        if destination is self.standby_highwaters:
            self._settle(tps, self.standby_offsets, destination)

    async def _build_offsets(self, consumer: Any, tps: set[TP], destination: Any, title: str) -> None:
        await super()._build_offsets(consumer, tps, destination, title)
        if destination is self.active_offsets:  # whose ends are asked for before, a standby's afterwards
            self._settle(tps, destination, self.active_highwaters)

    async def _whole(self, consumer: Any, tps: set[TP]) -> Mapping[offsets.PartitionId, offsets.OffsetSpan]:
        """Where changelogs begin and end, once all of them can be read."""
        spans: Mapping[offsets.PartitionId, offsets.OffsetSpan] = await consumer.spans(tps)
        now, looks = spans, 0
        while late := {place: now[place] for place, span in spans.items() if now[place].stable < span.end}:
            looks += 1
            if looks > _HELD_LOOKS:
                self.app.end(WorkerExit.STALL, f"the tables cannot be recovered whole: {offsets.held(late)}")
            await asyncio.sleep(_AGAIN_S)
            now = await consumer.spans(tps)
        return spans

    async def _last_records(
        self, ranges: Mapping[offsets.PartitionId, tuple[int, int]]
    ) -> Mapping[offsets.PartitionId, int]:
        """The offset of the last record of each range; asks again until the caller's time is over."""
        while True:
            try:
                return await asyncio.to_thread(_last_offsets, self.app.kafka, ranges)
            except AccessDenied as error:
                self.app.end(WorkerExit.DENIED, error.reason)
            except KafkaError:
                await asyncio.sleep(_AGAIN_S)

    def _settle(self, tps: set[TP], read: Mapping[TP, int | None], last: dict[TP, int]) -> None:
        """End the process where a copy is ahead of its changelog; let what is read already need no recovery."""
        for tp in tps:
            at, end = read.get(tp), self.ends.get(tp)
            if at is None or end is None:
                continue
            if at >= end:
                self.app.end(
                    WorkerExit.CHANGELOG_BEHIND,
                    f"{tp.topic}[{tp.partition}]: the local copy has read to offset {at}, the topic ends at {end - 1}. "
                    f"{WARNING}",
                )
            # Where nothing but marks stands behind what was read, Faust would take "read too far" for a fault.
            last[tp] = max(last[tp], at)


def _last_offsets(
    kafka: Mapping[str, Any], ranges: Mapping[offsets.PartitionId, tuple[int, int]]
) -> dict[offsets.PartitionId, int]:
    """The offset of the last record of each range. Blocks."""
    topic = next((name for name, _ in ranges), "")
    consumer = clients.consumer(
        dict(kafka),
        group_id=looks_group(topic),
        auto_offset_reset="earliest",
        enable_partition_eof=True,
    )
    try:
        found = offsets.last_records(consumer, ranges, timeout_s=_LOOK_S)
    except KafkaException as error:
        raise fault(error.args[0], *to_read(topic)) from None
    finally:
        consumer.close()
    return {place: int(message.offset() or 0) for place, message in found.items()}


class DurableTables(TableManager):
    """Faust's table manager with this recovery."""

    @property
    def recovery(self) -> Recovery:
        """The one recovery of the app."""
        if self._recovery is None:
            self._recovery = DurableRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
