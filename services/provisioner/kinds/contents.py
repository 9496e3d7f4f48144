"""What tenants' own programs may have left in a schema, and how it goes without CASCADE.

Rule: only what lies in the schema is named, each object by its quoted name. What still has a dependent waits and is
tried again for as long as anything goes. What depends on it from outside makes PostgreSQL refuse; that stands.
"""

from typing import Final, LiteralString

import psycopg
from psycopg import sql

from services.adapters.postgres import Connection

BATCH: Final = 50
"""Tables dropped in one transaction: each holds locks for itself, its indexes and its TOAST table."""

_RELATIONS: Final = """
SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = ANY(%s) ORDER BY oid DESC LIMIT %s
"""
_REFERENCES: Final = """
SELECT r.relname, c.conname FROM pg_constraint c
JOIN pg_class r ON r.oid = c.conrelid JOIN pg_class t ON t.oid = c.confrelid
WHERE c.contype = 'f' AND c.conparentid = 0 AND r.relnamespace = %(schema)s::regnamespace
AND t.relnamespace = %(schema)s::regnamespace AND t.relname = ANY(%(tables)s)
"""
_LOOSE: Final = """
SELECT format('DROP %%s IF EXISTS %%I.%%I', CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END,
nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = %(schema)s AND relkind IN ('v', 'm')
UNION ALL SELECT format('DROP ROUTINE IF EXISTS %%I.%%I(%%s)', nspname, proname,
pg_get_function_identity_arguments(p.oid)) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
WHERE nspname = %(schema)s
UNION ALL SELECT format('DROP TYPE IF EXISTS %%I.%%I', nspname, typname)
FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace LEFT JOIN pg_class c ON c.oid = typrelid
WHERE nspname = %(schema)s AND (typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
"""
"""Statements with every name quoted by the server's own format('%I')."""


async def drop_loose(connection: Connection, schema: str) -> None:
    """Drop views, routines and types, which may need each other in any order; what something still needs stays."""
    left = [statement for (statement,) in await (await connection.execute(_LOOSE, {"schema": schema})).fetchall()]
    while left:
        waiting = [statement for statement in left if not await _dropped(connection, sql.SQL(statement))]
        if len(waiting) == len(left):
            return
        left = waiting


async def drop_tables(connection: Connection, schema: str) -> bool:
    """Drop the next batch of tables and say whether there may be more.

    Raises:
        psycopg.Error: not one of them can go: somebody outside needs it.
    """
    tables = await _relations(connection, schema, ["r", "p", "f"], BATCH + 1)
    batch = tables[:BATCH]
    if not batch:
        return False
    found = await connection.execute(_REFERENCES, {"schema": schema, "tables": batch})
    for table, constraint in await found.fetchall():
        owner = sql.Identifier(schema, table)
        await connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(owner, sql.Identifier(constraint)))
    together = _drop("TABLE", schema, batch)
    if await _dropped(connection, together):
        return len(tables) > BATCH
    for table in await _relations(connection, schema, ["r", "p", "f"], None):
        if await _dropped(connection, _drop("TABLE", schema, [table])):
            return True  # what needed that one may go now
    await connection.execute(together)
    return True


async def drop_sequences(connection: Connection, schema: str) -> None:
    """Drop the sequences that no table owned."""
    if names := await _relations(connection, schema, ["S"], None):
        await connection.execute(_drop("SEQUENCE", schema, names))


async def _dropped(connection: Connection, statement: sql.SQL | sql.Composed) -> bool:
    """Whether it went; False while something needs it."""
    try:
        async with connection.transaction():
            await connection.execute(statement)
    except psycopg.errors.DependentObjectsStillExist:
        return False
    return True


async def _relations(connection: Connection, schema: str, kinds: list[str], limit: int | None) -> list[str]:
    rows = await connection.execute(_RELATIONS, (schema, kinds, limit))
    return [name for (name,) in await rows.fetchall()]


def _drop(word: LiteralString, schema: str, names: list[str]) -> sql.Composed:
    return sql.SQL("DROP {} {}").format(
        sql.SQL(word), sql.SQL(", ").join(sql.Identifier(schema, name) for name in names)
    )
