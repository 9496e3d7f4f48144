"""A table whose changelog is written by our producer, and watched for foreign writers.

Nothing in Faust notices a second writer of a changelog (faust/tables/base.py, `_on_changelog_sent`). Here each
acknowledged write must be at the offset after the last; another offset means that somebody else wrote in between.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import faust
from faust.types import TP

from schemas.codec import Message
from services.adapters.kafka.producer import Ack, KafkaError
from services.adapters.tables.exits import End, WorkerExit
from services.adapters.tables.store import DurableStore


class DurableTable(faust.Table[bytes, bytes]):
    """Rows by partition and key; every write goes to the local copy and to the changelog, in this order."""

    app: Any

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._end: End = app.end
        self._follows: dict[TP, int] = {}
        self._unrepaired: Counter[TP] = Counter()
        self._in_flight: Counter[TP] = Counter()

    @property
    def store(self) -> DurableStore:
        """The local copy."""
        return cast("DurableStore", self.data)

    def row(self, partition: int, key: bytes) -> bytes | None:
        """The row of a key of an assigned partition."""
        return self.store.row(partition, key)

    def rows(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Every key and row of an assigned partition."""
        return self.store.rows(partition)

    def put(self, partition: int, key: bytes, row: bytes) -> None:
        """Write a row; durable once the next barrier is passed."""
        self.store.put(partition, key, row)
        self._send(partition, key, row)

    def changelog(self, partition: int) -> TP:
        """The changelog partition of an input partition."""
        return TP(self.changelog_topic.get_topic_name(), partition)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Watch the changelogs from their end on, and write again what a paused worker has overwritten."""
        ends = self.app.tables.recovery.ends
        self._follows = {tp: ends[tp] for tp in active_tps}
        mine = {tp.partition for tp in active_tps}
        repairs = [place for place in self.store.stale if place[0] in mine]
        self._unrepaired = Counter(self.changelog(partition) for partition, _ in repairs)
        for partition, key in repairs:
            self.store.stale.discard((partition, key))
            row = self.store.row(partition, key)
            assert row is not None, "a stale key has a row"
            self._send(partition, key, row, repairs=True)
        await super().on_recovery_completed(active_tps, standby_tps)

    async def look_for_foreign_writers(self) -> None:
        """End the process when a changelog that nothing of ours is on the way to has grown all the same.

        A stale row that nobody follows with a write would stand last, until compaction keeps it alone.
        """
        before = {tp: end for tp, end in self._follows.items() if not self._in_flight[tp]}
        rebalances = self.app.rebalancing_count
        ends = await self.app.consumer.highwaters(*before) if before else {}
        if self.app.rebalancing_count != rebalances:
            return  # some of these may be another worker's by now
        for tp, end in ends.items():
            follows = self._follows.get(tp)
            if follows == before[tp] and not self._in_flight[tp] and end > follows:
                self._report_foreign(tp, follows, end)

    def _report_foreign(self, tp: TP, expected: int, got: int) -> None:
        self._end(WorkerExit.FOREIGN_WRITER, f"{tp.topic}[{tp.partition}]: expected offset {expected}, got {got}")

    def _send(self, partition: int, key: bytes, row: bytes, *, repairs: bool = False) -> None:
        def report(result: Ack | KafkaError) -> None:
            self._acknowledged(partition, result, repairs=repairs)

        self._in_flight[self.changelog(partition)] += 1
        self.app.hand_over(self.changelog(partition).topic, Message(key, row), report, partition)

    def _acknowledged(self, partition: int, result: Ack | KafkaError, *, repairs: bool) -> None:
        tp = self.changelog(partition)
        if isinstance(result, KafkaError):
            self._end(WorkerExit.UNDELIVERED, f"{tp.topic}[{partition}]: {result.reason}")
        follows = self._follows.get(tp)
        if follows is not None and result.offset != follows:
            self._report_foreign(tp, follows, result.offset)
        self._in_flight[tp] -= 1
        self._follows[tp] = result.offset + 1
        self._unrepaired[tp] -= repairs
        if self._unrepaired[tp] <= 0:
            self.store.set_persisted_offset(tp, result.offset)

    def _new_store_by_url(self, url: Any) -> DurableStore:
        return DurableStore(
            url,
            self.app,
            self,
            table_name=self.name,
            key_type=self.key_type,
            key_serializer=self.key_serializer,
            value_serializer=self.value_serializer,
            value_type=self.value_type,
            options=self.options,
        )
