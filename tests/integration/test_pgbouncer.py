"""Registry and tenants' database behind a real PgBouncer, which gives each transaction another server process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from schemas.saga import Journal
from services.adapters.registry.registry import Registry, RegistryAway
from services.adapters.registry.types import LeaseLost, OutboxRow, TenantTaken, Written
from services.core.saga.calls import Absent, Done, OperatorRefused, Refused, Retryable, Unknown, Verb
from services.core.saga.plan import schema_name
from services.provisioner.kinds.postgres import PostgresKind
from tests.integration.test_provisioner_registry import alive, desired, key, said
from tests.support.eventually import eventually_async
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.provisioner_process import desired as desired_version
from tests.support.provisioner_process import gone, untraced
from tests.support.provisioner_stage import Stage, done, ended, exists, staged
from tests.support.simulator_process import a_call, outside
from tests.support.unreadable import unexpected

pytestmark = needs_pgbouncer
LEASE_S = 5.0


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    with pgbouncer(database_url) as url:
        yield url


@pytest.fixture
async def registry(pooled_url: str) -> AsyncIterator[Registry]:
    opened = Registry(pooled_url, schema="lifecycle", lease_s=LEASE_S, worker="one", on_unreadable=unexpected)
    await opened.start()
    yield opened
    await opened.close()


async def test_a_registry_works_behind_a_pooler(registry: Registry, pooled_url: str) -> None:
    other = Registry(pooled_url, schema="lifecycle", lease_s=LEASE_S, worker="two", on_unreadable=unexpected)
    await other.start()
    try:
        await registry.store(untraced([desired(key(number, org=number)) for number in range(40)]))
        found = await asyncio.gather(*((registry, other)[number % 2].claim(2) for number in range(20)))
        claims = [claim for some in found for claim in some]
        assert len({claim.key for claim in claims}) == len(claims) == 40
        written = await asyncio.gather(
            *(registry.write(claim, alive(), (said(1),), due_in_s=None, release=False) for claim in claims)
        )
        assert [type(one) for one in written].count(Written) == 1
        assert [type(one) for one in written].count(TenantTaken) == 39
        mine = claims[[type(one) for one in written].index(Written)]
        await registry.renew([mine])
        assert mine.is_held()
        assert isinstance(await registry.write(mine, Journal(), (), due_in_s=0, release=True), Written)
        again = await other.claim_one(mine.key)
        assert again is not None
        assert again.epoch == mine.epoch + 1
        assert isinstance(await registry.write(mine, Journal(), (), due_in_s=0, release=True), LeaseLost)

        async def publish(rows: list[OutboxRow]) -> list[int]:
            assert await other.drain(publish, 10) == (0, 0), "one at a time"
            return [row.id for row in rows]

        assert await registry.drain(publish, 10) == (1, 1)
        assert await registry.drain(publish, 10) == (0, 0)
    finally:
        await other.close()


async def test_the_recovery_lock_behind_a_pooler_is_held_by_one_process_and_ends_with_it(
    registry: Registry, pooled_url: str
) -> None:
    other = Registry(pooled_url, schema="lifecycle", lease_s=LEASE_S, worker="two", on_unreadable=unexpected)
    await other.open()
    async with registry.hold_recovery_lock() as mine:
        await registry.store(untraced([desired(key(1))]))
        await asyncio.gather(*(registry.is_empty() for _ in range(10)))
        async with other.hold_recovery_lock() as theirs:
            assert (mine, theirs) == (True, False)
        await registry.begin_recovery()
        await registry.end_recovery()
    async with other.hold_recovery_lock() as theirs:
        assert theirs
    await other.close()


async def test_no_session_setting_stays_on_a_pooled_connection(registry: Registry, pooled_url: str) -> None:
    await registry.store(untraced([desired(key(1))]))
    kind = PostgresKind(pooled_url)
    assert isinstance(await kind.call(a_call(Verb.READ, key=key(1))), Absent)
    with psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as session:
        for _ in range(6):
            query = "SELECT current_setting('search_path'), current_setting('lock_timeout')"
            assert session.execute(query).fetchone() == ('"$user", public', "0")
    await kind.close()


async def test_a_database_recreated_behind_the_pooler_is_noticed_before_a_claim(
    registry: Registry, database_url: str, database_admin_url: str
) -> None:
    await registry.store(untraced([desired(key(1))]))
    losses, name = registry.losses, urlsplit(database_url).path[1:]
    with psycopg.connect(database_admin_url, autocommit=True) as session:
        session.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        session.execute(f"CREATE DATABASE {name}".encode())

    async def noticed() -> bool:
        with pytest.raises(RegistryAway):
            await registry.claim(1)
        return registry.losses > losses

    assert await eventually_async(noticed)


async def test_of_those_who_were_on_their_way_when_the_server_changed_nobody_is_served(
    registry: Registry, database_url: str, database_admin_url: str
) -> None:
    await registry.store(untraced([desired(key(number)) for number in range(16)]))
    name = urlsplit(database_url).path[1:]
    with psycopg.connect(database_admin_url, autocommit=True) as session:
        session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        session.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name}".encode())
        session.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        session.execute(f"ALTER DATABASE {name}_copy RENAME TO {name}".encode())
    losses = registry.losses
    answers = await asyncio.gather(*(registry.claim(1) for _ in range(8)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [RegistryAway] * 8
    assert registry.losses > losses
    # Who asks now knows of the loss, and proves the registry before.
    assert len(await registry.claim(16)) == 16


async def test_a_pooler_in_statement_mode_is_refused_with_its_own_message(database_url: str) -> None:
    with pgbouncer(database_url, mode="statement") as url:
        with pytest.raises(RegistryAway, match="statement pooling"):
            await Registry(url, schema="lifecycle", lease_s=LEASE_S, worker="one", on_unreadable=unexpected).start()
        kind = PostgresKind(url)
        answer = await kind.call(a_call(Verb.READ, key=key(1)))
        assert isinstance(answer, Retryable)
        assert "statement pooling" in answer.reason
        await kind.close()


async def test_faults_behind_a_pooler_are_reported_with_their_cause(pooled_url: str) -> None:
    parts = urlsplit(pooled_url)
    bad = {
        "wrong password for user": parts._replace(netloc=parts.netloc.replace("of%20the", "not")).geturl(),
        "no database": parts._replace(path="/nowhere").geturl(),
    }
    for words, url in bad.items():
        with pytest.raises(RegistryAway, match=words):
            await Registry(url, schema="lifecycle", lease_s=LEASE_S, worker="one", on_unreadable=unexpected).start()
        kind = PostgresKind(url)
        answer = await kind.call(a_call(Verb.READ, key=key(1)))
        assert isinstance(answer, OperatorRefused)
        assert words in answer.reason
        await kind.close()


async def test_tenants_are_made_and_removed_through_a_pooler(pooled_url: str) -> None:
    kind = PostgresKind(pooled_url)
    keys = [f"pooled:{pooled_url[-20:]}:{number}" for number in range(30)]
    made = await asyncio.gather(*(kind.call(a_call(Verb.CREATE, key=of)) for of in keys))
    assert made == [Done({"schema": schema_name(of, 1), "role": schema_name(of, 1)}) for of in keys]
    stale = await kind.call(a_call(Verb.DELETE, key=keys[0], n=2, epoch=0))
    assert stale == Retryable("stale epoch", well=True)
    gone = await asyncio.gather(*(kind.call(a_call(Verb.DELETE, key=of, n=2)) for of in keys))
    assert gone == [Done()] * 30
    await kind.close()


async def test_the_simulator_separates_calls_that_a_pooler_sends_over_one_connection(
    tmp_path: Path, database_url: str
) -> None:
    with outside(tmp_path, database_url) as world, pgbouncer(world.tenants_url, size=2) as url:
        kind = PostgresKind(url)
        keys = [f"behind:{database_url[-20:]}:{number}" for number in range(8)]
        world.fault("schemas", "lost_answer", verb="create", key=keys[0], times=1)
        world.fault("schemas", "unauthorized", verb="create", key=keys[1], times=1)
        world.fault("schemas", "down", verb="create", key=keys[2], times=1)
        answers = await asyncio.gather(*(kind.call(a_call(Verb.CREATE, key=of)) for of in keys))
        assert [type(one) for one in answers] == [Unknown, OperatorRefused, Retryable, *[Done] * 5]
        assert [world.calls(of, "schemas") for of in keys] == [
            [("create", "lost")], [("create", "refused")], [], *[[("create", "done")]] * 5,
        ]  # fmt: skip
        for of in keys:
            assert not isinstance(await kind.call(a_call(Verb.DELETE, key=of, n=2)), Refused)
        await kind.close()


@pytest.fixture
def stage(kafka_bootstrap: str, topic_prefix: str, database_url: str, tmp_path: Path) -> Iterator[Stage]:
    with staged(kafka_bootstrap, topic_prefix, database_url, tmp_path) as made:
        yield made


def test_a_provisioner_works_with_both_databases_behind_a_pooler(stage: Stage, database_url: str) -> None:
    keys = stage.keys(12)
    with pgbouncer(database_url) as registry, pgbouncer(stage.world.tenants_url) as tenants:
        stage.scene.start(DATABASE_URL=registry, TENANT_DATABASE_URL=tenants)
        stage.scene.publish_desired([desired_version(of, 1) for of in keys])
        ended(stage, keys, 1, done)
        stage.scene.publish_desired([gone(of, 2) for of in keys[:6]])
        ended(stage, keys[:6], 2, done)
        exists(stage, dict.fromkeys(keys[:6]) | dict.fromkeys(keys[6:], 1))
