"""Names the part of the app that the replacements of Faust's internals use.

Problem: Faust declares the app of its consumer, tables and stores as `AppT`. That type lacks the attributes of
`DurableApp`, and a class that replaces an internal cannot import `DurableApp`, because `app` imports the class.

Approach: each replacement declares `app: TableApp`, so the type checker checks every use. A protocol cannot derive from
`AppT`, so each declaration carries `type: ignore[assignment]`. `worker.run` passes a `DurableApp` as a `TableApp`: a
missing or different attribute is an error there.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from faust.types import TP
from faust.types.assignor import PartitionAssignorT
from faust.types.settings import Settings
from mode import ServiceT, Signal
from mode.utils.queues import FlowControlEvent

from schemas.codec import Message
from services.adapters.kafka.producer import OnReport, Producer
from services.adapters.tables.exits import End

if TYPE_CHECKING:
    from services.adapters.tables.consumer import DurableConsumer
    from services.adapters.tables.recovery import DurableTables
    from services.adapters.tables.table import DurableTable

OnTakeover = Callable[[Collection[int]], Awaitable[None]]


class TableApp(Protocol):
    """The members of `DurableApp` that the consumer, the recovery, the tables and the watchdog use.

    `faust.App` documents the first part, `DurableApp` the second.
    """

    # Of faust.App; `DurableApp` narrows `consumer` and `tables`.
    consumer: "DurableConsumer"
    tables: "DurableTables"
    rebalancing: bool
    rebalancing_count: int
    in_recovery: bool
    consumer_generation_id: int
    conf: Settings
    on_rebalance_complete: Signal[Any]

    @property
    def assignor(self) -> PartitionAssignorT:
        """Assigns the partitions of the group."""

    @property
    def flow_control(self) -> FlowControlEvent:
        """Stops and resumes the queues of events."""

    @property
    def _fetcher(self) -> ServiceT:
        """Fetches records for the agents."""

    def on_rebalance_end(self) -> None:
        """Ends the rebalance: `rebalancing` is False from now on."""

    # Of DurableApp.
    end: End
    kafka: Mapping[str, Any]
    foreign_look_s: float
    accept_loss: bool
    lost: dict[TP, str]
    log_of_writes: Producer
    looked_at: int
    input_names: tuple[str, ...]
    on_takeover: OnTakeover

    @property
    def durable_tables(self) -> "Collection[DurableTable]":
        """Every table of the app."""

    def has_rows(self, partition: int) -> bool:
        """True if any table holds a row of the partition."""

    def send_record(self, topic: str, message: Message, on_report: OnReport, partition: int | None = None) -> None:
        """Sends a record; a record that the producer does not take ends the process."""
