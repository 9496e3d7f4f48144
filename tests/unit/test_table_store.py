"""A local copy takes the newer version of its own rows, and no row of another table."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from services.adapters.kafka.producer import Producer
from services.adapters.tables.app import Config, create_app
from services.adapters.tables.table import DurableTable


@pytest.fixture
async def table(tmp_path: Path) -> AsyncIterator[DurableTable]:
    producer = Producer({"bootstrap.servers": "127.0.0.1:9", "log_level": 0}, linger_ms=0, timeout_ms=1_000)
    yield create_app(Config("app", "127.0.0.1:9", 1, tmp_path, 1.0, 10.0), producer).durable_table("seen")
    await producer.close(0.0)


def written(topic: str, offset: int, version: int, text: bytes) -> Any:
    row = version.to_bytes(8, "big") + text
    message = SimpleNamespace(tp=TP(topic, 0), topic=topic, partition=0, offset=offset, key=b"k", value=row)
    return SimpleNamespace(message=message)


async def test_an_older_changelog_row_is_ignored_and_its_key_marked_for_repair(table: DurableTable) -> None:
    own = table.changelog(0).topic
    table.store.apply_changelog_batch([written(own, 0, 5, b"new"), written(own, 1, 4, b"old")], None, None)
    assert table.row(0, b"k") == (5).to_bytes(8, "big") + b"new"
    assert table.store.stale == {(0, b"k")}
    assert table.store.persisted_offset(TP(own, 0)) is None, "until the newer row was written again"


async def test_a_record_of_another_tables_changelog_is_ignored(table: DurableTable) -> None:
    own = table.changelog(0).topic
    table.store.apply_changelog_batch([written(own, 0, 1, b"mine")], None, None)
    table.store.apply_changelog_batch([written("app-noted-changelog", 7, 9, b"not mine")], None, None)
    assert table.row(0, b"k") == (1).to_bytes(8, "big") + b"mine"
    assert table.store.persisted_offset(TP(own, 0)) == 0, "else records of its own would be passed over"
