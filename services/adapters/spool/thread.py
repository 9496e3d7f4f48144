"""A thread for what blocks: everything in the order asked, one after another.

Rule: a daemon, since a sync may never return, and a process must be able to end all the same.
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
    """One of them."""

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="spool", daemon=True).start()

    def do(self, call: Callable[[], None]) -> None:
        """Have `call` called; what it raises ends nothing but itself, and is printed as a thread's last words are."""
        self._todo.put(call)

    async def ask(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises."""
        answer: Future[T] = Future()
        self.do(partial(_answer, answer, call))
        return await asyncio.wrap_future(answer)

    def stop(self) -> None:
        """End after what was asked before."""
        self._todo.put(None)

    def _work(self) -> None:
        while (call := self._todo.get()) is not None:
            try:
                call()
            except Exception:  # noqa: BLE001 - what comes after it must be done all the same
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def _answer(answer: Future[T], call: Callable[[], T]) -> None:
    if answer.set_running_or_notify_cancel():
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked
            answer.set_exception(error)
