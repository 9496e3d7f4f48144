"""Runs a table worker from start to end on the caller's loop."""

import asyncio
from contextlib import suppress

from services.adapters.tables.app import DurableApp
from services.adapters.tables.exits import Exit

STOP_S = 15.0
"""Stopping passes one commit barrier; when the broker is away that would wait for it, and a replay does as well."""


async def run(app: DurableApp, stop: asyncio.Event) -> None:
    """Work until `stop` is set, then commit and leave the group. Whatever else ends the worker ends the process."""
    starting = asyncio.create_task(app.start(), name="faust starts")
    waiting = {
        starting,
        asyncio.create_task(stop.wait(), name="asked to stop"),
        asyncio.create_task(app._crashed.wait(), name="faust crashed"),
    }
    try:
        while not stop.is_set():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if starting in done and (error := starting.exception()) is not None:
                app.end(Exit.CRASHED, f"could not start: {type(error).__name__}: {error}")
            if app.crashed:
                app.end(Exit.CRASHED, f"{type(app.crash_reason).__name__}: {app.crash_reason}")
        await _stop(app)
    finally:
        for task in waiting:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _stop(app: DurableApp) -> None:
    try:
        async with asyncio.timeout(STOP_S):
            await app.stop()
            await app.log_of_writes.flush()
    except TimeoutError:
        app.end(Exit.STUCK, f"did not stop within {STOP_S:.0f} s; uncommitted events will be read again")
