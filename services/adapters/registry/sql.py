"""The registry's SQL statements. Table names are unqualified: the search path is the registry's schema.

Rule: a row of `sagas` is made by intake or by an adoption, whichever is first, and the second changes nothing of the
journal. A row is changed by the lease's holder (under the lease's epoch), by intake (only to a newer version),
by a claim, by `WAKE` (only without a lease), by `WAKE_HELD` (the due time alone), by `REPAIRS` at a start, or by a
recovery, after the end of all leases.

`statement_timestamp()` compares all rows of a statement with a single time; `clock_timestamp()` is the time of the
change itself, also in a transaction that waited for a lock.
"""

from collections.abc import Mapping
from typing import Final, LiteralString

from psycopg import sql

MIGRATION_LOCK: Final[LiteralString] = "SELECT pg_advisory_xact_lock(hashtextextended('migrate ' || %s, 0))"
SHORT_LOCK_LIMIT: Final[LiteralString] = "SET LOCAL lock_timeout = '2s'"
"""Ends a migration that waits for a table's lock: every later statement of running workers queues behind the wait."""
MIGRATIONS: Final[LiteralString] = """
    CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())
"""
MIGRATED: Final[LiteralString] = "SELECT name FROM migrations"
MIGRATE: Final[LiteralString] = "INSERT INTO migrations (name) VALUES (%s)"

ANY_SAGA: Final[LiteralString] = "SELECT 1 FROM sagas WHERE desired_version > 0 LIMIT 1"
"""An adopted row before its first version says nothing about records that intake has read."""
KEEP_PLAN: Final[LiteralString] = "INSERT INTO plans (digest, text) VALUES (%s, %s) ON CONFLICT DO NOTHING"
PLAN_TEXT: Final[LiteralString] = "SELECT text FROM plans WHERE digest = %s"

_TRACE: Final[LiteralString] = "CASE WHEN trace_version = desired_version THEN trace END AS trace"
"""The trace of the desired version: an intake of an earlier release leaves the trace of another version."""

STORE: Final[LiteralString] = """
    INSERT INTO sagas (key, org, desired, desired_version, trace, trace_version, due_at)
    SELECT key, org, desired, version, trace, version, clock_timestamp()
    FROM unnest(%s::text[], %s::text[], %s::json[], %s::bigint[], %s::text[])
        AS new (key, org, desired, version, trace)
    ON CONFLICT (key) DO UPDATE
    SET desired = excluded.desired, desired_version = excluded.desired_version, trace = excluded.trace,
        trace_version = excluded.trace_version, due_at = least(sagas.due_at, excluded.due_at)
    WHERE sagas.desired_version < excluded.desired_version
"""
"""Stores desired versions and makes the rows due now. `least` ignores NULL, so a row that was not due becomes due.

An existing lease stays: its holder notices the newer version at the next `WRITE`, which then changes nothing.
"""

CLAIM: Final[LiteralString] = f"""
    WITH due AS (
        SELECT key, org, due_at, row_number() OVER (PARTITION BY org ORDER BY due_at, key) AS number
        FROM sagas
        WHERE due_at <= statement_timestamp() AND (lease_until IS NULL OR lease_until <= statement_timestamp())
            AND epoch < 4611686018427387904 AND NOT EXISTS (SELECT FROM recovery)
    ), leased AS (
        SELECT org, count(*) AS running FROM sagas WHERE lease_until > statement_timestamp() GROUP BY org
    ), fair AS (
        SELECT key, due_at, number + coalesce(running, 0) AS rank
        FROM due LEFT JOIN leased USING (org)
        WHERE number + coalesce(running, 0) <= %(org_limit)s
        ORDER BY rank, due_at LIMIT 2 * %(limit)s + 64
    ), mine AS MATERIALIZED (
        SELECT sagas.key FROM sagas JOIN fair USING (key)
        WHERE sagas.due_at <= statement_timestamp()
            AND (sagas.lease_until IS NULL OR sagas.lease_until <= statement_timestamp())
        ORDER BY rank, fair.due_at LIMIT %(limit)s FOR UPDATE OF sagas SKIP LOCKED
    )
    UPDATE sagas SET epoch = epoch + 1, worker = %(worker)s,
        lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
    FROM mine WHERE sagas.key = mine.key
    RETURNING sagas.key, epoch, desired::text, journal::text, (1e6 * extract(epoch FROM statement_timestamp()))::bigint,
        {_TRACE}, open_calls::text
"""  # noqa: S608 - of constants alone
"""Leases due rows fairly. A row's rank is its number within the organisation plus the organisation's present leases: an
organisation with fewer leases comes first.

`fair` picks more rows than wanted, because concurrent workers may hold locks on the same rows (SKIP LOCKED). `mine`
repeats the conditions of `due`: a worker that committed in between may have leased the row. The bound on `epoch` keeps
`epoch + 1` within the column's check; a row edited to the limit would end every worker that claims.
"""

