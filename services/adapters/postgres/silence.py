"""Limits the time that a PostgreSQL session may wait for its server.

Problem: a server may accept a login and then never answer. `statement_timeout` is enforced by the server, the kernel
of a hung machine still acknowledges TCP data, and a cancelled psycopg call still waits for the server's answer. So only
the client's own timer can end the wait.
"""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg

from services.adapters.postgres.pool import NoSession

_StartTimer = Callable[[float, Callable[[], None]], Callable[[], None]]
"""Calls a function after some seconds; returns the function that ends the timer."""


def within(
    limit_s: float, connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]"
) -> AbstractContextManager[None]:
    """Shut the connection down if the context lasts longer than `limit_s` seconds, by a timer of its own thread.

    Raises:
        NoSession: the limit passed while a statement waited.
    """
    return _limited(limit_s, connection, _in_thread)


def answering(limit_s: float, connection: "psycopg.AsyncConnection[Any]") -> AbstractContextManager[None]:
    """As `within`, by a timer of the running event loop: no thread for every statement of a service.

    Raises:
        NoSession: the limit passed while a statement waited.
    """
    return _limited(limit_s, connection, _in_loop)


@contextmanager
def _limited(
    limit_s: float, connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]", start: _StartTimer
) -> Iterator[None]:
    passed = threading.Event()
    # `shutdown` on the socket wakes a psycopg call that waits there, although it runs in another thread.
    # The duplicate descriptor stays valid if the connection closes, so the timer cannot hit a reused number.
    with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:

        def end() -> None:
            passed.set()
            duplicate.shutdown(socket.SHUT_RDWR)

        stop = start(limit_s, end)
        try:
            yield
        except psycopg.OperationalError:
            if passed.is_set():
                raise NoSession(f"no answer within {limit_s:g} s") from None
            raise
        finally:
            stop()


def _in_thread(limit_s: float, end: Callable[[], None]) -> Callable[[], None]:
    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()

    def stop() -> None:
        timer.cancel()
        timer.join()  # `end` must not run after the duplicate is closed

    return stop


def _in_loop(limit_s: float, end: Callable[[], None]) -> Callable[[], None]:
    return asyncio.get_running_loop().call_later(limit_s, end).cancel
