"""Offsets that come from the agents, and a fence in front of them.

Faust commits what its acknowledgement bookkeeping believes: a hole in what was read counts as compaction and is
committed past (faust/transport/consumer.py, `_add_gap`, `_new_offset`). Here an offset is committed only after the
agent finished it, and an event that does not follow the one before it in its partition ends the process.
The input topics therefore switch Faust's acknowledgements off (`acks=False`).
"""

import asyncio
import threading
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import aiokafka.client
from aiokafka.protocol.metadata import MetadataRequest
from confluent_kafka import KafkaException
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, EventT
from mode import Service

from services.adapters.kafka import offsets as kafka_offsets
from services.adapters.kafka.producer import AccessDenied, KafkaError, fault, to_read
from services.adapters.tables import watchdog
from services.adapters.tables.denial import DENIALS, refusal
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.log_gap import first_from

_FETCH_WAIT_MS = 100
"""Faust lets a fetch wait 1.5 s at the broker, and whatever is asked of that broker meanwhile (the offsets of a
recovery, three times) stands in line behind it: seconds of each start on a quiet topic."""

_ASK_S = 5.0
_AGAIN_S = 0.3
_PATIENCE_S = 30.0
"""Longer than a step of a recovery may take: that is ended first, and says which."""


class PromptThread(driver.AIOKafkaConsumerThread):
    """Faust's thread with a consumer that asks as all of ours do.

    It waits at the broker no longer than a recovery may wait behind it, and reads only what was committed. aiokafka has
    no setting against creating the topics whose metadata it asks for (aiokafka/client.py, `_metadata_update`).
    """

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        aiokafka.client.MetadataRequest = partial(MetadataRequest, allow_auto_topic_creation=False)  # as a class there
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS
        consumer._isolation_level = "read_committed"
        return consumer