CLAIM_ONE: Final[LiteralString] = f"""
    UPDATE sagas SET epoch = epoch + 1, worker = %(worker)s,
        lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
    WHERE key = %(key)s AND (lease_until IS NULL OR lease_until <= clock_timestamp())
    RETURNING key, epoch, desired::text, journal::text, (1e6 * extract(epoch FROM statement_timestamp()))::bigint,
        {_TRACE}, open_calls::text
"""  # noqa: S608 - of constants alone

GIVE_BACK: Final[LiteralString] = """
    UPDATE sagas SET lease_until = NULL, waits_epoch = CASE WHEN waits_epoch = epoch - 1 THEN epoch ELSE waits_epoch END
    WHERE key = %s AND epoch = %s
"""

BIND_ADOPTED: Final[LiteralString] = """
    INSERT INTO bindings (tenant_id, org)
    SELECT DISTINCT ON (tenant_id) tenant_id, org
    FROM unnest(%s::text[], %s::text[], %s::text[]) AS new (key, org, tenant_id)
    WHERE NOT EXISTS (SELECT FROM sagas WHERE sagas.key = new.key)
    ORDER BY tenant_id, key
    ON CONFLICT (tenant_id) DO NOTHING
"""
ADOPT: Final[LiteralString] = """
    WITH new AS (
        SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::json[], %s::json[], %s::integer[],
            %s::text[], %s::bigint[], %s::bytea[])
        AS new (key, org, tenant_id, desired, journal, generation, topic, seq, value)
    ), mine AS (
        INSERT INTO sagas (key, org, desired, desired_version, journal, phase, generation, tenant_id)
        SELECT key, new.org, desired, 0, journal, 'active', generation, new.tenant_id
        FROM new JOIN bindings ON bindings.tenant_id = new.tenant_id AND bindings.org = new.org
        WHERE NOT EXISTS (SELECT FROM recovery)
        ORDER BY key FOR KEY SHARE OF bindings
        ON CONFLICT (key) DO NOTHING
        RETURNING key
    ), queued AS (
        INSERT INTO outbox (key, topic, seq, value) SELECT key, topic, seq, value FROM new JOIN mine USING (key)
        ORDER BY key
        ON CONFLICT (key, topic, seq) DO NOTHING
    )
    SELECT key FROM mine
"""
"""Makes rows for adopted lives, not due: the first version that intake stores makes each due. A key with a row, and a
tenantId bound to another organisation, are left out. Version 0 is older than every version of the ledger."""

_ROW: Final[LiteralString] = """
    key, desired_version, phase, generation, tenant_id, waits_for, why,
    extract(epoch FROM due_at)::float8, extract(epoch FROM changed_at)::float8,
    CASE WHEN lease_until > statement_timestamp() THEN worker END, journal::text
"""
"""The columns of a `SagaRow`."""
SAGAS: Final[LiteralString] = f"""
    SELECT {_ROW}
    FROM sagas WHERE (%(key)s::text IS NULL OR key = %(key)s)
        AND (%(phases)s::text[] IS NULL OR phase = ANY(%(phases)s) OR (%(standing)s AND stands_since IS NOT NULL))
        AND (%(standing)s IS DISTINCT FROM false OR stands_since IS NULL)
    ORDER BY changed_at DESC LIMIT %(limit)s
"""  # noqa: S608 - of constants alone
_IN_SCOPE: Final[LiteralString] = """
    (%(keys)s::text[] IS NULL OR key = ANY(%(keys)s)) AND (%(orgs)s::text[] IS NULL OR org = ANY(%(orgs)s))
"""
SAGAS_COUNT: Final[LiteralString] = f"SELECT count(*) FROM sagas WHERE {_IN_SCOPE}"  # noqa: S608 - of constants alone
SAGAS_AFTER: Final[LiteralString] = f"""
    SELECT {_ROW}
    FROM sagas WHERE key > %(after)s AND {_IN_SCOPE}
    ORDER BY key LIMIT %(limit)s
"""  # noqa: S608 - of constants alone

