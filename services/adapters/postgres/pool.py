"""PostgreSQL as a client meets it: pooled connections, and an error for each that could not be opened that says why.

Rule: a connection belongs to one transaction at a time, and nothing is asked of its session: a pooler in front of the
server (PgBouncer in transaction mode) gives each transaction another one. A password is never part of a text.
"""

import asyncio
import logging
import re
import select
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, PoolTimeout

SAFE: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""A server that is gone without a word is noticed within 30 s."""

_IDLE_S: Final = 60.0
_LIFETIME_S: Final = 600.0
"""After so long a new connection is opened, which follows a DNS name to where it leads now."""

_PASSING_CLASSES: Final = ("08", "40", "53", "55", "57", "58", "XX")
"""SQLSTATE classes of what passes by itself: connection, rollback, resources, locks, operators, the system."""
_PASSING: Final = frozenset({"25006", "25P03", "25P04"})
"""A server that only reads after a fail-over, a transaction that was idle or open for too long."""
_SET_UP_CLASSES: Final = ("28",)
_SET_UP: Final = frozenset({"3D000", "42501"})
"""Wrong password or user, unknown database, missing right: what the operator alone puts right."""

_WORDS: Final = (
    ("28P01", r"password authentication failed|no password supplied|SASL authentication failed|no such user"),
    ("3D000", r'database "[^"]*" does not exist|no such database'),
    ("28000", r"pg_hba\.conf|role \"[^\"]*\" does not exist|not permitted to log in|authentication failed|certificate"),
    ("28000", r"server does not support SSL"),
    ("42501", r"permission denied for database"),
    ("53300", r"too many connections|too many clients|connection slots are reserved|no more connections allowed"),
    ("57P03", r"starting up|shutting down|in recovery mode|not accepting connections|not yet accepting connections"),
)
"""libpq keeps the SQLSTATE of a connection that was refused to itself (docs/decisions/0032), so its words decide."""
_ANSWERED: Final = re.compile(r"(?:FATAL|ERROR|PANIC):\s+(.*)")
"""What a server says; its severity is the same word in most languages of PostgreSQL."""

# What a pool would write to the terminal for each of its tries is told once by whoever asked for a connection.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)


class NoSession(psycopg.OperationalError):
    """No session could be opened; the text says why, `sqlstate` is None where no server answered."""

    def __init__(self, text: str, sqlstate: str | None = None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


class PooledConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """One connection.

    Attributes:
        pooled: True if a pooler stands in front of the server: settings last for one transaction.
    """

    pooled = False

    @classmethod
    async def connect(  # type: ignore[override]  # the arguments are those that are passed on
        cls, conninfo: str = "", *, failed: Callable[[NoSession], None] = lambda _: None, **given: Any
    ) -> Self:
        """Open a connection.

        Args:
            conninfo: URL or words of libpq.
            failed: Called with why it could not be.
            given: Further parameters of libpq and psycopg.

        Raises:
            NoSession: it could not be.
        """
        try:
            return await super().connect(conninfo, **given)
        except psycopg.OperationalError as error:
            why = no_session(error, conninfo)
            failed(why)
            raise why from None

    async def notice_pooler(self) -> None:
        """Find out if a pooler stands in front of the server: who answers is then another process than who greeted.

        What is prepared stays with one server process, so nothing is prepared behind a pooler.
        """
        row = await (await self.execute("SELECT pg_backend_pid()")).fetchone()
        self.pooled = row != (self.pgconn.backend_pid,)
        if self.pooled:
            self.prepare_threshold = None


class Pool:
    """Connections that are kept between transactions; opened when asked for, closed after a minute without use."""

    def __init__(
        self,
        url: str,
        *,
        at_most: int,
        configure: Callable[[PooledConnection], Awaitable[None]],
        at_least: int = 0,
        checked: bool = True,
        **given: Any,
    ) -> None:
        """Prepare; nothing connects yet.

        Args:
            url: Of the database.
            at_most: Connections at once.
            configure: Called with each new one; it leaves no transaction open.
            at_least: Connections that are kept without use.
            checked: Replace a connection that ended while nobody used it; else its next statement fails.
            given: Further parameters of libpq and psycopg.
        """
        self._pool = AsyncConnectionPool(
            url,
            connection_class=PooledConnection,
            kwargs={"autocommit": True, "failed": self._failed, **SAFE, **given},
            min_size=at_least,
            max_size=at_most,
            configure=configure,
            check=_still_there if checked else None,
            max_idle=_IDLE_S,
            max_lifetime=_LIFETIME_S,
            reconnect_timeout=5.0,
            open=False,
        )
        self._failure: asyncio.Future[NoSession] | None = None
        self._in_use = 0
        self._passed_over: NoSession | None = None
        self._opened = False

    async def open(self) -> None:
        """Take connections from now on; whoever asks for the first one does it too."""
        self._opened = True
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def renew(self) -> None:
        """Close every connection that nobody uses now, and each other one when it is given back."""
        await self._pool.drain()

    @asynccontextmanager
    async def connection(self, timeout_s: float) -> AsyncIterator[PooledConnection]:
        """A connection without a transaction; one that comes back closed, or in the middle of something, is not kept.

        Raises:
            NoSession: none could be opened, or none came free in time.
        """
        if not self._opened:
            await self.open()
        connection = await self._take(timeout_s)
        self._in_use += 1
        try:
            yield connection
        finally:
            self._in_use -= 1
            if connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                await connection.close()
            await self._pool.putconn(connection)

    async def _take(self, timeout_s: float) -> PooledConnection:
        """Take a connection, or raise why none could be opened: the pool would wait on and say that time was up."""
        if self._pool.get_stats()["pool_available"]:
            return await self._got(timeout_s)
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        failure = self._failure
        getting = asyncio.ensure_future(self._got(timeout_s))
        try:
            await asyncio.wait((getting, failure), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            if not await _withdrawn(getting):
                await self._pool.putconn(getting.result())
            raise
        if await _withdrawn(getting):
            why = failure.result()
            raise NoSession(str(why), why.sqlstate)
        return getting.result()

    async def _got(self, timeout_s: float) -> PooledConnection:
        try:
            connection = await self._pool.getconn(timeout_s)
        except PoolTimeout:
            more = f", and no more can be opened: {self._passed_over}" if self._passed_over else ""
            raise NoSession(f"no connection came free within {timeout_s:g} s{more}") from None
        self._passed_over = None
        return connection

    def _failed(self, why: NoSession) -> None:
        """End the waits, unless connections are in use: those come free, whatever keeps more from being opened."""
        if self._in_use and not is_set_up(why.sqlstate or ""):
            self._passed_over = why
            return
        failure, self._failure = self._failure, None
        if failure is not None and not failure.done():
            failure.set_result(why)


async def _withdrawn(getting: asyncio.Task[PooledConnection]) -> bool:
    """Cancel a wait that has not ended; False when it brought something, or an error, before that."""
    if not getting.done():
        getting.cancel()
        await asyncio.wait((getting,))
    return getting.cancelled()


async def _still_there(connection: PooledConnection) -> None:
    """Ask the server only where something came unasked: the end of a connection does, and most often nothing else."""
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        await AsyncConnectionPool.check_connection(connection)


def is_passing(sqlstate: str) -> bool:
    """True if what this code stands for goes by itself."""
    return sqlstate in _PASSING or sqlstate.startswith(_PASSING_CLASSES)


def is_set_up(sqlstate: str) -> bool:
    """True if this code is a matter of the operator's credentials, names or rights."""
    return sqlstate in _SET_UP or sqlstate.startswith(_SET_UP_CLASSES)