class DurableConsumer(driver.Consumer):
    """Faust's consumer with offsets and positions of its own."""

    app: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected: dict[TP, int] = {}
        """The next offset of each input partition that an agent may begin; empty until recovery ended."""
        self.ends: dict[TP, int] = {}
        """Where each input partition ended when recovery ended: nothing is known of its end before the first fetch."""
        self.moved_at: dict[TP, float] = {}
        """When each last moved, monotonic."""
        self._since_us: dict[TP, int] = {}
        """Since when each input partition may have something waiting, microseconds UTC."""
        self._accepted: dict[TP, int] = {}
        """Where partitions go on that have lost records; to be committed once their keys were asked about."""
        self._finished: dict[TP, int] = {}
        self._committed: dict[TP, int] = {}
        self._ends: kafka_offsets.OffsetReader | None = None
        self._beginning = threading.Lock()

    def _new_consumer_thread(self) -> PromptThread:
        return PromptThread(self, loop=self.loop, beacon=self.beacon)

    def committed(self, tp: TP) -> int:
        """The greatest offset of an assigned input partition that is known to be committed; -1 for none."""
        return self._committed.get(tp, 0) - 1

    def note_idle(self, at_us: int) -> None:
        """Remember which input partitions have nothing that waits; once a second."""
        self._since_us.update({tp: at_us for tp, records in self._waiting().items() if records == 0})

    def lag(self, at_us: int) -> dict[TP, tuple[int, float]]:
        """Records not finished yet of each held input partition, and for how many seconds at most the first waits.

        That is since the last finished record was appended, or since nothing was seen to wait.
        """
        return {
            tp: (records, 0.0 if records == 0 else max(0, at_us - self._since_us.get(tp, at_us)) / 1e6)
            for tp, records in self._waiting().items()
        }

    def end(self, tp: TP) -> int:
        """Where an input partition ends, as far as is known: the next offset to be appended."""
        client, known = self._thread._consumer, self.ends.get(tp, 0)
        try:
            return max(known, client.highwater(tp) or 0) if client is not None else known
        except (AssertionError, AttributeError):
            return known  # another thread has taken it away just now

    def _waiting(self) -> dict[TP, int]:
        """Records not finished yet of each held input partition."""
        return {tp: max(0, self.end(tp) - expected) for tp, expected in list(self.expected.items())}

    def forget(self) -> None:
        """Partitions are shared out anew: what was read of them is no longer ours to go on with, or to commit."""
        self.expected = {}
        self._finished.clear()

    def losses_were_told(self) -> None:
        """The keys of partitions that lost records were asked about: commit where they go on from."""
        self._finished.update({tp: at for tp, at in self._accepted.items() if tp not in self._finished})
        self._accepted.clear()

    async def begin(self, event: EventT[bytes]) -> bool:
        """Wait for room in the producer's queue, then say whether this event is to be processed now.

        Returns:
            False: it is done already, or was read before a rebalance; skip it without `finish`.
        """
        await self.app.log_of_writes.room()
        message = event.message
        expected = self.expected.get(message.tp)
        if (
            expected is None
            or self.app.rebalancing
            or message.generation_id != self.app.consumer_generation_id
            or message.offset < expected
        ):
            return False
        if message.offset > expected:
            return await self._passes_over(message.tp, expected, message.offset)
        return True

    async def _passes_over(self, tp: TP, expected: int, got: int) -> bool:
        """Whether an event that does not follow the one before it is to be processed: the log has nothing between."""
        rebalances = self.app.rebalancing_count
        try:
            first = await asyncio.to_thread(first_from, self.app.kafka, tp, expected)
        except KafkaException as error:
            first, why = None, f" ({fault(error.args[0], *to_read(tp.topic)).reason})"
        else:
            why = ""
        if self.app.rebalancing_count != rebalances:
            return False
        if first is None or not first.is_record or first.offset != got:
            self.app.end(WorkerExit.FENCE, f"{tp.topic}[{tp.partition}]: expected offset {expected}, got {got}{why}")
        self.expected[tp] = got
        return True

    async def highwaters(self, *partitions: TP) -> dict[TP, int]:
        """Returns where partitions end: the next offset to be written, whatever can be read of them.

        aiokafka would say where reading ends, before the first open transaction: our own writes may stand behind that.

        Raises:
            TimeoutError: no answer in time.
        """
        found = await self.spans(partitions)
        return {tp: found[tp.topic, tp.partition].end for tp in partitions}

    async def spans(self, partitions: Iterable[TP]) -> dict[kafka_offsets.PartitionId, kafka_offsets.OffsetSpan]:
        """Returns the offsets of partitions; raises as `highwaters`."""
        places = [(tp.topic, tp.partition) for tp in partitions]
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    return await asyncio.to_thread(self._spans, places)
                except AccessDenied as error:
                    self.app.end(WorkerExit.DENIED, error.reason)
                except KafkaError:
                    pass
                await asyncio.sleep(_AGAIN_S)

    def _spans(
        self, places: list[kafka_offsets.PartitionId]
    ) -> dict[kafka_offsets.PartitionId, kafka_offsets.OffsetSpan]:
        with self._beginning:
            if self._ends is None and places:
                self._ends = kafka_offsets.OffsetReader(self.app.kafka, places[0][0])
        return self._ends.spans(places, _ASK_S) if self._ends else {}

    def has_read_to(self, tp: TP, end: int) -> bool:
        """True if aiokafka has nothing left to fetch before an offset; what it fetched may still wait for its agent."""
        try:
            client: Any = self._thread._consumer
            state = client._subscription.subscription.assignment.state_value(tp)
            return bool(state.has_valid_position and state.position >= end)
        except (AssertionError, AttributeError, KeyError):
            return False  # another thread has taken it away just now

    async def pass_over_end(self, tp: TP, end: int) -> bool:
        """Whether a partition has nothing left to read before its end; where reading ends then counts as reached."""
        expected, rebalances = self.expected.get(tp, end), self.app.rebalancing_count
        try:
            first = await asyncio.to_thread(first_from, self.app.kafka, tp, expected)
        except KafkaException:
            return False
        if self.app.rebalancing_count != rebalances or self.expected.get(tp) != expected:
            return True  # it has moved meanwhile
        if not first.is_record:
            self.expected[tp] = self._finished[tp] = max(expected, first.offset)
        return not first.is_record

    def finish(self, event: EventT[bytes]) -> None:
        """Everything this event causes was sent: its offset may be committed after the next barrier."""
        message = event.message
        if self.expected.get(message.tp) == message.offset:
            self.expected[message.tp] = self._finished[message.tp] = message.offset + 1
            self.moved_at[message.tp] = time.monotonic()
            self._since_us[message.tp] = max(round(message.timestamp * 1_000_000), self._since_us.get(message.tp, 0))

    async def seek_events(self) -> None:
        """Put every assigned input partition at its committed offset, the earliest one where nothing was committed."""
        self.expected.clear()
        self._finished.clear()
        self._committed.clear()
        self._accepted.clear()
        partitions = {tp for tp in self.assignment() if not self._is_changelog_tp(tp)}
        if not partitions:
            return
        committed = dict(await self._ask_committed(partitions))
        first = await self.earliest_offsets(*partitions)
        end = await self.highwaters(*partitions)
        start = {}
        for tp in partitions:
            at = committed[tp]
            if at is None and first[tp] > 0 and self.app.has_rows(tp.partition):
                self._report_loss(tp, None, first[tp], end[tp])  # Kafka forgets the offsets of a group that is away
                self._accepted[tp] = first[tp]
            elif at is not None and not first[tp] <= at <= end[tp]:
                self._report_loss(tp, at, first[tp], end[tp])
                # From the front, also where the log is shorter than what was committed: what stands there may be new.
                self._accepted[tp], committed[tp], at = first[tp], None, None
            start[tp] = first[tp] if at is None else at
        await self.seek_wait(start)
        self._committed_offset.update(committed)
        self._committed = {tp: at for tp, at in committed.items() if at is not None}
        self.moved_at = dict.fromkeys(start, time.monotonic())
        self._since_us = {}
        self.ends = dict(end)
        self.expected = start

    def _report_loss(self, tp: TP, at: int | None, first: int, end: int) -> None:
        lost = f"the log ends at {end}" if at is not None and at > end else f"records {at or 0} to {first - 1} are gone"
        stood = f"committed offset {at} is outside the log" if at is not None else "no offset is committed any more"
        told = f"{tp.topic}[{tp.partition}]: {stood} ({first} to {end}): {lost}"
        if not self.app.accept_loss:
            self.app.end(WorkerExit.LOSS, f"{told}; --accept-loss goes on, and asks Genesys about every key")
        self.app.lost[tp] = told

    async def _ask_committed(self, partitions: Iterable[TP]) -> Mapping[TP, int | None]:
        consumer = self._thread._ensure_consumer()

        async def ask() -> dict[TP, int | None]:
            return {tp: await consumer.committed(tp) for tp in partitions}

        found: Mapping[TP, int | None] = await self._thread.call_thread(ask)
        return found

    # What Faust asks for when it commits.

    def _new_offset(self, tp: TP) -> int | None:
        return self._finished.get(tp)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Any:
        return [tp for tp in self._finished if topics is None or tp in topics or tp.topic in topics]

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # Faust notes an offset as committed also when the broker refused it.
        done = await super()._commit(offsets)
        if done:
            self._committed.update(offsets)
        return done

    # What Faust does to positions.

    async def perform_seek(self) -> None:
        """Do nothing: only the end of a recovery places the input partitions (`seek_events`).

        Faust calls it also from a fetch that finds the flow stopped; that one runs beside the recovery and would move
        the partitions under it.
        """

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's own signature
        # A copy: Faust hands its living set to another thread, and aiokafka takes an emptied one for "all partitions".
        wanted = set(active_partitions or ())
        try:
            return await super()._getmany(wanted, timeout) if wanted else {}
        except DENIALS as error:  # Faust would write a traceback and crash
            self.app.end(WorkerExit.DENIED, refusal(error))

    @Service.task
    async def _watch(self) -> None:
        await watchdog.watch(self)

    @Service.task
    async def _watch_ends(self) -> None:
        await watchdog.watch_ends(self)

    @Service.task
    async def _watch_changelogs(self) -> None:
        await watchdog.watch_changelogs(self)
