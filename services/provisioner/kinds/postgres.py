"""Kind `postgres`: a schema and a role for each life of a tenant, in the tenants' database.

Problem 1, stale workers: a worker that lost its lease may be paused and send its statement much later. Approach: a
fence. The table `lifecycle_fence.epochs` has the greatest epoch seen for each key. Every changing transaction first
raises the row to the epoch of its call; if the row has a greater epoch already, the transaction ends without a change.
Check and change are one transaction, and the row's lock orders concurrent workers. The two must never be separated.

Problem 2, shared connections: a pooler (PgBouncer in transaction mode) gives each transaction another session. So
nothing is left in a session: time limits, search path and the name of the call are set anew in each transaction, and
statements are not prepared (docs/decisions/0031).

Problem 3, lost answers: an error during COMMIT leaves the effect open, and the answer is `Unknown`. After an error
before COMMIT nothing is in doubt, since the server rolls the transaction back.

Rule: a schema is ours only if its comment names the key and the generation. Names are derived from both, checked
against their only form and quoted. Nothing is dropped by CASCADE: an object that somebody built on a tenant's schema
stops the teardown and is named.
"""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import ClassVar, Final, LiteralString, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from services.adapters.postgres.pool import NoSession, Pool, PooledConnection, is_passing, is_set_up
from services.adapters.postgres.url import usable
from services.adapters.process.settings import ProvisionerSettings, required
from services.core.saga.calls import (
    Absent,
    Answer,
    Call,
    Contradicted,
    Done,
    OperatorRefused,
    Refused,
    Retryable,
    Unknown,
    Verb,
)
from services.core.saga.kind_traits import KindTraits, SystemBy
from services.core.saga.plan import schema_name
from services.provisioner.kinds import postgres_contents, postgres_ownership
from services.provisioner.kinds.step_kind import PlannedRequest, Shared

