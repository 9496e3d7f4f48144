"""What tenants' own programs may have left in a schema, and how it goes without CASCADE.

Rule: what lies there is what PostgreSQL says depends on the schema (`pg_depend`), whatever its class; each object goes
by the name and the kind that PostgreSQL gives it. What still has a dependent waits and is tried again for as long as
anything goes. What stays then is told with what needs it: it is for people to decide about.
"""

from collections.abc import Sequence
from typing import Final, LiteralString

import psycopg
from psycopg import sql

from services.adapters.postgres.pool import PooledConnection

BATCH: Final = 50
"""Tables dropped in one transaction: each holds locks for itself, its indexes and its TOAST table."""
_LOOSE_BATCH: Final = 500
"""Other objects dropped in one transaction: each holds a lock or two."""

_LYING: Final = """
    SELECT found.type, found.identity
    FROM pg_depend d, LATERAL pg_identify_object(d.classid, d.objid, 0) AS found
    WHERE refclassid = 'pg_namespace'::regclass AND refobjid = %(schema)s::text::regnamespace AND deptype = 'n'
        AND NOT EXISTS (
            SELECT FROM pg_depend whole
            WHERE whole.classid = d.classid AND whole.objid = d.objid AND whole.deptype IN ('i', 'e')
        )
        AND (classid <> 'pg_extension'::regclass
            OR EXISTS (SELECT FROM pg_extension e WHERE e.oid = d.objid AND extowner::regrole::text = %(schema)s))
    ORDER BY d.objid DESC
"""
"""Whole objects only: what is a part of another one, or a member of an extension, goes with that. An extension that
somebody else installed here is not the tenant's."""

_RELATIONS: Final = """
SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'p')
ORDER BY oid DESC LIMIT %s
"""
_REFERENCES: Final = """
SELECT r.relname, c.conname FROM pg_constraint c
JOIN pg_class r ON r.oid = c.conrelid JOIN pg_class t ON t.oid = c.confrelid
WHERE c.contype = 'f' AND c.conparentid = 0 AND r.relnamespace = %(schema)s::text::regnamespace
AND t.relnamespace = %(schema)s::text::regnamespace AND t.relname = ANY(%(tables)s)
"""

_PARTS: Final = """
    WITH relation AS (
        SELECT oid, oid::regclass::text AS name FROM pg_class
        WHERE relnamespace = %(schema)s::text::regnamespace AND relkind IN ('r', 'p', 'f', 'v')
    )
    SELECT format('ALTER TABLE %%s DROP CONSTRAINT IF EXISTS %%I', name, conname)
    FROM pg_constraint JOIN relation ON relation.oid = conrelid WHERE contype = 'c' AND coninhcount = 0
    UNION ALL SELECT format('ALTER DOMAIN %%s DROP CONSTRAINT IF EXISTS %%I', contypid::regtype, conname)
    FROM pg_constraint JOIN pg_type t ON t.oid = contypid
    WHERE typnamespace = %(schema)s::text::regnamespace
    UNION ALL SELECT format('DROP POLICY IF EXISTS %%I ON %%s', polname, name)
    FROM pg_policy JOIN relation ON relation.oid = polrelid
    UNION ALL SELECT format('DROP RULE IF EXISTS %%I ON %%s', rulename, name)
    FROM pg_rewrite JOIN relation ON relation.oid = ev_class WHERE rulename <> '_RETURN'
    UNION ALL SELECT format('DROP TRIGGER IF EXISTS %%I ON %%s', tgname, name)
    FROM pg_trigger JOIN relation ON relation.oid = tgrelid WHERE NOT tgisinternal
    UNION ALL SELECT format('DROP INDEX IF EXISTS %%s', indexrelid::regclass)
    FROM pg_index JOIN relation ON relation.oid = indrelid WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
    UNION ALL SELECT format(
        'ALTER TABLE %%s ' || CASE attgenerated WHEN '' THEN 'ALTER %%I DROP DEFAULT' ELSE 'DROP COLUMN %%I' END,
        name, attname)
    FROM pg_attrdef JOIN relation ON relation.oid = adrelid
    JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
"""
"""What may make two objects need each other, such as a check that calls a function of the row. A view's columns have
defaults of their own. Names are quoted by the server."""

_OBSTACLES: Final = """
    WITH RECURSIVE inside (classid, objid) AS (
        SELECT classid, objid FROM pg_depend
        WHERE refclassid = 'pg_namespace'::regclass AND refobjid = %(schema)s::text::regnamespace
            AND classid <> 'pg_extension'::regclass
        UNION SELECT d.classid, d.objid FROM pg_depend d
        JOIN inside i ON d.refclassid = i.classid AND d.refobjid = i.objid WHERE d.deptype IN ('a', 'i', 'P', 'S')
    )
    SELECT DISTINCT CASE WHEN whole.refobjid IS NULL THEN pg_describe_object(d.classid, d.objid, d.objsubid)
            ELSE pg_describe_object(whole.refclassid, whole.refobjid, 0) END
        || ' needs ' || pg_describe_object(d.refclassid, d.refobjid, 0)
    FROM pg_depend d JOIN inside i ON d.refclassid = i.classid AND d.refobjid = i.objid
    LEFT JOIN pg_depend whole ON whole.classid = d.classid AND whole.objid = d.objid AND whole.deptype = 'i'
    WHERE d.deptype = 'n' AND NOT EXISTS (SELECT FROM inside x WHERE x.classid = d.classid AND x.objid = d.objid)
        AND NOT EXISTS (
            SELECT FROM pg_depend member JOIN pg_extension e ON e.oid = member.refobjid
            WHERE member.classid = d.classid AND member.objid = d.objid AND member.deptype = 'e'
                AND extnamespace = %(schema)s::text::regnamespace
        )
    UNION ALL SELECT pg_describe_object(classid, objid, 0) || ' of ' || extowner::regrole || ' lies in it'
    FROM pg_depend JOIN pg_extension e ON e.oid = objid
    WHERE classid = 'pg_extension'::regclass AND refclassid = 'pg_namespace'::regclass
        AND refobjid = %(schema)s::text::regnamespace AND extowner::regrole::text <> %(schema)s
    ORDER BY 1
"""
"""What lies elsewhere and needs something here, as a whole where it is a part (a rule of a view)."""

