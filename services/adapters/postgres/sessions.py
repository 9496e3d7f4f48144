"""Opens single PostgreSQL sessions for operators' commands, and reads the state of the registry's schema.

Rule: `NoDatabase.refused` distinguishes a refusal (password, database, right) from a server that does not answer. No
text contains a password.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from services.adapters.postgres.pool import is_set_up, no_session
from services.adapters.postgres.silence import within
from services.adapters.postgres.url import usable

CONNECT_S: Final = 5
"""Time limit for connecting."""
_STATEMENT_MS: Final = 5_000
"""The server's time limit for a statement."""
ANSWER_S: Final = 7.0
"""Time limit for all statements of a session. With the time to connect, a command ends in less than 15 s."""


class NoDatabase(Exception):
    """No session could be opened, or a statement failed or had no answer.

    Attributes:
        refused: True if the server refused a login, a database or a right; False if it may answer later.
    """

    def __init__(self, text: str, *, refused: bool) -> None:
        super().__init__(text)
        self.refused = refused


@contextmanager
def session(name: str, url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Open a session for reading: a single transaction, rolled back at the end of the context. Blocks.

    Args:
        name: The setting's name, for error texts.
        url: URL of the database.

    Raises:
        NoDatabase: no session opens, or a statement of the context fails.
        Unusable: the URL cannot be parsed.
    """
    usable(name, url)
    try:
        with (
            psycopg.connect(url, connect_timeout=CONNECT_S, application_name="lifecycle") as connection,
            within(ANSWER_S, connection),
        ):
            # Not a start option: a pooler would refuse the connection. `SET LOCAL` ends with the transaction.
            connection.execute(f"SET LOCAL statement_timeout = {_STATEMENT_MS}")
            yield connection
            connection.rollback()
    except psycopg.Error as error:
        raise no_database(name, url, error) from None


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """The session's role and its rights on the registry, as the database reports them.

    Attributes:
        user: The role.
        exists: True if the registry's schema exists.
        readable: True if the role may use the schema and read the sagas; also True without a schema.
        writes: True if the role may change every table of the schema; also True without a schema.
        creates: True if the role may create a schema in this database.
        only_reads: True if the server refuses writes: a standby, or configured as read-only.
        migrations: Names of the applied migrations; empty if they cannot be read.
    """

    user: str
    exists: bool
    readable: bool
    writes: bool
    creates: bool
    only_reads: bool
    migrations: frozenset[str]


def registry_standing(asked: psycopg.Connection[tuple[Any, ...]], schema: str) -> RegistryAccess:
    """Return the role's rights on the registry's schema and the applied migrations; changes nothing."""
    row = asked.execute(_STANDING, {"schema": schema, "sagas": f'"{schema}".sagas'}).fetchone()
    assert row is not None, "one row always comes back"
    user, exists, readable, writes, creates, only_reads = row
    migrations: frozenset[str] = frozenset()
    if exists and readable:
        table = sql.Identifier(schema, "migrations")
        found = asked.execute("SELECT to_regclass(%s)", (f'"{schema}".migrations',)).fetchone()
        if found is not None and found[0] is not None:
            migrations = frozenset(row[0] for row in asked.execute(sql.SQL("SELECT name FROM {}").format(table)))
    return RegistryAccess(user, exists, readable, writes, creates, only_reads, migrations)


_STANDING: Final[LiteralString] = """
    SELECT current_user::text,
           to_regnamespace(%(schema)s) IS NOT NULL,
           to_regnamespace(%(schema)s) IS NULL OR (
               has_schema_privilege(to_regnamespace(%(schema)s), 'USAGE')
               AND (to_regclass(%(sagas)s) IS NULL OR has_table_privilege(to_regclass(%(sagas)s), 'SELECT'))),
           (SELECT coalesce(bool_and(
                has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
                AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')), true)
            FROM pg_class WHERE relnamespace = to_regnamespace(%(schema)s)::oid AND relkind = 'r'),
           has_database_privilege(current_database(), 'CREATE'),
           pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean
"""


def no_database(name: str, url: str, error: psycopg.Error) -> NoDatabase:
    """Build the error for an operator, with the setting's name and the server's words."""
    # Without a SQLSTATE no statement was answered: the words of the failed connection must be read instead.
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
        error = no_session(error, url)
    words = (error.diag.message_primary or str(error)).splitlines() or [type(error).__name__]
    return NoDatabase(f"PostgreSQL ({name}): {words[0]}", refused=is_set_up(error.sqlstate or ""))