REPAIRS: Final[tuple[LiteralString, ...]] = (
    """
    UPDATE sagas SET due_at = clock_timestamp(), phase = CASE phase
            WHEN 'compensation_failed' THEN 'compensating' WHEN 'removal_failed' THEN 'removing' ELSE phase END
        WHERE phase IN ('compensation_failed', 'removal_failed')
    """,
    """
    UPDATE sagas SET due_at = clock_timestamp() + make_interval(secs => 3600 + 3600 * random())
        WHERE phase = 'rolled_back' AND due_at IS NULL
    """,
    """
    UPDATE sagas SET stands_at = NULL, stands_since = NULL
        WHERE phase IN ('active', 'empty', 'rolled_back') AND stands_at IS NOT NULL
    """,
)
"""Repairs of rows written by workers of earlier releases: phases of stopped sagas, rolled-back tenants never due
again, and standstills left in phases without a step.

Run at each start and not once as a migration, because a worker of an earlier release may have run meanwhile.
"""

CENSUS: Final[LiteralString] = """
    WITH told AS (
        SELECT *, CASE WHEN waits_epoch = epoch THEN waits_because END AS word FROM sagas
    ), standing AS (
        SELECT CASE WHEN due_at IS NULL THEN 'rest' WHEN lease_until > statement_timestamp() THEN 'running'
                WHEN due_at <= statement_timestamp() THEN 'due' WHEN word IS NOT NULL THEN word
                WHEN phase = 'rolled_back' THEN phase WHEN phase IN ('active', 'empty') THEN 'rest'
                WHEN why = 'grace' THEN 'grace' ELSE 'retrying' END AS why,
            CASE WHEN lease_until > statement_timestamp() OR due_at <= statement_timestamp() THEN due_at
                WHEN word IS NOT NULL THEN waits_since ELSE stands_since END AS since
        FROM told
    ), counted (sort, name, number, since) AS (
        SELECT 'why', why, count(*), min(since) FROM standing GROUP BY why
        UNION ALL SELECT 'unwell', stands_at, count(*), NULL FROM sagas
            WHERE stands_since <= statement_timestamp() - make_interval(secs => %s) AND stands_at IS NOT NULL
            GROUP BY stands_at
        UNION ALL SELECT 'unclaimed', 'all', count(*), min(due_at) FROM sagas
            WHERE due_at <= statement_timestamp() AND (lease_until IS NULL OR lease_until <= statement_timestamp())
        UNION ALL SELECT 'outbox', 'all', count(*), min(written_at) FROM outbox
    )
    SELECT sort, name, number, greatest(0, extract(epoch FROM statement_timestamp() - since))::float8,
        extract(epoch FROM since)::float8
    FROM counted
"""
"""Counts the whole registry: sagas by why, unwell tenants by step, due rows without a lease, the outbox; with the age
of the oldest, and the time since which it stands.

A row without a due time is at rest. A row that an earlier release has written has no word, or the word of an older
epoch: its phase tells, and for a grace period the reason that the row shows.

A leased row and a due row have the time since which a worker was wanted in `due_at`: the commit of each turn but the
last of a lease sets `due_at` to the present.
"""

PROGRESS: Final[LiteralString] = """
    SELECT key, generation, desired_version, journal::text FROM sagas WHERE key = ANY(%s)
"""
"""Returns journals as text: a journal may hold U+0000, which PostgreSQL's JSON operators refuse. The caller parses."""
UNSETTLED_KEYS: Final[LiteralString] = """
    SELECT key FROM sagas
    WHERE phase NOT IN ('empty', 'active', 'rolled_back') OR position('"sweeps":[{' IN journal::text) > 0
"""
_DATABASE: Final[LiteralString] = """
    pg_postmaster_start_time()::text, (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""Start time of the server and number of the database: after a change of either, the data may be older than before."""
