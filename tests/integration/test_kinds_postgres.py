"""Kind `postgres` on the real database, directly and through the simulator's proxy."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from services.core.saga.calls import (
    Absent,
    Answer,
    Contradicted,
    Done,
    OperatorRefused,
    Refused,
    Retryable,
    Unknown,
    Verb,
)
from services.core.saga.plan import schema_name
from services.provisioner.kinds.postgres import PostgresKind
from tests.support.eventually import eventually_async
from tests.support.simulator_process import Outside, a_call, outside


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, database_admin_url: str) -> Iterator[Outside]:
    """One simulator before a database of its own; the tests have keys apart."""
    name = f"test_{secrets.token_hex(6)}"
    _run(database_admin_url, f"CREATE DATABASE {name}")
    url = urlsplit(database_admin_url)._replace(path=f"/{name}").geturl()
    with outside(tmp_path_factory.mktemp("outside"), url) as running:
        yield running
    _drop_roles(url)
    _run(database_admin_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(autouse=True)
def healed(world: Outside) -> Iterator[None]:
    yield
    world.heal()


@pytest.fixture
async def kind(world: Outside) -> AsyncIterator[PostgresKind]:
    kind = PostgresKind(world.tenants_url)
    yield kind
    await kind.close()


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A key no other test uses: roles are shared by all databases of a server."""
    number = abs(hash(request.node.nodeid)) % 10**12
    return f"98765432-1234-5678-9abc-def012345678:a1b2c3d4-e5f6-7890-abcd-{number:012d}"


def _drop_roles(database_url: str) -> None:
    """Roles outlive the test's database."""
    with psycopg.connect(database_url, autocommit=True) as session:
        found = session.execute(
            "SELECT r.rolname FROM pg_roles r JOIN pg_namespace n ON n.nspname = r.rolname WHERE r.rolname ~ '^t_'"
        )
        for (role,) in found.fetchall():
            session.execute(sql.SQL("DROP SCHEMA {0} CASCADE").format(sql.Identifier(role)))
            session.execute(sql.SQL("DROP OWNED BY {0}").format(sql.Identifier(role)))
            session.execute(sql.SQL("DROP ROLE {0}").format(sql.Identifier(role)))