_NAME: Final = re.compile(r"t_[0-9a-f]{32}", re.ASCII)
_LIMIT_MS: Final = 10_000
"""Limit of a statement, of a wait for a lock, and of an idle transaction, so that a paused worker holds no lock for
longer."""
_SETTINGS: Final = {
    "statement_timeout": str(_LIMIT_MS),
    "lock_timeout": str(_LIMIT_MS),
    "idle_in_transaction_session_timeout": str(_LIMIT_MS),
    "search_path": "",  # descriptions by PostgreSQL then have qualified names
}
_BEGIN: Final = sql.SQL("BEGIN; SELECT {}").format(
    sql.SQL(", ").join(
        sql.SQL("set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value))
        for name, value in _SETTINGS.items()
    )
)
"""Begins a transaction with its settings, in one message. PgBouncer would refuse start options of the connection."""
_BEGIN_CALL: Final = sql.SQL("{}, set_config('lifecycle.call', {}, true)")
_CANCEL_S: Final = 0.5
"""Seconds for cancelling a statement whose time is up; then its connection is closed."""
_FENCE_LOCK: Final = 0x6C696665
"""Advisory lock for making the fence: CREATE … IF NOT EXISTS alone may fail in a race of two workers."""

_EPOCHS: Final = "CREATE TABLE lifecycle_fence.epochs (key text PRIMARY KEY, epoch bigint NOT NULL)"
_RAISE_FENCE: Final = """
INSERT INTO lifecycle_fence.epochs AS fence (key, epoch) VALUES (%s, %s)
ON CONFLICT (key) DO UPDATE SET epoch = excluded.epoch WHERE fence.epoch <= excluded.epoch
"""
_FOUND: Final = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s"
_SCHEMAS: Final = r"SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname LIKE 't\_%'"
_LIVES_S: Final = 20.0
"""Seconds to list all schemas: 100,000 take about one."""
_STATE: Final = """
SELECT n.oid IS NOT NULL, obj_description(n.oid, 'pg_namespace'), r.oid IS NOT NULL
FROM (SELECT) AS one LEFT JOIN pg_namespace n ON nspname = %(name)s LEFT JOIN pg_roles r ON rolname = %(name)s
"""
# GRANT first: only a superuser may create a schema for a role without being a member of the role.
_MAKE: Final[LiteralString] = (
    "GRANT {name} TO CURRENT_USER; CREATE SCHEMA {name} AUTHORIZATION {name}; COMMENT ON SCHEMA {name} IS {comment}"
)
_MAKE_ROLE: Final[LiteralString] = "CREATE ROLE {name} NOLOGIN; "

_REMEDY: Final = "put user, password, database or rights right (TENANT_DATABASE_URL, else DATABASE_URL)"
_RACED: Final = frozenset({"42P06", "42710", "23505"})
"""SQLSTATE codes of a lost race: a concurrent transaction made the same object."""
_FENCE_GONE: Final = frozenset({"42P01", "3F000"})
"""SQLSTATE codes of a missing table or schema: the fence was dropped or the database made anew."""
_READ_ONLY: Final = "25006"
"""SQLSTATE of a server that became a standby: new connections to the address lead to the new primary."""


@dataclass(slots=True)
class Session:
    """Connection of one call.

    Attributes:
        connection: Connection from the pool.
        call: The call.
        committing: True from the start of COMMIT until its confirmation; an error meanwhile leaves the effect unknown.
    """

    connection: PooledConnection
    call: Call
    committing: bool = False

    async def begin_fenced(self) -> bool:
        """Begins a transaction and raises the key's epoch; returns False if the epoch of the call is stale."""
        await self.begin()
        return (await self.connection.execute(_RAISE_FENCE, (self.call.key, self.call.epoch))).rowcount == 1

    async def begin(self) -> None:
        """Begins a transaction without the fence; only for reading."""
        await self.connection.execute(_BEGIN_CALL.format(_BEGIN, sql.Literal(_call_name(self.call))))

    async def commit(self) -> None:
        """Commits the transaction."""
        self.committing = True
        await self.connection.commit()
        self.committing = False


_STALE: Final = Retryable("stale epoch", well=True)
"""Answer to a call with a stale epoch. A worker that lost its lease cannot store the answer anyway; the holder of the
lease calls again, under a greater epoch after its next claim."""


class PostgresKind:
    """Creates, reads and drops a tenant's schema and role."""

    traits: ClassVar = KindTraits(
        name="postgres",
        meaning="Makes a schema and a role in the tenants' database.",
        keys=(),
        outputs=("schema", "role"),
        secret_outputs=frozenset(),
        credentials=frozenset(),
        system=SystemBy.STEP,
        silent_verbs=frozenset(),
        reissued=False,
        left_behind=False,
    )

    def __init__(self, url: str, at_once: int = 16) -> None:
        """Prepares the pool; the first call connects.

        Args:
            url: URL of the tenants' database; its user needs CREATE on the database, and CREATEROLE.
            at_once: Maximum number of connections.
        """
        self._pool = Pool(
            url, at_most=at_once, configure=_no_setup, application_name="lifecycle", prepare_threshold=None
        )
        self._fenced = False
        self._preparing = asyncio.Lock()

    @classmethod
    def build(cls, settings: ProvisionerSettings, _: Shared) -> Self:
        """Returns the kind for the database of TENANT_DATABASE_URL, with SYSTEM_CALLS_AT_ONCE connections.

        Raises:
            Unusable: neither TENANT_DATABASE_URL nor DATABASE_URL is given, or the URL cannot be used.
        """
        # Without a database of their own, tenants' schemas lie beside the registry's.
        database = settings.tenant_database_url or required(settings, "database_url")
        return cls(usable("TENANT_DATABASE_URL", database), settings.system_calls_at_once)

    @staticmethod
    def requests_of(call: Call) -> tuple[PlannedRequest, ...]:
        """Returns the statement on the schema and the role, which have one name."""
        statement = {Verb.DELETE: "DROP SCHEMA and ROLE", Verb.READ: "look for SCHEMA"}.get(
            call.verb, "CREATE SCHEMA and ROLE"
        )
        return (PlannedRequest(f"{statement} {schema_name(call.key, call.generation)}"),)

    async def call(self, call: Call) -> Answer:
        """Carries out one call."""
        session: Session | None = None
        try:
            # The inner time-out cancels the statement on the server. The outer one is for a server that does not react
            # to the cancellation either.
            async with asyncio.timeout(call.timeout_s + _CANCEL_S), asyncio.timeout(call.timeout_s):
                # A look changes nothing, so a look needs no fence and makes none.
                if not self._fenced and call.verb is not Verb.READ:
                    await self._prepare(call.timeout_s)
                async with self._pool.connection(call.timeout_s) as connection:
                    session = Session(connection, call)
                    return await _carry_out(session)
        except TimeoutError:
            in_doubt = session is not None and session.committing
            return Unknown("no answer in time") if in_doubt else Retryable("no answer in time")
        except psycopg.Error as error:
            # The next call makes the fence again.
            if error.sqlstate in _FENCE_GONE:
                self._fenced = False
            if error.sqlstate == _READ_ONLY:
                await self._pool.renew()
            return _meaning(error, in_doubt=session is not None and session.committing)

    async def lives(self) -> list[tuple[str, int]]:
        """Returns key and generation of every schema whose comment names both; empty from a database in trouble."""
        try:
            async with asyncio.timeout(_LIVES_S), self._pool.connection(_LIVES_S) as connection:
                await connection.execute(_BEGIN)
                rows = await (await connection.execute(_SCHEMAS)).fetchall()
                await connection.rollback()
        except (TimeoutError, psycopg.Error):
            return []
        return [life for name, comment in rows if (life := _life(name, comment)) is not None]

    async def close(self) -> None:
        """Closes every connection."""
        await self._pool.close()

    async def _prepare(self, timeout_s: float) -> None:
        """Makes the fence's schema and table if missing; once per process."""
        async with self._preparing:
            # A concurrent call may have made the fence during the wait.
            if self._fenced:
                return
            async with self._pool.connection(timeout_s) as connection:
                await connection.execute(_BEGIN)
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_FENCE_LOCK,))
                # Usually found: only the first process ever makes the fence.
                found = await connection.execute("SELECT to_regclass('lifecycle_fence.epochs')")
                if await found.fetchone() == (None,):
                    await connection.execute("CREATE SCHEMA IF NOT EXISTS lifecycle_fence")
                    await connection.execute(_EPOCHS)
                await connection.commit()
            self._fenced = True


