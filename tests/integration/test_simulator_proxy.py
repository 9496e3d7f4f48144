"""The proxy before PostgreSQL passes unannounced sessions unchanged and reads the wire format as written."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from services.core.saga.calls import Verb
from services.simulator.pgwire import Announced, PgMessage, announced, error
from tests.support.eventually import eventually
from tests.support.simulator_process import Outside, outside


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[Outside]:
    with outside(tmp_path, database_url) as running:
        yield running


def test_a_session_without_an_announcement_passes_unchanged(world: Outside) -> None:
    world.fault("schemas", "refuse")
    with psycopg.connect(world.tenants_url) as session:
        assert session.execute("SELECT sum(n) FROM generate_series(1, 100000) n").fetchone() == (5_000_050_000,)
        session.execute("CREATE TABLE big (line text)")
        with session.cursor().copy("COPY big FROM STDIN") as copy:
            for _ in range(1000):
                copy.write_row(["x" * 5_000])
        assert session.execute("SELECT sum(length(line)) FROM big").fetchone() == (5_000_000,)
        with session.cursor().copy("COPY big TO STDOUT") as copy:
            assert sum(len(part) for part in copy) == 5_001_000
    assert world.calls("") == []


def test_a_running_query_can_be_cancelled_through_the_proxy(world: Outside) -> None:
    with psycopg.connect(world.tenants_url) as session:
        began = threading.Timer(0.3, session.cancel_safe)
        began.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("SELECT pg_sleep(60)")
        began.join()


def test_a_lost_server_connection_ends_the_session(world: Outside) -> None:
    with psycopg.connect(world.tenants_url, autocommit=True) as session:
        row = session.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        assert world.database_url is not None
        with psycopg.connect(world.database_url, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", row)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


def _announce(call: str) -> bytes:
    return f"SELECT set_config('lifecycle.call', '{call}', true)".encode()


def test_announced_transactions_are_listed_as_calls_with_their_outcome(world: Outside) -> None:
    with psycopg.connect(world.tenants_url) as session:
        for statement in (b"CREATE TABLE t (id int)", b"SELECT * FROM nowhere", b"SELECT 1"):
            session.execute(_announce("create:o:i:3:some-key"))
            if b"nowhere" in statement:
                with pytest.raises(psycopg.errors.UndefinedTable):
                    session.execute(statement)
            else:
                session.execute(statement)
            session.commit() if b"CREATE" in statement else session.rollback()
        session.execute("SELECT 1")
        session.commit()
    eventually(lambda: world.calls("o:i") == [("create", "done"), ("create", "refused"), ("create", "refused")])


def test_a_fault_strikes_single_calls_of_a_connection(world: Outside) -> None:
    world.fault("schemas", "refuse", key="o:bad")
    with psycopg.connect(world.tenants_url) as session:
        for key in ("good", "bad", "good"):
            try:
                session.execute(_announce(f"read:o:{key}:1:k"))
                session.execute("SELECT 1")
                session.commit()
            except psycopg.errors.InvalidParameterValue:
                session.rollback()
    assert world.calls("o:good") == [("read", "done"), ("read", "done")]
    assert world.calls("o:bad") == [("read", "refused")]


def test_a_connection_struck_down_ends_and_the_next_connection_works(world: Outside) -> None:
    world.fault("schemas", "down", times=1)
    with pytest.raises(psycopg.OperationalError), psycopg.connect(world.tenants_url) as session:
        session.execute(_announce("read:o:i:1:k"))
    with psycopg.connect(world.tenants_url) as session:
        session.execute(_announce("read:o:i:1:k"))
    assert world.calls("o:i") == [("read", "done")]


async def test_a_hundred_sessions_at_once_are_all_served(world: Outside) -> None:
    async def one(number: int) -> None:
        async with await psycopg.AsyncConnection.connect(world.tenants_url) as session:
            await session.execute(_announce(f"read:o:{number}:1:k"))
            await session.execute("SELECT pg_sleep(0.05)")

    await asyncio.gather(*(one(number) for number in range(100)))
    assert all(world.calls(f"o:{number}") == [("read", "done")] for number in range(0, 100, 10))


@pytest.mark.parametrize(
    ("statement", "call"),
    [
        (_announce("create:o:i:3:k"), Announced(Verb.CREATE, "o:i", 3, "k")),
        (b"BEGIN; " + _announce("delete:a%20b:c%3Ad:1:k%3A1"), Announced(Verb.DELETE, "a b:c:d", 1, "k:1")),
        (_announce("create:o:i:x:k"), None),
        (_announce("frobnicate:o:i:3:k"), None),
        (_announce("create"), None),
        (_announce(""), None),
        (b"SELECT set_config('lifecycle.call', 'create:o:i:3:k', false)", None),
        (b"SELECT 1", None),
        (b"", None),
    ],
)
def test_an_announcement_is_parsed_from_its_statement(statement: bytes, call: Announced | None) -> None:
    assert announced(statement.decode()) == call


def test_wire_messages_are_read_as_they_are_written() -> None:
    assert PgMessage(b"Q", b"COMMIT\0").starts == "COMMIT"
    assert PgMessage(b"P", b"name\0SELECT 1\0\0\0").starts == "SELECT 1"
    assert PgMessage(b"S", b"").starts is None
    assert PgMessage(b"C", b"DROP SCHEMA\0").text == "DROP SCHEMA"
    raw = error("42501", "no")
    assert raw[:1] == b"E"
    assert PgMessage(b"E", raw[5:-6]).sqlstate == "42501"
    assert raw[-1:] == b"I"
    assert error("42501", "no", in_transaction=True)[-1:] == b"E"