def _run(database_url: str, *statements: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as session:
        for statement in statements:
            session.execute(statement.encode())


def _ask(database_url: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(database_url) as session:
        return session.execute(query.encode(), values).fetchall()


def _exists(database_url: str, name: str) -> tuple[bool, bool]:
    """True for the schema, and for the role, if present."""
    schema = _ask(database_url, "SELECT 1 FROM pg_namespace WHERE nspname = %s", name)
    role = _ask(database_url, "SELECT 1 FROM pg_roles WHERE rolname = %s", name)
    return bool(schema), bool(role)


async def test_a_generation_has_a_schema_and_a_role_of_one_derived_name(
    kind: PostgresKind, world: Outside, key: str
) -> None:
    name = schema_name(key, 1)
    assert await kind.call(a_call(Verb.CREATE, key=key)) == Done({"schema": name, "role": name})
    assert world.database_url is not None
    assert _exists(world.database_url, name) == (True, True)
    found = _ask(
        world.database_url,
        "SELECT pg_get_userbyid(nspowner), obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s",
        name,
    )
    assert found[0][0] == name
    assert json.loads(found[0][1]) == {"key": key, "generation": 1}
    assert world.inventory("schemas", key) == [{"id": name, "generation": 1}]
    assert await kind.call(a_call(Verb.READ, key=key)) == Done({"schema": name, "role": name})


async def test_a_schema_created_twice_and_dropped_twice_is_gone(kind: PostgresKind, world: Outside, key: str) -> None:
    first = await kind.call(a_call(Verb.CREATE, key=key))
    assert await kind.call(a_call(Verb.CREATE, key=key)) == first
    assert await kind.call(a_call(Verb.UPDATE, key=key, n=2)) == first
    assert len(world.inventory("schemas", key)) == 1
    assert await kind.call(a_call(Verb.DELETE, key=key, n=3)) == Done()
    assert await kind.call(a_call(Verb.DELETE, key=key, n=4)) == Absent()
    assert await kind.call(a_call(Verb.READ, key=key)) == Absent()
    assert world.database_url is not None
    assert _exists(world.database_url, schema_name(key, 1)) == (False, False)
    assert world.calls(key, "schemas") == [
        ("create", "done"),
        ("create", "done"),
        ("update", "done"),
        ("delete", "done"),
        ("delete", "absent"),
        ("read", "absent"),
    ]


async def test_a_schema_never_created_is_absent(kind: PostgresKind, key: str) -> None:
    assert await kind.call(a_call(Verb.READ, key=key)) == Absent()
    assert await kind.call(a_call(Verb.DELETE, key=key)) == Absent()


async def test_a_lost_commit_is_unknown_then_read_back(kind: PostgresKind, world: Outside, key: str) -> None:
    world.fault("schemas", "lost_answer", verb="create", key=key, times=1)
    assert isinstance(await kind.call(a_call(Verb.CREATE, key=key)), Unknown)
    assert isinstance(await kind.call(a_call(Verb.READ, key=key)), Done)
    assert isinstance(await kind.call(a_call(Verb.CREATE, key=key)), Done)
    world.fault("schemas", "lost_answer", verb="delete", key=key, times=1)
    assert isinstance(await kind.call(a_call(Verb.DELETE, key=key, n=2)), Unknown)
    assert await kind.call(a_call(Verb.READ, key=key)) == Absent()
    assert world.calls(key, "schemas") == [
        ("create", "lost"),
        ("read", "done"),
        ("create", "done"),
        ("delete", "lost"),
        ("read", "absent"),
    ]


async def test_a_stale_epoch_changes_no_schema(kind: PostgresKind, world: Outside, key: str) -> None:
    assert isinstance(await kind.call(a_call(Verb.CREATE, key=key, epoch=5)), Done)
    assert await kind.call(a_call(Verb.DELETE, key=key, n=2, epoch=4)) == Retryable("stale epoch", well=True)
    assert len(world.inventory("schemas", key)) == 1
    assert isinstance(await kind.call(a_call(Verb.DELETE, key=key, n=2, epoch=6)), Done)
    assert await kind.call(a_call(Verb.CREATE, key=key, n=3, epoch=5)) == Retryable("stale epoch", well=True)
    assert world.inventory("schemas", key) == []
    assert world.calls(key, "schemas")[-1] == ("create", "refused")


async def test_a_stale_worker_waiting_for_the_fence_is_stopped_by_the_newer_epoch(
    kind: PostgresKind, world: Outside, key: str
) -> None:
    """Frozen between its start and its fence, it wakes after another worker has torn everything down."""
    assert isinstance(await kind.call(a_call(Verb.CREATE, key=key, epoch=1)), Done)
    assert world.database_url is not None
    async with await psycopg.AsyncConnection.connect(world.database_url) as other:
        await other.execute("UPDATE lifecycle_fence.epochs SET epoch = 9 WHERE key = %s", (key,))
        call = a_call(Verb.DELETE, key=key, n=2, epoch=1)
        answers = await _while_waiting(kind, world, call.epoch, key, other)
    assert answers == Retryable("stale epoch", well=True)
    assert len(world.inventory("schemas", key)) == 1


async def _while_waiting(
    kind: PostgresKind, world: Outside, epoch: int, key: str, other: psycopg.AsyncConnection[Any]
) -> Answer:
    zombie = asyncio.create_task(kind.call(a_call(Verb.DELETE, key=key, n=2, epoch=epoch)))
    query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'lifecycle'"
    assert world.database_url is not None
    while not await asyncio.to_thread(_ask, world.database_url, query):
        await asyncio.sleep(0.02)
    await other.commit()
    return await zombie


@pytest.mark.parametrize("verb", [Verb.CREATE, Verb.DELETE, Verb.READ])
async def test_faults_injected_by_the_proxy_are_answered_by_their_meaning(
    kind: PostgresKind, world: Outside, key: str, verb: Verb
) -> None:
    if verb is not Verb.CREATE:
        assert isinstance(await kind.call(a_call(Verb.CREATE, key=key)), Done)
    world.fault("schemas", "refuse", verb=verb, key=key, times=1)
    assert await kind.call(a_call(verb, key=key, n=2)) == Refused("SQLSTATE 22023: injected by the simulator")
    world.fault("schemas", "unauthorized", verb=verb, key=key, times=1)
    answer = await kind.call(a_call(verb, key=key, n=2))
    assert isinstance(answer, OperatorRefused)
    assert answer.reason == "SQLSTATE 28P01: injected by the simulator"
    assert "TENANT_DATABASE_URL" in answer.remedy
    world.fault("schemas", "error", verb=verb, key=key, times=1)
    assert await kind.call(a_call(verb, key=key, n=2)) == Retryable("SQLSTATE 53300: injected by the simulator")
    world.fault("schemas", "down", verb=verb, key=key, times=1)
    assert await kind.call(a_call(verb, key=key, n=2)) == Retryable("the connection ended")
    assert isinstance(await kind.call(a_call(verb, key=key, n=2)), Done)
    assert world.calls(key, "schemas")[-3:] == [(verb, "refused"), (verb, "error"), (verb, "done")]


async def test_a_call_timed_out_before_its_commit_has_no_effect(kind: PostgresKind, world: Outside, key: str) -> None:
    assert isinstance(await kind.call(a_call(Verb.READ, key=key)), Absent)
    world.fault("schemas", "slow", verb="create", key=key, times=1, seconds=3)
    answer = await kind.call(a_call(Verb.CREATE, key=key, timeout_s=0.5))
    assert isinstance(answer, Retryable)
    await eventually_async(lambda: asyncio.to_thread(lambda: world.calls(key, "schemas")[-1:] == [("create", "error")]))
    assert world.inventory("schemas", key) == []


async def test_a_schema_of_many_tables_is_dropped_in_batches(kind: PostgresKind, world: Outside, key: str) -> None:
    assert isinstance(await kind.call(a_call(Verb.CREATE, key=key)), Done)
    assert world.database_url is not None
    name = schema_name(key, 1)
    tables = [f"CREATE TABLE {name}.t{number} (id int PRIMARY KEY, other int)" for number in range(120)]
    references = [
        f"ALTER TABLE {name}.t{n} ADD FOREIGN KEY (other) REFERENCES {name}.t{(n + 1) % 120}" for n in range(120)
    ]
    _run(
        world.database_url,
        *tables,
        *references,
        f"CREATE TYPE {name}.mood AS ENUM ('a')",
        f"CREATE DOMAIN {name}.whole AS int",
        f"CREATE SEQUENCE {name}.counter",
        f"""CREATE TABLE {name}."odd ""name" (id serial PRIMARY KEY, m {name}.mood)""",
        f"CREATE TABLE {name}.parted (id int) PARTITION BY RANGE (id)",
        f"CREATE TABLE {name}.part PARTITION OF {name}.parted FOR VALUES FROM (0) TO (9)",
        f"CREATE FUNCTION {name}.f(int, text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        f"CREATE FUNCTION {name}.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        f"CREATE VIEW {name}.v AS SELECT * FROM {name}.t1",
        f"CREATE MATERIALIZED VIEW {name}.m AS SELECT * FROM {name}.v",
        f"CREATE VIEW {name}.w AS SELECT * FROM {name}.v",
    )
    assert await kind.call(a_call(Verb.DELETE, key=key, n=2, timeout_s=60)) == Done()
    assert _exists(world.database_url, name) == (False, False)


async def test_a_drop_in_batches_counts_as_one_call_for_a_lost_answer(
    kind: PostgresKind, world: Outside, key: str
) -> None:
    assert world.database_url is not None
    for n in (1, 3):
        assert isinstance(await kind.call(a_call(Verb.CREATE, key=key, n=n)), Done)
        _run(world.database_url, *(f"CREATE TABLE {schema_name(key, 1)}.t{number} (id int)" for number in range(60)))
        if n == 1:
            assert await kind.call(a_call(Verb.DELETE, key=key, n=2, timeout_s=60)) == Done()
    world.fault("schemas", "lost_answer", verb="delete", key=key, times=1)
    assert isinstance(await kind.call(a_call(Verb.DELETE, key=key, n=4, timeout_s=60)), Unknown)
    assert _exists(world.database_url, schema_name(key, 1)) == (False, False)
    assert [call for call in world.calls(key, "schemas") if call[0] == "delete"] == [
        ("delete", "done"),
        ("delete", "lost"),
    ]


async def test_functions_types_and_views_of_a_tenant_do_not_stop_the_drop(
    kind: PostgresKind, world: Outside, key: str
) -> None:
    assert isinstance(await kind.call(a_call(Verb.CREATE, key=key)), Done)
    assert world.database_url is not None
    name = schema_name(key, 1)
    _run(
        world.database_url,
        f"CREATE TABLE {name}.orders (id int)",
        f"CREATE FUNCTION {name}.total({name}.orders) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        f"CREATE FUNCTION {name}.next() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        f"CREATE TABLE {name}.defaulted (id int DEFAULT {name}.next())",
        f"CREATE TYPE {name}.pair AS (a {name}.orders, b {name}.defaulted)",
        f"CREATE TYPE {name}.span AS RANGE (subtype = int4)",
        f"CREATE VIEW {name}.totals AS SELECT {name}.total(o) FROM {name}.orders o",
        f"CREATE FUNCTION {name}.shown({name}.totals) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        f"CREATE TABLE {name}.kept (shown {name}.totals, first {name}.orders DEFAULT NULL)",
        f"ALTER TABLE {name}.orders ADD COLUMN kept {name}.defaulted",
        f"CREATE AGGREGATE {name}.sums(int) (SFUNC = int4pl, STYPE = int)",
    )
    assert await kind.call(a_call(Verb.DELETE, key=key, n=2)) == Done()
    assert _exists(world.database_url, name) == (False, False)


async def test_a_view_of_others_on_a_tenants_table_stops_the_drop(kind: PostgresKind, world: Outside, key: str) -> None:
    assert isinstance(await kind.call(a_call(Verb.CREATE, key=key)), Done)
    assert world.database_url is not None
    name = schema_name(key, 1)
    _run(
        world.database_url,
        f"CREATE TABLE {name}.t (id int)",
        f"CREATE VIEW public.report AS SELECT * FROM {name}.t",
    )
    assert await kind.call(a_call(Verb.DELETE, key=key, n=2)) == Refused(
        f"schema {name}: view public.report needs table {name}.t"
    )
    assert _ask(world.database_url, "SELECT count(*) FROM public.report") == [(0,)]
    _run(world.database_url, "DROP VIEW public.report")
    assert await kind.call(a_call(Verb.DELETE, key=key, n=2)) == Done()


@pytest.mark.parametrize(
    ("comment", "anothers"),
    [
        ('{"key": "another", "generation": 1}', True),
        ('{"key": "KEY", "generation": 2}', True),
        ('{"generation": 2}', True),
        ('{"key": "KEY"}', False),
        ('{"key": "KEY", "generation": 1, "made_by": "somebody"}', False),
        ("of the customer", False),
        ("[" * 100_000, False),
        ("", False),
    ],
    ids=("key", "generation", "generation alone", "key alone", "more", "words", "nested", "none"),
)
async def test_a_schema_with_a_foreign_comment_is_neither_adopted_nor_dropped(
    kind: PostgresKind, world: Outside, key: str, comment: str, *, anothers: bool
) -> None:
    assert world.database_url is not None
    name = schema_name(key, 1)
    _run(
        world.database_url,
        f"CREATE SCHEMA {name}",
        f"COMMENT ON SCHEMA {name} IS '{comment.replace('KEY', key)}'",
    )
    for verb in Verb:
        answer = await kind.call(a_call(verb, key=key))
        assert answer == Contradicted(f"comment of schema {name} is not ours", anothers=anothers)
    assert _exists(world.database_url, name) == (True, False)
    _run(world.database_url, f"DROP SCHEMA {name}")


async def test_a_lock_held_by_a_tenants_program_is_waited_for_and_then_retryable(world: Outside, key: str) -> None:
    impatient = PostgresKind(f"{world.tenants_url}")
    assert isinstance(await impatient.call(a_call(Verb.CREATE, key=key)), Done)
    assert world.database_url is not None
    name = schema_name(key, 1)
    _run(world.database_url, f"CREATE TABLE {name}.t (id int)")
    async with await psycopg.AsyncConnection.connect(world.database_url) as program:
        await program.execute(f"LOCK TABLE {name}.t".encode())
        answer = await impatient.call(a_call(Verb.DELETE, key=key, n=2, timeout_s=1))
        assert isinstance(answer, Retryable)
    assert await impatient.call(a_call(Verb.DELETE, key=key, n=2)) == Done()


@pytest.mark.parametrize(
    "org",
    [
        'x"; DROP SCHEMA public CASCADE;--',
        "pg_x",
        "🦄" * 50,
        "a" * 200,
        "a" * 199 + "b",
        "%s {} \\ '",
        "-c search_path=x",
    ],
)
async def test_hostile_identifiers_touch_only_a_derived_schema(kind: PostgresKind, world: Outside, org: str) -> None:
    key = f"{org}:{org}"
    assert world.database_url is not None
    before = _ask(world.database_url, "SELECT nspname FROM pg_namespace WHERE nspname !~ '^t_' ORDER BY 1")
    assert isinstance(await kind.call(a_call(Verb.CREATE, key=key)), Done)
    assert world.inventory("schemas", key) == [{"id": schema_name(key, 1), "generation": 1}]
    assert world.calls(key, "schemas") == [("create", "done")]
    assert await kind.call(a_call(Verb.DELETE, key=key, n=2)) == Done()
    after = _ask(world.database_url, "SELECT nspname FROM pg_namespace WHERE nspname !~ '^t_' ORDER BY 1")
    assert [name for (name,) in after if name != "lifecycle_fence"] == [
        name for (name,) in before if name != "lifecycle_fence"
    ]


async def test_ids_that_share_their_first_63_bytes_have_separate_schemas(kind: PostgresKind, world: Outside) -> None:
    keys = [f"{'a' * 199}{last}:b" for last in "xy"]
    for key in keys:
        assert isinstance(await kind.call(a_call(Verb.CREATE, key=key)), Done)
    assert await kind.call(a_call(Verb.DELETE, key=keys[0], n=2)) == Done()
    assert len(world.inventory("schemas", keys[1])) == 1
    assert await kind.call(a_call(Verb.DELETE, key=keys[1], n=2)) == Done()


async def test_a_role_without_superuser_rights_is_enough(database_url: str, key: str) -> None:
    role = f"app_{abs(hash(key)) % 10**9}"
    parts = urlsplit(database_url)
    _run(
        database_url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'p' NOSUPERUSER CREATEROLE",
        f"GRANT CREATE ON DATABASE {parts.path[1:]} TO {role}",
    )
    kind = PostgresKind(parts._replace(netloc=f"{role}:p@{parts.hostname}:{parts.port}").geturl())
    name = schema_name(key, 1)
    assert isinstance(await kind.call(a_call(Verb.CREATE, key=key)), Done)
    _run(database_url, f"SET ROLE {name}", f"CREATE TABLE {name}.t (id int)")
    assert await kind.call(a_call(Verb.DELETE, key=key, n=2)) == Done()
    assert _exists(database_url, name) == (False, False)
    _run(database_url, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


async def test_an_unreachable_database_is_retryable(key: str) -> None:
    answer = await PostgresKind("postgresql://u:p@127.0.0.1:9/x").call(a_call(Verb.CREATE, key=key))
    assert answer == Retryable("no session at 127.0.0.1:9: Connection refused")


async def test_the_lives_of_all_schemas_are_listed_by_their_comments(
    kind: PostgresKind, world: Outside, key: str
) -> None:
    await kind.call(a_call(Verb.CREATE, kind="postgres", key=key))
    await kind.call(a_call(Verb.CREATE, kind="postgres", key=key, generation=2, epoch=2))
    forged = schema_name(key, 3)
    assert world.database_url is not None
    _run(
        world.database_url,
        f"CREATE SCHEMA {forged}",
        f"""COMMENT ON SCHEMA {forged} IS '{{"key": "{key}", "generation": 9}}'""",
        "CREATE SCHEMA IF NOT EXISTS t_of_somebody",
    )
    assert sorted(life for life in await kind.lives() if life[0] == key) == [(key, 1), (key, 2)]


async def test_a_look_makes_no_fence(database_url: str, key: str) -> None:
    kind = PostgresKind(database_url)
    assert await kind.call(a_call(Verb.READ, kind="postgres", key=key)) == Absent()
    await kind.close()
    with psycopg.connect(database_url) as session:
        assert session.execute("SELECT to_regnamespace('lifecycle_fence')").fetchone() == (None,)
