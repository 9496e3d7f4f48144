"""Release of an adopted tenant at an operator's request: its life is forgotten, and nothing outside is removed.

Rule: the registry first, the ledger afterwards. The ledger's `uninstalled` would otherwise find the life and remove it.
A crash in between leaves a forgotten life of which the ledger was not told; a repetition of the command tells.
"""

from enum import StrEnum
from typing import Final

from schemas import codec
from schemas.audit import OperatorAct
from schemas.topics import AUDIT
from schemas.values import Key
from services.adapters.registry.registry import Registry
from services.adapters.registry.types import Claim, LeaseLost, NewerDesired, OutboxMessage, Written
from services.core.saga.adoption import ReleaseEnd, act_line, decide_release, release_observed
from services.operations.adoption import Teller, adoption_digest
from services.operations.sagas import claim_with_patience, give_back

_TRIES: Final = 3
"""Commits of a release against newer versions that intake stores meanwhile."""


class ReleasedKey(StrEnum):
    """The ends of a request to release a key."""

    RELEASED = "released: nothing outside was removed"
    AGAIN = "released before; the ledger was told again"
    NOT_ADOPTED = "its life was not adopted: nothing was done"
    NO_SAGA = "no such saga"
    BUSY = "another worker is at the saga now; say it again"
    UNREADABLE = "its row cannot be read by this release"


async def release(registry: Registry, teller: Teller, key: Key, by: str, reason: str, material: bytes) -> ReleasedKey:
    """Forgets the adopted life of a key, and tells the ledger that the key is uninstalled; removes nothing outside.

    Args:
        registry: An open registry with a lease of `LEASE_S`.
        teller: Tells the ledger.
        key: `orgId:integrationId`.
        by: Name of the operator.
        reason: The operator's reason.
        material: The newest key of `material.audit`.

    Raises:
        RegistryAway: the database does not answer or refuses.
        KafkaError: the ledger was not told; the row is written, and a repetition tells.
    """
    act = OperatorAct(by=by, reason=reason, digest=adoption_digest([key]), number=1)
    try:
        claim = await claim_with_patience(registry, key)
    except codec.Unreadable:
        return ReleasedKey.UNREADABLE
    if claim is None:
        return ReleasedKey.BUSY if await registry.sagas(key=key, limit=1) else ReleasedKey.NO_SAGA
    return await _release_claimed(registry, teller, claim, act, material)


async def _release_claimed(
    registry: Registry, teller: Teller, claim: Claim, act: OperatorAct, material: bytes
) -> ReleasedKey:
    key = claim.key
    for _ in range(_TRIES):
        decided = decide_release(claim.journal, claim.desired, claim.now_us())
        if decided.end is ReleaseEnd.NOT_ADOPTED:
            await give_back(registry, claim)
            return ReleasedKey.NOT_ADOPTED
        if decided.end is ReleaseEnd.AGAIN:
            await give_back(registry, claim)
            await teller.tell([release_observed(decided.journal, key)])
            return ReleasedKey.AGAIN
        line = act_line(decided.journal, key, "release", decided.journal.generation, act, claim.now_us(), material)
        message = OutboxMessage(AUDIT.name, decided.journal.lines, codec.dump(line))
        match await registry.write(claim, decided.journal, [message], due_in_s=0.0, release=True):
            case Written() | NewerDesired(written=True):
                await teller.tell([release_observed(decided.journal, key)])
                return ReleasedKey.RELEASED
            case LeaseLost():
                return ReleasedKey.BUSY
            # The lease is still held, with the newer version: a teardown that is due now must not begin.
    await give_back(registry, claim)
    return ReleasedKey.BUSY
