"""A session that does not open: the meaning for the registry, a tenant's step and an operator's command."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from services.adapters.postgres.pool import NoSession, Pool, PooledConnection
from services.adapters.postgres.sessions import NoDatabase, registry_standing, session
from services.adapters.registry.registry import SCHEMA, Registry, RegistryAway
from services.cli.exits import Exit
from services.cli.main import _translated
from services.core.saga.calls import Answer, Done, OperatorRefused, Retryable, Verb
from services.engines.readiness import postgres_answers
from services.provisioner.kinds.postgres import PostgresKind
from tests.support.eventually import eventually_async
from tests.support.simulator_process import a_call
from tests.support.troubles import greeting
from tests.support.unreadable import unexpected
from tests.unit.test_cli_commands import lifecycle

PASSWORD = "never-to-be-told"


@pytest.fixture
def role(database_url: str) -> Iterator[str]:
    """A role that may make schemas and roles."""
    name = f"app_{secrets.token_hex(5)}"
    database = urlsplit(database_url).path[1:]
    _run(
        database_url,
        f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' CREATEROLE",
        f"GRANT CREATE ON DATABASE {database} TO {name}",
        f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {database} TO {name}",
    )
    yield name
    _run(database_url, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def _run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as session:
        for statement in statements:
            session.execute(statement.encode())


def _as(url: str, role: str, *, password: str = PASSWORD, database: str | None = None) -> str:
    parts = urlsplit(url)
    return parts._replace(
        netloc=f"{role}:{password}@{parts.hostname}:{parts.port}", path=f"/{database}" if database else parts.path
    ).geturl()


async def _asked(url: str) -> Answer:
    kind = PostgresKind(url)
    try:
        return await kind.call(a_call(Verb.CREATE, key=f"words:{secrets.token_hex(6)}"))
    finally:
        await kind.close()


@pytest.mark.parametrize(
    ("statements", "given", "words", "means"),
    [
        ((), {"password": "wrong"}, 'wrong password for user "{role}" at 127.0.0.1:{port}', OperatorRefused),
        ((), {"database": "nowhere"}, 'no database "nowhere" at 127.0.0.1:{port}', OperatorRefused),
        (("ALTER ROLE {role} NOLOGIN",), {}, 'user "{role}" may not log in at 127.0.0.1:{port}', OperatorRefused),
        (
            ("REVOKE CONNECT ON DATABASE {database} FROM {role}",),
            {},
            'user "{role}" may not connect to database "{database}" at 127.0.0.1:{port}',
            OperatorRefused,
        ),
        (
            ("REVOKE CREATE ON DATABASE {database} FROM {role}",),
            {},
            "permission denied for database {database}",
            OperatorRefused,
        ),
        (("ALTER ROLE {role} CONNECTION LIMIT 0",), {}, "too many connections for role", Retryable),
    ],
    ids=("password", "database", "login", "connect", "create", "limit"),
)  # fmt: skip
async def test_step_and_registry_name_the_fault_of_a_session_without_the_password(
    database_url: str,
    role: str,
    statements: tuple[str, ...],
    given: dict[str, str],
    words: str,
    means: type[OperatorRefused | Retryable],
) -> None:
    parts = urlsplit(database_url)
    known = {"role": role, "port": parts.port, "database": parts.path[1:]}
    _run(database_url, *(statement.format(**known) for statement in statements))
    url, says = _as(database_url, role, **given), words.format(**known)
    answer = await _asked(url)
    assert isinstance(answer, means)
    assert says in answer.reason
    assert PASSWORD not in answer.reason
    registry = Registry(url, schema="lifecycle", lease_s=5, worker="one", on_unreadable=unexpected)
    began = asyncio.get_running_loop().time()
    for ask in (registry.start, registry.is_empty):
        with pytest.raises(RegistryAway) as away:
            await ask()
        if ask == registry.start or "permission" not in words:
            assert says in str(away.value)
        assert PASSWORD not in str(away.value)
    await registry.close()
    assert asyncio.get_running_loop().time() - began < 8, "it waits for nothing"


def test_a_server_silent_after_the_login_counts_as_not_answering() -> None:
    with greeting() as address:
        url = f"postgresql://u:{PASSWORD}@{address}/d"
        words = r"DATABASE_URL\): no session at .*: no answer within"
        with pytest.raises(NoDatabase, match=words) as away, session("DATABASE_URL", url) as opened:
            opened.execute("SELECT 1")
        assert not away.value.refused
        assert not postgres_answers(url)


async def test_a_registry_gives_up_on_a_server_silent_after_the_login() -> None:
    with greeting() as address:
        registry = Registry(
            f"postgresql://u:p@{address}/d", schema="lifecycle", lease_s=5, worker="one", on_unreadable=unexpected
        )
        with pytest.raises(RegistryAway, match="no answer within"):
            await registry.start()
        await registry.close()


async def test_a_missing_right_at_the_registry_is_a_refusal(database_url: str, role: str, tmp_path: Path) -> None:
    registry = Registry(database_url, schema=SCHEMA, lease_s=5, worker="one", on_unreadable=unexpected)
    await registry.start()
    await registry.close()
    _run(
        database_url,
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}",
        f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {SCHEMA} TO {role}",
    )
    url = _as(database_url, role)
    with session("DATABASE_URL", url) as opened:
        found = registry_standing(opened, SCHEMA)
    assert (found.readable, found.writes) == (True, False)
    with session("DATABASE_URL", database_url) as opened:
        assert registry_standing(opened, SCHEMA).writes
    environ = {"DATABASE_URL": url, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    assert (await asyncio.to_thread(lifecycle, "sagas", "list", cwd=tmp_path, **environ)).returncode == Exit.OK
    reader = Registry(url, schema=SCHEMA, lease_s=5, worker="two", on_unreadable=unexpected)
    with pytest.raises(RegistryAway, match="permission denied") as away:
        await reader.claim(1)
    await reader.close()
    assert away.value.refused
    told = _translated(away.value)
    assert told is not None
    assert told[1] is Exit.REFUSED


async def test_a_refused_connection_is_retryable(database_url: str) -> None:
    answer = await _asked("postgresql://u:p@127.0.0.1:9/x")
    assert answer == Retryable("no session at 127.0.0.1:9: Connection refused")


def test_the_fault_of_a_database_url_is_named(database_url: str) -> None:
    with session("DATABASE_URL", database_url) as opened:
        assert opened.execute("SELECT 1").fetchone() == (1,)
    bad = {
        "wrong password for user": _as(database_url, "nobody", password="x"),
        "Connection refused": "postgresql://u:p@127.0.0.1:9/x",
    }
    for words, url in bad.items():
        with pytest.raises(NoDatabase, match=words), session("DATABASE_URL", url):
            pass


async def test_a_read_only_server_after_a_fail_over_is_left_for_a_new_connection(
    kind: PostgresKind, database_url: str
) -> None:
    """Connections that were opened before would read for ever; the next call has new ones."""
    database, key = urlsplit(database_url).path[1:], f"words:{secrets.token_hex(6)}"
    assert isinstance(await kind.call(a_call(Verb.CREATE, key=key)), Done)
    _run(database_url, f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    _run(
        database_url.replace(database, "postgres"),
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'",
    )

    async def only_reads() -> bool:
        answer = await kind.call(a_call(Verb.DELETE, key=key, n=2))
        assert isinstance(answer, Retryable)
        return "25006" in answer.reason  # before that, the old connection may have been heard to end

    assert await eventually_async(only_reads)
    _run(database_url, "SET default_transaction_read_only = off", f"ALTER DATABASE {database} RESET ALL")
    assert await kind.call(a_call(Verb.DELETE, key=key, n=2)) == Done()


@pytest.fixture
async def kind(database_url: str) -> AsyncIterator[PostgresKind]:
    made = PostgresKind(database_url, at_once=1)
    yield made
    await made.close()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async def as_it_is(_: object) -> None: ...

    made = Pool(database_url, at_most=2, configure=as_it_is)
    yield made
    await made.close()


async def test_a_connection_inside_a_transaction_is_not_given_to_another_caller(pool: Pool) -> None:
    async with pool.connection(5) as first:
        await first.execute("BEGIN; SET work_mem = '1MB'")
        pid = first.info.backend_pid
    async with pool.connection(5) as second:
        assert second.info.backend_pid != pid


async def test_a_call_whose_time_is_up_leaves_no_transaction_behind(kind: PostgresKind, pool: Pool) -> None:
    async with pool.connection(5) as other:
        key = f"words:{secrets.token_hex(6)}"
        assert isinstance(await kind.call(a_call(Verb.CREATE, key=key)), Done)
        await other.execute("BEGIN; LOCK TABLE lifecycle_fence.epochs")
        answer = await kind.call(a_call(Verb.DELETE, key=key, n=2, timeout_s=0.5))
        assert answer == Retryable("no answer in time")
        await other.execute("COMMIT")
        assert await kind.call(a_call(Verb.DELETE, key=key, n=2)) == Done()


async def test_a_pool_never_exceeds_its_size_and_reports_the_wait(pool: Pool) -> None:
    async with pool.connection(5), pool.connection(5):
        with pytest.raises(NoSession, match=r"no connection came free within 0\.2 s"):
            async with pool.connection(0.2):
                pass


async def test_connections_ended_by_the_server_are_replaced_without_an_error(database_url: str, pool: Pool) -> None:
    async with pool.connection(5) as one, pool.connection(5) as two:
        pids = {one.info.backend_pid, two.info.backend_pid}
    _run(database_url, *(f"SELECT pg_terminate_backend({pid})" for pid in pids))

    async def are_gone() -> bool:
        async with pool.connection(5) as one, pool.connection(5) as two:
            return not pids & {one.info.backend_pid, two.info.backend_pid}

    assert await eventually_async(are_gone)


async def test_a_cancelled_wait_for_a_connection_leaks_none(pool: Pool) -> None:
    async def hold(for_s: float) -> None:
        async with pool.connection(5):
            await asyncio.sleep(for_s)

    for _ in range(20):
        waiting = [asyncio.create_task(hold(0.01)) for _ in range(8)]
        await asyncio.sleep(0.005)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    async with pool.connection(5), pool.connection(5):
        pass


class Overtaken(Pool):
    """A pool whose only waiter is cancelled at the moment when its wait for a connection ends."""

    def __init__(self, url: str) -> None:
        async def as_it_is(_: object) -> None: ...

        super().__init__(url, at_most=1, configure=as_it_is)
        self.waiter: asyncio.Task[int] | None = None
        self.is_deaf = False

    async def _get(self, timeout_s: float) -> PooledConnection:
        try:
            if self.is_deaf:
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
            return await super()._get(timeout_s)
        finally:
            waiter, self.waiter, self.is_deaf = self.waiter, None, False
            if waiter is not None:
                waiter.cancel()


@pytest.fixture
async def overtaken(database_url: str) -> AsyncIterator[Overtaken]:
    made = Overtaken(database_url)
    yield made
    await made.close()


async def test_a_waiter_cancelled_as_its_connection_comes_gives_it_back(overtaken: Overtaken) -> None:
    overtaken.waiter = waiting = asyncio.create_task(_pid(overtaken, 5))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await _pid(overtaken, 2) > 0


async def test_no_turn_of_the_loop_at_which_a_waiter_is_cancelled_loses_the_cancellation(
    database_url: str,
) -> None:
    async def as_it_is(_: object) -> None: ...

    pool = Pool(database_url, at_most=1, configure=as_it_is)
    await _pid(pool, 5)
    turns, is_late = 0, False
    while not is_late:
        # Both find the connection unused; the second has to wait for it all the same.
        async with pool._pool._lock:
            first = asyncio.create_task(pool._pool.getconn(5))
            await _turns(3)
            second = asyncio.create_task(_pid(pool, 5))
            await _turns(3)
        connection = await first
        await _turns(5)
        await pool._pool.putconn(connection)
        await _turns(turns)
        is_late, turns = second.done(), turns + 1
        second.cancel()
        if not is_late:
            with pytest.raises(asyncio.CancelledError):
                await second
        assert await _pid(pool, 2) > 0
    assert turns > 1
    await pool.close()


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_waiter_cancelled_as_its_wait_fails_is_cancelled_all_the_same(overtaken: Overtaken) -> None:
    async with overtaken.connection(5):
        overtaken.waiter = waiting = asyncio.create_task(_pid(overtaken, 0.1))
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_waiter_cancelled_after_a_refusal_gives_back_what_comes_in_spite_of_it(overtaken: Overtaken) -> None:
    overtaken.is_deaf = True
    overtaken.waiter = waiting = asyncio.create_task(_pid(overtaken, 5))
    await _turns(3)
    overtaken._failed(NoSession("no", "28P01"))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await _pid(overtaken, 2) > 0


class Crowded(Pool):
    """A pool whose server lets it have one connection; `refusals` tells each that was refused."""

    def __init__(self, url: str) -> None:
        async def as_it_is(_: object) -> None: ...

        super().__init__(url, at_most=2, configure=as_it_is)
        self.refusals: asyncio.Queue[NoSession] = asyncio.Queue()

    def _failed(self, why: NoSession) -> None:
        super()._failed(why)
        self.refusals.put_nowait(why)


@pytest.fixture
async def crowded(database_url: str, role: str) -> AsyncIterator[Crowded]:
    _run(database_url, f"ALTER ROLE {role} CONNECTION LIMIT 1")
    made = Crowded(_as(database_url, role))
    yield made
    await made.close()


async def _pid(pool: Pool, timeout_s: float) -> int:
    async with pool.connection(timeout_s) as taken:
        return taken.info.backend_pid


async def test_a_connection_in_use_is_waited_for_when_the_server_accepts_no_more(crowded: Crowded) -> None:
    async with crowded.connection(5) as first:
        pid = first.info.backend_pid
        waiting = [asyncio.create_task(_pid(crowded, 30)) for _ in range(3)]
        refused = await crowded.refusals.get()
        assert refused.sqlstate == "53300"
    assert await asyncio.gather(*waiting) == [pid] * 3


async def test_a_wait_in_vain_says_why_no_more_connections_can_be_opened(crowded: Crowded) -> None:
    async with crowded.connection(5):
        with pytest.raises(NoSession, match=r"within 1 s, and no more can be opened: .*too many connections"):
            await _pid(crowded, 1)


async def test_a_refused_login_ends_every_wait_although_a_connection_is_in_use(
    database_url: str, role: str, crowded: Crowded
) -> None:
    async with crowded.connection(5):
        _run(database_url, f"ALTER ROLE {role} NOLOGIN")
        with pytest.raises(NoSession, match="may not log in") as refused:
            await _pid(crowded, 30)
    assert refused.value.sqlstate == "28000"