SERVER: Final[LiteralString] = f"SELECT inet_server_addr()::text, inet_server_port(), {_DATABASE}"
# A row in `recovery` stops `CLAIM` until the recovery has ended, also after a crash in the middle.
RECOVERY: Final[LiteralString] = "SELECT 1 FROM recovery LIMIT 1"
RECOVERY_LOCK: Final[LiteralString] = "SELECT pg_try_advisory_xact_lock(hashtextextended('recovery ' || %s, 0))"
NO_IDLE_LIMIT: Final[LiteralString] = "SET LOCAL idle_in_transaction_session_timeout = 0"
RECOVERY_BEGINS: Final[LiteralString] = "INSERT INTO recovery DEFAULT VALUES"
RECOVERY_ENDS: Final[LiteralString] = "DELETE FROM recovery"
NO_TIME_LIMIT: Final[LiteralString] = "SET LOCAL statement_timeout = 0"
RAISE_EPOCHS: Final[LiteralString] = """
    UPDATE sagas SET epoch = greatest(epoch, extract(epoch FROM clock_timestamp())::bigint), lease_until = NULL,
        waits_epoch = CASE WHEN waits_epoch = epoch THEN greatest(epoch, extract(epoch FROM clock_timestamp())::bigint)
            ELSE waits_epoch END
    WHERE lease_until IS NOT NULL OR epoch < extract(epoch FROM clock_timestamp())::bigint
"""
OUTBOX_DELETE_PUBLISHED: Final[LiteralString] = "DELETE FROM outbox WHERE key = %s AND topic = %s AND seq <= %s"

DEFER: Final[LiteralString] = """
    UPDATE sagas SET due_at = clock_timestamp() + make_interval(secs => %s), lease_until = NULL,
        waits_because = 'stopped', waits_epoch = sagas.epoch,
        waits_since = coalesce(
            CASE WHEN waits_because = 'stopped' AND waits_epoch >= sagas.epoch - 1 THEN waits_since END,
            clock_timestamp())
    FROM unnest(%s::text[], %s::bigint[]) AS mine (key, epoch)
    WHERE sagas.key = mine.key AND sagas.epoch = mine.epoch
"""
"""Gives unreadable rows back, due later; `CENSUS` counts these rows as `stopped` meanwhile."""

RENEW: Final[LiteralString] = """
    UPDATE sagas SET lease_until = clock_timestamp() + make_interval(secs => mine.lease_s)
    FROM (SELECT key, epoch, %s::float8 AS lease_s FROM unnest(%s::text[], %s::bigint[]) AS m (key, epoch)) AS mine
    WHERE sagas.key = mine.key AND sagas.epoch = mine.epoch AND sagas.lease_until IS NOT NULL
    RETURNING sagas.key
"""

_STAYS: Final[LiteralString] = """
    waits_epoch >= epoch - 1 AND waits_because = coalesce(%(because)s::text, 'stopped')
"""
WRITE: Final[LiteralString] = f"""
    WITH mine AS (
        UPDATE sagas SET journal = %(journal)s, phase = %(phase)s, generation = %(generation)s,
            tenant_id = %(tenant_id)s, waits_for = %(waits_for)s, why = %(why)s, changed_at = clock_timestamp(),
            waits_because = CASE WHEN {_STAYS} THEN waits_because ELSE %(because)s::text END,
            waits_since = coalesce(to_timestamp(%(since_s)s), CASE WHEN {_STAYS} THEN waits_since END,
                clock_timestamp()),
            waits_epoch = epoch,
            stands_at = %(stands_at)s, stands_since = to_timestamp(%(stands_since_s)s),
            open_calls = %(open_calls)s,
            due_at = clock_timestamp() + make_interval(secs => %(due_in_s)s),
            lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
        WHERE key = %(key)s AND epoch = %(epoch)s AND desired_version = %(version)s
        RETURNING key, {_TRACE}
    ), queued AS (
        INSERT INTO outbox (key, topic, seq, value, trace)
        SELECT mine.key, message.topic, message.seq, message.value, mine.trace
        FROM mine, unnest(%(topics)s::text[], %(seqs)s::bigint[], %(values)s::bytea[])
            WITH ORDINALITY AS message (topic, seq, value, number)
        ORDER BY message.number
        ON CONFLICT (key, topic, seq) DO NOTHING
    )
    SELECT count(*) FROM mine
"""  # noqa: S608 - of constants alone
"""Writes a turn, if the epoch and the desired version are still the claim's.

A word that is written again, in this lease or in the next, keeps its time. A call has no word: the word `stopped`
outlasts calls, since the error may come again after them. The row is due or leased meanwhile, and not counted by the
word.

An interval of NULL seconds is NULL: the row is then not due, or has no lease. A repetition after a lost answer skips
the messages still in the outbox (ON CONFLICT DO NOTHING); a message drained meanwhile is published again, byte for
byte the same. ORDER BY makes the ids follow the order of publishing.
"""

