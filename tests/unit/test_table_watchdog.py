"""A worker counts as stalled by the watchdog's own clock; the consumer is only read."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, UnknownError
from faust.types import TP

from services.adapters.kafka.producer import KafkaError, Producer
from services.adapters.tables.app import Config, DurableApp, create_app
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.log_gap import Next
from services.adapters.tables.watchdog import PAUSED_S, RECOVERY_STALL_S, STALL_S, Watchdog
from tests.support.troubles import silent

EVENTS = TP("events", 0)
LOOK_S = PAUSED_S / 2


class ProcessEnded(Exception):
    pass


def end(reason: WorkerExit, why: str) -> NoReturn:
    raise ProcessEnded(reason, why)


@dataclass
class Consumer:
    """A consumer at offset 3 of a partition that ends at 5."""

    next: Next | Exception | None = field(default_factory=lambda: Next(3, is_record=True))
    should_stop: bool = False
    coordinator: Any = field(default_factory=lambda: SimpleNamespace(_coordination_task=None, _pending_exception=None))
    expected: dict[TP, int] = field(default_factory=lambda: {EVENTS: 3})
    moved_at: dict[TP, float] = field(default_factory=lambda: {EVENTS: 0.0})

    def end(self, tp: TP) -> int:
        assert tp == EVENTS
        return 5

    async def next_in_log(self, tp: TP) -> Next | None:
        assert tp == EVENTS
        if isinstance(self.next, Exception):
            raise self.next
        return self.next


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[DurableApp]:
    producer = Producer({"bootstrap.servers": "127.0.0.1:9", "log_level": 0}, linger_ms=0, timeout_ms=1_000)
    yield create_app(Config("app", "127.0.0.1:9", 1, tmp_path, 1.0, 10.0, end=end), producer)
    await producer.close(0.0)


async def checked(watchdog: Watchdog, from_s: float, to_s: float) -> None:
    """Checks without a pause from one time to another."""
    while from_s <= to_s:
        await watchdog.check(from_s)
        from_s += LOOK_S


async def ends(watchdog: Watchdog, at_s: float) -> tuple[WorkerExit, str]:
    with pytest.raises(ProcessEnded) as ended:
        await watchdog.check(at_s)
    reason, why = ended.value.args
    return reason, why


async def test_a_stalled_partition_with_a_waiting_record_ends_the_worker(app: DurableApp) -> None:
    watchdog = Watchdog(app, Consumer(), 0.0)
    await checked(watchdog, 0.0, STALL_S)
    stall = (WorkerExit.STALL, "events[0]: stands still at offset 3 of 5 for 60 s")
    assert await ends(watchdog, STALL_S + LOOK_S) == stall


async def test_a_stalled_partition_with_a_silent_broker_ends_the_worker(app: DurableApp) -> None:
    watchdog = Watchdog(app, Consumer(next=KafkaError("no answer")), 0.0)
    await checked(watchdog, 0.0, STALL_S)
    assert (await ends(watchdog, STALL_S + LOOK_S))[0] is WorkerExit.STALL


@pytest.mark.parametrize("found", [Next(5, is_record=False), None], ids=["marks", "it has moved meanwhile"])
async def test_a_partition_without_a_waiting_record_restarts_the_time(app: DurableApp, found: Next | None) -> None:
    consumer = Consumer(next=found)
    watchdog = Watchdog(app, consumer, 0.0)
    await checked(watchdog, 0.0, STALL_S + LOOK_S)
    assert (consumer.expected, consumer.moved_at) == ({EVENTS: 3}, {EVENTS: 0.0})
    consumer.next = Next(3, is_record=True)
    await checked(watchdog, STALL_S + 2 * LOOK_S, 2 * STALL_S + LOOK_S)
    assert (await ends(watchdog, 2 * STALL_S + 2 * LOOK_S))[0] is WorkerExit.STALL


async def test_progress_restarts_the_time(app: DurableApp) -> None:
    consumer = Consumer()
    watchdog = Watchdog(app, consumer, 0.0)
    consumer.moved_at[EVENTS] = 30.0
    await checked(watchdog, 0.0, STALL_S + 30.0)
    assert (await ends(watchdog, STALL_S + 30.0 + LOOK_S))[0] is WorkerExit.STALL


@pytest.mark.parametrize("flag", ["rebalancing", "in_recovery"])
async def test_rebalances_and_recoveries_do_not_count_as_a_stall(app: DurableApp, flag: str) -> None:
    watchdog = Watchdog(app, Consumer(), 0.0)
    setattr(app, flag, True)
    await checked(watchdog, 0.0, STALL_S + LOOK_S)
    setattr(app, flag, False)
    await checked(watchdog, STALL_S + 2 * LOOK_S, 2 * STALL_S)


async def test_a_pause_of_the_process_does_not_count_as_a_stall(app: DurableApp) -> None:
    watchdog = Watchdog(app, Consumer(), 0.0)
    await watchdog.check(LOOK_S)
    await watchdog.check(2 * STALL_S)
    await checked(watchdog, 2 * STALL_S, 3 * STALL_S)
    assert (await ends(watchdog, 3 * STALL_S + LOOK_S))[0] is WorkerExit.STALL


async def test_a_recovery_without_progress_ends_the_worker(app: DurableApp) -> None:
    watchdog = Watchdog(app, Consumer(), 0.0)
    app.in_recovery = True
    await checked(watchdog, 0.0, RECOVERY_STALL_S)
    app.looked_at += 1
    begun = RECOVERY_STALL_S + LOOK_S
    await checked(watchdog, begun, begun + RECOVERY_STALL_S)
    assert (await ends(watchdog, begun + RECOVERY_STALL_S + LOOK_S))[0] is WorkerExit.STALL


async def test_a_pause_of_the_process_does_not_count_against_a_recovery(app: DurableApp) -> None:
    watchdog = Watchdog(app, Consumer(), 0.0)
    app.in_recovery = True
    await checked(watchdog, 0.0, RECOVERY_STALL_S)
    resumed_s = 2 * RECOVERY_STALL_S
    await checked(watchdog, resumed_s, resumed_s + RECOVERY_STALL_S)
    assert (await ends(watchdog, resumed_s + RECOVERY_STALL_S + LOOK_S))[0] is WorkerExit.STALL


async def test_an_error_of_the_group_coordinator_ends_the_worker(app: DurableApp) -> None:
    consumer = Consumer()
    watchdog = Watchdog(app, consumer, 0.0)
    consumer.coordinator._pending_exception = UnknownError()
    assert await ends(watchdog, 1.0) == (WorkerExit.COORDINATOR, "the group coordinator reports UnknownError")
    consumer.coordinator._pending_exception = GroupAuthorizationFailedError("app")
    assert (await ends(watchdog, 1.0))[0] is WorkerExit.DENIED
    consumer.coordinator._coordination_task = asyncio.get_running_loop().create_future()
    consumer.coordinator._coordination_task.set_result(None)
    assert await ends(watchdog, 1.0) == (WorkerExit.COORDINATOR, "the group coordination task has ended")
    consumer.should_stop = True
    await watchdog.check(1.0)
    await watchdog.watch()  # and returns


def test_a_watchdog_that_fails_ends_the_worker(tmp_path: Path) -> None:
    with silent() as address:  # a broker that is away would end the start of Faust, perhaps before the watchdog looks
        ended = _worker_with_a_broken_watchdog(tmp_path, address)
    assert ended.returncode == WorkerExit.CRASHED, ended.stderr
    assert "CRASHED: TypeError" in ended.stderr


def _worker_with_a_broken_watchdog(folder: Path, address: str) -> "subprocess.CompletedProcess[str]":
    program = f"""
import asyncio
from pathlib import Path
from services.adapters.kafka.producer import Producer
from services.adapters.tables.app import Config, create_app
from services.adapters.tables.worker import run

async def work():
    producer = Producer({{"bootstrap.servers": "{address}", "log_level": 0}}, linger_ms=0, timeout_ms=1_000)
    config = Config("app", "{address}", 1, Path({str(folder)!r}), 1.0, 10.0, foreign_look_s="never")
    await run(create_app(config, producer), asyncio.Event())

asyncio.run(work())
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
