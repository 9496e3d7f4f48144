"""The registry: a PostgreSQL schema with a row per key (saga), the bindings, the plans and the outbox.

Problem: several workers drive sagas, a worker may be paused for longer than a lease lasts, the answer to a commit may
be lost, and after a lost connection the next connection may lead to an older copy of the database.

Approach:
- A worker claims a row with a lease and a new, greater epoch. Each write names the epoch and the desired version. A
  write under an older epoch, or for a version no longer the newest, changes no row. So a worker with an expired lease
  can do no harm.
- Leases and the times in journals follow the database's clock. A worker measures its own lease with
  `time.monotonic()` from before the request: the local lease ends before the database's.
- Journal, binding and outbox messages of a turn are a single commit. A repeated write is recognised by the epoch and
  the journal's text.
- `losses` counts lost connections and changes of server. The provisioner proves the registry again after each.

A pooler (PgBouncer in transaction mode) may stand in front of the server; see docs/decisions/0031. Then every use of a
connection is a transaction with its settings set inside. Without a pooler, settings belong to the session, and every
statement outside an explicit transaction commits alone.
"""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from schemas.codec import Unreadable, decode, readable_trace
from schemas.removal import removals_digest
from schemas.saga import Journal, Phase
from schemas.saga_row import SagaRow
from schemas.tenant import Desired
from services.adapters.postgres.pool import SAFE, Pool, PooledConnection, is_set_up
from services.adapters.postgres.silence import answering, within
from services.adapters.registry import sql as statements
from services.adapters.registry.types import (
    NOT_WAITING,
    AdoptedRow,
    Arrival,
    Census,
    Claim,
    Counted,
    HeldRemoval,
    LeaseLost,
    NewerDesired,
    OutboxMessage,
    OutboxRow,
    Removal,
    RemovalCounts,
    RemovalRules,
    RemovalVerdict,
    RowProgress,
    TenantTaken,
    Unconfirmed,
    Waiting,
    Written,
)

SCHEMA: Final = "lifecycle"
"""Name of the PostgreSQL schema of the provisioner's registry."""

MIGRATIONS: Final = Path(__file__).with_name("migrations")
_WAIT_S: Final = 10.0
"""Time limit for a free connection from the pool, and for the first answer at the start."""
_ANSWER_S: Final = 20.0
"""Time limit of a session. A server that is stopped or hangs ends no statement by its own limit of 10 s."""
_PUBLISH_S: Final = 30.0
"""Time limit of a session that publishes: 15 s for Kafka, and the statements before and after."""
_SESSION_SETTINGS: Final = {
    "statement_timeout": "10s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "15s",
}
"""Limits the time for which a process stopped in the middle of a transaction holds its locks.

`drain` publishes within a transaction, so Kafka must acknowledge within the 15 s of the idle limit.
"""

_AWAY_ERRORS: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    psycopg.errors.InsufficientPrivilege,
)
"""Errors of the server's state or set-up, not of the statement; each becomes `RegistryAway`.

InternalError covers a server that is read-only after a fail-over, a transaction idle for too long, and a broken page.
InsufficientPrivilege is a right that the operator must grant.
"""

_NO_TABLES: Final = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)
_OTHER_SERVER_ERRORS: Final = (*_NO_TABLES, psycopg.errors.ReadOnlySqlTransaction)
"""Errors that suggest a connection to another server or database than before: a standby, or an older copy."""

_BATCH: Final = 500
"""Sagas read with one statement: few enough for the memory of a command, many enough for 100,000 sagas in seconds."""

_UNREADABLE_S: Final = 60.0
"""Pause before an unreadable row (written by another release, or edited by hand) is claimed again, seconds."""


class RegistryAway(Exception):
    """The registry does not answer, or refuses; the last statement may have taken effect or not.

    Attributes:
        refused: True if the server refused a login or lacks a granted right; False if the server may answer later.
    """

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


