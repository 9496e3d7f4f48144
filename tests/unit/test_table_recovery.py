"""Partitions that another worker may have held, and a standby's copy ahead of its changelog."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from faust.types import TP

from services.adapters.kafka.producer import Producer
from services.adapters.tables.app import Config, DurableApp, create_app
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.recovery import OwnershipTracker

TABLE_0 = TP("app-seen-changelog", 0)


class RecoveryEnded(Exception):
    pass


def end(reason: WorkerExit, why: str) -> NoReturn:
    raise RecoveryEnded(reason, why)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[DurableApp]:
    producer = Producer({"bootstrap.servers": "127.0.0.1:9", "log_level": 0}, linger_ms=0, timeout_ms=1_000)
    yield create_app(Config("app", "127.0.0.1:9", 1, tmp_path, 1.0, 10.0, end=end), producer)
    await producer.close(0.0)


def test_every_partition_is_new_at_first() -> None:
    assert OwnershipTracker().newly_held(1, {0, 1}) == {0, 1}


def test_a_partition_kept_in_the_next_group_generation_is_not_taken_over() -> None:
    tenure = OwnershipTracker()
    tenure.begin(3, {0, 1})
    assert tenure.newly_held(4, {1, 2}) == {2}


def test_every_partition_is_taken_over_after_a_missed_group_generation() -> None:
    tenure = OwnershipTracker()
    tenure.begin(3, {0, 1})
    assert tenure.newly_held(5, {0, 1}) == {0, 1}


def test_every_partition_is_taken_over_after_the_group_begins_anew() -> None:
    tenure = OwnershipTracker()
    tenure.begin(3, {0, 1})
    assert tenure.newly_held(1, {0}) == {0}


class Beginnings:
    """Says where topics begin, as Faust's consumer does."""

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        return dict.fromkeys(partitions, 0)


@pytest.mark.parametrize(("end_offset", "ahead"), [(9, True), (10, False)])
async def test_a_copy_ahead_of_its_changelog_ends_the_worker(app: DurableApp, end_offset: int, *, ahead: bool) -> None:
    recovery: Any = app.tables.recovery
    recovery.ends[TABLE_0] = end_offset
    last = {TABLE_0: 4}  # then come marks of transactions
    if not ahead:
        recovery._settle({TABLE_0}, {TABLE_0: 9}, last)
        assert last[TABLE_0] == 9, "Faust would take more read than there is for a fault"
        return
    with pytest.raises(RecoveryEnded, match="read to offset 9, the topic ends at 8") as ended:
        recovery._settle({TABLE_0}, {TABLE_0: 9}, last)
    assert ended.value.args[0] is WorkerExit.CHANGELOG_BEHIND


async def test_a_standby_may_have_read_past_the_known_end(app: DurableApp) -> None:
    recovery: Any = app.tables.recovery
    recovery.standby_offsets[TABLE_0], recovery.standby_highwaters[TABLE_0] = 9, 4
    await recovery._build_offsets(Beginnings(), {TABLE_0}, recovery.standby_offsets, "standby")
    assert recovery.standby_offsets[TABLE_0] == 9


async def test_a_timeout_in_a_recovery_ends_the_worker(app: DurableApp) -> None:
    recovery: Any = app.tables.recovery
    with pytest.raises(RecoveryEnded, match=r"no answer within 0\.01 s") as ended:
        await recovery._wait(asyncio.sleep(5), timeout=0.01)
    assert ended.value.args[0] is WorkerExit.STALL
    await recovery._wait(asyncio.sleep(0), timeout=5)
