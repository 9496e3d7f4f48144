"""A tenant's schema and role are dropped, or the obstacle is named: for every class that PostgreSQL lists.

The lists of classes are PostgreSQL's own: its catalogues' foreign keys to roles and schemas, and its columns of
privileges. A class without an example here fails, so that a new release of PostgreSQL is noticed.
"""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from services.core.saga.calls import Done, Refused, Verb
from services.core.saga.plan import schema_name
from services.provisioner.kinds.postgres import PostgresKind
from tests.support.postgres_objects import LYING, ROLES, statements
from tests.support.simulator_process import a_call


@dataclass
class DroppedTenant:
    """A tenant in a database of its own, and names beside it that no other test uses."""

    url: str
    kind: PostgresKind
    key: str
    more: str

    @property
    def name(self) -> str:
        """Of the tenant's schema and role."""
        return schema_name(self.key, 1)

    def run(self, *statements: str, database: str | None = None) -> None:
        """Carry statements out as the administrator; `{t}` is the tenant's name, `{o}` one of another."""
        url = self.url if database is None else urlsplit(self.url)._replace(path=f"/{database}").geturl()
        with psycopg.connect(url, autocommit=True) as session:
            for statement in statements:
                session.execute(statement.format(t=self.name, o=self.more, db=self.database).encode())

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        with psycopg.connect(self.url) as session:
            return session.execute(query.encode()).fetchall()

    @property
    def database(self) -> str:
        """Its name."""
        return urlsplit(self.url).path[1:]

    async def drop(self, n: int = 2) -> Any:
        """Tear the tenant down."""
        return await self.kind.call(a_call(Verb.DELETE, key=self.key, n=n, timeout_s=30))

    def is_gone(self) -> bool:
        """True if neither schema nor role is there."""
        names = "SELECT nspname FROM pg_namespace UNION ALL SELECT rolname FROM pg_roles"
        return (self.name,) not in self.ask(names)


