"""The two agents of the ledger: a delivery changes a tenant's row, an outcome changes the tenant's stage.

Rule: the order is begin, read both rows, decide, write the row, send, finish. Nothing is awaited between reading and
sending. Each agent writes one of the two tables and reads both, on the same event loop: an await in between would let
the agent beside change a row, and a view composed of both rows would show a state that never was.

A crash at any point is safe. The offset is committed after `finish` and after every record sent is acknowledged, and a
replayed record writes the same row and the same outputs again (services/core/ledger/decisions.py).

A record that cannot be read goes to the dead letters, acknowledged like any output, and the partition moves on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from faust.types import EventT, StreamT

from schemas import codec
from schemas.rows import StageRow, TenantRow, pack, unpack
from schemas.topics import EVENTS, OUTCOMES, RECEIVED, Topic, named
from services.adapters.process.logs import Logger
from services.adapters.tables.app import DurableApp, headers_of
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.table import DurableTable
from services.core.ledger.decisions import KIND, Decision, receive, receive_outcome
from services.core.ledger.journal import RecordPosition
from services.core.ledger.projections import Output, ProjectionRules
from services.ledger import reading
from services.ledger.reading import PartitionRef, UnprocessableRecord
from services.ledger.telemetry import record_decision, record_refusal, when_published

Row = TypeVar("Row", TenantRow, StageRow)


@dataclass(slots=True)
class PoisonLimit:
    """Counts records in a row that could not be read, up to a limit.

    A few are bad records. Many mean that the writers run a newer version than this ledger, and a ledger that cannot
    read a topic must not bury the topic in dead letters.

    Attributes:
        most: Records in a row that may be unreadable.
        in_a_row: Unreadable records since the last readable one.
    """

    most: int
    in_a_row: int = 0

    @property
    def is_over(self) -> bool:
        """True if a further unreadable record is one too many."""
        return self.in_a_row >= self.most


@dataclass(frozen=True, slots=True)
class Ledger:
    """The agents, and the values that both share.

    Attributes:
        app: Reads, writes and commits.
        tenants: Rows by key, from `lifecycle.received`.
        stages: Rows by key, from `lifecycle.outcomes`.
        rules: Keys and published names.
        restamps: True for an endpoint whose sender changes `eventTimestamp` over retries; true for unnamed endpoints.
        incarnations: Identity of each input topic, by name without the prefix.
        prefix: Prefix of the installation's topics.
        log: The service's logger.
        poison_limits: Limit of unreadable records, by input topic.
    """

    app: DurableApp
    tenants: DurableTable
    stages: DurableTable
    rules: ProjectionRules
    restamps: Mapping[str, bool]
    incarnations: Mapping[str, str]
    prefix: str
    log: Logger
    poison_limits: Mapping[str, PoisonLimit]

    async def reads_received(self, stream: StreamT[bytes]) -> None:
        """Processes the records of `lifecycle.received`, until cancelled."""
        async for event in stream.events():
            # False for an event that was read before a rebalance or is done already: neither processed nor finished.
            if await self.app.begin(event):
                with self.app.guard_decision(event):
                    self._receive(event)
                # Reached only if all outputs were sent: `deciding` ends the process on any exception.
                self.app.finish(event)

    async def reads_outcomes(self, stream: StreamT[bytes]) -> None:
        """Processes the records of `lifecycle.outcomes`, until cancelled."""
        async for event in stream.events():
            if await self.app.begin(event):
                with self.app.guard_decision(event):
                    self._conclude(event)
                self.app.finish(event)

    def _receive(self, event: EventT[bytes]) -> None:
        raw, position = reading.message_of(event.message), self._position(event, RECEIVED)
        record = reading.received(raw, self._partition(position))
        if isinstance(record, UnprocessableRecord):
            self._refuse(record, raw, position)
            return
        self.poison_limits[position.topic].in_a_row = 0
        row, last = self.rows(position.partition, record.key.encode())
        restamps = self.restamps.get(codec.texts(raw.headers).get("endpoint", ""), True)
        decision = receive(row, last, record, position, self.rules, restamps=restamps, raw=raw)
        self._act(self.tenants, KIND[type(record)], row, decision, position)

    def _conclude(self, event: EventT[bytes]) -> None:
        raw, position = reading.message_of(event.message), self._position(event, OUTCOMES)
        outcome = reading.outcome(raw, self._partition(position))
        if isinstance(outcome, UnprocessableRecord):
            self._refuse(outcome, raw, position)
            return
        self.poison_limits[position.topic].in_a_row = 0
        row, last = self.rows(position.partition, outcome.key.encode())
        decision = receive_outcome(row, last, outcome, position, self.rules)
        self._act(self.stages, "outcome", last, decision, position)

    def rows(self, partition: int, key: bytes) -> tuple[TenantRow | None, StageRow | None]:
        """Returns both rows of a key; None for a row that does not exist yet."""
        return _read(TenantRow, self.tenants.row(partition, key)), _read(StageRow, self.stages.row(partition, key))

    def send(self, outputs: tuple[Output, ...], on_event: Callable[[], None] | None = None) -> None:
        """Hands records to the producer, in order; `on_event` is called for each event that Kafka acknowledged."""
        for output in outputs:
            on_acked = on_event if output.topic is EVENTS else None
            self.app.emit(named(output.topic, self.prefix), output.message, on_acked)

    def _act(self, table: DurableTable, kind: str, row: Row | None, decision: Decision, place: RecordPosition) -> None:
        if decision.row is not None:
            table.put(place.partition, decision.row.key.encode(), pack(decision.row))
        self.send(decision.outputs, when_published(kind, row, decision, place))
        record_decision(self.log, kind, row, decision, place)

    def _partition(self, position: RecordPosition) -> PartitionRef:
        return PartitionRef(position.partition, self.app.partitions)

    def _refuse(self, refused: UnprocessableRecord, raw: codec.Message, position: RecordPosition) -> None:
        """Sends a record to the dead letters; ends the process beyond the limit of unreadable records."""
        limit = self.poison_limits[position.topic]
        if limit.is_over:
            place = f"{position.topic}[{position.partition}] offset {position.offset}"
            fault = f"{limit.most} records in a row could not be read, nor {place}: {refused.reason}: {refused.detail}"
            # Before the dead letter is sent: the record stays uncommitted, and is read again by the next start.
            self.app.end(WorkerExit.POISON, f"{fault}; if they are bad indeed, UNREADABLE_IN_A_ROW lets more pass")
        limit.in_a_row += 1
        self.send((reading.dead_letter(refused, raw, position),))
        record_refusal(self.log, raw, refused.reason, refused.detail, position)

    def _position(self, event: EventT[bytes], topic: Topic) -> RecordPosition:
        message = event.message
        return RecordPosition(
            topic=topic.name,
            partition=message.partition,
            offset=message.offset,
            # Faust gives Kafka's milliseconds as seconds in a float; rounding to milliseconds restores the exact time.
            log_time_us=round(message.timestamp * 1000) * 1000,
            committed=self.app.committed(event),
            incarnation=self.incarnations[topic.name],
            trace=codec.traceparent(headers_of(message)),
        )


def _read(form: type[Row], packed: bytes | None) -> Row | None:
    return None if packed is None else unpack(form, packed)
