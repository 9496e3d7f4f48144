"""Follows sagas until each has ended, for `lifecycle sagas retry --wait`."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from schemas.saga_row import SagaRow
    from services.adapters.registry.registry import Registry
    from services.core.saga.view import SagaEnd

_POLL_S: Final = 0.5
"""Seconds between two reads of the registry."""


async def follow(
    registry: "Registry", keys: Sequence[str], timeout_s: float, say: Callable[[str], None]
) -> dict[str, "SagaEnd"]:
    """Returns the end of each saga, by key; a saga without an end in time has not reached the desired state.

    Args:
        registry: An open registry.
        keys: Keys of sagas just made due.
        timeout_s: Seconds until an open saga counts as failed.
        say: Prints progress; called once for each new position of a saga.
    """
    from services.core.saga.view import SagaEnd, end_of

    until_s = time.monotonic() + timeout_s
    ends: dict[str, SagaEnd] = {}
    positions: dict[str, str] = {}
    while True:
        for key in [key for key in keys if key not in ends]:
            rows = await registry.sagas(key=key, limit=1)
            end = end_of(rows[0]) if rows else SagaEnd(reached=False, text="no such saga")
            if end is not None:
                ends[key] = end
            elif (position := _position(rows[0])) != positions.get(key):
                positions[key] = position
                say(f"{key}: {position}")
        open_keys = [key for key in keys if key not in ends]
        if not open_keys:
            return ends
        # After a round, never before the first: an end that is already there is reported even with a short timeout.
        if time.monotonic() >= until_s:
            texts = {key: f"not ended in {timeout_s:g} s: {positions[key]}" for key in open_keys}
            return ends | {key: SagaEnd(reached=False, text=text) for key, text in texts.items()}
        await asyncio.sleep(_POLL_S)


def _position(row: "SagaRow") -> str:
    """Returns the phase of a saga, and the step of the standstill with the reason."""
    standstill = row.journal.standstill
    if standstill is None:
        return row.phase
    log = row.journal.life.steps.get(standstill.step) if row.journal.life else None
    return f"{row.phase}, stands at {standstill.step}" + (f" ({log.reason})" if log and log.reason else "")