class Registry:
    """The pooled connections to the registry's schema. Use from one event loop; processes may share a schema.

    Every method that runs a statement raises `RegistryAway` if the database does not answer or refuses.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str,
        lease_s: float,
        worker: str,
        on_unreadable: Callable[[str, str], None],
        org_limit: int = 1_000_000,
        connections: int = 8,
    ) -> None:
        """Prepare the pool; nothing connects before `start` or `open`.

        Args:
            url: URL of the database.
            schema: Name of the registry's own schema.
            lease_s: Length of a lease, seconds.
            worker: Name of this worker, stored beside the lease for operators to read.
            on_unreadable: Called with the key of a row that this release cannot read, and with the reason.
            org_limit: Greatest count of an organisation's leases at once, over all workers.
            connections: Greatest count of connections.
        """
        self._url, self._schema, self._lease_s, self._worker = url, schema, lease_s, worker
        self._on_unreadable, self._org_limit = on_unreadable, org_limit
        # Not checked before use: a lost connection must be noticed and counted in `losses`, not silently replaced.
        self._pool = Pool(url, at_most=connections, configure=self._connected, at_least=1, checked=False)
        self._settings = {"search_path": sql.Identifier(schema).as_string(), **_SESSION_SETTINGS}
        self._server: tuple[Any, ...] | None = None
        self.losses = 0
        """Count of lost connections and changes of server; after each the registry may be an older copy."""

    async def start(self) -> None:
        """Migrate the schema to this release, under a lock, and open the pool.

        Raises:
            RegistryAway: the database does not answer, refuses the login or a right, or the migration waits for a
                table's lock. A later call may succeed.
        """
        try:
            async with await PooledConnection.connect(self._url, autocommit=True, **SAFE) as session:
                # Only the first answer has a time limit: the migration of a large table may take long.
                with within(_WAIT_S, session):
                    await session.execute("SELECT 1")
                await _migrate(session, self._schema)
        except _AWAY_ERRORS as error:
            raise RegistryAway(_first_line(error), refused=is_set_up(error.sqlstate or "")) from None
        await self.open()

    async def open(self) -> None:
        """Open the pool without a migration, for commands beside a running provisioner."""
        await self._pool.open()

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()

    async def is_empty(self) -> bool:
        """True if no desired version was ever stored."""
        async with self._session() as session:
            found = await (await session.execute(statements.ANY_SAGA)).fetchone()
            return found is None

    async def progress_of(self, keys: Sequence[str]) -> dict[str, RowProgress]:
        """Return the progress of these keys; a key without a row is left out."""
        async with self._session() as session:
            rows = await (await session.execute(statements.PROGRESS, (list(keys),))).fetchall()
            return {key: RowProgress(_outcome_count(journal), *head) for key, *head, journal in rows}

    async def census(self, unwell_s: float) -> Census:
        """Count the whole registry.

        Args:
            unwell_s: Seconds at one step after which a tenant counts as unwell.
        """
        async with self._session() as session:
            rows = await (await session.execute(statements.CENSUS, (unwell_s,))).fetchall()
        found: dict[str, dict[str, Counted]] = {"why": {}, "unwell": {}, "outbox": {}}
        oldest_due_s = 0.0
        for sort, name, number, oldest_s, since_s in rows:
            if sort == "unclaimed":
                oldest_due_s = since_s or 0.0
            else:
                found[sort][name] = Counted(number, oldest_s or 0.0)
        unwell = {step: counted.number for step, counted in found["unwell"].items()}
        return Census(found["why"], unwell, oldest_due_s, found["outbox"]["all"])

    async def unsettled_keys(self) -> list[str]:
        """Return the keys of sagas that are in the middle of a change or still have an orphan check to come."""
        async with self._session() as session:
            return [str(row[0]) for row in await (await session.execute(statements.UNSETTLED_KEYS)).fetchall()]

    async def is_half_recovered(self) -> bool:
        """True if a recovery was begun and has not ended; `claim` leases no row meanwhile."""
        async with self._session() as session:
            return await (await session.execute(statements.RECOVERY)).fetchone() is not None

    @asynccontextmanager
    async def hold_recovery_lock(self) -> AsyncIterator[bool]:
        """Hold the lock of recoveries during the context; yield False if another process holds the lock."""
        # A transaction's lock ends with the transaction. A session's lock would stay on a pooler's server connection.
        async with self._session(limit_s=None) as session, session.transaction():
            # The transaction sits idle while the recovery works through other connections.
            await session.execute(statements.NO_IDLE_LIMIT)
            found = await (await session.execute(statements.RECOVERY_LOCK, (self._schema,))).fetchone()
            yield bool(found and found[0])

    async def begin_recovery(self) -> None:
        """Stop every claim, end all leases, forget all approvals, and raise every epoch to at least the present second.

        A database restored from a backup has lost the last epochs given out. Epochs begin at the row's creation time
        in seconds and grow by 1 a claim, so no epoch given out before has reached the present time. An approval in the
        backup may have been used since, and would let a second removal go.
        """
        async with self._session(limit_s=None) as session, session.transaction():
            await session.execute(statements.NO_TIME_LIMIT)
            await session.execute(statements.RECOVERY_BEGINS)
            await session.execute(statements.RAISE_EPOCHS)
            await session.execute(statements.FORGET_APPROVALS)

    async def end_recovery(self) -> None:
        """Allow claims again."""
        async with self._session() as session:
            await session.execute(statements.RECOVERY_ENDS)

    async def delete_published(self, key: str, topic: str, seq: int) -> None:
        """Delete a key's outbox messages for a topic up to and including `seq`: Kafka already has them."""
        async with self._session() as session:
            await session.execute(statements.OUTBOX_DELETE_PUBLISHED, (key, topic, seq))

    async def keep_plan(self, digest: str, text: str) -> None:
        """Store the text of a plan under its digest, for good: a tenant's life may still go by an old plan."""
        async with self._session() as session:
            await session.execute(statements.KEEP_PLAN, (digest, text))

    async def plan_text(self, digest: str) -> str | None:
        """Return the text of a stored plan; None if no plan has this digest."""
        async with self._session() as session:
            found = await (await session.execute(statements.PLAN_TEXT, (digest,))).fetchone()
            return str(found[0]) if found else None

    async def store(self, batch: Sequence[Arrival]) -> int:
        """Store the newest version of each key and make the saga due; return the count of changed rows.

        A version no newer than the stored version changes nothing.
        """
        # A batch may hold several versions of a key, but a statement may change a row only once.
        newest: dict[str, Arrival] = {}
        for arrival in batch:
            key, version = arrival.desired.key, arrival.desired.version
            if key not in newest or newest[key].desired.version < version:
                newest[key] = arrival
        # Every batch locks its rows in the same order, so that two concurrent batches cannot deadlock.
        rows = [newest[key] for key in sorted(newest)]
        columns = (
            [row.desired.key for row in rows],
            [row.desired.key.partition(":")[0] for row in rows],
            [row.desired.model_dump_json() for row in rows],
            [row.desired.version for row in rows],
            [row.trace for row in rows],
        )
        async with self._session() as session:
            return (await session.execute(statements.STORE, columns)).rowcount

    async def adopt(self, rows: Sequence[AdoptedRow]) -> set[str]:
        """Make rows for adopted lives, each with the binding and the audit record; return the keys of the made rows.

        A key with a row is left out, also one that intake stores meanwhile; so is a tenantId of another organisation.
        During a recovery no row is made.
        """
        ordered = sorted(rows, key=lambda row: row.desired.key)
        keys = [row.desired.key for row in ordered]
        orgs = [key.partition(":")[0] for key in keys]
        tenants = [row.desired.tenant_id for row in ordered]
        columns = (
            keys,
            orgs,
            tenants,
            [row.desired.model_dump_json() for row in ordered],
            [row.journal.model_dump_json() for row in ordered],
            [row.journal.generation for row in ordered],
            [row.message.topic for row in ordered],
            [row.message.seq for row in ordered],
            [row.message.value for row in ordered],
        )
        async with self._session() as session, session.transaction():
            await session.execute(statements.BIND_ADOPTED, (keys, orgs, tenants))
            made = await (await session.execute(statements.ADOPT, columns)).fetchall()
            return {str(row[0]) for row in made}

    async def claim(self, limit: int) -> list[Claim]:
        """Lease at most `limit` due rows without a valid lease, each under a new epoch; organisations take turns.

        A row that this release cannot read is reported to `on_unreadable` and postponed by a minute.
        """
        # Measured before the request: the local lease must end no later than the database's.
        held_until_s = time.monotonic() + self._lease_s
        async with self._session() as session:
            # Read directly before the statement, and compared with the database's time at its start.
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
                    self._on_unreadable(key, str(fault))
            if bad:
                # Given back at once and due later: unreadable rows must not fill every claim.
                await session.execute(statements.DEFER, (_UNREADABLE_S, *map(list, zip(*bad, strict=True))))
        return claims

    async def claim_one(self, key: str) -> Claim | None:
        """Lease the row of a key, due or not; None if the key has no row, or another worker holds the lease.

        Raises:
            Unreadable: this release cannot read the row; the lease was given back.
        """
        held_until_s = time.monotonic() + self._lease_s
        async with self._session() as session:
            asked_us = time.monotonic_ns() // 1_000
            asked = {"key": key, "lease_s": self._lease_s, "worker": self._worker}
            found = await (await session.execute(statements.CLAIM_ONE, asked)).fetchone()
            if found is None:
                return None
            try:
                return _claim(held_until_s, asked_us, *found)
            except Unreadable:
                await session.execute(statements.GIVE_BACK, found[:2])
                raise

    async def sagas(
        self, *, key: str | None = None, phases: Sequence[str] | None = None, standing: bool | None = None, limit: int
    ) -> list[SagaRow]:
        """Return sagas, the last changed first; unreadable rows are reported to `on_unreadable` and left out.

        Args:
            key: Restricts the result to this key.
            phases: Restricts the result to these phases.
            standing: True adds sagas that stand at a step, in any phase; False leaves standing sagas out.
            limit: Greatest count of sagas.
        """
        async with self._session() as session:
            asked = {
                "key": key,
                "phases": None if phases is None else list(phases),
                "standing": standing,
                "limit": limit,
            }
            rows = await (await session.execute(statements.SAGAS, asked)).fetchall()
        return self._readable(rows)

    async def present(self, key: str) -> tuple[Desired, Journal] | None:
        """Return the newest desired version and the journal of a key, without a lease; None if the key has no row.

        Raises:
            Unreadable: this release cannot read the row.
        """
        async with self._session() as session:
            found = await (await session.execute(statements.PRESENT_ROW, (key,))).fetchone()
        if found is None:
            return None
        _, desired, journal, _ = found
        return decode(Desired, desired.encode()), decode(Journal, journal.encode())

    async def count_sagas(self, keys: Sequence[str] | None, orgs: Sequence[str] | None) -> int:
        """Return the count of the sagas of `all_sagas`."""
        async with self._session() as session:
            found = await (await session.execute(statements.SAGAS_COUNT, {"keys": keys, "orgs": orgs})).fetchone()
            return int(found[0]) if found else 0

    async def all_sagas(self, keys: Sequence[str] | None, orgs: Sequence[str] | None) -> AsyncIterator[list[SagaRow]]:
        """Yield sagas in the order of their keys, in batches; unreadable rows as of `sagas`.

        Args:
            keys: Restricts the result to these keys; None for all.
            orgs: Restricts the result to these organisations; None for all.
        """
        after = ""
        while True:
            asked = {"after": after, "keys": keys, "orgs": orgs, "limit": _BATCH}
            async with self._session() as session:
                rows = await (await session.execute(statements.SAGAS_AFTER, asked)).fetchall()
            if not rows:
                return
            yield self._readable(rows)
            after = rows[-1][0]

    def _readable(self, rows: Sequence[tuple[Any, ...]]) -> list[SagaRow]:
        """Parse rows of `SAGAS`; an unreadable row is reported and left out."""
        found: list[SagaRow] = []
        for *of, journal in rows:
            try:
                found.append(SagaRow(*(*of, decode(Journal, journal.encode()))))
            except Unreadable as fault:
                self._on_unreadable(of[0], str(fault))
        return found

    async def write(
        self,
        claim: Claim,
        journal: Journal,
        messages: Sequence[OutboxMessage],
        *,
        due_in_s: float | None,
        release: bool,
        waiting: Waiting = NOT_WAITING,
        open_calls: Mapping[str, str] | None = None,
    ) -> Written | NewerDesired | LeaseLost | TenantTaken:
        """Commit a turn: the journal, the binding, the outbox messages and the next due time.

        After `RegistryAway` the caller may repeat the call with equal arguments.

        Args:
            claim: The leased row; updated to the committed state.
            journal: The new journal.
            messages: Outbox messages, in the order of publishing.
            due_in_s: Seconds until the row is due; None: due only when a newer version is stored.
            release: True gives the lease back; False renews the lease.
            waiting: The wait, for `wake`, for operators and for `census`.
            open_calls: The trace contexts of the saga's open calls; None leaves those of the claim.

        Returns:
            Written if the turn is committed; otherwise the reason why the row is not as asked.

        Raises:
            RegistryAway: the turn may be committed or not.
        """
        held_until_s = time.monotonic() + self._lease_s
        tenant_id = journal.life.tenant_id if journal.life else None
        before = claim.journal.life.tenant_id if claim.journal.life else None
        stands = journal.standstill
        opened = claim.open_calls if open_calls is None else dict(open_calls)
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
            "waits_for": waiting.system,
            "why": waiting.why,
            "because": waiting.because,
            "since_s": None if waiting.since_us is None else waiting.since_us / 1_000_000,
            "stands_at": stands.step if stands else None,
            "stands_since_s": stands.since / 1_000_000 if stands else None,
            "lease_s": None if release else self._lease_s,
            "open_calls": json.dumps(opened) if opened else None,
            "topics": [message.topic for message in messages],
            "seqs": [message.seq for message in messages],
            "values": [message.value for message in messages],
        }
        async with self._session() as session:
            binds = tenant_id is not None and tenant_id != before
            written = await (_bind_and_write if binds else _write)(session, row)
            if written is None:
                return TenantTaken()
            if written and before is not None and before != tenant_id:
                # A crash before this line leaves an unused binding; `_bind_and_write` removes such a binding on demand.
                await _unbind(session, before)
            if not written:
                now = await (await session.execute(statements.PRESENT_ROW, (claim.key,))).fetchone()
        if written:
            # Also after a release: the caller then no longer uses the claim.
            claim.journal, claim.open_calls, claim.held_until_s = journal, opened, held_until_s
            return Written()
        if now is None or now[0] != claim.epoch:
            return LeaseLost()
        # The epoch is still ours, so only the desired version can differ: a newer one was stored meanwhile.
        claim.desired, claim.trace = Desired.model_validate_json(now[1]), readable_trace(now[3])
        # A column of type `json` keeps the text unchanged. Our own text there means that an earlier try of this write
        # was committed and its answer was lost.
        if now[2] != row["journal"]:
            return NewerDesired(written=False)
        claim.journal, claim.open_calls = journal, opened
        return NewerDesired(written=True)

    async def renew(self, claims: Sequence[Claim]) -> None:
        """Renew the leases of these claims; a claim whose row has a newer epoch or no lease stays unchanged."""
        held_until_s = time.monotonic() + self._lease_s
        async with self._session() as session:
            asked = (self._lease_s, [claim.key for claim in claims], [claim.epoch for claim in claims])
            rows = await (await session.execute(statements.RENEW, asked)).fetchall()
        ours = {str(row[0]) for row in rows}
        for claim in claims:
            if claim.key in ours:
                claim.held_until_s = max(claim.held_until_s, held_until_s)

    async def wake(self, system: str) -> int:
        """Make every unleased saga due that waits for an outside system; return the count of these sagas."""
        async with self._session() as session:
            return (await session.execute(statements.WAKE, (system,))).rowcount

    async def removal_limit(self, rules: RemovalRules) -> int:
        """Return the count of removals that a window sees at most without an approval; reads the whole table."""
        async with self._session() as session:
            asked = {"at_once": rules.at_once, "percent": rules.percent}
            found = await (await session.execute(statements.REMOVAL_LIMIT, asked)).fetchone()
            return int(found[0]) if found else rules.at_once

    async def removal_counts(self, rules: RemovalRules) -> RemovalCounts:
        """Return the state of the brake; reads the whole table."""
        limit = await self.removal_limit(rules)
        async with self._session() as session:
            rows = await (await session.execute(statements.REMOVAL_COUNTS, {"window_s": rules.window_s})).fetchall()
        found = {str(word): int(number) for word, number in rows}
        return RemovalCounts(
            counted=found.get("counted", 0),
            limit=limit,
            held=found.get("held", 0),
            refused=found.get("refused", 0),
            unconfirmed={why: found[why] for why in Unconfirmed if why in found},
        )

    async def admit_removal(self, removal: Removal, epoch: int, *, limit: int, window_s: float) -> RemovalVerdict:
        """Ask the brake for a teardown; all workers share one count.

        A teardown that was admitted stays admitted. A teardown that was held goes by an approval alone, which is used
        up, and never by the passing of time. A worker with an older epoch is held and changes nothing.

        Args:
            removal: The teardown.
            epoch: The epoch of the caller's lease.
            limit: Removals that a window sees at most without an approval (`removal_limit`).
            window_s: Length of the window, seconds.
        """
        asked = {
            "key": removal.key,
            "generation": removal.generation,
            "began_us": removal.began_us,
            "version": removal.version,
            "installed_at_us": removal.installed_at_us,
            "epoch": epoch,
            "limit": limit,
            "window_s": window_s,
        }
        async with self._session() as session:
            # Without the lock: a held teardown asks once a minute, and an admitted one before each try of its first
            # call. Only the lease's holder asks, so nobody else makes the row meanwhile.
            state = await (await session.execute(statements.REMOVAL_STATE, asked)).fetchone()
            if state is not None and (state[0] or not state[2]):
                return _verdict(admitted=state[0], refused=state[1])
            async with session.transaction():
                if state is not None:
                    found = await (await session.execute(statements.RELEASE_REMOVAL, asked)).fetchone()
                    return _verdict(admitted=found is not None, refused=state[1])
                await session.execute(statements.REMOVALS_LOCK, (self._schema,))
                await session.execute(statements.PRUNE_REMOVALS, asked)
                await session.execute(statements.PRUNE_APPROVALS)
                found = await (await session.execute(statements.ASK_REMOVAL, asked)).fetchone()
                return _verdict(admitted=found is not None and found[0], refused=False)

    async def note_unconfirmed(self, removal: Removal, unconfirmed: Unconfirmed | None) -> float:
        """Store the reason for which Genesys has not confirmed an admitted teardown; None once it has.

        Returns:
            Seconds for which the teardown has waited for this reason; 0 for None.
        """
        asked = {"key": removal.key, "generation": removal.generation, "unconfirmed": unconfirmed}
        async with self._session() as session:
            found = await (await session.execute(statements.NOTE_UNCONFIRMED, asked)).fetchone()
            return float(found[0]) if found and unconfirmed is not None else 0.0

    async def is_contradicted(self, removal: Removal) -> bool:
        """Return True if the last answer of Genesys about an admitted teardown was an installed integration."""
        asked = {"key": removal.key, "generation": removal.generation}
        async with self._session() as session:
            return await (await session.execute(statements.IS_CONTRADICTED, asked)).fetchone() is not None

    async def held_removals(self) -> list[HeldRemoval]:
        """Return the teardowns held by the brake, in the order of their keys."""
        async with self._session() as session:
            rows = await (await session.execute(statements.HELD_REMOVALS)).fetchall()
            return [HeldRemoval(*row) for row in rows]

    async def approve_removals(
        self, keys: Sequence[str], *, digest: str, by: str, reason: str, expires_us: int
    ) -> list[str]:
        """Let one removal of each key go, held now or still to come; return the keys with a stored approval.

        An approval with the digest of another set changes nothing, as does one that has expired. A key without a
        resource, or with a removal that was let go before, takes no approval. An approval is for the present
        generation and its newest install: the removal of a later install asks again.

        Args:
            keys: The keys to remove.
            digest: `removals_digest` of the keys, as shown to the operator.
            by: The operator.
            reason: The operator's reason.
            expires_us: End of the approval, microseconds UTC.
        """
        if digest != removals_digest(keys):
            return []
        asked = {"digest": digest, "by": by, "reason": reason, "expires_s": expires_us / 1_000_000}
        async with self._session() as session, session.transaction():
            rows = await (await session.execute(statements.APPROVABLE, (list(keys),))).fetchall()
            fit = [(found, generation) for _, generation, *of in rows if (found := _install_to_remove(*of))]
            asked |= {
                "keys": [found.key for found, _ in fit],
                "generations": [generation for _, generation in fit],
                "installs": [found.installed_at for found, _ in fit],
            }
            rows = await (await session.execute(statements.APPROVE_REMOVALS, asked)).fetchall()
            approved = [str(row[0]) for row in rows]
            await session.execute(statements.UNREFUSE_REMOVALS, (approved,))
            await session.execute(statements.WAKE_HELD, (approved,))
            return approved

    async def refuse_removals(self, keys: Sequence[str], *, by: str, reason: str) -> list[str]:
        """Mark held removals as refused, and withdraw approvals of these keys; return the keys of marked removals.

        The removals stay held, until an approval or until the integration is installed again.

        Args:
            keys: The keys to keep.
            by: The operator.
            reason: The operator's reason.
        """
        async with self._session() as session, session.transaction():
            await session.execute(statements.WITHDRAW_APPROVALS, (list(keys),))
            asked = {"keys": list(keys), "by": by, "reason": reason}
            rows = await (await session.execute(statements.REFUSE_REMOVALS, asked)).fetchall()
            marked = [str(row[0]) for row in rows]
            await session.execute(statements.WAKE_HELD, (marked,))
            return marked

    async def drain(self, publish: Callable[[list[OutboxRow]], Awaitable[list[int]]], limit: int) -> tuple[int, int]:
        """Publish the oldest outbox messages, in order, and delete the acknowledged messages.

        Args:
            publish: Sends the rows and returns the ids of acknowledged rows; must return within 15 s.
            limit: Greatest count of messages.

        Returns:
            The counts of found and of deleted messages; (0, 0) if another process drains the outbox now.
        """
        # Only one process at a time may publish: two would break the order within a key.
        async with self._session(_PUBLISH_S) as session, session.transaction():
            lock = await (await session.execute(statements.OUTBOX_LOCK, (self._schema,))).fetchone()
            if lock is None or not lock[0]:
                return 0, 0
            rows = await (await session.execute(statements.OUTBOX, (limit,))).fetchall()
            found = [
                OutboxRow(number, key, topic, seq, value, readable_trace(trace))
                for number, key, topic, seq, value, trace in rows
            ]
            # The transaction stays open meanwhile, for the lock. A crash before its commit publishes the rows again.
            acknowledged = await publish(found) if found else []
            if acknowledged:
                await session.execute(statements.OUTBOX_DELETE, (acknowledged,))
            return len(found), len(acknowledged)

    async def _connected(self, session: PooledConnection) -> None:
        """Prepare a new connection: detect a pooler, apply the session's settings, and note the server's identity."""
        await session.notice_pooler()
        if not session.pooled:
            await session.execute(*statements.settings(self._settings, local=False))
        server = await (await session.execute(statements.SERVER)).fetchone()
        # Behind a pooler the address is left out: `_set_up` compares without the address too.
        self._note_server(server if server is None or not session.pooled else server[2:])

    def _note_server(self, server: tuple[Any, ...] | None) -> None:
        """Store the server's identity; a change counts as a loss."""
        self.losses += server != self._server
        self._server = server

    @asynccontextmanager
    async def _session(self, limit_s: float | None = _ANSWER_S) -> AsyncIterator[PooledConnection]:
        """Acquire a connection with the registry's settings; behind a pooler, within a transaction.

        Args:
            limit_s: Time limit of the whole session, seconds; None for a session that may take long.

        Raises:
            RegistryAway: the database is away or refuses. Some statements of this session may have taken effect. Or
                the connection leads to another server than at the call; then no statement has run.
        """
        server = self._server
        try:
            async with self._pool.connection(_WAIT_S) as session:
                try:
                    with nullcontext() if limit_s is None else answering(limit_s, session):
                        if session.pooled:
                            async with session.transaction():
                                await self._set_up(session)
                                self._refuse_other_than(server)
                                yield session
                        else:
                            self._refuse_other_than(server)
                            yield session
                except _OTHER_SERVER_ERRORS:
                    await session.close()  # the address may lead to another server by now: connect again
                    raise
                finally:
                    # A closed connection is a loss: the next one may lead to another server.
                    self.losses += session.closed
        except _NO_TABLES:
            raise RegistryAway("its tables are missing, or older than this release: start a provisioner") from None
        except _AWAY_ERRORS as error:
            raise RegistryAway(_first_line(error), refused=is_set_up(error.sqlstate or "")) from None

    async def _set_up(self, session: PooledConnection) -> None:
        """Set a pooled transaction up, and note the server: a pooler may change it and keep our connection open."""
        server = await (await session.execute(*statements.settings(self._settings, local=True))).fetchone()
        self._note_server(server and server[:2])

    def _refuse_other_than(self, server: tuple[Any, ...] | None) -> None:
        """Refuse to go on if the server has changed, whichever session noticed it.

        The caller asked before the change, and counted on a proof about the server of that time. Who asks after the
        change finds a new count in `losses`, and proves the registry before.

        Args:
            server: The server's identity when the caller asked; None if no server was known.

        Raises:
            RegistryAway: the server is another by now.
        """
        if server is not None and server != self._server:
            raise RegistryAway("its address leads to another server now")


