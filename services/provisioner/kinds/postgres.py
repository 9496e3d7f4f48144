"""Kind `postgres`: a schema and a role for each life of a tenant, in the database of the tenants.

Rule: a call's settings and its name are said in each of its transactions, and the worker's epoch is checked and raised
in the same transaction as the change it guards: connections are shared, also by a pooler, and a worker that lost its
lease can do no harm however late it wakes. Names are derived, matched against their one shape and quoted. Nothing is
dropped by CASCADE: what somebody else built upon a tenant stops the teardown.
"""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Final, LiteralString
from urllib.parse import quote

import psycopg
from psycopg import sql

from services.adapters.postgres.pool import NoSession, Pool, PooledConnection, is_passing, is_set_up
from services.core.saga.calls import (
    Absent,
    Answer,
    Call,
    Contradicted,
    Done,
    Refused,
    RefusedUs,
    Retryable,
    Unknown,
    Verb,
)
from services.core.saga.plan import schema_name
from services.provisioner.kinds import contents, ownership

_NAME: Final = re.compile(r"t_[0-9a-f]{32}", re.ASCII)
_LIMIT_MS: Final = 10_000
_SETTINGS: Final = {
    "statement_timeout": str(_LIMIT_MS),
    "lock_timeout": str(_LIMIT_MS),
    "idle_in_transaction_session_timeout": str(_LIMIT_MS),
    "search_path": "",  # so that PostgreSQL names things whole
}
_BEGIN: Final = sql.SQL("BEGIN; SELECT {}").format(
    sql.SQL(", ").join(
        sql.SQL("set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value))
        for name, value in _SETTINGS.items()
    )
)
"""Begins a transaction, in one message; start options would be refused by PgBouncer."""
_ANNOUNCED: Final = sql.SQL("{}, set_config('lifecycle.call', {}, true)")
_GIVING_UP_S: Final = 0.5
"""How long a statement whose time is up may take to be cancelled, before its connection is closed under it."""
_PREPARING: Final = 0x6C696665
"""Advisory lock: two workers must not make the fence at once (IF NOT EXISTS alone may fail when raced)."""

_EPOCHS: Final = "CREATE TABLE lifecycle_fence.epochs (key text PRIMARY KEY, epoch bigint NOT NULL)"
_FENCE: Final = """
INSERT INTO lifecycle_fence.epochs AS fence (key, epoch) VALUES (%s, %s)
ON CONFLICT (key) DO UPDATE SET epoch = excluded.epoch WHERE fence.epoch <= excluded.epoch
"""
_FOUND: Final = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s"
_STATE: Final = """
SELECT n.oid IS NOT NULL, obj_description(n.oid, 'pg_namespace'), r.oid IS NOT NULL
FROM (SELECT) AS one LEFT JOIN pg_namespace n ON nspname = %(name)s LEFT JOIN pg_roles r ON rolname = %(name)s
"""
# A role that is no superuser may own for another only what it belongs to.
_MAKE: Final[LiteralString] = (
    "GRANT {name} TO CURRENT_USER; CREATE SCHEMA {name} AUTHORIZATION {name}; COMMENT ON SCHEMA {name} IS {comment}"
)
_MAKE_ROLE: Final[LiteralString] = "CREATE ROLE {name} NOLOGIN; "

_REMEDY: Final = "put user, password, database or rights right (TENANT_DATABASE_URL, else DATABASE_URL)"
_RACED: Final = frozenset({"42P06", "42710", "23505"})
"""Somebody made the same thing a moment ago."""
_FENCE_GONE: Final = frozenset({"42P01", "3F000"})
_READ_ONLY: Final = "25006"
"""This server is a standby now; the address leads to another one for whoever connects again."""


@dataclass(slots=True)
class Session:
    """One connection for one call; `committing` while nobody can say whether the last change took effect."""

    connection: PooledConnection
    call: Call
    committing: bool = False

    async def begin(self) -> bool:
        """Begin a transaction that raises the key's epoch to the call's; False when a fresher worker was here."""
        await self.look()
        return (await self.connection.execute(_FENCE, (self.call.key, self.call.epoch))).rowcount == 1

    async def look(self) -> None:
        """Begin a transaction that changes nothing."""
        await self.connection.execute(_ANNOUNCED.format(_BEGIN, sql.Literal(_announced(self.call))))

    async def commit(self) -> None:
        """End the transaction."""
        self.committing = True
        await self.connection.commit()
        self.committing = False


_STALE: Final = Retryable("stale epoch", well=True)
"""To whoever lost its lease it makes no difference; whoever holds it has, next time, a greater one."""


class PostgresKind:
    """Creates, finds and drops."""

    def __init__(self, url: str, at_once: int = 16) -> None:
        """Prepare; the first call connects.

        Args:
            url: Of the tenants' database; the role needs CREATE on it and CREATEROLE.
            at_once: Connections, at most.
        """
        self._pool = Pool(
            url, at_most=at_once, configure=_as_it_is, application_name="lifecycle", prepare_threshold=None
        )
        self._fenced = False
        self._preparing = asyncio.Lock()

    async def call(self, call: Call) -> Answer:
        """Carry one call out."""
        session: Session | None = None
        try:
            # The second time-out is for a server that does not even hear that the statement is cancelled.
            async with asyncio.timeout(call.timeout_s + _GIVING_UP_S), asyncio.timeout(call.timeout_s):
                if not self._fenced:
                    await self._prepare(call.timeout_s)
                async with self._pool.connection(call.timeout_s) as connection:
                    session = Session(connection, call)
                    return await _carry_out(session)
        except TimeoutError:
            in_doubt = session is not None and session.committing
            return Unknown("no answer in time") if in_doubt else Retryable("no answer in time")
        except psycopg.Error as error:
            if error.sqlstate in _FENCE_GONE:
                self._fenced = False
            if error.sqlstate == _READ_ONLY:
                await self._pool.renew()
            return _meaning(error, in_doubt=session is not None and session.committing)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def _prepare(self, timeout_s: float) -> None:
        """Make the fence's table, once a process."""
        async with self._preparing:
            if self._fenced:
                return
            async with self._pool.connection(timeout_s) as connection:
                await connection.execute(_BEGIN)
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_PREPARING,))
                found = await connection.execute("SELECT to_regclass('lifecycle_fence.epochs')")
                if await found.fetchone() == (None,):
                    await connection.execute("CREATE SCHEMA IF NOT EXISTS lifecycle_fence")
                    await connection.execute(_EPOCHS)
                await connection.commit()
            self._fenced = True


