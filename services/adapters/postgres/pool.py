"""A pool of PostgreSQL connections with a clear error for each connection that cannot be opened.

Problem: psycopg_pool hides why a connection fails. The pool retries in the background, logs each failure, and ends the
waiting caller with a timeout. libpq in turn hides the SQLSTATE of a refused login.

Approach: the connection class (`PooledConnection`) passes each failure to a callback of the pool, and the pool ends
the waits with the failure's reason at once. The SQLSTATE is derived from the server's English words.

Rules:
- Users rely on a connection for one transaction at a time, never on its session: behind a pooler (PgBouncer in
  transaction mode) each transaction may run on a different server connection.
- No text contains a password.
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
"""libpq's time limits: a server that vanishes without closing the connection is noticed within 30 s."""

_IDLE_S: Final = 60.0
"""Time without use after which a connection is closed."""
_LIFETIME_S: Final = 600.0
"""Age at which a connection is replaced. The new connection resolves the host again and follows a changed DNS name."""

_PASSING_CLASSES: Final = ("08", "40", "53", "55", "57", "58", "XX")
"""SQLSTATE classes of temporary errors: connection, rollback, resources, locks, operator intervention, system,
internal."""
_PASSING: Final = frozenset({"25006", "25P03", "25P04"})
"""Temporary errors of other classes: a read-only server after a fail-over, a transaction idle or open for too long."""
_SET_UP_CLASSES: Final = ("28",)
"""SQLSTATE class of refused logins."""
_SET_UP: Final = frozenset({"3D000", "42501"})
"""Unknown database, missing right: like a refused login, only the operator can correct these."""

_WORDS: Final = (
    ("28P01", r"password authentication failed|no password supplied|SASL authentication failed|no such user"),
    ("3D000", r'database "[^"]*" does not exist|no such database'),
    ("28000", r"pg_hba\.conf|role \"[^\"]*\" does not exist|not permitted to log in|authentication failed|certificate"),
    ("28000", r"server does not support SSL"),
    ("42501", r"permission denied for database"),
    ("53300", r"too many connections|too many clients|connection slots are reserved|no more connections allowed"),
    ("57P03", r"starting up|shutting down|in recovery mode|not accepting connections|not yet accepting connections"),
)
"""SQLSTATE by the words of a refused connection, first match wins; libpq hides the SQLSTATE (docs/decisions/0032)."""
_ANSWERED: Final = re.compile(r"(?:FATAL|ERROR|PANIC):\s+(.*)")
"""Matches a message of the server, not of libpq. The severities are the same words in most PostgreSQL languages."""

# psycopg_pool logs every failed attempt. The caller that needs the connection reports the reason once.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)


