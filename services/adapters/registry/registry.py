"""The registry: one PostgreSQL schema with a row per key, bindings, plans, and what Kafka has not acknowledged.

Rule: whoever writes a row holds its lease and says so with the epoch; a write under another epoch, or for a desired
version that is no longer the newest, changes nothing. Leases, and times in journals, go by the clock of the database.
Journal, binding and sayings of one turn are one commit.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from schemas.codec import Unreadable, decode
from schemas.saga import Journal
from schemas.tenant import Desired
from services.adapters.postgres.pool import SAFE, Pool, PooledConnection, is_set_up
from services.adapters.postgres.silence import within
from services.adapters.process.settings import Unusable
from services.adapters.registry import sql as statements
from services.adapters.registry.types import (
    Claim,
    LeaseLost,
    NewerDesired,
    OutboxMessage,
    OutboxRow,
    RowProgress,
    SagaRow,
    TenantTaken,
    Written,
)

SCHEMA: Final = "lifecycle"
"""Of PostgreSQL, where a provisioner has its registry."""

MIGRATIONS: Final = Path(__file__).with_name("migrations")
_WAIT_S: Final = 10.0
"""For a connection."""
_SESSION: Final = {
    "statement_timeout": "10s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "15s",
}
"""A process that was stopped in the middle of a transaction holds its locks no longer than this. Kafka has less time to
acknowledge what `drain` handed over."""

_AWAY: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    psycopg.errors.InsufficientPrivilege,
)
"""Nothing wrong with what was asked. Internal errors are the server's own state: it only reads after a fail-over, a
transaction sat idle for too long, a page is broken. A right that is missing is the operator's to give."""

_NO_TABLES: Final = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)
_ELSEWHERE: Final = (*_NO_TABLES, psycopg.errors.ReadOnlySqlTransaction)
"""What is not so where we were before."""

_UNREADABLE_S: Final = 60.0
"""How long a row waits that another release wrote, or that somebody edited."""


def usable(name: str, url: str) -> str:
    """The URL of a database, if it can be read as one.

    Raises:
        Unusable: it cannot; what it says is not told, since it may hold a password.
    """
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        fault = "no PostgreSQL URL; percent-encode what is special in its user and password"
        raise Unusable(f"{name}: {fault}") from None
    return url


