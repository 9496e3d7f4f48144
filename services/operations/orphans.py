"""The removal of orphans at an operator's request: an orphan check for each ended life, in the saga of its key.

Rule: nothing is deleted here. The provisioner carries the orphan check out as any other: it looks each resource up once
more, writes the intent, and deletes under the lease of the saga.
"""

from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum

from schemas import codec
from schemas.audit import OperatorAct
from schemas.topics import AUDIT
from schemas.values import Key
from services.adapters.registry.registry import Registry
from services.adapters.registry.types import OutboxMessage, Written
from services.core.reconcile.three_views import Orphan
from services.core.saga.ended_lives import condemned
from services.core.saga.plan import Plan
from services.operations.sagas import claim_with_patience, give_back


class OrphanEnd(StrEnum):
    """The ends of a request to remove the orphans of one key."""

    ASKED = "removal asked: the provisioner looks again and deletes"
    BUSY = "another worker is at the saga now; say it again"
    UNREADABLE = "its row cannot be read by this release"
    NOT_OVER = "its life is no ended one any more"
    CHANGED = "its saga was changed meanwhile; say it again"


async def ask_removal(
    registry: Registry, orphans: Sequence[Orphan], plan: Plan, act: OperatorAct, material: bytes
) -> dict[Key, OrphanEnd]:
    """Schedules the orphan checks, each with an audit record in the same commit; returns the end by key.

    Args:
        registry: An open registry with a lease of `LEASE_S`; its plans include `plan`.
        orphans: The orphans to remove.
        plan: The plan by which the orphans were found.
        act: The operator's act.
        material: The newest key of `material.audit`.

    Raises:
        RegistryAway: the database does not answer or refuses.
    """
    of_key: dict[Key, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for one in orphans:
        of_key[one.key][one.generation].append(one.step)
    ends: dict[Key, OrphanEnd] = {}
    for key, lives in of_key.items():
        try:
            claim = await claim_with_patience(registry, key)
        except codec.Unreadable:
            ends[key] = OrphanEnd.UNREADABLE
            continue
        if claim is None:
            ends[key] = OrphanEnd.BUSY
            continue
        asked = condemned(claim.journal, plan, key, lives, act, now_us=claim.now_us(), material=material)
        if asked is None:
            ends[key] = OrphanEnd.NOT_OVER
            await give_back(registry, claim)
            continue
        lines = [OutboxMessage(AUDIT.name, asked.journal.lines, codec.dump(asked.line))]
        written = await registry.write(claim, asked.journal, lines, due_in_s=0.0, release=True)
        ends[key] = OrphanEnd.ASKED if isinstance(written, Written) else OrphanEnd.CHANGED
        if ends[key] is OrphanEnd.CHANGED:
            await give_back(registry, claim)
    return ends
