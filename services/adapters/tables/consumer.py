"""Commits the offsets of finished events only, and ends the process at an event that does not follow the last one.

Problem: Faust commits by its own bookkeeping of acknowledgements. A gap in the records that Faust read counts as
compaction, and Faust commits past the gap (faust/transport/consumer.py, `_add_gap`, `_new_offset`). A record that was
lost inside the process is then lost for good.

Approach: the input topics turn Faust's bookkeeping off (`acks=False`). For each input partition this consumer keeps two
offsets, `expected` and `_finished`:
- `begin` accepts an event only at `expected`. An older event is skipped. At a newer event a second reader is asked
  for the log in between (`log_gap`); the event is accepted only if the log has no record in between.
- `finish` raises both offsets. Faust's commit asks `_new_offset`, and gets `_finished`, after the commit barrier.

- Marks of transactions at the end of a partition are not records. The consumer looks for such ends itself
  (`_skip_marks_at_ends`) and raises both offsets.

Positions: only the end of a recovery sets the position of an input partition (`seek_events`). Faust also seeks from a
fetch that finds the flow stopped; `perform_seek` is therefore empty.

Threads: the client of aiokafka runs in a thread of its own (`PromptThread`). Everything else runs on the event loop, so
an attribute of the client may vanish between two statements. Such a case is read as "no information".
"""

import asyncio
import threading
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import aiokafka.client
from aiokafka.protocol.metadata import MetadataRequest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, EventT
from mode import Service

from services.adapters.kafka import offsets as kafka_offsets
from services.adapters.kafka.producer import AccessDenied, KafkaError
from services.adapters.process.clock import now_us
from services.adapters.tables.denial import DENIALS, refusal
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.log_gap import Next, first_record_from
from services.adapters.tables.protocol import TableApp

_LOOK_S = 1.0
_SILENT_S = 10.0
"""Seconds without an answer to a fetch (an idle one is answered every half second) after which an end is not known."""
"""Seconds between two looks for partitions without a waiting record, and for marks of transactions."""
_MARKS_S = 1.0
"""Seconds without progress before the log is asked if only marks of transactions are left."""
_ASK_AGAIN_S = 60.0
"""Seconds without progress before the log is asked again about the same position: the last question may have failed."""

_FETCH_WAIT_MS = 100
"""Longest wait of one fetch at the broker. Faust's value is 1.5 s, and every request to the same broker waits behind
the fetch. A recovery asks for offsets three times, so each start on a quiet topic would take seconds longer."""

_SPANS_ATTEMPT_S = 5.0
_RETRY_PAUSE_S = 0.3
_SPANS_TIMEOUT_S = 30.0
"""Longer than Faust's time limit for one step of a recovery (20 s with the default session time-out). The step is ended
first, and its message is more precise."""


class PromptThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, with a client that keeps the rules of every reader of this project.

    The client creates no topics, reads committed records only, and waits at the broker for at most `_FETCH_WAIT_MS`.
    aiokafka has no setting for the first rule (aiokafka/client.py, `_metadata_update`), and Faust has none for the
    rest.
    """

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        # Replaces the class in the module of aiokafka's client, so every aiokafka consumer of this process is affected.
        # Without the argument the request asks the broker to create missing topics.
        aiokafka.client.MetadataRequest = partial(MetadataRequest, allow_auto_topic_creation=False)
        consumer = super()._create_worker_consumer(transport)
        # aiokafka reads both attributes when the consumer starts, which happens after this method.
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS
        consumer._isolation_level = "read_committed"
        return consumer


class DurableConsumer(driver.Consumer):
    """Faust's consumer, with offsets and positions of its own."""

    app: TableApp  # type: ignore[assignment]  # see `protocol`

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected: dict[TP, int] = {}
        """The offset at which `begin` accepts the next event of each input partition. Empty until a recovery has
        ended."""
        self.ends: dict[TP, int] = {}
        """The end of each input partition at the end of the recovery. aiokafka does not know an end before the first
        fetch."""
        self.moved_at: dict[TP, float] = {}
        """Time of the last progress of each input partition, monotonic seconds."""
        self._waiting_since_us: dict[TP, int] = {}
        """Since when the first unfinished record of each input partition may be waiting at the earliest, microseconds
        UTC."""
        self._starts_after_loss: dict[TP, int] = {}
        """Start offsets of partitions that lost records. Committed only after the keys of the partition were asked
        about."""
        self._finished: dict[TP, int] = {}
        """The offset to commit next for each input partition: one behind the last finished event."""
        self._committed: dict[TP, int] = {}
        """The last offset of each input partition that the broker accepted in a commit."""
        self._offset_reader: kafka_offsets.OffsetReader | None = None
        self._offset_reader_lock = threading.Lock()

    def _new_consumer_thread(self) -> PromptThread:
        return PromptThread(self, loop=self.loop, beacon=self.beacon)

    def committed(self, tp: TP) -> int:
        """Returns the greatest offset of an assigned input partition known to be committed; -1 for none."""
        return self._committed.get(tp, 0) - 1

    @property
    def coordinator(self) -> Any:
        """The group coordinator of aiokafka's client; None before the client's start and after its end."""
        client = self._thread._consumer
        return None if client is None or client._closed else client._coordinator

    def lag(self, at_us: int) -> dict[TP, tuple[int, float]]:
        """Returns the unfinished records of each held input partition, and the age of the oldest in seconds at most.

        The age counts from the append time of the last finished record, or from the last time without a waiting record.
        A partition without a known unfinished record is left out while no broker answers: its end is then not known.
        """
        client = self._thread._consumer
        return {
            tp: (records, 0.0 if records == 0 else max(0, at_us - self._waiting_since_us.get(tp, at_us)) / 1e6)
            for tp, records in self._unfinished().items()
            if records or is_answered(client, tp, at_us)
        }

    def end(self, tp: TP) -> int:
        """Returns the end of an input partition (the next offset to be appended), as far as known."""
        client, known = self._thread._consumer, self.ends.get(tp, 0)
        try:
            return max(known, client.highwater(tp) or 0) if client is not None else known
        except (AssertionError, AttributeError):
            return known  # the consumer thread has just dropped the partition, or the client

    def _unfinished(self) -> dict[TP, int]:
        """Returns the number of unfinished records of each held input partition."""
        return {tp: max(0, self.end(tp) - expected) for tp, expected in list(self.expected.items())}

    def forget_positions(self) -> None:
        """Drops the positions of all input partitions at a rebalance.

        A partition may be lost and come back with an offset committed by a second worker in between. An offset from
        before the rebalance must neither continue nor be committed.
        """
        self.expected = {}
        self._finished.clear()

    def commit_accepted_losses(self) -> None:
        """Commits the start offsets of partitions with lost records; call after the keys were asked about.

        A crash before this call finds the loss again, because the old offset is still committed.
        """
        self._finished.update({tp: at for tp, at in self._starts_after_loss.items() if tp not in self._finished})
        self._starts_after_loss.clear()

    async def begin(self, event: EventT[bytes]) -> bool:
        """Waits for room in the producer's queue, then returns True if the agent must process this event now.

        Returns:
            False: the event is finished already, or was read before a rebalance. Skip the event, without `finish`.
        """
        await self.app.log_of_writes.wait_for_room()
        message = event.message
        expected = self.expected.get(message.tp)
        if (
            # Compared after the wait, because a rebalance may have begun meanwhile. Faust's queues may still hold
            # events of an earlier generation of the group.
            expected is None
            or self.app.rebalancing
            or message.generation_id != self.app.consumer_generation_id
            or message.offset < expected
        ):
            return False
        if message.offset > expected:
            return await self._is_next_in_log(message.tp, expected, message.offset)
        return True

    async def _is_next_in_log(self, tp: TP, expected: int, got: int) -> bool:
        """Returns True if the log has no record between the expected offset and the event; otherwise ends the process.

        Returns False if a rebalance began during the question.
        """
        rebalances = self.app.rebalancing_count
        try:
            first = await asyncio.to_thread(first_record_from, self.app.kafka, tp, expected)
        except KafkaError as error:
            first, why = None, f" ({error.reason})"
        else:
            why = ""
        # The answer concerns a position that no longer counts.
        if self.app.rebalancing_count != rebalances:
            return False
        if first is None or not first.is_record or first.offset != got:
            self.app.end(WorkerExit.FENCE, f"{tp.topic}[{tp.partition}]: expected offset {expected}, got {got}{why}")
        self.expected[tp] = got
        return True

    async def highwaters(self, *partitions: TP) -> dict[TP, int]:
        """Returns the end of each partition: the next offset to be written, also behind an open transaction.

        aiokafka returns the end of the readable part instead, before the first open transaction. Our own changelog
        writes may stand behind that point, and the check for foreign writers compares their offsets with this end.

        Raises:
            TimeoutError: No answer within 30 s.
        """
        found = await self.spans(partitions)
        return {tp: found[tp.topic, tp.partition].end for tp in partitions}

    async def spans(self, partitions: Iterable[TP]) -> dict[kafka_offsets.PartitionId, kafka_offsets.OffsetSpan]:
        """Returns the offset spans of partitions, and repeats the question while no broker answers.

        Raises:
            TimeoutError: No answer within 30 s.
        """
        partition_ids = [(tp.topic, tp.partition) for tp in partitions]
        async with asyncio.timeout(_SPANS_TIMEOUT_S):
            while True:
                try:
                    return await asyncio.to_thread(self._spans, partition_ids)
                except AccessDenied as error:
                    self.app.end(WorkerExit.DENIED, error.reason)
                except KafkaError:
                    pass  # an outage or an election: repeated until the time limit
                await asyncio.sleep(_RETRY_PAUSE_S)

    def _spans(
        self, partition_ids: list[kafka_offsets.PartitionId]
    ) -> dict[kafka_offsets.PartitionId, kafka_offsets.OffsetSpan]:
        # Calls may overlap (a cancelled call leaves its thread running), and each would make a reader of its own.
        with self._offset_reader_lock:
            if self._offset_reader is None and partition_ids:
                self._offset_reader = kafka_offsets.OffsetReader(self.app.kafka, partition_ids[0][0])
        return self._offset_reader.spans(partition_ids, _SPANS_ATTEMPT_S) if self._offset_reader else {}

    def _has_read_to(self, tp: TP, end: int) -> bool:
        """True if aiokafka has fetched every record before an offset; the records may still wait for their agent."""
        try:
            client: Any = self._thread._consumer
            state = client._subscription.subscription.assignment.state_value(tp)
            return bool(state.has_valid_position and state.position >= end)
        except (AssertionError, AttributeError, KeyError):
            return False  # the consumer thread has just dropped the partition, or the client

    async def next_in_log(self, tp: TP) -> Next | None:
        """Returns the first record of an input partition at or after the expected offset, or the end of the log.

        Returns None if the partition has moved during the question.

        Raises:
            KafkaError: No broker answers, or the broker refuses.
        """
        expected, rebalances = self.expected.get(tp), self.app.rebalancing_count
        if expected is None:
            return None
        found = await asyncio.to_thread(first_record_from, self.app.kafka, tp, expected)
        has_moved = self.app.rebalancing_count != rebalances or self.expected.get(tp) != expected
        return None if has_moved else found

    async def _skip_marks(self, tp: TP) -> None:
        """Counts the end of an input partition as read if only marks of transactions stand before the end."""
        try:
            found = await self.next_in_log(tp)
        except KafkaError:
            return
        if found is not None and not found.is_record:
            self.expected[tp] = self._finished[tp] = max(self.expected[tp], found.offset)

    def finish(self, event: EventT[bytes]) -> None:
        """Marks an event as finished: its offset may be committed after the next barrier."""
        message = event.message
        # After a rebalance `expected` is empty or has another value; the owner of the partition then reads the event
        # again.
        if self.expected.get(message.tp) == message.offset:
            self.expected[message.tp] = self._finished[message.tp] = message.offset + 1
            self.moved_at[message.tp] = time.monotonic()
            self._waiting_since_us[message.tp] = max(
                round(message.timestamp * 1_000_000), self._waiting_since_us.get(message.tp, 0)
            )

    async def seek_events(self) -> None:
        """Sets every assigned input partition to its committed offset, or to its first offset where none is committed.

        Reports lost records: a committed offset outside the log, or a group without offsets although the tables have
        rows and the log no longer begins at 0.
        """
        self.expected.clear()
        self._finished.clear()
        self._committed.clear()
        self._starts_after_loss.clear()
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
                # Kafka deletes the offsets of a group without members after a while (offsets.retention.minutes).
                self._report_loss(tp, None, first[tp], end[tp])
                self._starts_after_loss[tp] = first[tp]
            elif at is not None and not first[tp] <= at <= end[tp]:
                self._report_loss(tp, at, first[tp], end[tp])
                # From the first offset, also if the log ends before the committed offset: a topic that was made anew
                # holds records that no worker has read.
                self._starts_after_loss[tp], committed[tp], at = first[tp], None, None
            start[tp] = first[tp] if at is None else at
        # The positions first, `expected` last: until then `begin` skips every event.
        await self.seek_wait(start)
        self._committed_offset.update(committed)
        self._committed = {tp: at for tp, at in committed.items() if at is not None}
        self.moved_at = dict.fromkeys(start, time.monotonic())
        self._waiting_since_us = {}
        self.ends = dict(end)
        self.expected = start

    def _report_loss(self, tp: TP, at: int | None, first: int, end: int) -> None:
        """Ends the process, or notes the loss for the `on_takeover` callback if losses are accepted."""
        lost = f"the log ends at {end}" if at is not None and at > end else f"records {at or 0} to {first - 1} are gone"
        position = f"committed offset {at} is outside the log" if at is not None else "no offset is committed any more"
        sentence = f"{tp.topic}[{tp.partition}]: {position} ({first} to {end}): {lost}"
        if not self.app.accept_loss:
            self.app.end(WorkerExit.LOSS, f"{sentence}; --accept-loss goes on, and asks Genesys about every key")
        self.app.lost[tp] = sentence

    async def _ask_committed(self, partitions: Iterable[TP]) -> Mapping[TP, int | None]:
        # The client belongs to the consumer thread, so the question must run there.
        consumer = self._thread._ensure_consumer()

        async def ask() -> dict[TP, int | None]:
            return {tp: await consumer.committed(tp) for tp in partitions}

        found: Mapping[TP, int | None] = await self._thread.call_thread(ask)
        return found

    # Called by Faust's commit.

    def _new_offset(self, tp: TP) -> int | None:
        return self._finished.get(tp)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Any:
        return [tp for tp in self._finished if topics is None or tp in topics or tp.topic in topics]

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # Faust records an offset as committed even if the broker refused the commit.
        committed = await super()._commit(offsets)
        if committed:
            self._committed.update(offsets)
        return committed

    # Called by Faust to move positions or to fetch.

    async def perform_seek(self) -> None:
        """Does nothing: only the end of a recovery sets positions (`seek_events`).

        Faust also calls this method from a fetch that finds the flow stopped. That fetch runs beside the recovery and
        would move the partitions during the recovery.
        """

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's own signature
        # A copy: Faust passes its own set to the consumer thread and changes the set meanwhile. An empty set means "all
        # partitions" to aiokafka, so an empty set is answered here.
        wanted = set(active_partitions or ())
        try:
            return await super()._getmany(wanted, timeout) if wanted else {}
        except DENIALS as error:  # Faust would log a traceback and crash without naming the right
            self.app.end(WorkerExit.DENIED, refusal(error))

    # Started and stopped with the consumer.

    @Service.task
    async def _note_idle_partitions(self) -> None:
        """Records the input partitions without a waiting record; `lag` counts from the last such time."""
        while not self.should_stop:
            await self.sleep(_LOOK_S)
            at_us = now_us()
            self._waiting_since_us.update({tp: at_us for tp, records in self._unfinished().items() if records == 0})

    @Service.task
    async def _skip_marks_at_ends(self) -> None:
        """Looks for input partitions with only marks of transactions left, and counts the marks as read.

        No agent finishes a mark. Without this task the partition would show a lag for ever, and its last offset would
        stay uncommitted.
        """
        asked: dict[TP, tuple[int, int]] = {}
        asked_at: dict[TP, float] = {}
        while not self.should_stop:
            await self.sleep(_LOOK_S)
            if self.app.rebalancing or self.app.in_recovery:
                continue
            now = time.monotonic()
            for tp, expected in list(self.expected.items()):
                end, moved_at = self.end(tp), self.moved_at.get(tp, now)
                # Asked once per position: a slow agent looks the same from here.
                is_new = now - moved_at > _MARKS_S and asked.get(tp) != (expected, end) and self._has_read_to(tp, end)
                is_due = now - max(moved_at, asked_at.get(tp, moved_at)) > _ASK_AGAIN_S
                if end > expected and (is_new or is_due):
                    asked[tp], asked_at[tp] = (expected, end), now
                    await self._skip_marks(tp)


def is_answered(client: Any, tp: TP, at_us: int) -> bool:
    """Returns True if a broker has just answered a fetch of the partition.

    Args:
        client: aiokafka's consumer, or None.
        tp: The partition.
        at_us: The present time, microseconds UTC.
    """
    try:
        heard_ms = client.last_poll_timestamp(tp)
    except (AssertionError, AttributeError):
        return False  # no client, or the consumer thread has just dropped the partition
    return heard_ms is not None and at_us / 1_000 - heard_ms < _SILENT_S * 1_000
