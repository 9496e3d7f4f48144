"""Kind `postgres`: a schema and a role for each life of a tenant, in the database of the tenants.

Rule: one connection a call, and the worker's epoch is checked and raised in the same transaction as the change it
guards, so a worker that lost its lease can do no harm however late it wakes. Names are derived, matched against their
one shape and quoted. Nothing is dropped by CASCADE: what somebody else built upon a tenant stops the teardown.
"""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from services.core.calls import Absent, Answer, Call, Done, Refused, Retryable, Unknown, Verb
from services.core.plan import schema_name
from services.provisioner.kinds import contents

_NAME: Final = re.compile(r"t_[0-9a-f]{32}", re.ASCII)
_LIMIT_MS: Final = 10_000
_LIMITS: Final = " ".join(
    f"-c {name}={_LIMIT_MS}" for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
)
_PREPARING: Final = 0x6C696665
"""Advisory lock: two workers must not make the fence at once (IF NOT EXISTS alone may fail when raced)."""

_EPOCHS: Final = "CREATE TABLE lifecycle_fence.epochs (key text PRIMARY KEY, epoch bigint NOT NULL)"
_FENCE: Final = """
INSERT INTO lifecycle_fence.epochs AS fence (key, epoch) VALUES (%s, %s)
ON CONFLICT (key) DO UPDATE SET epoch = excluded.epoch WHERE fence.epoch <= excluded.epoch
"""
_FOUND: Final = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s"
_ROLE: Final = "SELECT 1 FROM pg_roles WHERE rolname = %s"

_PASSING: Final = ("08", "40", "53", "55", "57", "58", "XX")
"""SQLSTATE classes of what passes by itself: connection, rollback, resources, locks, operators, the system."""
_RACED: Final = frozenset({"42P06", "42710", "23505"})
"""Somebody made the same thing a moment ago."""
_FENCE_GONE: Final = frozenset({"42P01", "3F000"})


@dataclass(slots=True)
class Session:
    """One connection of one call; `committing` while nobody can say whether the last change took effect."""

    connection: psycopg.AsyncConnection[tuple[Any, ...]]
    committing: bool = False

    async def fence(self, call: Call) -> bool:
        """Raise the key's epoch to the call's; False when a fresher worker was here."""
        return (await self.connection.execute(_FENCE, (call.key, call.epoch))).rowcount == 1

    async def commit(self) -> None:
        """End the transaction."""
        self.committing = True
        await self.connection.commit()
        self.committing = False


_STALE: Final = Retryable("stale epoch", well=True)
"""To whoever lost its lease it makes no difference; whoever holds it has, next time, a greater one."""


class Postgres:
    """Creates, finds and drops."""

    def __init__(self, url: str) -> None:
        """Prepare; the first call connects.

        Args:
            url: Of the tenants' database; the role needs CREATE on it and CREATEROLE.
        """
        self._url = url
        self._fenced = False
        self._preparing = asyncio.Lock()

    async def call(self, call: Call) -> Answer:
        """Carry one call out."""
        session: Session | None = None
        try:
            async with asyncio.timeout(call.timeout_s):
                await self._prepare(call.timeout_s)
                connection = await self._connect(call.timeout_s, _announced(call))
                session = Session(connection)
                async with connection:
                    return await _carry_out(session, call)
        except TimeoutError:
            in_doubt = session is not None and session.committing
            return Unknown("no answer in time") if in_doubt else Retryable("no answer in time")
        except psycopg.Error as error:
            if error.sqlstate in _FENCE_GONE:
                self._fenced = False
            return _meaning(error, in_doubt=session is not None and session.committing)

    async def close(self) -> None:
        """Nothing stays open between calls."""

    async def _connect(self, timeout_s: float, options: str) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        return await psycopg.AsyncConnection.connect(
            self._url, options=options, connect_timeout=max(2, int(timeout_s / 2)), application_name="lifecycle"
        )

    async def _prepare(self, timeout_s: float) -> None:
        """Make the fence's table, once a process."""
        async with self._preparing:
            if self._fenced:
                return
            async with await self._connect(timeout_s, _LIMITS) as connection:
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_PREPARING,))
                found = await connection.execute("SELECT to_regclass('lifecycle_fence.epochs')")
                if await found.fetchone() == (None,):
                    await connection.execute("CREATE SCHEMA IF NOT EXISTS lifecycle_fence")
                    await connection.execute(_EPOCHS)
            self._fenced = True


