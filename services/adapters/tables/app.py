"""Builds the one Faust app of a table worker, with every replacement of a Faust internal in place.

All records of the worker (outputs and changelogs) go through one `Producer`. Faust commits offsets only after a flush
of this producer (`transport.Barrier`): a single barrier covers every write of an event, on every topic.

Rule: an error on the way from an event to its records ends the process at once. Faust would log the error and commit
the offset of an event whose records are only partly written.
"""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from traceback import extract_tb
from typing import Any, cast

import faust
from faust.types import TP, EventT, StreamT
from faust.types.tuples import Message as FaustMessage
from yarl import URL

from schemas.codec import Message, traceparent
from services.adapters.kafka.producer import Ack, KafkaError, OnReport, Producer, QueueFull
from services.adapters.process import tracing
from services.adapters.process.tracing import SpanKind
from services.adapters.tables.assignor import CompleteAssignor
from services.adapters.tables.consumer import DurableConsumer
from services.adapters.tables.credentials import credentials
from services.adapters.tables.exits import End, WorkerExit, die
from services.adapters.tables.log_filter import limit_aiokafka_logs
from services.adapters.tables.protocol import OnTakeover
from services.adapters.tables.recovery import DurableTables
from services.adapters.tables.table import DurableTable
from services.adapters.tables.transport import Transport

Agent = Callable[[StreamT[bytes]], Awaitable[None]]

_MIB = 1 << 20
FILES_PER_TABLE = 24
"""Upper limit of open files for the local copy of one table partition. Six are usual; RocksDB alone sets no limit."""

_ROCKSDB = {
    "write_buffer_size": 4 * _MIB,
    "max_write_buffer_number": 2,
    "block_cache_size": 8 * _MIB,
    "max_open_files": FILES_PER_TABLE,
}
"""RocksDB options per table and partition. Faust's defaults (64 MiB, 3, 2 GiB) suit one big table on a machine of its
own."""


