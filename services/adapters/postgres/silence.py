"""Ends a session of PostgreSQL whose server has said nothing for too long.

Rule: only the client can notice a server that accepts a login and is silent after that: `statement_timeout` is the
server's own, the kernel of a hung machine acknowledges what was sent, and psycopg waits on after a cancellation.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from services.adapters.postgres.pool import NoSession


@contextmanager
def within(limit_s: float, connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]") -> Iterator[None]:
    """Close the connection when the context lasts longer.

    Raises:
        NoSession: it lasted longer.
    """
    passed = threading.Event()
    with socket.socket(fileno=os.dup(connection.fileno())) as held:

        def end() -> None:
            passed.set()
            held.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(limit_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except psycopg.OperationalError:
            if passed.is_set():
                raise NoSession(f"no answer within {limit_s:g} s") from None
            raise
        finally:
            timer.cancel()
            timer.join()
