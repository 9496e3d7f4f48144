"""Lease of the active instance: among the members of a consumer group, the owner of partition 0 is active.

Problem: several processes of one service may run, and a single one may work. Kafka already elects an owner for each
partition, notices a dead member by its silence, and refuses requests of a former member. So no further system is asked.

Rules:
- Nothing is read. The group's offset of partition 0 has no meaning; its commit is the proof of ownership, because
  the broker refuses the commit of a member that the group has given up, also of a process that was paused.
- The assignor keeps partitions where they are as far as the balance allows. A further member may move partition 0.
- Callbacks of librdkafka run in the polling thread, and only tell the event loop.
- A thread that ends by an error of ours leaves the group and gives the lease up: a member without polls would keep its
  partitions for minutes.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

import confluent_kafka
from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka import Consumer as LibrdkafkaConsumer

from services.adapters.kafka import clients
from services.adapters.kafka.group_consumer import OffsetLoss, call_librdkafka, fault_of
from services.adapters.kafka.producer import KafkaError, rights_to_read
from services.adapters.kafka.reach import in_words

SESSION_S: Final = 8.0
"""Seconds of silence after which the group gives the partitions of a member away; brokers allow 6 s and more."""
_POLL_S: Final = 0.2
_PAUSE_S: Final = 1.0
"""Seconds to the next poll after an error that stays."""
_CLOSE_S: Final = 5.0
_ANSWER_S: Final = 10.0


_FENCED: Final = frozenset({"UNKNOWN_MEMBER_ID", "ILLEGAL_GENERATION", "FENCED_INSTANCE_ID"})
"""Codes by which the broker refuses a commit of a former member."""
_BALANCING: Final = "REBALANCE_IN_PROGRESS"
"""Code by which the broker refuses a commit while a member joins or leaves: the owner is not decided."""
_ENDED: Final = "the polling thread of the lease has ended, with a traceback in the log: restart this process"


class NotActive(Exception):
    """This instance does not hold the lease: another one is active, or the group is being balanced."""


class PartitionLease:
    """The lease of one process. Use from one event loop; a thread polls."""

    def __init__(self, config: dict[str, Any], *, topic: str, group: str) -> None:
        """Prepares the member; `start` joins the group.

        Args:
            config: librdkafka's connection settings.
            topic: Full name of a topic that the service reads.
            group: Full name of the group.
        """
        self._topic = topic
        self._needed = rights_to_read(topic, group)
        self._consumer = clients.consumer(
            {**config, "on_commit": self._on_commit},
            group_id=group,
            group_protocol="classic",
            partition_assignment_strategy="cooperative-sticky",
            enable_auto_offset_store=False,
            session_timeout_ms=int(SESSION_S * 1_000),
            heartbeat_interval_ms=int(SESSION_S * 250),
        )
        self._asked: SimpleQueue[asyncio.Future[KafkaError | None]] = SimpleQueue()
        self._sent: list[asyncio.Future[KafkaError | None]] = []
        self._is_sent = False
        self._held, self._unheld, self._closing = asyncio.Event(), asyncio.Event(), threading.Event()
        self._unheld.set()
        self._thread: threading.Thread | None = None
        self.fault = "has not joined the group yet"
        """Why the membership is not known; empty for a member, active or not."""

    @property
    def is_held(self) -> bool:
        """True while this instance is the active one, as far as the group has told."""
        return self._held.is_set()

    def start(self) -> None:
        """Joins the group, in a thread."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._take_part, name="lease", daemon=True)
        self._thread.start()

    async def until(self, *, held: bool) -> None:
        """Returns when this instance holds the lease, or when this instance does not hold the lease."""
        await (self._held if held else self._unheld).wait()

    async def confirm(self) -> None:
        """Returns if the broker confirms, now, that this instance owns partition 0.

        Raises:
            NotActive: another instance is active, or the group is being balanced.
            KafkaError: no broker answers, or the cluster refuses.
        """
        if not self.is_held:
            raise NotActive("this instance stands by")
        answer: asyncio.Future[KafkaError | None] = asyncio.get_running_loop().create_future()
        self._asked.put(answer)
        try:
            async with asyncio.timeout(_ANSWER_S):
                error = await answer
        except TimeoutError:
            raise KafkaError("no broker confirms that this instance is active") from None
        if error is not None and error.reason == _BALANCING:
            raise NotActive("the group is being balanced, so the active instance is not decided yet")
        if error is not None and error.reason in _FENCED:
            raise NotActive(f"another instance is active ({error.reason})")
        if error is not None:
            raise error
        if not self.is_held:
            raise NotActive("this instance has just lost the lease")

    async def close(self) -> None:
        """Leaves the group within 5 s, so that the next instance takes over at once."""
        self._closing.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _CLOSE_S)

    def _take_part(self) -> None:
        """Polls until `close`, then leaves the group."""
        try:
            self._poll()
        finally:
            # An error goes on to the interpreter, which prints its traceback.
            is_broken = not self._closing.is_set()
            if is_broken:
                self._tell(_ENDED, held=False)
            self._sent += [self._asked.get() for _ in range(self._asked.qsize())]
            self._answer(KafkaError(_ENDED))
            with suppress(Exception):  # an error while leaving changes nothing
                call_librdkafka(self._consumer.close, *self._needed)
            if is_broken:
                # Once more: leaving has revoked the partitions, and that clears the fault.
                self._tell(_ENDED, held=False)

    def _tell(self, fault: str, *, held: bool | None = None) -> None:
        self._call(partial(self._take, fault, held=held))

    def _poll(self) -> None:
        """Polls until `close`; every change is told to the event loop."""

        def on_assign(consumer: LibrdkafkaConsumer, partitions: list[TopicPartition]) -> None:
            # From the end and paused: records are of no interest.
            consumer.incremental_assign([TopicPartition(one.topic, one.partition, OFFSET_END) for one in partitions])
            consumer.pause(partitions)
            self._tell("", held=True if _has_first(partitions) else None)

        def on_revoke(_: LibrdkafkaConsumer, partitions: list[TopicPartition]) -> None:
            self._tell("", held=False if _has_first(partitions) else None)

        self._consumer.subscribe([self._topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke)
        has_failed = False
        while not self._closing.is_set():
            try:
                message = call_librdkafka(lambda: self._consumer.poll(_POLL_S), *self._needed)
                if message is not None and (error := message.error()) and (cause := fault_of(error, *self._needed)):
                    raise cause
                self._ask()
                if has_failed and self._consumer.memberid():
                    self._tell("")
                    has_failed = False
            except (KafkaError, OffsetLoss, RuntimeError) as error:
                has_failed = True
                self._tell(in_words(error) if isinstance(error, KafkaError) else str(error))
                self._closing.wait(_PAUSE_S)

    def _ask(self) -> None:
        """Sends a commit for the waiting callers of `confirm`, unless a commit is under way.

        Raises:
            KafkaError: librdkafka refuses the commit; the callers of `confirm` are told.
            RuntimeError: The same, for an error outside Kafka.
        """
        # Not a synchronous commit beside the polls: confluent_kafka then waits for ever.
        if not self._is_sent and not self._asked.empty():
            self._sent += [self._asked.get() for _ in range(self._asked.qsize())]
            self._is_sent = True
            place = [TopicPartition(self._topic, 0, 0)]
            try:
                call_librdkafka(lambda: self._consumer.commit(offsets=place, asynchronous=True), *self._needed)
            except (KafkaError, RuntimeError) as error:
                self._answer(error if isinstance(error, KafkaError) else KafkaError(str(error)))
                raise

    def _on_commit(self, error: confluent_kafka.KafkaError | None, _: list[TopicPartition]) -> None:
        self._answer(None if error is None else KafkaError(error.name()))

    def _answer(self, error: KafkaError | None) -> None:
        """Answers the callers of `confirm` that wait for the sent commit."""
        answered, self._sent, self._is_sent = self._sent, [], False
        for answer in answered:
            self._call(partial(_answer, answer, error))

    def _call(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the event loop has ended meanwhile
            self._loop.call_soon_threadsafe(call)

    def _take(self, fault: str, *, held: bool | None) -> None:
        """Takes news of the polling thread: the fault, and whether the lease is held; None for no change."""
        self.fault = fault
        if held is not None:
            gone, come = (self._unheld, self._held) if held else (self._held, self._unheld)
            gone.clear()
            come.set()


def _answer(waiting: asyncio.Future[KafkaError | None], error: KafkaError | None) -> None:
    if not waiting.done():
        waiting.set_result(error)


def _has_first(partitions: list[TopicPartition]) -> bool:
    return any(one.partition == 0 for one in partitions)