class RegistryAway(Exception):
    """The registry does not answer, or refuses; nothing is known of the last statement.

    Attributes:
        refused: True if the server said no, for want of a login or a right; False if it may answer later.
    """

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class Registry:
    """Use from one event loop; any number of processes may share one schema."""

    def __init__(
        self, url: str, *, schema: str, lease_s: float, worker: str, org_limit: int = 1_000_000, connections: int = 8
    ) -> None:
        """Prepare the pool; nothing connects before `start`.

        Args:
            url: Of the database.
            schema: Name of the registry's own schema.
            lease_s: How long a silent worker keeps a row.
            worker: Written beside the lease, for people.
            org_limit: Leases of one organisation at once, over all workers.
            connections: At most.
        """
        self._url, self._schema, self._lease_s, self._worker = url, schema, lease_s, worker
        self._org_limit = org_limit
        # A connection that ended is to be noticed: the next one may lead to another server.
        self._pool = Pool(url, at_most=connections, configure=self._connected, at_least=1, checked=False)
        self._settings = {"search_path": sql.Identifier(schema).as_string(), **_SESSION}
        self._server: tuple[Any, ...] | None = None
        self.losses = 0
        """How often a connection was lost, or led to another server: what was known of the registry may not be so."""
        self.unreadable: Callable[[str, str], None] = lambda _, __: None
        """Called with the key of a due row that this release cannot read, and why."""

    async def start(self) -> None:
        """Bring the schema up to date, under a lock, and open the pool.

        Raises:
            RegistryAway: no database answers.
        """
        try:
            async with await PooledConnection.connect(self._url, autocommit=True, **SAFE) as session:
                # A migration takes as long as it takes; a server that says nothing at all is away.
                with within(_WAIT_S, session):
                    await session.execute("SELECT 1")
                await _migrate(session, self._schema)
        except _AWAY as error:
            raise RegistryAway(_brief(error), refused=is_set_up(error.sqlstate or "")) from None
        await self.open()

    async def open(self) -> None:
        """Open the pool, on a schema that somebody else brings up to date."""
        await self._pool.open()

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()

    async def is_empty(self) -> bool:
        """True when no desired version was ever stored."""
        async with self._session() as session:
            found = await (await session.execute(statements.ANY_SAGA)).fetchone()
            return found is None

    async def heads(self, keys: Sequence[str]) -> dict[str, RowProgress]:
        """How far these keys have come, where they have rows."""
        async with self._session() as session:
            rows = await (await session.execute(statements.HEADS, (list(keys),))).fetchall()
            return {key: RowProgress(_counted(journal), *head) for key, *head, journal in rows}

    async def unwell(self, after_s: float) -> dict[str, int]:
        """Returns how many tenants have stood at a step for so many seconds or longer, by step."""
        async with self._session() as session:
            rows = await (await session.execute(statements.UNWELL, (after_s,))).fetchall()
            return {str(step): int(count) for step, count in rows}

    async def under_way(self) -> list[str]:
        """The keys whose sagas are in the middle of something, or look an ended life up again."""
        async with self._session() as session:
            return [str(row[0]) for row in await (await session.execute(statements.UNDER_WAY)).fetchall()]

    async def is_half_recovered(self) -> bool:
        """True when a recovery was begun and has not ended; nothing is claimed meanwhile."""
        async with self._session() as session:
            return await (await session.execute(statements.RECOVERY)).fetchone() is not None

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Hold the lock of recoveries; false when another process has it.

        It is a transaction's, which ends with it: a lock of a session would stay with a pooler's connection.
        """
        async with self._session() as session, session.transaction():
            await session.execute(statements.NO_IDLE_LIMIT)
            found = await (await session.execute(statements.RECOVERY_LOCK, (self._schema,))).fetchone()
            yield bool(found and found[0])

    async def begin_recovery(self) -> None:
        """Stop every claim, make leases void, and every later epoch greater than any before."""
        async with self._session() as session, session.transaction():
            await session.execute(statements.NO_TIME_LIMIT)
            await session.execute(statements.RECOVERY_BEGINS)
            await session.execute(statements.RAISE_EPOCHS)

    async def end_recovery(self) -> None:
        """Claims go on."""
        async with self._session() as session:
            await session.execute(statements.RECOVERY_ENDS)

    async def forget_said(self, key: str, topic: str, seq: int) -> None:
        """Publish no saying of a key up to this one: Kafka has it."""
        async with self._session() as session:
            await session.execute(statements.OUTBOX_FORGET, (key, topic, seq))

    async def keep_plan(self, digest: str, text: str) -> None:
        """Store a plan for as long as the registry lives."""
        async with self._session() as session:
            await session.execute(statements.KEEP_PLAN, (digest, text))

    async def plan_text(self, digest: str) -> str | None:
        """The text of a plan that was kept."""
        async with self._session() as session:
            found = await (await session.execute(statements.PLAN_TEXT, (digest,))).fetchone()
            return str(found[0]) if found else None

    async def store(self, batch: Sequence[Desired]) -> int:
        """Store the newest version of each key and make its saga due; returns how many rows changed."""
        newest: dict[str, Desired] = {}
        for desired in batch:
            if desired.key not in newest or newest[desired.key].version < desired.version:
                newest[desired.key] = desired
        rows = [newest[key] for key in sorted(newest)]  # one order for all, so that two of these cannot deadlock
        columns = (
            [row.key for row in rows],
            [row.key.partition(":")[0] for row in rows],
            [row.model_dump_json() for row in rows],
            [row.version for row in rows],
        )
        async with self._session() as session:
            return (await session.execute(statements.STORE, columns)).rowcount

    async def claim(self, limit: int) -> list[Claim]:
        """Lease at most `limit` due rows that nobody holds, each under a new epoch; `unreadable` has the others.

        Organisations take turns.
        """
        held_until_s = time.monotonic() + self._lease_s
        async with self._session() as session:
            asked_us = time.monotonic_ns() // 1_000
            asked = {"limit": limit, "org_limit": self._org_limit, "lease_s": self._lease_s, "worker": self._worker}
            rows = await (await session.execute(statements.CLAIM, asked)).fetchall()
            claims: list[Claim] = []
            bad: list[tuple[str, int]] = []
            for key, epoch, *row in rows:
                try:
                    claims.append(_claim(held_until_s, asked_us, key, epoch, *row))
                except Unreadable as fault:
                    bad.append((key, epoch))
                    self.unreadable(key, str(fault))
            if bad:
                await session.execute(statements.DEFER, (_UNREADABLE_S, *map(list, zip(*bad, strict=True))))
        return claims

    async def claim_one(self, key: str) -> Claim | None:
        """Lease the row of a key, due or not; None where there is none, or somebody holds it.

        Raises:
            Unreadable: this release cannot read it.
        """
        held_until_s = time.monotonic() + self._lease_s
        async with self._session() as session:
            asked_us = time.monotonic_ns() // 1_000
            asked = {"key": key, "lease_s": self._lease_s, "worker": self._worker}
            found = await (await session.execute(statements.CLAIM_ONE, asked)).fetchone()
        return None if found is None else _claim(held_until_s, asked_us, *found)

    async def sagas(
        self, *, key: str | None = None, phases: Sequence[str] | None = None, standing: bool | None = None, limit: int
    ) -> list[SagaRow]:
        """Look at sagas, those that changed last first.

        Args:
            key: Only this one's.
            phases: Only those in one of these.
            standing: True adds those that stand at a step, in any phase; False leaves them out.
            limit: At most so many.

        `unreadable` has those that this release cannot read.
        """
        async with self._session() as session:
            asked = {
                "key": key,
                "phases": None if phases is None else list(phases),
                "standing": standing,
                "limit": limit,
            }
            rows = await (await session.execute(statements.SAGAS, asked)).fetchall()
        found: list[SagaRow] = []
        for *of, journal in rows:
            try:
                found.append(SagaRow(*(*of, decode(Journal, journal.encode()))))
            except Unreadable as fault:
                self.unreadable(of[0], str(fault))
        return found

    async def write(
        self,
        claim: Claim,
        journal: Journal,
        sayings: Sequence[OutboxMessage],
        *,
        due_in_s: float | None,
        release: bool,
        waits_for: str | None = None,
        why: str | None = None,
    ) -> Written | NewerDesired | LeaseLost | TenantTaken:
        """Commit one turn: journal, binding, what it says and when it is due next.

        Args:
            claim: Brought up to date when something was written.
            journal: The new one.
            sayings: In the order in which they are to be published.
            due_in_s: From now; None: not before a newer version comes.
            release: Give the lease back; else it begins anew.
            waits_for: The outside system whose return makes it due (`wake`), whatever `due_in_s` says.
            why: Why it waits, for people, where the journal does not say so.

        Raises:
            RegistryAway: it may or may not be committed.
        """
        held_until_s = time.monotonic() + self._lease_s
        tenant_id = journal.life.tenant_id if journal.life else None
        before = claim.journal.life.tenant_id if claim.journal.life else None
        stands = journal.standstill
        row = {
            "key": claim.key,
            "epoch": claim.epoch,
            "version": claim.desired.version,
            "journal": journal.model_dump_json(),
            "phase": journal.phase.value,
            "generation": journal.generation,
            "tenant_id": tenant_id,
            "org": claim.key.partition(":")[0],
            "due_in_s": due_in_s,
            "waits_for": waits_for,
            "why": why,
            "stands_at": stands.step if stands else None,
            "stands_since_s": stands.since / 1_000_000 if stands else None,
            "lease_s": None if release else self._lease_s,
            "topics": [saying.topic for saying in sayings],
            "seqs": [saying.seq for saying in sayings],
            "values": [saying.value for saying in sayings],
        }
        async with self._session() as session:
            binds = tenant_id is not None and tenant_id != before
            written = await (_bind_and_write if binds else _write)(session, row)
            if written is None:
                return TenantTaken()
            if written and before is not None and before != tenant_id:
                await _unbind(session, before)
            if not written:
                now = await (await session.execute(statements.AS_IT_IS, (claim.key,))).fetchone()
        if written:
            claim.journal, claim.held_until_s = journal, held_until_s
            return Written()
        if now is None or now[0] != claim.epoch:
            return LeaseLost()
        claim.desired = Desired.model_validate_json(now[1])
        if now[2] != row["journal"]:
            return NewerDesired(written=False)
        claim.journal = journal
        return NewerDesired(written=True)

    async def renew(self, claims: Sequence[Claim]) -> None:
        """Prolong the leases that are still ours."""
        held_until_s = time.monotonic() + self._lease_s
        async with self._session() as session:
            asked = (self._lease_s, [claim.key for claim in claims], [claim.epoch for claim in claims])
            rows = await (await session.execute(statements.RENEW, asked)).fetchall()
        ours = {str(row[0]) for row in rows}
        for claim in claims:
            if claim.key in ours:
                claim.held_until_s = max(claim.held_until_s, held_until_s)

    async def wake(self, system: str) -> int:
        """Make every saga due that waits for a system; returns how many do."""
        async with self._session() as session:
            return (await session.execute(statements.WAKE, (system,))).rowcount

    async def drain(self, publish: Callable[[list[OutboxRow]], Awaitable[list[int]]], limit: int) -> tuple[int, int]:
        """Hand the oldest sayings over, in order, and delete those whose ids come back.

        One process at a time does this: two would break the order within a key. Returns how many were found and how
        many were deleted; none when another process is at it.
        """
        async with self._session() as session, session.transaction():
            lock = await (await session.execute(statements.OUTBOX_LOCK, (self._schema,))).fetchone()
            if lock is None or not lock[0]:
                return 0, 0
            rows = await (await session.execute(statements.OUTBOX, (limit,))).fetchall()
            found = [OutboxRow(*row) for row in rows]
            acknowledged = await publish(found) if found else []
            if acknowledged:
                await session.execute(statements.OUTBOX_DELETE, (acknowledged,))
            return len(found), len(acknowledged)

    async def _connected(self, session: PooledConnection) -> None:
        """Note where a new connection leads, and set its session up where it keeps one server process."""
        await session.notice_pooler()
        if not session.pooled:
            await session.execute(*statements.settings(self._settings, local=False))
        server = await (await session.execute(statements.SERVER)).fetchone()
        self._note(server if server is None or not session.pooled else server[2:])

    def _note(self, server: tuple[Any, ...] | None) -> bool:
        """Keep which server was met; true when that is another than before."""
        is_other = server != self._server
        self.losses += is_other
        self._server = server
        return is_other

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[PooledConnection]:
        """A connection whose settings hold.

        Raises:
            RegistryAway: no statement of this session took effect, or the last may have.
        """
        try:
            async with self._pool.connection(_WAIT_S) as session:
                try:
                    if session.pooled:
                        async with session.transaction():
                            await self._settle(session)
                            yield session
                    else:
                        yield session
                except _ELSEWHERE:
                    await session.close()  # the address may lead to another server by now
                    raise
                finally:
                    self.losses += session.closed
        except _NO_TABLES:
            raise RegistryAway("its tables are missing, or older than this release: start a provisioner") from None
        except _AWAY as error:
            raise RegistryAway(_brief(error), refused=is_set_up(error.sqlstate or "")) from None

    async def _settle(self, session: PooledConnection) -> None:
        """Begin a transaction behind a pooler, which may lead to another server now without a connection lost."""
        server = await (await session.execute(*statements.settings(self._settings, local=True))).fetchone()
        if self._note(server and server[:2]):
            raise RegistryAway("the pooler in front of it leads to another server now")


def _counted(journal: str) -> int | None:
    try:
        return decode(Journal, journal.encode()).seq
    except Unreadable:
        return None


def _claim(held_until_s: float, asked_us: int, key: str, epoch: int, desired: str, journal: str, at_us: int) -> Claim:
    """A row that was asked for at `asked_us` by this process's clock, and leased at `at_us` by the database's."""
    known = decode(Desired, desired.encode()), decode(Journal, journal.encode())
    return Claim(key, epoch, *known, held_until_s, at_us - asked_us)


async def _write(session: PooledConnection, row: dict[str, Any]) -> bool | None:
    found = await (await session.execute(statements.WRITE, row)).fetchone()
    return bool(found and found[0])


async def _bind_and_write(session: PooledConnection, row: dict[str, Any]) -> bool | None:
    """None: the tenantId is another organisation's."""
    for last in (False, True):
        try:
            async with session.transaction():
                await session.execute(statements.BIND, row)
                return await _write(session, row)
        except psycopg.errors.ForeignKeyViolation:
            if not last:
                # It may be a binding whose last user has just gone.
                await _unbind(session, row["tenant_id"])
    return None


async def _unbind(session: PooledConnection, tenant_id: str) -> None:
    try:
        async with session.transaction():
            await session.execute(statements.UNBIND, (tenant_id,))
    except psycopg.errors.ForeignKeyViolation:
        return  # somebody has begun to use it in the meantime


async def _migrate(session: PooledConnection, schema: str) -> None:
    async with session.transaction():
        await session.execute(statements.MIGRATION_LOCK, (schema,))
        await session.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        await session.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(schema)))
        await session.execute(statements.MIGRATIONS)
        rows = await (await session.execute(statements.MIGRATED)).fetchall()
        done = {row[0] for row in rows}
        for path in sorted(MIGRATIONS.glob("*.sql")):
            if path.name not in done:
                await session.execute(path.read_bytes())
                await session.execute(statements.MIGRATE, (path.name,))
        for repair in statements.REPAIRS:
            await session.execute(repair)


def _brief(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
