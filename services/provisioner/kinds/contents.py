"""What tenants' own programs may have left in a schema, and how it goes without CASCADE.

Rule: only what lies in the schema is named, each object by its quoted name; the order is that of dependence (views,
then tables, then sequences, routines and types). What depends on it from outside makes PostgreSQL refuse; that stands.
"""

from typing import Any, Final

import psycopg
from psycopg import sql

BATCH: Final = 50
"""Tables dropped in one transaction: each holds locks for itself, its indexes and its TOAST table."""

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

_RELATIONS: Final = """
SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = ANY(%s) ORDER BY oid DESC LIMIT %s
"""
_REFERENCES: Final = """
SELECT r.relname, c.conname FROM pg_constraint c
JOIN pg_class r ON r.oid = c.conrelid JOIN pg_class t ON t.oid = c.confrelid
WHERE c.contype = 'f' AND c.conparentid = 0 AND r.relnamespace = %(schema)s::regnamespace
AND t.relnamespace = %(schema)s::regnamespace AND t.relname = ANY(%(tables)s)
"""
_ROUTINES: Final = """
SELECT string_agg(format('%%I.%%I(%%s)', nspname, proname, pg_get_function_identity_arguments(p.oid)), ', ')
FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = %s
"""
_TYPES: Final = """
SELECT string_agg(format('%%I.%%I', nspname, typname), ', ')
FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace LEFT JOIN pg_class c ON c.oid = typrelid
WHERE nspname = %s AND (typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
"""


async def drop_views(connection: Connection, schema: str) -> None:
    """Drop views and materialised views, which may read each other in any order: what still has a reader waits."""
    words = {"v": sql.SQL("VIEW"), "m": sql.SQL("MATERIALIZED VIEW")}
    left = [(word, name) for kind, word in words.items() for name in await _relations(connection, schema, [kind], None)]
    while left:
        waiting = [view for view in left if not await _drop_view(connection, schema, *view)]
        if len(waiting) == len(left):
            word, name = left[0]
            await connection.execute(_drop(word, schema, [name]))  # somebody outside reads it: the server says so
        left = waiting


async def _drop_view(connection: Connection, schema: str, word: sql.SQL, name: str) -> bool:
    try:
        async with connection.transaction():
            await connection.execute(_drop(word, schema, [name]))
    except psycopg.errors.DependentObjectsStillExist:
        return False
    return True


async def drop_tables(connection: Connection, schema: str) -> bool:
    """Drop the next batch of tables and say whether there are more."""
    tables = await _relations(connection, schema, ["r", "p", "f"], BATCH + 1)
    batch = tables[:BATCH]
    if not batch:
        return False
    found = await connection.execute(_REFERENCES, {"schema": schema, "tables": batch})
    for table, constraint in await found.fetchall():
        owner = sql.Identifier(schema, table)
        await connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(owner, sql.Identifier(constraint)))
    await connection.execute(_drop(sql.SQL("TABLE"), schema, batch))
    return len(tables) > BATCH


async def drop_rest(connection: Connection, schema: str) -> None:
    """Drop sequences, routines and types."""
    if names := await _relations(connection, schema, ["S"], None):
        await connection.execute(_drop(sql.SQL("SEQUENCE"), schema, names))
    for query, word in ((_ROUTINES, b"DROP ROUTINE "), (_TYPES, b"DROP TYPE ")):
        found = await (await connection.execute(query, (schema,))).fetchone()
        if found and found[0]:
            await connection.execute(word + found[0].encode())  # quoted by the server's own format('%I')


async def _relations(connection: Connection, schema: str, kinds: list[str], limit: int | None) -> list[str]:
    rows = await connection.execute(_RELATIONS, (schema, kinds, limit))
    return [name for (name,) in await rows.fetchall()]


def _drop(word: sql.SQL, schema: str, names: list[str]) -> sql.Composed:
    return sql.SQL("DROP {} {}").format(word, sql.SQL(", ").join(sql.Identifier(schema, name) for name in names))
