"""Rows of adopted lives in a registry on a real PostgreSQL: of two writers of a new row the first wins."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from schemas.saga import Journal
from schemas.topics import AUDIT
from services.adapters.registry.registry import Registry
from services.adapters.registry.types import AdoptedRow, OutboxMessage, RemovalRules, Written
from services.core.saga.adoption import AdoptionBase, adopted_journal, told_desired, told_life
from tests.support.adopted_saga import line
from tests.support.provisioner_process import desired, gone, key, untraced
from tests.support.saga_world import plan
from tests.support.unreadable import unexpected


@pytest.fixture
async def registry(database_url: str) -> AsyncIterator[Registry]:
    opened = Registry(database_url, schema="lifecycle", lease_s=60, worker="one", on_unreadable=unexpected)
    await opened.start()
    yield opened
    await opened.close()


def row(of: str, tenant_id: str = "acme") -> AdoptedRow:
    """A row to write."""
    base = AdoptionBase(1, 0, told_us=1_000, now_us=5_000_000)
    told = told_desired(line(key=of, tenantId=tenant_id), base)
    journal = adopted_journal(None, told_life(plan(), told, base), base.now_us)
    return AdoptedRow(told, journal, OutboxMessage(AUDIT.name, 1, f"the act on {of}".encode()))


async def _stored(registry: Registry, of: str) -> Journal:
    (found,) = await registry.sagas(key=of, limit=1)
    return found.journal


async def test_an_adopted_row_is_due_for_nothing_until_intake_stores_a_version(registry: Registry) -> None:
    rows = [row(key(number)) for number in range(3)]
    assert await registry.adopt(rows) == {key(0), key(1), key(2)}
    assert await registry.claim(10) == []
    assert await registry.is_empty(), "intake has stored nothing yet"
    assert await registry.removal_limit(RemovalRules(at_once=1, percent=100, window_s=60)) == 3
    assert await registry.store(untraced([desired(key(0), 1, tenant_id="acme")])) == 1
    (claim,) = await registry.claim(10)
    assert (claim.key, claim.journal, claim.desired.version) == (key(0), rows[0].journal, 1)
    assert not await registry.is_empty()
    sent: list[bytes] = []

    async def publish(messages: list[object]) -> list[int]:
        sent.extend(one.value for one in messages)  # type: ignore[attr-defined]
        return [one.id for one in messages]  # type: ignore[attr-defined]

    assert await registry.drain(publish, 10) == (3, 3)  # type: ignore[arg-type]
    assert sent == [f"the act on {key(number)}".encode() for number in range(3)]


async def test_a_key_that_intake_has_stored_is_left_and_so_is_a_key_that_was_adopted(registry: Registry) -> None:
    await registry.store(untraced([gone(key(1), 7)]))
    assert await registry.adopt([row(key(0)), row(key(1))]) == {key(0)}
    assert await registry.adopt([row(key(0)), row(key(1)), row(key(2))]) == {key(2)}
    assert (await _stored(registry, key(1))).life is None
    # The version of an uninstall comes behind the adoption: it changes the version alone.
    await registry.store(untraced([gone(key(2), 8)]))
    assert (await _stored(registry, key(2))).life is not None


async def test_a_tenant_id_of_another_organisation_is_left_without_a_trace(
    registry: Registry, database_url: str
) -> None:
    await registry.store(untraced([desired(key(1, org=2), 1, tenant_id="taken")]))
    (claim,) = await registry.claim(1)
    life = row(key(1, org=2), "taken").journal
    assert await registry.write(claim, life, (), due_in_s=None, release=True) == Written()
    rows = [row(key(0)), row(key(1), "taken"), row(key(2), "other"), row(key(3, org=3), "other")]
    made = await registry.adopt(rows)
    assert len(made) == 2, "of two organisations that claim one tenantId in one file, one has it"
    assert key(1) not in made
    assert len(made & {key(2), key(3, org=3)}) == 1
    async with await psycopg.AsyncConnection.connect(database_url) as session:
        found = await (await session.execute("SELECT count(*) FROM lifecycle.outbox")).fetchone()
    assert found == (2,)


async def test_two_runs_at_once_adopt_each_key_once(registry: Registry, database_url: str) -> None:
    other = Registry(database_url, schema="lifecycle", lease_s=60, worker="two", on_unreadable=unexpected)
    await other.start()
    rows = [row(key(number)) for number in range(200)]
    made = await asyncio.gather(
        registry.adopt(rows), other.adopt(list(reversed(rows))), registry.store(untraced([desired(key(5), 1)]))
    )
    await other.close()
    assert not made[0] & made[1]
    assert len(made[0]) + len(made[1]) in {199, 200}


async def test_a_recovery_under_way_takes_no_adoption(registry: Registry) -> None:
    await registry.begin_recovery()
    assert await registry.adopt([row(key(0))]) == set()
    await registry.end_recovery()
    assert await registry.adopt([row(key(0))]) == {key(0)}