async def _ignore_takeover(_: Collection[int]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of a table worker.

    Attributes:
        app_id: Faust's application id: the consumer group, and the prefix of the changelogs' names.
        brokers: `host:port,…`.
        partitions: Partition count of every topic of the app.
        folder: Folder of the local copies of the tables.
        commit_interval_s: Seconds between two commits.
        session_timeout_s: Seconds until the group drops a silent worker.
        security: librdkafka's settings for TLS and SASL; the Faust consumer gets equal credentials.
        standby_replicas: Number of further workers that keep a copy of each table partition.
        accept_loss: True: input records that were removed unread are reported, and the worker continues. False: the
            process ends with `LOSS`.
        foreign_look_s: Seconds between two checks for a foreign writer of this worker's changelogs.
        end: Ends the process.
    """

    app_id: str
    brokers: str
    partitions: int
    folder: Path
    commit_interval_s: float
    session_timeout_s: float
    security: Mapping[str, str] = field(default_factory=dict)
    standby_replicas: int = 0
    accept_loss: bool = False
    foreign_look_s: float = 30.0
    end: End = field(default=die)


class DurableApp(faust.App):
    """Faust's app with one producer for every record of the worker."""

    # Faust makes both by the classes that `create_app` names, and declares less.
    consumer: DurableConsumer
    tables: DurableTables

    def __init__(self, config: Config, producer: Producer, **options: Any) -> None:
        super().__init__(config.app_id, **options)
        self.end = config.end
        self.partitions = config.partitions
        """Partition count of every topic of the app."""
        self.kafka: Mapping[str, Any] = {"log_level": 0, **config.security, "bootstrap.servers": config.brokers}
        """librdkafka's settings of the clients that only read. Logging is off, because their answers carry every
        failure."""
        self.foreign_look_s = config.foreign_look_s
        self.accept_loss = config.accept_loss
        self.lost: dict[TP, str] = {}
        """Input partitions with records that were removed unread, and a sentence about each loss. The callback
        `on_takeover` reports the entries and clears them."""
        self.log_of_writes = producer
        self.looked_at = 0
        """Rows read by the `on_takeover` callback. The watchdog counts an increase as progress of the recovery."""
        self.input_names: tuple[str, ...] = ()
        self.on_takeover: OnTakeover = _ignore_takeover
        """Awaited between the recovery of the tables and the first event. The argument is the partitions that are newly
        held or have lost records."""

    def durable_table(self, name: str) -> DurableTable:
        """Declares a table with the changelog `{app_id}-{name}-changelog`."""
        options = dict(_ROCKSDB)
        table = self.Table(
            name,
            key_type=bytes,
            value_type=bytes,
            partitions=self.conf.topic_partitions,
            options=options,
            # Faust applies standby records in batches of 1,000: a standby would be that far behind at a takeover.
            standby_buffer_size=1,
        )
        return cast("DurableTable", table)

    def bind_agents(self, agents: Mapping[str, Agent]) -> None:
        """Binds one agent to each input topic. Call once, before the start."""
        self.input_names = tuple(agents)
        for name, fun in agents.items():
            # `acks=False` turns Faust's own bookkeeping of acknowledgements off: `DurableConsumer` alone decides which
            # offsets are committed.
            topic = self.topic(
                name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=False
            )
            self.agent(topic, name=f"reads {name}")(fun)

    async def begin(self, event: EventT[bytes]) -> bool:
        """Returns True if the agent must process this event now; see `DurableConsumer.begin`."""
        return await self.consumer.begin(event)

    @contextmanager
    def guard_decision(self, event: EventT[bytes]) -> Iterator[None]:
        """Works within a span of the event's trace, and ends the process when the decision on the event raises.

        Faust would log the exception and commit past the event. The last line names the type and the position of the
        exception only, because the text of the exception may quote the record.
        """
        message = event.message
        trace = traceparent(headers_of(message))
        try:
            with tracing.working(f"process {message.topic}", SpanKind.CONSUMER, trace) as span:
                if span is not None:
                    span.attributes |= tracing.of_record(message.topic, message.partition, message.offset, message.key)
                yield
        except Exception as error:  # noqa: BLE001 - every exception of a decision is a bug
            steps = [f"{Path(at.filename).name}:{at.lineno} {at.name}" for at in extract_tb(error.__traceback__)]
            position = f"{message.topic}[{message.partition}] offset {message.offset}"
            self.end(WorkerExit.UNEXPECTED, f"{position}: {type(error).__name__} in {' > '.join(steps[-6:])}")

    def finish(self, event: EventT[bytes]) -> None:
        """Marks an event as finished; call after every record of the event was given to the producer."""
        self.consumer.finish(event)

    @property
    def durable_tables(self) -> Collection[DurableTable]:
        """Every table of the app."""
        return cast("Collection[DurableTable]", self.tables.values())

    def has_rows(self, partition: int) -> bool:
        """True if any table holds a row of the partition."""
        return any(next(table.rows(partition), None) is not None for table in self.durable_tables)

    def lag(self, now_us: int) -> Mapping[TP, tuple[int, float]]:
        """Returns the lag of each held input partition as `DurableConsumer.lag` does; empty before the start."""
        return self.consumer.lag(now_us) if self._consumer is not None else {}

    @property
    def recovering(self) -> int:
        """The number of changelog records to be read before the agents continue; 0 outside a recovery."""
        return self.tables.recovery.active_remaining_total() if self.in_recovery else 0

    def committed(self, event: EventT[bytes]) -> int:
        """Returns the greatest offset of the event's partition known to be committed; -1 for none."""
        return self.consumer.committed(event.message.tp)

    def emit(self, topic: str, message: Message, on_acked: Callable[[], None] | None = None) -> None:
        """Sends one output record, durable after the next barrier. A failed delivery report ends the process.

        Args:
            topic: Full name.
            message: The record.
            on_acked: Called on the event loop once Kafka has acknowledged the record.
        """

        def report(result: Ack | KafkaError) -> None:
            if isinstance(result, KafkaError):
                self.end(WorkerExit.UNDELIVERED, f"{topic}: {result.reason}")
            elif on_acked is not None:
                on_acked()

        self.send_record(topic, message, report)

    def send_record(self, topic: str, message: Message, on_report: OnReport, partition: int | None = None) -> None:
        """Sends one record. A record that the producer does not take ends the process.

        Earlier records of the same event may be on their way already, so continuing would leave the event half written.

        Args:
            topic: Full name.
            message: The record.
            on_report: Called on the event loop with the delivery report.
            partition: The target partition; None: the partitioner chooses by the key.
        """
        try:
            self.log_of_writes.send(topic, message, on_report, partition)
        except QueueFull:
            self.end(WorkerExit.UNDELIVERED, f"{topic}: the producer's queue is full")
        except KafkaError as error:
            self.end(WorkerExit.UNDELIVERED, f"{topic}: {error.reason}")

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Transport:
        return Transport(self.conf.broker_producer, self)


def headers_of(message: FaustMessage) -> list[tuple[str, bytes]]:
    """Returns the headers of a Faust message as pairs; Faust gives a mapping or pairs."""
    headers = message.headers or ()
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def create_app(config: Config, producer: Producer) -> DurableApp:
    """Creates the app and the folder of the local copies. Call inside the event loop that will run the app."""
    config.folder.mkdir(parents=True, exist_ok=True)
    limit_aiokafka_logs()
    return DurableApp(
        config,
        producer,
        broker=[URL(f"kafka://{address.strip()}") for address in config.brokers.split(",")],
        broker_credentials=credentials(config.security),
        store="rocksdb://",
        datadir=config.folder,
        # Faust imports no modules of its own accord, serves no HTTP and creates no topics.
        autodiscover=False,
        web_enabled=False,
        topic_partitions=config.partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=config.standby_replicas,
        broker_commit_interval=config.commit_interval_s,
        broker_session_timeout=config.session_timeout_s,
        broker_heartbeat_interval=config.session_timeout_s / 4,
        broker_rebalance_timeout=max(10.0, config.session_timeout_s),
        broker_request_timeout=max(20.0, 2 * config.session_timeout_s),
        consumer_auto_offset_reset="earliest",
        worker_redirect_stdouts=False,
        Table=DurableTable,
        TableManager=DurableTables,
        PartitionAssignor=CompleteAssignor,
    )
