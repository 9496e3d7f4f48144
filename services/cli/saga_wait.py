"""Follows sagas until each has ended, for `lifecycle sagas retry --wait`."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from services.adapters.registry.registry import Registry
    from services.adapters.registry.types import SagaRow

_POLL_S: Final = 0.5
"""Seconds between two reads of the registry."""


async def follow(
    registry: "Registry", keys: Sequence[str], timeout_s: float, say: Callable[[str], None]
) -> dict[str, tuple[bool, str]]:
    """Returns the end of each saga, by key: True if the desired state was reached, and the end in words.

    Args:
        registry: An open registry.
        keys: Keys of sagas just made due.
        timeout_s: Seconds until an open saga counts as failed.
        say: Prints progress; called once for each new position of a saga.
    """
    until_s = time.monotonic() + timeout_s
    ends: dict[str, tuple[bool, str]] = {}
    positions: dict[str, str] = {}
    while True:
        for key in [key for key in keys if key not in ends]:
            rows = await registry.sagas(key=key, limit=1)
            end = _end_of(rows[0]) if rows else (False, "no such saga")
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
            return ends | {key: (False, f"not ended in {timeout_s:g} s: {positions[key]}") for key in open_keys}
        await asyncio.sleep(_POLL_S)


def _end_of(row: "SagaRow") -> tuple[bool, str] | None:
    """Returns the end of a saga; None while the newest desired version is unanswered or a worker holds the saga."""
    journal = row.journal
    answered = journal.target is not None and journal.target.version >= row.desired_version
    # A worker that still holds the lease may be about to commit a further turn; its end is not certain yet.
    if not answered or row.worker is not None:
        return None
    match row.phase:
        case "active":
            # An active tenant with an older good version than its target: the update was refused, the former
            # configuration stands.
            refused = journal.life is not None and journal.life.last_applied != journal.target
            return (False, "active, update refused") if refused else (True, "active")
        case "empty":
            return True, "deprovisioned"
        case "rolled_back":
            failure = journal.failure
            return False, f"rolled back: {failure.step} {failure.reason}" if failure else "rolled back"
    return None


def _position(row: "SagaRow") -> str:
    """Returns the phase of a saga, and the step of the standstill with the reason."""
    standstill = row.journal.standstill
    if standstill is None:
        return row.phase
    log = row.journal.life.steps.get(standstill.step) if row.journal.life else None
    return f"{row.phase}, stands at {standstill.step}" + (f" ({log.reason})" if log and log.reason else "")