WAKE: Final[LiteralString] = """
    WITH waiting AS MATERIALIZED (
        SELECT key FROM sagas WHERE waits_for = %s AND lease_until IS NULL ORDER BY key FOR UPDATE
    )
    UPDATE sagas SET due_at = clock_timestamp(), waits_for = NULL FROM waiting WHERE sagas.key = waiting.key
"""

PRESENT_ROW: Final[LiteralString] = f"""
    SELECT epoch, desired::text, journal::text, {_TRACE} FROM sagas WHERE key = %s
"""  # noqa: S608 - of constants alone

BIND: Final[LiteralString] = """
    INSERT INTO bindings (tenant_id, org) VALUES (%(tenant_id)s, %(org)s) ON CONFLICT (tenant_id) DO NOTHING
"""
# Only an unused binding is removed. The foreign key catches a saga that begins to use the binding meanwhile.
UNBIND: Final[LiteralString] = """
    DELETE FROM bindings WHERE tenant_id = %s
    AND NOT EXISTS (SELECT 1 FROM sagas WHERE sagas.tenant_id = bindings.tenant_id)
"""

# The brake on removals (docs/decisions/0041).

REMOVAL_LIMIT: Final[LiteralString] = """
    SELECT greatest(%(at_once)s, count(*) * %(percent)s / 100)::integer FROM sagas
    WHERE phase IN ('active', 'updating', 'restoring', 'removing')
"""
_FITS: Final[LiteralString] = """
    removal_approvals.expires_at > statement_timestamp() AND removal_approvals.generation = %(generation)s
    AND removal_approvals.installed_at_us IS NOT DISTINCT FROM %(installed_at_us)s::bigint
"""
"""An approval that has not expired, for this generation and this install: a reinstall revives a life in its generation,
and its next removal is another one."""
REMOVAL_STATE: Final[LiteralString] = f"""
    UPDATE removals SET began_us = %(began_us)s, version = %(version)s
    WHERE key = %(key)s AND generation = %(generation)s AND (began_us = %(began_us)s OR version = %(version)s)
        AND EXISTS (SELECT FROM sagas WHERE sagas.key = removals.key AND epoch = %(epoch)s)
    RETURNING admitted_at IS NOT NULL, refused_at IS NOT NULL, EXISTS (
        SELECT FROM removal_approvals WHERE removal_approvals.key = removals.key AND {_FITS}
    )
"""  # noqa: S608 - of constants alone
REMOVALS_LOCK: Final[LiteralString] = "SELECT pg_advisory_xact_lock(hashtextextended('removals ' || %s, 0))"
_USED: Final[LiteralString] = f"""
    DELETE FROM removal_approvals USING sagas
    WHERE removal_approvals.key = %(key)s AND {_FITS}
        AND sagas.key = %(key)s AND sagas.epoch = %(epoch)s
    RETURNING removal_approvals.key
"""  # noqa: S608 - of constants alone
"""Uses an approval up. A worker with an older epoch uses none: its teardown may be over."""
ASK_REMOVAL: Final[LiteralString] = f"""
    WITH used AS ({_USED}), counted AS (
        SELECT count(*) FILTER (WHERE key <> %(key)s) AS others,
            coalesce(bool_or(key = %(key)s AND admitted_at IS NOT NULL), false) AS has_place
        FROM removals
        WHERE asked_at > statement_timestamp() - make_interval(secs => %(window_s)s) AND NOT approved
    ), asked AS (
        SELECT sagas.key, approved, approved OR has_place OR others < %(limit)s AS admitted
        FROM sagas, counted, (SELECT EXISTS (SELECT FROM used) AS approved) AS found
        WHERE sagas.key = %(key)s AND sagas.epoch = %(epoch)s
    )
    INSERT INTO removals (key, generation, began_us, version, admitted_at, held_since, approved)
    SELECT key, %(generation)s, %(began_us)s, %(version)s, CASE WHEN admitted THEN clock_timestamp() END,
        CASE WHEN NOT admitted THEN clock_timestamp() END, approved
    FROM asked
    ON CONFLICT (key) DO UPDATE SET generation = excluded.generation, began_us = excluded.began_us,
        version = excluded.version, asked_at = excluded.asked_at, admitted_at = excluded.admitted_at,
        held_since = excluded.held_since, approved = excluded.approved, refused_by = NULL, refused_at = NULL,
        refused_reason = NULL, unconfirmed = NULL, unconfirmed_since = NULL
    RETURNING admitted_at IS NOT NULL
"""  # noqa: S608 - of constants alone
"""Asks for a removal for the first time, under `REMOVALS_LOCK`: of two workers, one sees the other's row.

A key counts once, and keeps its place: a customer who installs and uninstalls all day uses up one. A worker with an
older epoch changes nothing.
"""
RELEASE_REMOVAL: Final[LiteralString] = f"""
    WITH used AS ({_USED})
    UPDATE removals SET admitted_at = clock_timestamp(), approved = true,
        refused_by = NULL, refused_at = NULL, refused_reason = NULL
    FROM used WHERE removals.key = used.key AND generation = %(generation)s
    RETURNING true
"""  # noqa: S608 - of constants alone
PRUNE_REMOVALS: Final[LiteralString] = """
    DELETE FROM removals WHERE asked_at <= statement_timestamp() - make_interval(secs => %(window_s)s)
        AND NOT EXISTS (
            SELECT FROM sagas
            WHERE sagas.key = removals.key AND phase = 'removing' AND sagas.generation = removals.generation
        )
"""
FORGET_APPROVALS: Final[LiteralString] = "DELETE FROM removal_approvals"
PRUNE_APPROVALS: Final[LiteralString] = "DELETE FROM removal_approvals WHERE expires_at <= statement_timestamp()"
NOTE_UNCONFIRMED: Final[LiteralString] = """
    UPDATE removals SET unconfirmed = %(unconfirmed)s, unconfirmed_since = CASE
        WHEN unconfirmed = %(unconfirmed)s THEN unconfirmed_since
        WHEN %(unconfirmed)s::text IS NOT NULL THEN clock_timestamp() END
    WHERE key = %(key)s AND generation = %(generation)s
    RETURNING greatest(0, extract(epoch FROM clock_timestamp() - unconfirmed_since))::float8
"""
IS_CONTRADICTED: Final[LiteralString] = """
    SELECT FROM removals WHERE key = %(key)s AND generation = %(generation)s AND unconfirmed = 'installed'
"""
_STANDING_REMOVALS: Final[LiteralString] = """
    removals JOIN sagas ON sagas.key = removals.key AND phase = 'removing' AND sagas.generation = removals.generation
"""
"""Removals of sagas that are still in their teardown; a reinstall has ended the others."""
HELD_REMOVALS: Final[LiteralString] = f"""
    SELECT removals.key, removals.generation, (1e6 * extract(epoch FROM held_since))::bigint,
        refused_by, (1e6 * extract(epoch FROM refused_at))::bigint
    FROM {_STANDING_REMOVALS} WHERE admitted_at IS NULL ORDER BY removals.key
"""  # noqa: S608 - of constants alone
REMOVAL_COUNTS: Final[LiteralString] = f"""
    SELECT CASE WHEN admitted_at IS NOT NULL THEN unconfirmed WHEN refused_at IS NULL THEN 'held' ELSE 'refused' END,
        count(*)
    FROM {_STANDING_REMOVALS} WHERE admitted_at IS NULL OR unconfirmed IS NOT NULL GROUP BY 1
    UNION ALL SELECT 'counted', count(*) FROM removals
        WHERE asked_at > statement_timestamp() - make_interval(secs => %(window_s)s) AND NOT approved
"""  # noqa: S608 - of constants alone
APPROVABLE: Final[LiteralString] = """
    SELECT key, generation, phase, desired::text FROM sagas
    WHERE key = ANY(%s) AND phase NOT IN ('empty', 'rolled_back') ORDER BY key FOR UPDATE
"""
APPROVE_REMOVALS: Final[LiteralString] = """
    INSERT INTO removal_approvals (key, digest, approved_by, reason, expires_at, generation, installed_at_us)
    SELECT key, %(digest)s, %(by)s, %(reason)s, to_timestamp(%(expires_s)s), asked.generation, asked.installed_at_us
    FROM unnest(%(keys)s::text[], %(generations)s::integer[], %(installs)s::bigint[])
        AS asked (key, generation, installed_at_us) JOIN sagas USING (key)
    WHERE to_timestamp(%(expires_s)s) > statement_timestamp()
        AND NOT EXISTS (
            SELECT FROM removals WHERE removals.key = sagas.key AND phase = 'removing'
                AND removals.generation = sagas.generation AND admitted_at IS NOT NULL
        )
    ORDER BY key
    ON CONFLICT (key) DO UPDATE SET digest = excluded.digest, approved_by = excluded.approved_by,
        reason = excluded.reason, approved_at = excluded.approved_at, expires_at = excluded.expires_at,
        generation = excluded.generation, installed_at_us = excluded.installed_at_us
    RETURNING key
"""
"""Stores approvals for keys of `APPROVABLE`; a removal that was let go before takes no second one."""
UNREFUSE_REMOVALS: Final[LiteralString] = """
    UPDATE removals SET refused_by = NULL, refused_at = NULL, refused_reason = NULL
    WHERE key = ANY(%s) AND refused_at IS NOT NULL
"""
REFUSE_REMOVALS: Final[LiteralString] = """
    UPDATE removals SET refused_by = %(by)s, refused_at = clock_timestamp(), refused_reason = %(reason)s
    WHERE key = ANY(%(keys)s) AND admitted_at IS NULL
    RETURNING key
"""
WITHDRAW_APPROVALS: Final[LiteralString] = "DELETE FROM removal_approvals WHERE key = ANY(%s)"
WAKE_HELD: Final[LiteralString] = """
    WITH waiting AS MATERIALIZED (
        SELECT key FROM sagas WHERE key = ANY(%s) AND phase = 'removing' ORDER BY key FOR UPDATE
    )
    UPDATE sagas SET due_at = clock_timestamp() FROM waiting WHERE sagas.key = waiting.key
"""


# The lock belongs to the transaction: no session is left with a lock behind a pooler.
OUTBOX_LOCK: Final[LiteralString] = "SELECT pg_try_advisory_xact_lock(hashtextextended('outbox ' || %s, 0))"
OUTBOX: Final[LiteralString] = "SELECT id, key, topic, seq, value, trace FROM outbox ORDER BY id LIMIT %s"
OUTBOX_DELETE: Final[LiteralString] = "DELETE FROM outbox WHERE id = ANY(%s)"


def settings(given: Mapping[str, str], *, local: bool) -> tuple[sql.Composed, list[str]]:
    """Return a statement to apply settings, and the statement's parameters.

    The statement's row begins with the columns of `SERVER` without the address, to save a second round trip.

    Args:
        given: Values by the settings' names.
        local: True applies the settings until the transaction's end; False until the session's end.
    """
    each = sql.SQL(", ").join(
        sql.SQL("set_config({}, %s, {})").format(sql.Literal(name), sql.Literal(local)) for name in given
    )
    return sql.SQL("SELECT {}, {}").format(sql.SQL(_DATABASE), each), list(given.values())
