"""Drops a tenant's role with its privileges, and names the possessions that forbid the drop.

PostgreSQL lists everything owned by or granted to a role in `pg_shdepend`, for all databases of the server. The list
has two parts:

- dropped with the role: privileges granted in this database or on shared objects, and owned objects without data
  (default privileges, user mappings, memberships granted). Large objects of the role are removed as well;
- kept, and named in the refusal: every further object owned outside the tenant's schema, and everything in another
  database. Only an operator can judge the value of such data (docs/decisions/0032).
"""

from typing import Final, LiteralString

from psycopg import sql

from services.adapters.postgres.pool import PooledConnection
from services.provisioner.kinds.postgres_contents import joined, try_drop

_BATCH: Final = 1_000
"""Large objects unlinked in one transaction: each holds a lock until the commit."""

_POSSESSIONS: Final[LiteralString] = """
    SELECT dbid IN (0, here.oid) AND (deptype <> 'o' OR classid IN (
            'pg_default_acl'::regclass, 'pg_user_mapping'::regclass, 'pg_auth_members'::regclass
        )) AS goes,
        CASE deptype WHEN 'o' THEN 'owns ' WHEN 'r' THEN 'is named by ' WHEN 't' THEN 'has its place in '
            ELSE 'has privileges on ' END
        || CASE WHEN dbid IN (0, here.oid) THEN pg_describe_object(classid, objid, objsubid)
            ELSE format('%%s %%s of database %%I', substr(classid::regclass::text, 4), objid, there.datname) END
    FROM pg_shdepend
    JOIN pg_database here ON here.datname = current_database()
    LEFT JOIN pg_database there ON there.oid = dbid
    WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %(role)s)
    ORDER BY 1, 2
"""
"""Returns a flag (True: dropped with the role) and a description of each possession. Objects of another database have
class and number only, since their names stand in that database's own catalogues."""

_LARGE_OBJECTS: Final[LiteralString] = """
    SELECT count(lo_unlink(mine.oid)) FROM (
        SELECT oid FROM pg_largeobject_metadata
        WHERE lomowner = (SELECT oid FROM pg_roles WHERE rolname = %(role)s) LIMIT %(limit)s
    ) AS mine
"""


async def unlink_some(connection: PooledConnection, role: str) -> bool:
    """Removes a batch of the role's large objects, which belong to no schema; returns False if none was left."""
    found = await connection.execute(_LARGE_OBJECTS, {"role": role, "limit": _BATCH})
    row = await found.fetchone()
    return row is not None and row[0] > 0


async def drop_role(connection: PooledConnection, role: str) -> str:
    """Drops a role with its privileges; returns the obstacles in words, empty text if the role is gone."""
    drop = sql.SQL("DROP ROLE {}").format(sql.Identifier(role))
    if await try_drop(connection, drop):
        return ""
    possessions = await _possessions(connection, role)
    # DROP OWNED drops tables as well: allowed only if the list has nothing worth keeping.
    if all(is_droppable for is_droppable, _ in possessions):
        await try_drop(connection, sql.SQL("DROP OWNED BY {} RESTRICT").format(sql.Identifier(role)))
        if await try_drop(connection, drop):
            return ""
        possessions = await _possessions(connection, role)
    obstacles = [text for is_droppable, text in possessions if not is_droppable] or [text for _, text in possessions]
    return f"role {role} {joined(obstacles)}" if obstacles else f"role {role} may not be dropped by this user"


async def _possessions(connection: PooledConnection, role: str) -> list[tuple[bool, str]]:
    rows = await (await connection.execute(_POSSESSIONS, {"role": role})).fetchall()
    return [(bool(is_droppable), str(text)) for is_droppable, text in rows]
