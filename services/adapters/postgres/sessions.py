"""Opens one session of PostgreSQL for whoever works for a person, and says in words why none opens.

Rule: what is refused (a password, a database, a right) is told apart from what does not answer. No text holds a
password.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from services.adapters.postgres.pool import is_set_up, no_session
from services.adapters.postgres.silence import within
from services.adapters.registry.registry import usable

CONNECT_S: Final = 5
_STATEMENT_MS: Final = 5_000
ANSWER_S: Final = 7.0
"""For everything that a session asks: with the time to connect, a command ends in less than 15 s."""


class NoDatabase(Exception):
    """No session, or no answer to what was asked.

    Attributes:
        refused: True if the server answered and said no; False if it may answer later.
    """

    def __init__(self, text: str, *, refused: bool) -> None:
        super().__init__(text)
        self.refused = refused


@contextmanager
def session(name: str, url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """One transaction that only reads, rolled back at its end. Blocks.

    Args:
        name: Of the setting, for the sentence.
        url: Of the database.

    Raises:
        NoDatabase: no session opens, or a statement of the context fails.
        Unusable: the URL cannot be read.
    """
    usable(name, url)
    try:
        with (
            psycopg.connect(url, connect_timeout=CONNECT_S, application_name="lifecycle") as connection,
            within(ANSWER_S, connection),
        ):
            connection.execute(f"SET LOCAL statement_timeout = {_STATEMENT_MS}")
            yield connection
            connection.rollback()
    except psycopg.Error as error:
        raise told(name, url, error) from None


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """What a role may do with the registry, as the database says.

    Attributes:
        user: The role.
        exists: The registry's schema is there.
        readable: The role may use the schema and read its sagas; also true where there is none.
        writes: The role may change every table of the schema; also true where there is none.
        creates: The role may make a schema in this database.
        only_reads: The server takes no writes: a standby, or set so.
        migrations: Names of the migrations that were carried out; empty where they cannot be read.
    """

    user: str
    exists: bool
    readable: bool
    writes: bool
    creates: bool
    only_reads: bool
    migrations: frozenset[str]


def registry_standing(asked: psycopg.Connection[tuple[Any, ...]], schema: str) -> RegistryAccess:
    """Look at the registry's schema without touching it."""
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


def told(name: str, url: str, error: psycopg.Error) -> NoDatabase:
    """An error of a database as a sentence, with the place and the setting that names it."""
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
        error = no_session(error, url)
    words = (error.diag.message_primary or str(error)).splitlines() or [type(error).__name__]
    return NoDatabase(f"PostgreSQL ({name}): {words[0]}", refused=is_set_up(error.sqlstate or ""))
