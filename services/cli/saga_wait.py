"""Follows sagas until each has ended, for `lifecycle sagas retry --wait`."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from services.adapters.registry.registry import Registry
    from services.adapters.registry.types import SagaRow

_LOOK_S: Final = 0.5


async def followed(
    registry: "Registry", keys: Sequence[str], timeout_s: float, say: Callable[[str], None]
) -> dict[str, tuple[bool, str]]:
    """Returns how each saga ended, by key: True if it is as desired, and a few words.

    Args:
        registry: Open.
        keys: Of sagas that were made due.
        timeout_s: A saga that has not ended by then is not as desired.
        say: Prints progress: called once for each step that a saga comes to stand at.
    """
    until_s = time.monotonic() + timeout_s
    ends: dict[str, tuple[bool, str]] = {}
    stood: dict[str, str] = {}
    while True:
        for key in [key for key in keys if key not in ends]:
            rows = await registry.sagas(key=key, limit=1)
            end = _end(rows[0]) if rows else (False, "no such saga")
            if end is not None:
                ends[key] = end
            elif (where := _where(rows[0])) != stood.get(key):
                stood[key] = where
                say(f"{key}: {where}")
        left = [key for key in keys if key not in ends]
        if not left:
            return ends
        if time.monotonic() >= until_s:
            return ends | {key: (False, f"not ended in {timeout_s:g} s: {stood[key]}") for key in left}
        await asyncio.sleep(_LOOK_S)


def _end(row: "SagaRow") -> tuple[bool, str] | None:
    """How a saga ended; None while its newest desired version is not answered."""
    journal = row.journal
    answered = journal.target is not None and journal.target.version >= row.desired_version
    if not answered or row.worker is not None:
        return None
    match row.phase:
        case "active":
            refused = journal.life is not None and journal.life.good != journal.target
            return (False, "active, update refused") if refused else (True, "active")
        case "empty":
            return True, "deprovisioned"
        case "rolled_back":
            failure = journal.failure
            return False, f"rolled back: {failure.step} {failure.reason}" if failure else "rolled back"
    return None


def _where(row: "SagaRow") -> str:
    stands = row.journal.standstill
    if stands is None:
        return row.phase
    log = row.journal.life.steps.get(stands.step) if row.journal.life else None
    return f"{row.phase}, stands at {stands.step}" + (f" ({log.reason})" if log and log.reason else "")
