"""Codes of the messages of PostgreSQL and PgBouncer that libpq gives without a code."""

import psycopg
import pytest

from services.adapters.postgres.pool import is_passing, is_set_up, no_session
from services.adapters.postgres.sessions import no_database

_AT = 'connection failed: connection to server at "db", port 5432 failed: '


@pytest.mark.parametrize(
    ("said", "sqlstate", "text"),
    [
        (f'{_AT}FATAL:  password authentication failed for user "u"', "28P01", 'wrong password for user "u" at db:5'),
        (f"{_AT}fe_sendauth: no password supplied", "28P01", 'wrong password for user "u" at db:5432'),
        (f"{_AT}FATAL:  SASL authentication failed", "28P01", "wrong password for user"),
        (
            f'{_AT}FATAL:  server login failed: FATAL password authentication failed for user "u"',
            "28P01",
            "wrong password for user",
        ),
        (f'{_AT}FATAL:  database "d" does not exist', "3D000", 'no database "d" at db:5432'),
        (f"{_AT}FATAL:  no such database: d", "3D000", 'no database "d" at db:5432'),
        (f'{_AT}FATAL:  role "u" does not exist', "28000", 'user "u" may not log in at db:5432'),
        (f'{_AT}FATAL:  no pg_hba.conf entry for host "h", user "u"', "28000", "pg_hba.conf"),
        (f"{_AT}SSL connection has been closed unexpectedly", None, "SSL connection has been closed unexpectedly"),
        (f"{_AT}SSL SYSCALL error: EOF detected", None, "SSL SYSCALL error: EOF detected"),
        (f"{_AT}server does not support SSL, but SSL was required", "28000", "server does not support SSL"),
        (f"{_AT}SSL error: certificate verify failed", "28000", "certificate verify failed"),
        (f'{_AT}FATAL:  permission denied for database "d"', "42501", 'may not connect to database "d"'),
        (f"{_AT}FATAL:  sorry, too many clients already", "53300", "sorry, too many clients already"),
        (f"{_AT}FATAL:  the database system is starting up", "57P03", "the database system is starting up"),
        (f"{_AT}FATAL:  unsupported startup parameter: options", "08004", "unsupported startup parameter: options"),
        (f"{_AT}Connection refused\n\tIs the server running on that host?", None, "Connection refused"),
        (
            f"connection failed: All failed:\n- {_AT}Connection refused\n- {_AT}FATAL:  no such database: d",
            "3D000",
            'no database "d"',
        ),
        ("", None, "OperationalError"),
    ],
)  # fmt: skip
def test_messages_of_a_server_are_mapped_to_codes(said: str, sqlstate: str | None, text: str) -> None:
    why = no_session(psycopg.OperationalError(said), "postgresql://u:secret@db/d")
    assert why.sqlstate == sqlstate
    assert text in str(why)
    assert "secret" not in str(why)
    to_a_person = no_database("DATABASE_URL", "postgresql://u:secret@db/d", psycopg.OperationalError(said))
    assert to_a_person.refused == is_set_up(sqlstate or ""), "a command judges as the services do"
    assert text in str(to_a_person)
    assert "secret" not in str(to_a_person)


@pytest.mark.parametrize("code", ["08006", "40001", "53300", "55P03", "57P01", "58030", "XX000", "25006", "25P03"])
def test_a_passing_code_is_no_set_up_fault(code: str) -> None:
    assert is_passing(code)
    assert not is_set_up(code)


@pytest.mark.parametrize("code", ["28P01", "28000", "3D000", "42501"])
def test_a_set_up_fault_does_not_pass(code: str) -> None:
    assert is_set_up(code)
    assert not is_passing(code)