async def _as_it_is(_: PooledConnection) -> None:
    """Every transaction sets itself up."""


async def _carry_out(session: Session) -> Answer:
    work = {Verb.READ: _read, Verb.DELETE: _drop}.get(session.call.verb, _create)
    try:
        answer = await work(session, session.call, _name(session.call))
    except psycopg.Error:
        if not session.connection.closed:
            await session.connection.rollback()
        raise
    if isinstance(answer, Refused | Retryable | Contradicted):
        await session.connection.rollback()
    else:
        await session.commit()
    return answer


async def _create(session: Session, call: Call, name: str) -> Answer:
    if not await session.begin():
        return _STALE
    outputs = {"schema": name, "role": name}
    has_schema, comment, has_role = await _state(session, name)
    if has_schema:
        return _not_ours(comment, call, name) or Done(outputs)
    make = sql.SQL(_MAKE if has_role else _MAKE_ROLE + _MAKE)
    told = json.dumps({"key": call.key, "generation": call.generation})
    await session.connection.execute(make.format(name=sql.Identifier(name), comment=sql.Literal(told)))
    return Done(outputs)


async def _drop(session: Session, call: Call, name: str) -> Answer:
    connection = session.connection
    if not await session.begin():
        return _STALE
    has_schema, comment, has_role = await _state(session, name)
    if has_schema and (why_not := _not_ours(comment, call, name)):
        return why_not
    for is_there, drop_some in ((has_schema, contents.drop_some), (has_role, ownership.unlink_some)):
        # Each batch ends its own transaction, so that locks stay few; the next must prove its epoch again.
        while is_there and await drop_some(connection, name):
            await session.commit()
            if not await session.begin():
                return _STALE
    why = await contents.drop_schema(connection, name) if has_schema else ""
    if has_role and not why:
        why = await ownership.drop_role(connection, name)
    if why:
        return Refused(why)
    return Done() if has_schema else Absent()


async def _state(session: Session, name: str) -> tuple[bool, str | None, bool]:
    """True if the schema is there, its comment, and true if the role is there."""
    row = await (await session.connection.execute(_STATE, {"name": name})).fetchone()
    return row or (False, None, False)


async def _read(session: Session, call: Call, name: str) -> Answer:
    await session.look()
    found = await (await session.connection.execute(_FOUND, (name,))).fetchone()
    if found is None:
        return Absent()
    return _not_ours(found[0], call, name) or Done({"schema": name, "role": name})


def _name(call: Call) -> str:
    """The only name a call of this kind ever touches.

    Raises:
        AssertionError: the derivation is broken; nothing may run then.
    """
    name = schema_name(call.key, call.generation)
    assert _NAME.fullmatch(name), "a derived name has one shape"
    return name


def _announced(call: Call) -> str:
    """Which call a transaction is for, for whoever stands between us and the database."""
    key = quote(call.key, safe=":")
    return f"{call.verb}:{key}:{call.generation}:{quote(call.idempotency_key, safe='')}"


def _not_ours(comment: str | None, call: Call, name: str) -> Contradicted | None:
    """Returns what it means that a schema of our name has this comment; None where it says that the schema is ours."""
    ours = {"key": call.key, "generation": call.generation}
    try:
        found = json.loads(comment or "null")
    except (ValueError, RecursionError):
        found = None
    if found == ours:
        return None
    anothers = isinstance(found, dict) and any(found.get(field, value) != value for field, value in ours.items())
    return Contradicted(f"comment of schema {name} is not ours", anothers=anothers)


def _meaning(error: psycopg.Error, *, in_doubt: bool) -> Answer:
    """What an error means; without a SQLSTATE, or with one of two classes, the connection ended."""
    code = error.sqlstate
    if in_doubt and (code is None or code.startswith(("08", "57"))):
        return Unknown("the connection ended")
    said = str(error) if isinstance(error, NoSession) else f"SQLSTATE {code}: {error.diag.message_primary}"
    if code is None:
        return Retryable(said if isinstance(error, NoSession) else "the connection ended")
    if is_set_up(code):
        return RefusedUs(said, _REMEDY)
    if code in _FENCE_GONE | _RACED or is_passing(code):
        return Retryable(said)
    return Refused(said)
