"""What a tenant's role owns and was granted, and how it goes with the role.

Rule: PostgreSQL's own list of it is `pg_shdepend`, for all databases of a server. What was granted here is revoked, and
what is nobody's data goes: default privileges, user mappings, memberships granted, large objects. Whatever else the
role owns outside its schema, and everything in other databases, is told by name: it is for people to decide about.
"""

from typing import Final, LiteralString

from psycopg import sql

from services.adapters.postgres.pool import PooledConnection
from services.provisioner.kinds.contents import dropped, listed

_BATCH: Final = 1_000
"""Large objects unlinked in one transaction: each holds a lock."""

_HELD: Final[LiteralString] = """
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
"""Of another database only class and number are known here."""

_LARGE_OBJECTS: Final[LiteralString] = """
    SELECT count(lo_unlink(mine.oid)) FROM (
        SELECT oid FROM pg_largeobject_metadata
        WHERE lomowner = (SELECT oid FROM pg_roles WHERE rolname = %(role)s) LIMIT %(limit)s
    ) AS mine
"""


async def unlink_some(connection: PooledConnection, role: str) -> bool:
    """Remove large objects of the role, which lie in no schema; False when there are no more."""
    found = await connection.execute(_LARGE_OBJECTS, {"role": role, "limit": _BATCH})
    row = await found.fetchone()
    return row is not None and row[0] > 0


async def drop_role(connection: PooledConnection, role: str) -> str:
    """Drop a role with what was granted to it; returns what stops that, empty text when it is gone."""
    drop = sql.SQL("DROP ROLE {}").format(sql.Identifier(role))
    if await dropped(connection, drop):
        return ""
    held = await _held(connection, role)
    if all(goes for goes, _ in held):
        await dropped(connection, sql.SQL("DROP OWNED BY {} RESTRICT").format(sql.Identifier(role)))
        if await dropped(connection, drop):
            return ""
        held = await _held(connection, role)
    stops = [what for goes, what in held if not goes] or [what for _, what in held]
    return f"role {role} {listed(stops)}" if stops else f"role {role} may not be dropped by this user"


async def _held(connection: PooledConnection, role: str) -> list[tuple[bool, str]]:
    rows = await (await connection.execute(_HELD, {"role": role})).fetchall()
    return [(bool(goes), str(what)) for goes, what in rows]