_TABLE: Final = "table"
_WORDS: Final = {
    "composite type": "TYPE",
    "statistics object": "STATISTICS",
    "function": "ROUTINE",
    "procedure": "ROUTINE",
    "aggregate": "ROUTINE",
}
"""Kinds whose DROP has another word than PostgreSQL's name of the kind."""
_STAYS: Final = (
    psycopg.errors.DependentObjectsStillExist,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.SyntaxError,
    psycopg.errors.UndefinedObject,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedTable,
)
"""Something needs it, or it is not ours to drop; a kind that this file cannot drop is told like these. What is no more
there went with another one."""

_SAID_MOST: Final = 600
"""Characters of what stops a teardown; the rest is counted."""


async def drop_some(connection: PooledConnection, schema: str) -> bool:
    """Drop what one transaction may hold locks for; False when nothing more goes."""
    lying = await _lying(connection, schema)
    if not lying:
        return False
    loose = [f"DROP {_WORDS.get(kind, kind.upper())} {name}" for kind, name in lying if kind != _TABLE]
    if await _drop_each(connection, loose) or await _drop_tables(connection, schema):
        return True
    if await _column(connection, _OBSTACLES, schema):
        return False
    return await _drop_each(connection, await _column(connection, _PARTS, schema)) > 0


async def drop_schema(connection: PooledConnection, schema: str) -> str:
    """Drop a schema of which nothing more goes; returns what stops that, empty text when it is gone."""
    if await dropped(connection, sql.SQL("DROP SCHEMA {} RESTRICT").format(sql.Identifier(schema))):
        return ""
    found = await _column(connection, _OBSTACLES, schema)
    found = found or [f"{kind} {name} stays" for kind, name in await _lying(connection, schema)]
    return f"schema {schema}: {listed(found)}" if found else f"schema {schema} may not be dropped by this user"


def listed(found: Sequence[str]) -> str:
    """The first of these that fit into a reason, and how many more there are."""
    text = ""
    for number, one in enumerate(found):
        if text and len(text) + len(one) > _SAID_MOST:
            return f"{text}; and {len(found) - number} more"
        text = f"{text}; {one[:_SAID_MOST]}" if text else one[:_SAID_MOST]
    return text


async def dropped(connection: PooledConnection, statement: sql.SQL | sql.Composed) -> bool:
    """Carry out a statement that drops something; False where it stays, and nothing was changed."""
    try:
        async with connection.transaction():
            await connection.execute(statement)
    except _STAYS:
        return False
    return True


async def _drop_each(connection: PooledConnection, statements: Sequence[str]) -> int:
    """Carry out as many of these as go, in any order, for one transaction's locks."""
    left, gone = list(statements), 0
    while left:
        waiting = []
        for statement in left:
            if await dropped(connection, sql.SQL(statement)):  # its names were quoted by the server
                gone += 1
            else:
                waiting.append(statement)
            if gone == _LOOSE_BATCH:
                return gone
        if len(waiting) == len(left):
            break
        left = waiting
    return gone


async def _drop_tables(connection: PooledConnection, schema: str) -> bool:
    """Drop the next batch of tables; False where none goes."""
    batch = await _relations(connection, schema, BATCH)
    if not batch:
        return False
    async with connection.transaction() as together:
        found = await connection.execute(_REFERENCES, {"schema": schema, "tables": batch})
        for table, constraint in await found.fetchall():
            owner, name = sql.Identifier(schema, table), sql.Identifier(constraint)
            await connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(owner, name))
        if await dropped(connection, _drop(schema, batch)):
            return True
        gone = 0
        for table in await _relations(connection, schema, None):
            gone += await dropped(connection, _drop(schema, [table]))
            if gone == BATCH:
                break
        if not gone:
            raise psycopg.Rollback(together)
    return gone > 0


async def _relations(connection: PooledConnection, schema: str, limit: int | None) -> list[str]:
    rows = await connection.execute(_RELATIONS, (schema, limit))
    return [name for (name,) in await rows.fetchall()]


async def _lying(connection: PooledConnection, schema: str) -> list[tuple[str, str]]:
    rows = await (await connection.execute(_LYING, {"schema": schema})).fetchall()
    return [(str(kind), str(name)) for kind, name in rows]


async def _column(connection: PooledConnection, query: LiteralString, schema: str) -> list[str]:
    rows = await (await connection.execute(query, {"schema": schema})).fetchall()
    return [str(text) for (text,) in rows]


def _drop(schema: str, tables: Sequence[str]) -> sql.Composed:
    names = sql.SQL(", ").join(sql.Identifier(schema, name) for name in tables)
    return sql.SQL("DROP TABLE {}").format(names)
