"""The two agents of the ledger: a delivery becomes a tenant's row, an outcome becomes its stage.

Rule: begin, read both rows, decide, write the row, send, finish. Nothing is awaited between reading and sending, so
what is composed of both rows is composed of one moment; and whatever cannot be read is acknowledged in the dead
letters before the partition moves on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from faust.types import EventT, StreamT

from schemas import codec
from schemas.rows import StageRow, TenantRow, pack, unpack
from schemas.topics import OUTCOMES, RECEIVED, Topic, named
from services.adapters.process.logs import Logger
from services.adapters.tables.app import DurableApp
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.table import DurableTable
from services.core.ledger.decisions import KIND, Decision, conclude, receive
from services.core.ledger.journal import RecordPosition
from services.core.ledger.projections import Output, ProjectionRules
from services.ledger import reading
from services.ledger.reading import PartitionRef, UnprocessableRecord
from services.ledger.telemetry import tell, tell_refused

Row = TypeVar("Row", TenantRow, StageRow)


@dataclass(slots=True)
class PoisonLimit:
    """How many records in a row could not be read, and how many may.

    A few are bad records. More say that this is not the version that its writers are of, and a version that cannot
    read must not bury a topic.
    """

    most: int
    in_a_row: int = 0

    @property
    def is_over(self) -> bool:
        """Whether one more is one too many."""
        return self.in_a_row >= self.most


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the agents share.

    Attributes:
        app: Reads, writes and commits.
        tenants: Rows by key, from `lifecycle.received`.
        stages: Rows by key, from `lifecycle.outcomes`.
        rules: Keys and published names.
        restamps: By endpoint, whether its sender changes `eventTimestamp` over retries; true where it is not named.
        incarnations: Identity of each input topic, by its name without the prefix.
        prefix: Of the installation.
        log: Of the service.
        patience: With records that cannot be read, by input topic.
    """

    app: DurableApp
    tenants: DurableTable
    stages: DurableTable
    rules: ProjectionRules
    restamps: Mapping[str, bool]
    incarnations: Mapping[str, str]
    prefix: str
    log: Logger
    patience: Mapping[str, PoisonLimit]

    async def reads_received(self, stream: StreamT[bytes]) -> None:
        """The agent of `lifecycle.received`."""
        async for event in stream.events():
            if await self.app.begin(event):
                with self.app.deciding(event):
                    self._receive(event)
                self.app.finish(event)

    async def reads_outcomes(self, stream: StreamT[bytes]) -> None:
        """The agent of `lifecycle.outcomes`."""
        async for event in stream.events():
            if await self.app.begin(event):
                with self.app.deciding(event):
                    self._conclude(event)
                self.app.finish(event)

    def _receive(self, event: EventT[bytes]) -> None:
        raw, place = reading.untouched(event.message), self._place(event, RECEIVED)
        record = reading.received(raw, self._seat(place))
        if isinstance(record, UnprocessableRecord):
            self._refuse(record, raw, place)
            return
        self.patience[place.topic].in_a_row = 0
        row, last = self.rows(place.partition, record.key.encode())
        restamps = self.restamps.get(codec.texts(raw.headers).get("endpoint", ""), True)
        decision = receive(row, last, record, place, self.rules, restamps=restamps, raw=raw)
        self._write(self.tenants, decision, place)
        tell(self.log, KIND[type(record)], row, decision, place)

    def _conclude(self, event: EventT[bytes]) -> None:
        raw, place = reading.untouched(event.message), self._place(event, OUTCOMES)
        outcome = reading.outcome(raw, self._seat(place))
        if isinstance(outcome, UnprocessableRecord):
            self._refuse(outcome, raw, place)
            return
        self.patience[place.topic].in_a_row = 0
        row, last = self.rows(place.partition, outcome.key.encode())
        decision = conclude(row, last, outcome, place, self.rules)
        self._write(self.stages, decision, place)
        tell(self.log, "outcome", last, decision, place)

    def rows(self, partition: int, key: bytes) -> tuple[TenantRow | None, StageRow | None]:
        """Both rows of a key."""
        return _read(TenantRow, self.tenants.row(partition, key)), _read(StageRow, self.stages.row(partition, key))

    def send(self, outputs: tuple[Output, ...]) -> None:
        """Hand records over, in this order."""
        for output in outputs:
            self.app.emit(named(output.topic, self.prefix), output.message)

    def _write(self, table: DurableTable, decision: Decision, place: RecordPosition) -> None:
        if decision.row is not None:
            table.put(place.partition, decision.row.key.encode(), pack(decision.row))
        self.send(decision.outputs)

    def _seat(self, place: RecordPosition) -> PartitionRef:
        return PartitionRef(place.partition, self.app.partitions)

    def _refuse(self, refused: UnprocessableRecord, raw: codec.Message, place: RecordPosition) -> None:
        patience = self.patience[place.topic]
        if patience.is_over:
            last = f"{place.topic}[{place.partition}] offset {place.offset}: {refused.reason}: {refused.detail}"
            told = f"{patience.most} records in a row could not be read, nor {last}"
            self.app.end(WorkerExit.POISON, f"{told}; if they are bad indeed, UNREADABLE_IN_A_ROW lets more pass")
        patience.in_a_row += 1
        self.send((reading.dead_letter(refused, raw, place),))
        tell_refused(self.log, refused.reason, refused.detail, place)

    def _place(self, event: EventT[bytes], topic: Topic) -> RecordPosition:
        message = event.message
        return RecordPosition(
            topic=topic.name,
            partition=message.partition,
            offset=message.offset,
            # Faust gives Kafka's milliseconds as seconds in a float.
            log_time_us=round(message.timestamp * 1000) * 1000,
            committed=self.app.committed(event),
            incarnation=self.incarnations[topic.name],
        )


def _read(form: type[Row], packed: bytes | None) -> Row | None:
    return None if packed is None else unpack(form, packed)
