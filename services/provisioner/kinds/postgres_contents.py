"""Empties and drops a tenant's schema without CASCADE.

Problem: a tenant's programs may have created objects of any class in the schema, and objects outside the schema may
depend on these. CASCADE would drop foreign objects as well, and one transaction over thousands of objects could exhaust
PostgreSQL's lock table.

Approach: `pg_depend` lists all objects of the schema, of any class, and PostgreSQL gives the kind and name for each
DROP. `drop_some` drops one batch per transaction and is repeated until nothing more can be dropped:

1. objects of all kinds but tables, in any order, repeated while at least one more can be dropped;
2. tables, in batches, after the foreign keys into the batch;
3. if objects still hold each other and nothing outside depends on them: constraints, defaults, rules, triggers and
   indexes by which two objects may need each other. Then 1 and 2 begin again.

Rule: an object with a dependent outside the schema stays and is named with its dependent; an operator decides.
"""

from collections.abc import Sequence
from typing import Final, LiteralString

import psycopg
from psycopg import sql

from services.adapters.postgres.pool import PooledConnection

BATCH: Final = 50
"""Tables dropped in one transaction: each takes locks for itself, its indexes and its TOAST table."""
_OBJECT_BATCH: Final = 500
"""Objects other than tables dropped in one transaction: each takes a lock or two."""

_OBJECTS: Final = """
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
"""Returns kind and name of the objects in the schema, newest first. Parts of an object and members of an extension
(`deptype` i and e) are dropped with their whole. An extension counts only if the tenant's role owns it."""

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
"""Returns the statements that drop the parts by which two objects may need each other, such as a check constraint of a
table that calls a function on the table's row type. Views are included, since the columns of a view may have defaults.
The server quotes the names (`%I`, `regclass`)."""

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
"""Returns the obstacles in words: objects outside the schema that depend on an object inside, and extensions of further
owners in the schema. A dependent that is a part is named as its whole: a view instead of the rule of the view."""

_TABLE: Final = "table"
_DROP_WORDS: Final = {
    "composite type": "TYPE",
    "statistics object": "STATISTICS",
    "function": "ROUTINE",
    "procedure": "ROUTINE",
    "aggregate": "ROUTINE",
}
"""Kind as named by `pg_identify_object` to the word of its DROP statement, where the two differ."""
_NOT_DROPPED: Final = (
    psycopg.errors.DependentObjectsStillExist,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.SyntaxError,
    psycopg.errors.UndefinedObject,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedTable,
)
"""Errors of a DROP after which the teardown goes on: the object has a dependent, has a foreign owner, is of a kind that
this file cannot drop (unsupported, syntax), or was dropped along with an object before (undefined)."""

_OBSTACLES_MAX_CHARS: Final = 600
"""Longest text about obstacles; the remaining obstacles are counted."""


async def drop_some(connection: PooledConnection, schema: str) -> bool:
    """Drops one batch of objects within the open transaction; returns False if nothing more can be dropped.

    The caller commits between two batches.
    """
    objects = await _objects(connection, schema)
    if not objects:
        return False
    statements = [f"DROP {_DROP_WORDS.get(kind, kind.upper())} {name}" for kind, name in objects if kind != _TABLE]
    if await _drop_each(connection, statements) or await _drop_tables(connection, schema):
        return True
    # With an obstacle the schema will stay: its tables must not lose their constraints in vain.
    if await _column(connection, _OBSTACLES, schema):
        return False
    return await _drop_each(connection, await _column(connection, _PARTS, schema)) > 0


async def drop_schema(connection: PooledConnection, schema: str) -> str:
    """Drops a schema after `drop_some`; returns the obstacles in words, empty text if the schema is gone."""
    if await try_drop(connection, sql.SQL("DROP SCHEMA {} RESTRICT").format(sql.Identifier(schema))):
        return ""
    found = await _column(connection, _OBSTACLES, schema)
    found = found or [f"{kind} {name} stays" for kind, name in await _objects(connection, schema)]
    return f"schema {schema}: {joined(found)}" if found else f"schema {schema} may not be dropped by this user"


def joined(obstacles: Sequence[str]) -> str:
    """Returns the first obstacles as one text of about `_OBSTACLES_MAX_CHARS`, with the number of omitted obstacles."""
    text = ""
    for number, obstacle in enumerate(obstacles):
        if text and len(text) + len(obstacle) > _OBSTACLES_MAX_CHARS:
            return f"{text}; and {len(obstacles) - number} more"
        text = f"{text}; {obstacle[:_OBSTACLES_MAX_CHARS]}" if text else obstacle[:_OBSTACLES_MAX_CHARS]
    return text


async def try_drop(connection: PooledConnection, statement: sql.SQL | sql.Composed) -> bool:
    """Executes a DROP statement; returns False, without any change, if the object cannot be dropped."""
    try:
        # A savepoint inside the open transaction: an error must not abort the drops before.
        async with connection.transaction():
            await connection.execute(statement)
    except _NOT_DROPPED:
        return False
    return True


async def _drop_each(connection: PooledConnection, statements: Sequence[str]) -> int:
    """Executes the statements in rounds until a round drops nothing; returns the number of drops in this batch."""
    remaining, count = list(statements), 0
    while remaining:
        failed = []
        for statement in remaining:
            if await try_drop(connection, sql.SQL(statement)):  # the server has quoted the names
                count += 1
            else:
                failed.append(statement)
            if count == _OBJECT_BATCH:
                return count
        if len(failed) == len(remaining):
            break
        # A drop may have freed objects that failed before.
        remaining = failed
    return count


async def _drop_tables(connection: PooledConnection, schema: str) -> bool:
    """Drops the next batch of tables; returns False if no table can be dropped."""
    batch = await _relations(connection, schema, BATCH)
    if not batch:
        return False
    async with connection.transaction() as savepoint:
        # Foreign keys into the batch first: tables may refer to each other in a circle.
        found = await connection.execute(_REFERENCES, {"schema": schema, "tables": batch})
        for table, constraint in await found.fetchall():
            owner, name = sql.Identifier(schema, table), sql.Identifier(constraint)
            await connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(owner, name))
        if await try_drop(connection, _drop(schema, batch)):
            return True
        # One undroppable table fails the whole batch: every table of the schema is tried alone.
        count = 0
        for table in await _relations(connection, schema, None):
            count += await try_drop(connection, _drop(schema, [table]))
            if count == BATCH:
                break
        if not count:
            # Restore the foreign keys: no table was dropped.
            raise psycopg.Rollback(savepoint)
    return count > 0


async def _relations(connection: PooledConnection, schema: str, limit: int | None) -> list[str]:
    rows = await connection.execute(_RELATIONS, (schema, limit))
    return [name for (name,) in await rows.fetchall()]


async def _objects(connection: PooledConnection, schema: str) -> list[tuple[str, str]]:
    rows = await (await connection.execute(_OBJECTS, {"schema": schema})).fetchall()
    return [(str(kind), str(name)) for kind, name in rows]


async def _column(connection: PooledConnection, query: LiteralString, schema: str) -> list[str]:
    rows = await (await connection.execute(query, {"schema": schema})).fetchall()
    return [str(text) for (text,) in rows]


def _drop(schema: str, tables: Sequence[str]) -> sql.Composed:
    names = sql.SQL(", ").join(sql.Identifier(schema, name) for name in tables)
    return sql.SQL("DROP TABLE {}").format(names)
