"""Runs a table worker from start to end on the caller's loop.

Rule: once it was asked to stop, the process has a fixed time to live, whatever hangs: Faust's services, a barrier
behind a broker that is away, or the end of the loop itself. What was not committed is read again.
"""

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from services.adapters.tables.app import DurableApp
from services.adapters.tables.denial import refusal
from services.adapters.tables.exits import WorkerExit

STOP_S = 6.0
"""Two seconds are usual; `lifecycle up` kills after seven, and then nobody would learn what hung."""


async def run(app: DurableApp, stop: asyncio.Event) -> None:
    """Work until `stop` is set, then commit and leave the group. Whatever else ends the worker ends the process."""
    starting = asyncio.create_task(app.start(), name="faust starts")
    waiting = {
        starting,
        asyncio.create_task(stop.wait(), name="asked to stop"),
        asyncio.create_task(app._crashed.wait(), name="faust crashed"),
    }
    while not stop.is_set():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if starting in done and not starting.cancelled() and (error := starting.exception()) is not None:
            app.end(WorkerExit.CRASHED, f"could not start: {type(error).__name__}: {error}")
        if app.crashed:
            if denied := refusal(app.crash_reason):
                app.end(WorkerExit.DENIED, denied)
            app.end(WorkerExit.CRASHED, f"{type(app.crash_reason).__name__}: {app.crash_reason}")
    _end_in_time(app, asyncio.get_running_loop())
    await app.stop()
    await app.log_of_writes.flush()
    for task in waiting:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _end_in_time(app: DurableApp, loop: asyncio.AbstractEventLoop) -> None:
    """End the process after `STOP_S`, from a thread: the loop may be what hangs."""

    def end() -> None:
        app.end(WorkerExit.STUCK, f"did not stop within {STOP_S:.0f} s; waits at {_places(loop)}")

    timer = threading.Timer(STOP_S, end)
    timer.daemon = True
    timer.start()


def _places(loop: asyncio.AbstractEventLoop) -> str:
    """Where the tasks of the loop stand, innermost."""
    return ", ".join(sorted({_place(task.get_coro()) for task in asyncio.all_tasks(loop)}))


def _place(waiting: Any) -> str:
    place = "nowhere"
    while (frame := getattr(waiting, "cr_frame", None)) is not None:
        place, waiting = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}", waiting.cr_await
    return place