async def _carry_out(session: Session, call: Call) -> Answer:
    work = {Verb.READ: _read, Verb.DELETE: _drop}.get(call.verb, _create)
    answer = await work(session, call, _name(call))
    if isinstance(answer, Refused | Retryable):
        await session.connection.rollback()
    else:
        await session.commit()
    return answer


async def _create(session: Session, call: Call, name: str) -> Answer:
    connection, named = session.connection, sql.Identifier(name)
    if not await session.fence(call):
        return _STALE
    outputs = {"schema": name, "role": name}
    found = await (await connection.execute(_FOUND, (name,))).fetchone()
    if found is not None:
        return Done(outputs) if _is_ours(found[0], call) else Refused("the schema is somebody else's")
    if await (await connection.execute(_ROLE, (name,))).fetchone() is None:
        await connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(named))
    # A role that is no superuser may own for another only what it belongs to.
    await connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(named))
    await connection.execute(sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(named, named))
    comment = sql.Literal(json.dumps({"key": call.key, "generation": call.generation}))
    await connection.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(named, comment))
    return Done(outputs)


async def _drop(session: Session, call: Call, name: str) -> Answer:
    connection, named = session.connection, sql.Identifier(name)
    if not await session.fence(call):
        return _STALE
    found = await (await connection.execute(_FOUND, (name,))).fetchone()
    if found is not None and not _is_ours(found[0], call):
        return Refused("the schema is somebody else's")
    if found is not None:
        await contents.drop_loose(connection, name)
        while await contents.drop_tables(connection, name):
            # Each batch ends its own transaction, so that locks stay few; the next must prove its epoch again.
            await session.commit()
            if not await session.fence(call):
                return _STALE
            await contents.drop_loose(connection, name)
        await contents.drop_sequences(connection, name)
        await contents.drop_loose(connection, name)
        await connection.execute(sql.SQL("DROP SCHEMA {} RESTRICT").format(named))
    if await (await connection.execute(_ROLE, (name,))).fetchone() is not None:
        await connection.execute(sql.SQL("DROP ROLE {}").format(named))
    return Absent() if found is None else Done()


async def _read(session: Session, call: Call, name: str) -> Answer:
    found = await (await session.connection.execute(_FOUND, (name,))).fetchone()
    if found is None:
        return Absent()
    return (
        Done({"schema": name, "role": name}) if _is_ours(found[0], call) else Refused("the schema is somebody else's")
    )


def _name(call: Call) -> str:
    """The only name a call of this kind ever touches.

    Raises:
        AssertionError: the derivation is broken; nothing may run then.
    """
    name = schema_name(call.key, call.generation)
    assert _NAME.fullmatch(name), "a derived name has one shape"
    return name


def _announced(call: Call) -> str:
    """The connection's options: limits, and which call this is, for whoever stands between us and the database."""
    key = quote(call.key, safe=":")
    return f"{_LIMITS} -c lifecycle.call={call.verb}:{key}:{call.generation}:{quote(call.idempotency_key, safe='')}"


def _is_ours(comment: str | None, call: Call) -> bool:
    try:
        found = json.loads(comment or "null")
    except ValueError:
        return False
    return bool(found == {"key": call.key, "generation": call.generation})


def _meaning(error: psycopg.Error, *, in_doubt: bool) -> Answer:
    """What an error means; without a SQLSTATE, or with one of these two classes, the connection ended."""
    code = error.sqlstate
    if in_doubt and (code is None or code.startswith(("08", "57"))):
        return Unknown("the connection ended")
    if code is None:
        return Retryable("the connection ended")
    if code in _FENCE_GONE | _RACED or code.startswith(_PASSING):
        return Retryable(f"SQLSTATE {code}")
    return Refused(f"SQLSTATE {code}")