def _verdict(*, admitted: bool, refused: bool) -> RemovalVerdict:
    if admitted:
        return RemovalVerdict.ADMITTED
    return RemovalVerdict.REFUSED if refused else RemovalVerdict.HELD


def _install_to_remove(phase: str, desired: str) -> Desired | None:
    """Return the desired version of a saga that takes an approval of its removal, else None.

    A teardown whose integration is installed again takes none: its life is about to go on. Nor does a row that this
    release cannot read. Parsed here, because PostgreSQL's JSON operators refuse a text with U+0000 in any field.
    """
    try:
        found = decode(Desired, desired.encode())
    except Unreadable:
        return None
    return None if phase == Phase.REMOVING and found.installed else found


def _outcome_count(journal: str) -> int | None:
    """Return a journal's count of outcomes; None if this release cannot read the journal."""
    try:
        return decode(Journal, journal.encode()).seq
    except Unreadable:
        return None


def _claim(held_until_s: float, asked_us: int, key: str, epoch: int, *row: Any) -> Claim:
    """Build the claim of a leased row.

    Args:
        held_until_s: `time.monotonic()` at which the lease may end.
        asked_us: This process's monotonic clock before the request, microseconds.
        key: The row's key.
        epoch: The lease's epoch.
        row: The desired version and the journal, as JSON text; the database's clock at the lease, microseconds UTC; the
            `traceparent`; the open calls, as JSON text or None.

    Raises:
        Unreadable: this release cannot read the desired version or the journal.
    """
    desired, journal, at_us, trace, open_calls = row
    known = decode(Desired, desired.encode()), decode(Journal, journal.encode())
    skew_us = at_us - asked_us
    return Claim(key, epoch, *known, held_until_s, skew_us, readable_trace(trace), readable_calls(open_calls))


