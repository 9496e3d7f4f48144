"""Writes rows to the local copy and to the changelog, and detects foreign writers of the changelog.

Problem: a worker that was paused may still write the changelog of a partition that has moved to a second worker. Faust
does not notice (faust/tables/base.py, `_on_changelog_sent`).

Approach: only the holder of a partition may write its changelog, so the offsets of the acknowledged writes are
consecutive. Each delivery report must have the offset after the last one (`_acknowledged`). A changelog without writes
in flight is compared with its end from time to time (`look_for_foreign_writers`). A difference ends the process: the
restarted worker recovers, and writes newer rows again if the foreign writer has overwritten them.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import faust
from faust.types import TP, AppT

from schemas.codec import Message
from services.adapters.kafka.producer import Ack, KafkaError
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.protocol import TableApp
from services.adapters.tables.store import DurableStore


class DurableTable(faust.Table[bytes, bytes]):
    """Rows by partition and key. A write goes to the local copy first and to the changelog second."""

    app: TableApp  # type: ignore[assignment]  # see `protocol`

    def __init__(self, app: AppT, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._next_offsets: dict[TP, int] = {}
        """The offset of the next write to each held changelog, if no foreign writer appends."""
        self._unrepaired: Counter[TP] = Counter()
        """Number of repairs of each changelog that are not acknowledged yet."""
        self._in_flight: Counter[TP] = Counter()
        """Number of writes to each changelog that are not acknowledged yet."""

    @property
    def store(self) -> DurableStore:
        """The local copy."""
        return cast("DurableStore", self.data)

    def row(self, partition: int, key: bytes) -> bytes | None:
        """Returns the row of a key in an assigned partition; None if absent."""
        return self.store.row(partition, key)

    def rows(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Returns every key and row of an assigned partition."""
        return self.store.rows(partition)

    def put(self, partition: int, key: bytes, row: bytes) -> None:
        """Writes a row; durable after the next barrier."""
        # The copy may be ahead of the changelog after a crash. The replayed event writes the same row again.
        self.store.put(partition, key, row)
        self._send(partition, key, row)

    def changelog(self, partition: int) -> TP:
        """Returns the changelog partition of an input partition."""
        return TP(self.changelog_topic.get_topic_name(), partition)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Starts the watch of the held changelogs at their ends, and writes overwritten rows again."""
        ends = self.app.tables.recovery.ends
        # The ends from the begin of the recovery, not from now: a foreign write in between must be found.
        self._next_offsets = {tp: ends[tp] for tp in active_tps}
        mine = {tp.partition for tp in active_tps}
        repairs = [row_id for row_id in self.store.stale if row_id[0] in mine]
        self._unrepaired = Counter(self.changelog(partition) for partition, _ in repairs)
        for partition, key in repairs:
            self.store.stale.discard((partition, key))
            row = self.store.row(partition, key)
            assert row is not None, "a stale key has a row"
            self._send(partition, key, row, repairs=True)
        await super().on_recovery_completed(active_tps, standby_tps)

    async def look_for_foreign_writers(self) -> None:
        """Ends the process if a changelog without own writes in flight has grown.

        The check is needed where no write follows: an overwritten row would stay last in the changelog, and compaction
        would remove the newer row.
        """
        before = {tp: end for tp, end in self._next_offsets.items() if not self._in_flight[tp]}
        rebalances = self.app.rebalancing_count
        ends = await self.app.consumer.highwaters(*before) if before else {}
        if self.app.rebalancing_count != rebalances:
            return  # a rebalance began during the question: some of the partitions may have moved
        for tp, end in ends.items():
            # Compared again after the `await`: an own write may have been sent or acknowledged during the question.
            expected = self._next_offsets.get(tp)
            if expected == before[tp] and not self._in_flight[tp] and end > expected:
                self._report_foreign(tp, expected, end)

    def _report_foreign(self, tp: TP, expected: int, got: int) -> None:
        self.app.end(WorkerExit.FOREIGN_WRITER, f"{tp.topic}[{tp.partition}]: expected offset {expected}, got {got}")

    def _send(self, partition: int, key: bytes, row: bytes, *, repairs: bool = False) -> None:
        def report(result: Ack | KafkaError) -> None:
            self._acknowledged(partition, result, repairs=repairs)

        self._in_flight[self.changelog(partition)] += 1
        self.app.send_record(self.changelog(partition).topic, Message(key, row), report, partition)

    def _acknowledged(self, partition: int, result: Ack | KafkaError, *, repairs: bool) -> None:
        tp = self.changelog(partition)
        if isinstance(result, KafkaError):
            self.app.end(WorkerExit.UNDELIVERED, f"{tp.topic}[{partition}]: {result.reason}")
        expected = self._next_offsets.get(tp)
        if expected is not None and result.offset != expected:
            self._report_foreign(tp, expected, result.offset)
        self._in_flight[tp] -= 1
        self._next_offsets[tp] = result.offset + 1
        self._unrepaired[tp] -= repairs
        # The copy has the row since `put`, so the copy now has the changelog up to here. While a repair is missing the
        # persisted offset stays, so that the next recovery finds the stale key again.
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
