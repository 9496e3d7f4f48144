"""Runs the app and the watchdog of a table worker from the start to the end, on the event loop of the caller.

Problem: a stop may hang in Faust's services, in a barrier behind a broker that is away, or in the end of the loop.

Rule: after the request to stop, the process ends within `STOP_S`, even if the event loop hangs. Uncommitted events are
read again by the next worker.
"""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from services.adapters.tables.app import DurableApp
from services.adapters.tables.denial import refusal
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.watchdog import Watchdog

STOP_S = 6.0
"""Seconds from the request to stop to the forced end; two are usual. `lifecycle up` kills after seven seconds, and a
killed process cannot name the line of code where it hung."""


async def run(app: DurableApp, stop: asyncio.Event) -> None:
    """Works until `stop` is set, then commits and leaves the group.

    A failed start, or a crash of Faust or of the watchdog, ends the process with an exit status of `WorkerExit`.
    """
    watchdog = Watchdog(app, app.consumer, time.monotonic())
    starting = asyncio.create_task(app.start(), name="faust starts")
    watching = {
        asyncio.create_task(watchdog.watch(), name="watches the worker"),
        asyncio.create_task(watchdog.watch_changelogs(), name="watches the changelogs"),
    }
    pending = {
        starting,
        *watching,
        asyncio.create_task(stop.wait(), name="asked to stop"),
        # A Faust service that crashes sets this event of the app and raises nothing here.
        asyncio.create_task(app._crashed.wait(), name="faust crashed"),
    }
    while not stop.is_set():
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if starting in done and not starting.cancelled() and (error := starting.exception()) is not None:
            app.end(WorkerExit.CRASHED, f"could not start: {type(error).__name__}: {error}")
        if app.crashed:
            _end_crashed(app, app.crash_reason)
        for loop in watching & done:
            # Without an exception the loop has ended with the consumer; the crash of the consumer is reported above.
            if (failure := loop.exception()) is not None:
                _end_crashed(app, failure)
    # Before the first `await` of the stop: everything that follows may hang.
    _limit_stop_time(app, asyncio.get_running_loop())
    await app.stop()
    await app.log_of_writes.flush()
    for task in pending:
        task.cancel()
    # A watchdog that fails during the stop changes nothing any more: everything is flushed.
    await asyncio.gather(*pending, return_exceptions=True)


def _end_crashed(app: DurableApp, reason: BaseException | None) -> NoReturn:
    if sentence := refusal(reason):
        app.end(WorkerExit.DENIED, sentence)
    app.end(WorkerExit.CRASHED, f"{type(reason).__name__}: {reason}")


def _limit_stop_time(app: DurableApp, loop: asyncio.AbstractEventLoop) -> None:
    """Ends the process after `STOP_S`, from a separate thread, because the event loop itself may hang."""

    def end() -> None:
        app.end(WorkerExit.STUCK, f"did not stop within {STOP_S:.0f} s; waits at {_waiting_lines(loop)}")

    timer = threading.Timer(STOP_S, end)
    # A worker that stops in time must not wait for the timer.
    timer.daemon = True
    timer.start()


def _waiting_lines(loop: asyncio.AbstractEventLoop) -> str:
    """Returns the lines of code where the tasks of the loop wait, each by its innermost frame."""
    return ", ".join(sorted({_innermost_line(task.get_coro()) for task in asyncio.all_tasks(loop)}))


def _innermost_line(pending: Any) -> str:
    """Returns the file and line of the innermost frame of a waiting coroutine."""
    line = "nowhere"
    # A coroutine awaits the next one in `cr_await`; the last awaited object is a future, without a frame.
    while (frame := getattr(pending, "cr_frame", None)) is not None:
        line, pending = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}", pending.cr_await
    return line