@pytest.fixture
async def tenant(database_url: str) -> AsyncIterator[DroppedTenant]:
    key = f"98765432-1234-5678-9abc-def012345678:a1b2c3d4-e5f6-7890-abcd-{secrets.token_hex(6)}"
    made = DroppedTenant(database_url, PostgresKind(database_url), key, f"o_{secrets.token_hex(6)}")
    assert isinstance(await made.kind.call(a_call(Verb.CREATE, key=key)), Done)
    yield made
    await made.kind.close()
    for role in (made.more, f"{made.more}2", f"{made.more}app"):  # roles are shared by all databases of a server
        if made.ask(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
            made.run(f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def test_every_object_class_of_postgresql_has_an_example(database_url: str) -> None:
    keys = (
        "SELECT fktable::regclass::text, unnest(fkcols) FROM pg_get_catalog_foreign_keys() WHERE pktable = %s::regclass"
    )
    granted = """
        SELECT attrelid::regclass::text, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE atttypid = 'aclitem[]'::regtype AND relkind = 'r' AND relnamespace = 'pg_catalog'::regnamespace
    """
    with psycopg.connect(database_url) as session:
        schemas = session.execute(keys, ("pg_namespace",)).fetchall()
        roles = session.execute(keys, ("pg_authid",)).fetchall() + session.execute(granted).fetchall()
    assert {table for table, _ in schemas} == set(LYING)
    assert {f"{table}.{column}" for table, column in roles} == set(ROLES)


@pytest.mark.parametrize("catalogue", LYING)
async def test_an_object_of_each_class_is_dropped_with_its_schema(tenant: DroppedTenant, catalogue: str) -> None:
    if catalogue == "pg_extension":
        # An extension that can be in any schema; plpgsql, which all have, is fixed to pg_catalog.
        extension = tenant.ask(
            "SELECT name FROM pg_available_extension_versions WHERE relocatable ORDER BY name = 'citext' DESC LIMIT 1"
        )
        tenant.run(*statements(LYING[catalogue].replace("{ext}", extension[0][0])))
    else:
        tenant.run(*statements(LYING[catalogue]))
    assert await tenant.drop() == Done()
    assert tenant.is_gone()


async def test_objects_of_all_classes_together_are_dropped(tenant: DroppedTenant) -> None:
    for catalogue, text in LYING.items():
        if catalogue != "pg_extension":
            tenant.run(*statements(text))
    for column, kinds in (
        ("pg_class.relkind", "rpvmScfiI"),
        ("pg_type.typtype", "bcderm"),
        ("pg_proc.prokind", "fpaw"),
    ):
        catalogue, kind = column.split(".")
        namespace = f"{kind[:3]}namespace"
        found = tenant.ask(
            f"SELECT DISTINCT {kind}::text FROM {catalogue} WHERE {namespace} = '{tenant.name}'::regnamespace"
        )
        assert {letter for (letter,) in found} >= set(kinds)
    assert await tenant.drop() == Done()
    assert tenant.is_gone()


@pytest.mark.parametrize("column", ROLES)
async def test_objects_and_grants_of_a_role_are_removed_or_named(tenant: DroppedTenant, column: str) -> None:
    made, says, undone = ROLES[column]
    tenant.run(*statements(made))
    answer = await tenant.drop()
    if says:
        assert isinstance(answer, Refused), answer
        assert answer.reason.startswith(f"role {tenant.name} ")
        assert says.format(o=tenant.more) in answer.reason
        tenant.run(*statements(undone))
        answer = await tenant.drop(3)
    assert answer == Done()
    assert tenant.is_gone()
    if undone and not says:
        tenant.run(*statements(undone))


async def test_objects_of_a_role_in_another_database_are_named_with_it(tenant: DroppedTenant) -> None:
    tenant.run("CREATE DATABASE {o}")
    try:
        tenant.run(
            "CREATE TABLE public.t (id int)",
            "ALTER TABLE public.t OWNER TO {t}",
            "GRANT USAGE ON SCHEMA public TO {t}",
            database=tenant.more,
        )
        answer = await tenant.drop()
        assert isinstance(answer, Refused)
        assert f"of database {tenant.more}" in answer.reason
        assert "owns class" in answer.reason
        assert "has privileges on namespace" in answer.reason
        tenant.run("DROP OWNED BY {t}", database=tenant.more)
        assert await tenant.drop(3) == Done()
    finally:
        tenant.run("DROP DATABASE {o} WITH (FORCE)")


@pytest.mark.parametrize(
    ("made", "says", "undone"),
    [
        ("CREATE VIEW public.v AS SELECT * FROM {t}.t", "view public.v needs table {t}.t", "DROP VIEW public.v"),
        (
            "CREATE TABLE public.u (id int REFERENCES {t}.t)",
            "constraint u_id_fkey on table public.u needs ",
            "DROP TABLE public.u",
        ),
        (
            "CREATE TABLE public.u (id {t}.mood)",
            "column id of table public.u needs type {t}.mood",
            "DROP TABLE public.u",
        ),
        (
            "CREATE TABLE public.u (id int DEFAULT {t}.f())",
            "default value for column id of table public.u needs function {t}.f()",
            "DROP TABLE public.u",
        ),
        (
            "CREATE FUNCTION public.g(a {t}.t) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "function public.g({t}.t) needs type {t}.t",
            "DROP FUNCTION public.g",
        ),
        (
            "CREATE CAST ({t}.mood AS int) WITH FUNCTION {t}.g({t}.mood)",
            "cast from {t}.mood to integer needs ",
            "DROP CAST ({t}.mood AS int)",
        ),
        ("CREATE TABLE public.u () INHERITS ({t}.t)", "table public.u needs table {t}.t", "DROP TABLE public.u"),
    ],
)
async def test_a_dependent_object_outside_the_schema_is_named_and_stays(
    tenant: DroppedTenant, made: str, says: str, undone: str
) -> None:
    tenant.run(
        "CREATE TABLE {t}.t (id int PRIMARY KEY)",
        "CREATE TYPE {t}.mood AS ENUM ('a')",
        "CREATE FUNCTION {t}.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION {t}.g({t}.mood) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        made,
    )
    answer = await tenant.drop()
    assert isinstance(answer, Refused)
    assert says.format(t=tenant.name) in answer.reason
    tenant.run(undone)
    assert await tenant.drop(3) == Done()
    assert tenant.is_gone()


async def test_an_extension_installed_by_another_role_is_named(tenant: DroppedTenant) -> None:
    extension = tenant.ask("SELECT name FROM pg_available_extension_versions WHERE relocatable ORDER BY name LIMIT 1")[
        0
    ][0]
    tenant.run(f'CREATE EXTENSION "{extension}" SCHEMA {{t}}')
    answer = await tenant.drop()
    assert isinstance(answer, Refused)
    assert f"extension {extension} of " in answer.reason
    tenant.run(f'ALTER EXTENSION "{extension}" SET SCHEMA public')
    assert await tenant.drop(3) == Done()


async def test_objects_of_a_schema_that_depend_on_each_other_are_dropped(tenant: DroppedTenant) -> None:
    tenant.run(
        "CREATE TABLE {t}.t (id int, more int)",
        "CREATE FUNCTION {t}.is_well({t}.t) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true'",
        "CREATE FUNCTION {t}.next({t}.t) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE {t}.t ADD CHECK ({t}.is_well(t))",
        "ALTER TABLE {t}.t ALTER more SET DEFAULT {t}.next(NULL)",
        "CREATE INDEX ON {t}.t ({t}.next(t))",
        "CREATE INDEX ON {t}.t (id) WHERE {t}.is_well(t)",
        "CREATE POLICY p ON {t}.t USING ({t}.is_well(t))",
        "CREATE RULE r AS ON DELETE TO {t}.t WHERE {t}.is_well(old) DO INSTEAD NOTHING",
        "CREATE FUNCTION {t}.tr() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER tr BEFORE UPDATE ON {t}.t FOR EACH ROW WHEN ({t}.is_well(NEW)) EXECUTE FUNCTION {t}.tr()",
        "CREATE DOMAIN {t}.d AS int",
        "CREATE FUNCTION {t}.fits({t}.d) RETURNS bool LANGUAGE sql AS 'SELECT true'",
        "ALTER DOMAIN {t}.d ADD CHECK ({t}.fits(VALUE))",
        "CREATE FUNCTION {t}.all_of() RETURNS SETOF {t}.t BEGIN ATOMIC SELECT * FROM {t}.t; END",
    )
    assert await tenant.drop() == Done()
    assert tenant.is_gone()


async def test_grants_that_the_role_may_not_revoke_are_named(tenant: DroppedTenant) -> None:
    parts = urlsplit(tenant.url)
    tenant.run("CREATE ROLE {o}app LOGIN PASSWORD 'p' CREATEROLE", "GRANT CREATE ON DATABASE {db} TO {o}app")
    tenant.run("GRANT USAGE ON SCHEMA lifecycle_fence TO {o}app", "GRANT ALL ON lifecycle_fence.epochs TO {o}app")
    less = PostgresKind(parts._replace(netloc=f"{tenant.more}app:p@{parts.hostname}:{parts.port}").geturl())
    try:
        assert await tenant.drop() == Done()
        assert isinstance(await less.call(a_call(Verb.CREATE, key=tenant.key, n=3)), Done)
        tenant.run(
            "GRANT TEMPORARY ON DATABASE {db} TO {t}",
            "CREATE TABLE public.t (id int)",
            "GRANT SELECT ON public.t TO {t}",
        )
        answer = await less.call(a_call(Verb.DELETE, key=tenant.key, n=4))
        assert isinstance(answer, Refused)
        assert f"has privileges on database {tenant.database}" in answer.reason
        assert "has privileges on table public.t" in answer.reason
        tenant.run("DROP OWNED BY {t}")
    finally:
        # `DROP OWNED` took the schema with it; the role is left.
        answer = await less.call(a_call(Verb.DELETE, key=tenant.key, n=5))
        await less.close()
    assert tenant.is_gone()


async def test_many_functions_are_dropped_in_batches(tenant: DroppedTenant) -> None:
    tenant.run(
        "DO $$ BEGIN FOR n IN 1..1200 LOOP EXECUTE format("
        "'CREATE FUNCTION {t}.f%s() RETURNS int LANGUAGE sql AS ''SELECT 1''', n); END LOOP; END $$"
    )
    assert await tenant.drop() == Done()
    assert tenant.is_gone()