async def _no_setup(_: PooledConnection) -> None:
    """Does nothing with a new connection: every transaction has its own settings."""


async def _carry_out(session: Session) -> Answer:
    """Runs the transaction of a call: commits after `Done` and `Absent`, rolls back after every other answer."""
    work = {Verb.READ: _read, Verb.DELETE: _drop}.get(session.call.verb, _create)
    try:
        answer = await work(session, session.call, _name(session.call))
    except psycopg.Error:
        # The pool closes connections returned inside a transaction: a rollback keeps the connection.
        if not session.connection.closed:
            await session.connection.rollback()
        raise
    if isinstance(answer, Refused | Retryable | Contradicted):
        await session.connection.rollback()
    else:
        await session.commit()
    return answer


async def _create(session: Session, call: Call, name: str) -> Answer:
    if not await session.begin_fenced():
        return _STALE
    outputs = {"schema": name, "role": name}
    has_schema, comment, has_role = await _state(session, name)
    # A repeat of a create whose answer was lost, or an update: nothing of the configuration is in the schema.
    if has_schema:
        return _contradiction(comment, call, name) or Done(outputs)
    make = sql.SQL(_MAKE if has_role else _MAKE_ROLE + _MAKE)
    owner = json.dumps({"key": call.key, "generation": call.generation})
    await session.connection.execute(make.format(name=sql.Identifier(name), comment=sql.Literal(owner)))
    return Done(outputs)