def readable_calls(stored: str | None) -> dict[str, str]:
    """Returns the trace contexts of open calls, as stored in a row; an unreadable context counts as absent.

    Args:
        stored: The contexts as JSON text; None without an open call.
    """
    found = json.loads(stored or "{}")
    if not isinstance(found, dict):
        return {}
    return {at: text for at, text in found.items() if isinstance(text, str) and readable_trace(text)}


async def _write(session: PooledConnection, row: dict[str, Any]) -> bool | None:
    found = await (await session.execute(statements.WRITE, row)).fetchone()
    return bool(found and found[0])


async def _bind_and_write(session: PooledConnection, row: dict[str, Any]) -> bool | None:
    """Bind the tenantId to the organisation and write the turn, in one transaction; None if the tenantId is taken.

    The foreign key from `sagas` to `bindings` refuses a tenantId of another organisation, regardless of the worker's
    own view.
    """
    for last in (False, True):
        try:
            async with session.transaction():
                await session.execute(statements.BIND, row)
                return await _write(session, row)
        except psycopg.errors.ForeignKeyViolation:
            if not last:
                # The binding may be unused by now: remove it if so, and try once more.
                await _unbind(session, row["tenant_id"])
    return None


async def _unbind(session: PooledConnection, tenant_id: str) -> None:
    try:
        async with session.transaction():
            await session.execute(statements.UNBIND, (tenant_id,))
    except psycopg.errors.ForeignKeyViolation:
        return  # another saga has begun to use the binding in the meantime


async def _migrate(session: PooledConnection, schema: str) -> None:
    """Create the schema, apply the missing migrations in the order of their names, and run the repairs."""
    async with session.transaction():
        # The lock comes first: of several processes that start together, the second must see the first's migrations.
        await session.execute(statements.MIGRATION_LOCK, (schema,))
        await session.execute(statements.SHORT_LOCK_LIMIT)
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


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
