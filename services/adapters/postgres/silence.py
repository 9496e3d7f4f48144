"""Limits the time that a PostgreSQL session may wait for its server.

Problem: a server may accept a login and then never answer. `statement_timeout` is enforced by the server, the kernel
of a hung machine still acknowledges TCP data, and a cancelled psycopg call still waits for the server's answer. So only
the client's own timer can end the wait.
"""

import asyncio
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
    """Shut the connection down if the context lasts longer than `limit_s` seconds.

    Raises:
        NoSession: the limit passed while a statement waited.
    """
    passed = threading.Event()
    # `shutdown` on the socket wakes a psycopg call that waits there, although it runs in another thread.
    # The duplicate descriptor stays valid if the connection closes, so the timer cannot hit a reused number.
    with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:

        def end() -> None:
            passed.set()
            duplicate.shutdown(socket.SHUT_RDWR)

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
            timer.join()  # `end` must not run after the duplicate is closed


@contextmanager
def answering(limit_s: float, connection: "psycopg.AsyncConnection[Any]") -> Iterator[None]:
    """Shut the connection down if the context lasts longer than `limit_s` seconds, by a timer of the event loop.

    As `within`, without the thread: for every statement of a service.

    Raises:
        NoSession: the limit passed while a statement waited.
    """
    passed = False
    with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:

        def end() -> None:
            nonlocal passed
            passed = True
            duplicate.shutdown(socket.SHUT_RDWR)

        timer = asyncio.get_running_loop().call_later(limit_s, end)
        try:
            yield
        except psycopg.OperationalError:
            if passed:
                raise NoSession(f"no answer within {limit_s:g} s") from None
            raise
        finally:
            timer.cancel()
