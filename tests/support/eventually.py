"""Waits for what becomes true on its own, instead of sleeping for as long as it might take.

Rule: a deadline is how long a broken system is given, so it is generous; a working one is noticed within a poll.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

DEADLINE_S = 30.0
_POLL_S = 0.02

T = TypeVar("T")


def eventually(predicate: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """The first truthy result of `predicate`; an AssertionError it raises counts as "not yet".

    Raises:
        AssertionError: It was not so within `deadline_s` seconds; says what was last seen.
    """
    end = time.monotonic() + deadline_s
    while True:
        seen = _look(predicate)
        if not isinstance(seen, _NotYet):
            return seen
        if time.monotonic() > end:
            raise seen.as_error(deadline_s)
        time.sleep(_POLL_S)


async def eventually_async(predicate: Callable[[], Awaitable[T]], deadline_s: float = DEADLINE_S) -> T:
    """The same for a coroutine function; the loop goes on meanwhile.

    Raises:
        AssertionError: It was not so within `deadline_s` seconds; says what was last seen.
    """
    end = time.monotonic() + deadline_s
    while True:
        try:
            seen = _judge(await predicate())
        except AssertionError as error:
            seen = _NotYet(error)
        if not isinstance(seen, _NotYet):
            return seen
        if time.monotonic() > end:
            raise seen.as_error(deadline_s)
        await asyncio.sleep(_POLL_S)


class _NotYet:
    def __init__(self, seen: object) -> None:
        self.seen = seen

    def as_error(self, deadline_s: float) -> AssertionError:
        error = AssertionError(f"not within {deadline_s} s; last seen: {self.seen!r}")
        error.__cause__ = self.seen if isinstance(self.seen, AssertionError) else None
        return error


def _look(predicate: Callable[[], T]) -> T | _NotYet:
    try:
        return _judge(predicate())
    except AssertionError as error:
        return _NotYet(error)


def _judge(seen: T) -> T | _NotYet:
    return seen or _NotYet(seen)