class NoSession(psycopg.OperationalError):
    """No session could be opened; the text gives the reason.

    Attributes:
        sqlstate: The server's code, derived from its words; None if no server answered.
    """

    def __init__(self, text: str, sqlstate: str | None = None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


class PooledConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that reports why opening failed, and detects a pooler.

    Attributes:
        pooled: True if a pooler stands in front of the server: settings last for a single transaction. Valid after
            `notice_pooler`.
    """

    pooled = False

    @classmethod
    async def connect(  # type: ignore[override]  # the arguments are those that are passed on
        cls, conninfo: str = "", *, failed: Callable[[NoSession], None] = lambda _: None, **given: Any
    ) -> Self:
        """Open a connection.

        Args:
            conninfo: URL or libpq connection string.
            failed: Called with the reason if the connection cannot be opened. A pool opens connections in background
                tasks of its own and discards the exception, so the callback is the only way to learn the reason.
            given: Further parameters of libpq and psycopg.

        Raises:
            NoSession: the connection cannot be opened.
        """
        try:
            return await super().connect(conninfo, **given)
        except psycopg.OperationalError as error:
            why = no_session(error, conninfo)
            failed(why)
            raise why from None

    async def notice_pooler(self) -> None:
        """Detect a pooler in front of the server, and switch prepared statements off behind a pooler.

        A pooler sends an invented process id in the greeting; `pg_backend_pid()` returns the real one. A prepared
        statement exists in a single server process only, and the next transaction may run in another.
        """
        row = await (await self.execute("SELECT pg_backend_pid()")).fetchone()
        self.pooled = row != (self.pgconn.backend_pid,)
        if self.pooled:
            self.prepare_threshold = None


class Pool:
    """A pool of connections, opened on demand and closed after a minute without use. Use from one event loop."""

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
        """Prepare the pool; nothing connects yet.

        Args:
            url: URL of the database.
            at_most: Greatest count of connections.
            configure: Called with each new connection; must leave no transaction open.
            at_least: Count of connections kept without use.
            checked: True replaces a connection that ended while unused; False lets the next statement fail.
            given: Further parameters of libpq and psycopg.
        """
        self._pool = AsyncConnectionPool(
            url,
            connection_class=PooledConnection,
            kwargs={"autocommit": True, "failed": self._failed, **SAFE, **given},
            min_size=at_least,
            max_size=at_most,
            configure=configure,
            check=_check_alive if checked else None,
            max_idle=_IDLE_S,
            max_lifetime=_LIFETIME_S,
            reconnect_timeout=5.0,
            open=False,
        )
        # Shared by all waits of `_acquire`; the next failed attempt to connect resolves the future and ends them.
        self._next_failure: asyncio.Future[NoSession] | None = None
        self._in_use = 0
        self._giving_back: set[asyncio.Future[None]] = set()
        # The last failure that ended no wait, for the text of a later timeout.
        self._tolerated: NoSession | None = None
        self._opened = False

    async def open(self) -> None:
        """Open the pool; `connection` does so too on first use."""
        self._opened = True
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def renew(self) -> None:
        """Close every unused connection now, and every used connection when it is given back."""
        await self._pool.drain()

    @asynccontextmanager
    async def connection(self, timeout_s: float) -> AsyncIterator[PooledConnection]:
        """Acquire a connection without a transaction, and give the connection back at the end of the context.

        A connection that comes back closed or within a transaction is discarded.

        Args:
            timeout_s: Greatest wait for a connection, seconds.

        Raises:
            NoSession: no connection could be opened, or none came free in time.
        """
        if not self._opened:
            await self.open()
        connection = await self._acquire(timeout_s)
        self._in_use += 1
        try:
            yield connection
        finally:
            self._in_use -= 1
            if connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                await connection.close()
            await self._pool.putconn(connection)

    async def _acquire(self, timeout_s: float) -> PooledConnection:
        """Wait for a connection or for the next failed attempt to connect, whichever comes first.

        The pool alone would go on trying until the timeout and lose the reason.
        """
        if self._pool.get_stats()["pool_available"]:
            return await self._get(timeout_s)
        if self._next_failure is None:
            self._next_failure = asyncio.get_running_loop().create_future()
        failure = self._next_failure
        getting = asyncio.ensure_future(self._get(timeout_s))
        try:
            await asyncio.wait((getting, failure), return_when=asyncio.FIRST_COMPLETED)
            # Both may have completed: a connection in hand counts more than a failed attempt to open another.
            if not getting.done():
                getting.cancel()
                await asyncio.wait((getting,))
        except BaseException:
            # Cancelled. No await may follow here: a second cancellation would end it.
            getting.cancel()
            getting.add_done_callback(self._abandon)
            raise
        if getting.cancelled():
            why = failure.result()
            # A new exception for each waiter, since several waiters share the future.
            raise NoSession(str(why), why.sqlstate)
        return getting.result()

    def _abandon(self, getting: asyncio.Task[PooledConnection]) -> None:
        """Give back what a wait brought in spite of its cancellation."""
        if not getting.cancelled() and getting.exception() is None:
            self._give_back(getting.result())

    def _give_back(self, connection: PooledConnection) -> None:
        """Give back, soon, a connection that nobody took; the connection would be lost to the pool."""
        giving_back = asyncio.ensure_future(self._pool.putconn(connection))
        # The loop keeps weak references only: a task without a strong reference may be collected unfinished.
        self._giving_back.add(giving_back)
        giving_back.add_done_callback(self._giving_back.discard)

    async def _get(self, timeout_s: float) -> PooledConnection:
        task = asyncio.current_task()
        assert task is not None
        cancellations = task.cancelling()
        try:
            connection = await self._pool.getconn(timeout_s)
        except PoolTimeout:
            more = f", and no more can be opened: {self._tolerated}" if self._tolerated else ""
            raise NoSession(f"no connection came free within {timeout_s:g} s{more}") from None
        if task.cancelling() > cancellations:
            # The pool waits by `asyncio.wait_for`. In Python 3.11 its result counts more than a cancellation that comes
            # at the same time, and nobody is told of the cancellation.
            self._give_back(connection)
            raise asyncio.CancelledError
        self._tolerated = None
        return connection

    def _failed(self, why: NoSession) -> None:
        """End the waits with the reason of a failed attempt to connect.

        While connections are in use the waits go on, because a used connection will come free. A refused login or
        right ends the waits all the same.
        """
        if self._in_use and not is_set_up(why.sqlstate or ""):
            self._tolerated = why
            return
        failure, self._next_failure = self._next_failure, None
        if failure is not None and not failure.done():
            failure.set_result(why)


async def _check_alive(connection: PooledConnection) -> None:
    """Ask the server for a sign of life, but only if unread bytes wait on the socket.

    An unused connection receives bytes almost only at its end, so the poll usually spares a round trip.
    """
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        await AsyncConnectionPool.check_connection(connection)


def is_passing(sqlstate: str) -> bool:
    """True if the SQLSTATE is of a temporary error, which may pass without an operator."""
    return sqlstate in _PASSING or sqlstate.startswith(_PASSING_CLASSES)


def is_set_up(sqlstate: str) -> bool:
    """True if the SQLSTATE is of wrong credentials, an unknown database or a missing right."""
    return sqlstate in _SET_UP or sqlstate.startswith(_SET_UP_CLASSES)


def no_session(error: psycopg.OperationalError, conninfo: str) -> NoSession:
    """Return a failed connection's reason in words that name user, database, host and port, never a password.

    Args:
        error: psycopg's error for the failed connection.
        conninfo: The URL or connection string used.
    """
    asked = conninfo_to_dict(conninfo)
    known = {name: getattr(error.pgconn, name, None) for name in ("user", "host", "port", "db")}
    user, database = (_shown(known[of] or asked.get(name)) for of, name in (("user", "user"), ("db", "dbname")))
    address = f"{_shown(known['host'] or asked.get('host'))}:{_shown(known['port'] or asked.get('port') or 5432)}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # The error may have a line for each address tried: a server's words tell more than the client's.
    said = [found[1] for line in lines if (found := _ANSWERED.search(line))]
    words = (said or [line.rpartition(" failed: ")[2] for line in lines])[0]
    code = next((code for code, pattern in _WORDS if re.search(pattern, " ".join(said or lines))), None)
    text = {
        "28P01": f'wrong password for user "{user}" at {address}, or no such user',
        "3D000": f'no database "{database}" at {address}',
        "28000": f'user "{user}" may not log in at {address}: {words}',
        "42501": f'user "{user}" may not connect to database "{database}" at {address}',
    }.get(code or "", f"no session at {address}: {words}")
    # 08004, a temporary refusal: a server that answers in words unknown to the table is there and may accept later.
    return NoSession(text, code or ("08004" if said else None))


def _shown(name: bytes | str | int | None) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "?")
