"""The thread of a lease: an error of librdkafka is told to the one who asks, and an end of the thread to everybody."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import confluent_kafka
import pytest
from confluent_kafka import KafkaException, TopicPartition

from services.adapters.kafka.partition_lease import NotActive, PartitionLease
from services.adapters.kafka.producer import KafkaError
from tests.support.eventually import eventually

BALANCING = confluent_kafka.KafkaError.REBALANCE_IN_PROGRESS
FORMER = confluent_kafka.KafkaError.UNKNOWN_MEMBER_ID


class ScriptedLibrdkafka:
    """A consumer of librdkafka without a broker; `on_poll` and `on_commit` do what a test says."""

    def __init__(self) -> None:
        self.on_poll: Callable[[], None] = lambda: None
        self.on_commit: Callable[[], None] = lambda: None
        self.is_closed = False

    def subscribe(self, _: list[str], *, on_revoke: Callable[[Any, list[TopicPartition]], None], **__: Any) -> None:
        self.on_revoke = on_revoke

    def poll(self, _: float) -> None:
        time.sleep(0.01)
        self.on_poll()

    def commit(self, **_: Any) -> None:
        self.on_commit()

    def memberid(self) -> str:
        return "member"

    def close(self) -> None:
        self.on_revoke(self, [TopicPartition("topic", 0)])
        self.is_closed = True


@asynccontextmanager
async def holding() -> AsyncIterator[tuple[PartitionLease, ScriptedLibrdkafka]]:
    """A lease that is held, as far as it knows."""
    lease = PartitionLease({"bootstrap.servers": "127.0.0.1:1"}, topic="topic", group="group")
    lease._consumer.close()
    scripted = ScriptedLibrdkafka()
    lease._consumer = cast("Any", scripted)
    lease.start()
    lease._take("", held=True)
    try:
        yield lease, scripted
    finally:
        await lease.close()
        assert scripted.is_closed


def _raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


async def test_a_commit_that_librdkafka_refuses_is_told_and_the_thread_goes_on() -> None:
    async with holding() as (lease, scripted):
        scripted.on_commit = _raises(KafkaException(confluent_kafka.KafkaError(confluent_kafka.KafkaError._STATE)))
        with pytest.raises(KafkaError, match="_STATE"):
            await lease.confirm()
        assert await asyncio.to_thread(eventually, lambda: lease.fault)
        scripted.on_commit = lambda: lease._on_commit(None, [])
        await lease.confirm()
        assert await asyncio.to_thread(eventually, lambda: not lease.fault)
        assert lease.is_held


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_ends_gives_the_lease_up_and_says_so() -> None:
    async with holding() as (lease, scripted):
        scripted.on_poll = _raises(ZeroDivisionError())
        async with asyncio.timeout(30):
            await lease.until(held=False)
        await asyncio.to_thread(eventually, lambda: scripted.is_closed)
        await lease.close()
        assert not lease.is_held
        assert "restart this process" in lease.fault
        with pytest.raises(NotActive):
            await lease.confirm()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_who_waits_for_a_confirmation_hears_of_the_end_of_the_thread() -> None:
    async with holding() as (lease, scripted):
        # The commit is on its way when the thread ends.
        scripted.on_commit = lambda: setattr(scripted, "on_poll", _raises(ZeroDivisionError()))
        with pytest.raises(KafkaError, match="has ended"):
            await lease.confirm()


@pytest.mark.parametrize(("code", "words"), [(BALANCING, "the group is being balanced"), (FORMER, "another instance")])
async def test_a_group_that_is_being_balanced_is_not_told_as_another_instance(code: int, words: str) -> None:
    async with holding() as (lease, scripted):
        scripted.on_commit = lambda: lease._on_commit(confluent_kafka.KafkaError(code), [])
        with pytest.raises(NotActive, match=words):
            await lease.confirm()