def no_session(error: psycopg.OperationalError, conninfo: str) -> NoSession:
    """Why no session could be opened, in words that name user, database and place, and never a password.

    Args:
        error: Of psycopg, for a connection that was not made.
        conninfo: What it was asked for.
    """
    asked = conninfo_to_dict(conninfo)
    known = {name: getattr(error.pgconn, name, None) for name in ("user", "host", "port", "db")}
    user, database = (_shown(known[of] or asked.get(name)) for of, name in (("user", "user"), ("db", "dbname")))
    place = f"{_shown(known['host'] or asked.get('host'))}:{_shown(known['port'] or asked.get('port') or 5432)}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = [found[1] for line in lines if (found := _ANSWERED.search(line))]
    words = (said or [line.rpartition(" failed: ")[2] for line in lines])[0]
    code = next((code for code, pattern in _WORDS if re.search(pattern, " ".join(said or lines))), None)
    text = {
        "28P01": f'wrong password for user "{user}" at {place}, or no such user',
        "3D000": f'no database "{database}" at {place}',
        "28000": f'user "{user}" may not log in at {place}: {words}',
        "42501": f'user "{user}" may not connect to database "{database}" at {place}',
    }.get(code or "", f"no session at {place}: {words}")
    # A server that answered in words unknown to us is there, and says no for now.
    return NoSession(text, code or ("08004" if said else None))


def fault(url: str) -> str:
    """Why no session opens, in words; empty text when one does."""
    try:
        with psycopg.connect(url, connect_timeout=2, autocommit=True) as session:
            session.execute("SELECT 1")
    except psycopg.OperationalError as error:
        return str(no_session(error, url))
    return ""


def _shown(name: bytes | str | int | None) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "?")
