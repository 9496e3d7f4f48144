"""Reads sagas for operators, and retries sagas at an operator's request."""

import asyncio
import time
from typing import Final

from schemas import codec
from schemas.saga_row import SagaRow
from schemas.topics import AUDIT
from services.adapters.registry.registry import Registry
from services.adapters.registry.types import Claim, LeaseLost, NewerDesired, OutboxMessage, TenantTaken
from services.core.saga.phase_groups import PHASES, PhaseGroup
from services.core.saga.retry import Retry, RetryEnd, RetryResult, decide_retry

LEASE_S: Final = 5.0
"""Seconds of the lease for one retry, and of the wait for a worker's lease to end."""
_CLAIM_POLL_S: Final = 0.1
"""Seconds between two attempts to lease a saga."""
_NO_LIMIT: Final = 100_000
"""More sagas than any registry holds."""


class RecoveryInProgress(Exception):
    """No saga can be leased now; after the recovery the provisioner drives every saga anew."""

    def __init__(self) -> None:
        super().__init__("the registry is being recovered: its provisioner drives everything anew")


async def rows(registry: Registry, group: PhaseGroup | None, limit: int) -> list[SagaRow]:
    """Returns sagas, the last changed first.

    Args:
        registry: An open registry.
        group: Restricts the result to this group of phases.
        limit: Greatest count of sagas.

    Raises:
        RegistryAway: the database does not answer or refuses.
    """
    phases = None if group is None else PHASES[group]
    standing = None if group is None else group is PhaseGroup.FAILED
    return await registry.sagas(phases=phases, standing=standing, limit=limit)


async def retry_all(registry: Registry, keys: list[str], material: bytes) -> list[tuple[str, RetryResult]]:
    """Retries the sagas of these keys, or without keys all failed sagas; returns key and result of each.

    Args:
        registry: An open registry with a lease of `LEASE_S`.
        keys: Keys in full; empty for all failed sagas.
        material: The newest key of `material.audit`.

    Raises:
        RecoveryInProgress: a recovery of the registry is in progress.
        RegistryAway: the database does not answer or refuses.
    """
    # During a recovery nothing can be leased, so each retry would wait for `LEASE_S` in vain.
    if await registry.is_half_recovered():
        raise RecoveryInProgress
    named = keys or [row.key for row in await rows(registry, PhaseGroup.FAILED, _NO_LIMIT)]
    return [(key, await retry(registry, key, material)) for key in named]


async def retry(registry: Registry, key: str, material: bytes) -> RetryResult:
    """Retries a saga; arguments and errors as of `retry_all`, without a look for a recovery."""
    try:
        claim = await claim_with_patience(registry, key)
    except codec.Unreadable as fault:
        return RetryResult(RetryEnd.UNREADABLE, str(fault))
    found = await registry.sagas(key=key, limit=1)
    if claim is None or not found:
        return RetryResult(RetryEnd.BUSY, found[0].worker or "somebody") if found else RetryResult(RetryEnd.NO_SAGA)
    again = decide_retry(found[0], claim.journal, claim.desired, claim.now_us(), material)
    return RetryResult(await _write(registry, claim, again))


async def _write(registry: Registry, claim: Claim, again: Retry) -> RetryEnd:
    """Commits a retry, gives the lease back, and returns the end."""
    lines = () if again.line is None else (OutboxMessage(AUDIT.name, again.journal.lines, codec.dump(again.line)),)
    # Due at once even if nothing is to be done: the former due time is unknown here.
    written = await registry.write(claim, again.journal, lines, due_in_s=0.0, release=True)
    if isinstance(written, NewerDesired | TenantTaken):
        # The lease is still held: returned with the journal of the registry, and with the newer version.
        await give_back(registry, claim)
    match written:
        case LeaseLost():
            return RetryEnd.LEASE_LOST
        case TenantTaken():
            return RetryEnd.TENANT_TAKEN
        # The registry compares texts: without a new journal an equal text says nothing of an earlier try.
        case NewerDesired(written=earlier) if again.line is None or not earlier:
            return RetryEnd.NEWER_VERSION
    return again.end


async def claim_with_patience(registry: Registry, key: str) -> Claim | None:
    """Leases the saga of a key; waits up to `LEASE_S` for a worker to return the lease, then returns None."""
    until_s = time.monotonic() + LEASE_S
    while True:
        claim = await registry.claim_one(key)
        if claim is not None or time.monotonic() >= until_s or not await registry.sagas(key=key, limit=1):
            return claim
        await asyncio.sleep(_CLAIM_POLL_S)


async def give_back(registry: Registry, claim: Claim) -> None:
    """Gives a lease back, unchanged and due at once: the former due time is unknown here."""
    await registry.write(claim, claim.journal, (), due_in_s=0.0, release=True)
