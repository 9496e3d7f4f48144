"""A worker thread for blocking calls, run one at a time in the order of submission.

Rule: the thread is a daemon. A sync on a hung disk may never return, and the process must still be able to exit;
`concurrent.futures` would wait for its threads at exit.
"""

import asyncio
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class Thread:
    """A daemon thread with a queue of calls."""

    def __init__(self) -> None:
        # `None` ends the thread.
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="spool", daemon=True).start()

    def submit(self, call: Callable[[], None]) -> None:
        """Queue a call; an exception goes to `threading.excepthook`, and the thread continues with the next call."""
        self._calls.put(call)

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call in the thread, and return the call's result or raise the call's exception.

        Cancelling the caller drops a call still waiting in the queue; a running call continues to its end.
        """
        result: Future[T] = Future()
        self.submit(partial(_run_into, result, call))
        return await asyncio.wrap_future(result)

    def stop(self) -> None:
        """End the thread after the calls submitted before."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:  # noqa: BLE001 - the calls behind this one must run all the same
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def _run_into(result: Future[T], call: Callable[[], T]) -> None:
    """Run a call and set the result or exception, unless the caller was cancelled before the start."""
    if result.set_running_or_notify_cancel():
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller of `run`
            result.set_exception(error)
