"""Makes the one Faust app of a table worker: configured whole, with every cure in place, from values alone."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from traceback import extract_tb
from typing import Any, cast

import faust
from faust.types import TP, EventT, StreamT
from yarl import URL

from schemas.codec import Message
from services.adapters.kafka.producer import Ack, KafkaError, OnReport, Producer, QueueFull
from services.adapters.tables.assignor import CompleteAssignor
from services.adapters.tables.consumer import DurableConsumer
from services.adapters.tables.credentials import credentials
from services.adapters.tables.exits import End, WorkerExit, die
from services.adapters.tables.log_filter import quieten
from services.adapters.tables.recovery import DurableTables
from services.adapters.tables.table import DurableTable
from services.adapters.tables.transport import Transport

Agent = Callable[[StreamT[bytes]], Awaitable[None]]
Taken = Callable[[Collection[int]], Awaitable[None]]

_MIB = 1 << 20
FILES_PER_TABLE = 24
"""Files that the copy of a table's partition may hold open. Six are usual; RocksDB has no limit of its own."""

_ROCKSDB = {
    "write_buffer_size": 4 * _MIB,
    "max_write_buffer_number": 2,
    "block_cache_size": 8 * _MIB,
    "max_open_files": FILES_PER_TABLE,
}
"""Per partition and table; Faust's defaults (64 MiB, 3, 2 GiB) are for one big table on a machine of its own."""


async def _nothing(_: Collection[int]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Config:
    """What a table worker needs to know.

    Attributes:
        app_id: Faust's application id: the consumer group, and the prefix of the changelogs.
        brokers: `host:port,…`.
        partitions: Of every topic of the app.
        folder: Where the local copies of the tables are kept.
        commit_interval_s: Between two commits.
        session_timeout_s: How long the group waits for a silent worker.
        security: Further librdkafka settings (TLS, SASL), for the consumer.
        standby_replicas: How many other workers keep a copy of each table partition beside the one that writes it.
        accept_loss: Go on where a committed offset is outside the log, instead of ending the process.
        foreign_look_s: Between two looks for a foreign writer of a changelog that this worker does not write.
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
    """Faust's app with one producer for everything it writes."""

    def __init__(self, config: Config, producer: Producer, **options: Any) -> None:
        super().__init__(config.app_id, **options)
        self.end = config.end
        self.partitions = config.partitions
        """Of every topic."""
        self.kafka = {"log_level": 0, **config.security, "bootstrap.servers": config.brokers}
        """librdkafka's settings, of clients that only look: what fails is told by their answers."""
        self.foreign_look_s = config.foreign_look_s
        self.accept_loss = config.accept_loss
        self.lost: dict[TP, str] = {}
        """Input partitions of which records are gone unread, and which; told with `taken`, who forgets them."""
        self.log_of_writes = producer
        self.looked_at = 0
        """Rows that `taken` has looked at: by this the watchdog sees that it goes on."""
        self.input_names: tuple[str, ...] = ()
        self.taken: Taken = _nothing
        """Awaited with the partitions that are newly held, or have lost records, after their tables are whole and
        before their events."""

    def durable_table(self, name: str) -> DurableTable:
        """Declare a table; its changelog is `{app_id}-{name}-changelog`."""
        options = dict(_ROCKSDB)
        table = self.Table(
            name,
            key_type=bytes,
            value_type=bytes,
            partitions=self.conf.topic_partitions,
            options=options,
            standby_buffer_size=1,  # a copy that waits for a thousand records is none
        )
        return cast("DurableTable", table)

    def read(self, agents: Mapping[str, Agent]) -> None:
        """Bind one agent to each input topic; call once, before the start."""
        self.input_names = tuple(agents)
        for name, fun in agents.items():
            topic = self.topic(
                name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=False
            )
            self.agent(topic, name=f"reads {name}")(fun)

    async def begin(self, event: EventT[bytes]) -> bool:
        """Whether this event is to be processed now; see `DurableConsumer.begin`."""
        return await self._reader.begin(event)

    @contextmanager
    def deciding(self, event: EventT[bytes]) -> Iterator[None]:
        """Around the decision on one event: what it raises is a bug, and ends the process before Faust can skip it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the text may quote the record, so only kind and place are told
            message = event.message
            steps = [f"{Path(at.filename).name}:{at.lineno} {at.name}" for at in extract_tb(error.__traceback__)]
            place = f"{message.topic}[{message.partition}] offset {message.offset}"
            self.end(WorkerExit.UNEXPECTED, f"{place}: {type(error).__name__} in {' > '.join(steps[-6:])}")

    def finish(self, event: EventT[bytes]) -> None:
        """Everything this event causes was sent."""
        self._reader.finish(event)

    def has_rows(self, partition: int) -> bool:
        """Whether any table holds a row of a partition."""
        tables = cast("Iterable[DurableTable]", self.tables.values())
        return any(next(table.rows(partition), None) is not None for table in tables)

    def lag(self, now_us: int) -> Mapping[TP, tuple[int, float]]:
        """See `DurableConsumer.lag`; empty before the start."""
        return self._reader.lag(now_us) if self._consumer is not None else {}

    @property
    def recovering(self) -> int:
        """Records of changelogs still to be read before the events go on."""
        tables = cast("DurableTables", self.tables)
        return tables.recovery.active_remaining_total() if self.in_recovery else 0

    def committed(self, event: EventT[bytes]) -> int:
        """The greatest offset of the event's partition that is known to be committed; -1 for none."""
        return self._reader.committed(event.message.tp)

    @property
    def _reader(self) -> DurableConsumer:
        return cast("DurableConsumer", self.consumer)

    def emit(self, topic: str, message: Message) -> None:
        """Send one output; durable once the next barrier is passed."""

        def report(result: Ack | KafkaError) -> None:
            if isinstance(result, KafkaError):
                self.end(WorkerExit.UNDELIVERED, f"{topic}: {result.reason}")

        self.hand_over(topic, message, report)

    def hand_over(self, topic: str, message: Message, on_report: OnReport, partition: int | None = None) -> None:
        """Send one record; what cannot be taken ends the process, since half of an event's writes may be out."""
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


def create_app(config: Config, producer: Producer) -> DurableApp:
    """Make the app. Call inside the loop that will run it."""
    config.folder.mkdir(parents=True, exist_ok=True)
    quieten()
    return DurableApp(
        config,
        producer,
        broker=[URL(f"kafka://{address.strip()}") for address in config.brokers.split(",")],
        broker_credentials=credentials(config.security),
        store="rocksdb://",
        datadir=config.folder,
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