async def _drop(session: Session, call: Call, name: str) -> Answer:
    connection = session.connection
    if not await session.begin_fenced():
        return _STALE
    has_schema, comment, has_role = await _state(session, name)
    if has_schema and (contradiction := _contradiction(comment, call, name)):
        return contradiction
    for exists, drop_some in ((has_schema, postgres_contents.drop_some), (has_role, postgres_ownership.unlink_some)):
        # One transaction per batch keeps locks few. Each transaction checks the epoch anew, since a newer worker may
        # have begun between two batches.
        while exists and await drop_some(connection, name):
            await session.commit()
            if not await session.begin_fenced():
                return _STALE
    obstacles = await postgres_contents.drop_schema(connection, name) if has_schema else ""
    if has_role and not obstacles:
        obstacles = await postgres_ownership.drop_role(connection, name)
    if obstacles:
        return Refused(obstacles)
    return Done() if has_schema else Absent()


async def _state(session: Session, name: str) -> tuple[bool, str | None, bool]:
    """Returns True if the schema exists, its comment, and True if the role exists."""
    row = await (await session.connection.execute(_STATE, {"name": name})).fetchone()
    return row or (False, None, False)


async def _read(session: Session, call: Call, name: str) -> Answer:
    await session.begin()
    found = await (await session.connection.execute(_FOUND, (name,))).fetchone()
    if found is None:
        return Absent()
    return _contradiction(found[0], call, name) or Done({"schema": name, "role": name})


def _name(call: Call) -> str:
    """Returns the name of schema and role, the only name used by the statements of a call.

    Raises:
        AssertionError: the derivation is broken; no statement may run.
    """
    name = schema_name(call.key, call.generation)
    assert _NAME.fullmatch(name), "a derived name has one shape"
    return name


def _life(name: str, comment: str | None) -> tuple[str, int] | None:
    """Returns key and generation of a tenant's schema; None if the comment does not fit the name."""
    try:
        found = json.loads(comment or "null")
        key, generation = found["key"], found["generation"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    if not isinstance(key, str) or type(generation) is not int:
        return None
    # Another installation, or a person, may have written the comment: the name follows from both values.
    return (key, generation) if schema_name(key, generation) == name else None


def _call_name(call: Call) -> str:
    """Returns `VERB:KEY:GENERATION:IDEMPOTENCY_KEY`, the value of `lifecycle.call` for proxies before the database."""
    key = quote(call.key, safe=":")
    return f"{call.verb}:{key}:{call.generation}:{quote(call.idempotency_key, safe='')}"


def _contradiction(comment: str | None, call: Call, name: str) -> Contradicted | None:
    """Returns the answer for a schema of our name with a foreign comment; None if the comment is ours."""
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
    """Returns the answer for an error.

    Args:
        error: The error; without a SQLSTATE the connection ended.
        in_doubt: True if a COMMIT was under way.
    """
    code = error.sqlstate
    # Classes 08 (connection) and 57 (shutdown by an operator) end a connection as well. Any further error during COMMIT
    # means that the transaction was rolled back.
    if in_doubt and (code is None or code.startswith(("08", "57"))):
        return Unknown("the connection ended")
    reason = str(error) if isinstance(error, NoSession) else f"SQLSTATE {code}: {error.diag.message_primary}"
    if code is None:
        return Retryable(reason if isinstance(error, NoSession) else "the connection ended")
    if is_set_up(code):
        return OperatorRefused(reason, _REMEDY)
    if code in _FENCE_GONE | _RACED or is_passing(code):
        return Retryable(reason)
    return Refused(reason)
