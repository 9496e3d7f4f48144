"""Rulings of operators by name: approvals and refusals of exactly one set of keys, recorded in the audit trail.

Rule: an act is recorded first, with an audit record per key, and takes effect afterwards. No act is without a record. A
record without an effect may stand where a connection was lost in between; a repetition of the command mends both.

Rule: an act names its set by a digest. The caller compares the digest with the present set before any record is
written, so an act about another set changes nothing and records nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.audit import OperatorAct
from schemas.keyring import Material
from schemas.removal import removals_digest
from schemas.saga import Phase
from schemas.saga_row import SagaRow
from schemas.topics import AUDIT, named
from schemas.values import Key
from services.adapters.kafka.producer import Producer
from services.adapters.process.settings import KafkaSettings
from services.adapters.registry.registry import Registry
from services.adapters.registry.types import HeldRemoval
from services.adapters.secrets.keyring import raw
from services.core.ledger import audit
from services.core.saga.graces import first_delete_us, graces_of
from services.operations.reconciliation import ReportScope

_LINGER_MS: Final = 5
_TIMEOUT_MS: Final = 30_000
_MOST: Final = 1_000_000
"""Teardowns that a report reads: more than an installation has tenants."""


class ActKind(StrEnum):
    """Sort of an operator's act, as `Audit.what`."""

    REMOVAL_APPROVED = "removal_approved"
    REMOVAL_REFUSED = "removal_refused"
    NEWCOMER_APPROVED = "newcomer_approved"


_VERDICTS: Final = {
    ActKind.REMOVAL_APPROVED: "approved",
    ActKind.REMOVAL_REFUSED: "refused",
    ActKind.NEWCOMER_APPROVED: "approved",
}

BY_RECONCILER: Final = "removal held by the reconciler's brake"
BY_PROVISIONER: Final = "removal held by the provisioner's brake"
NEWCOMER: Final = "first tenant of an organisation"


@dataclass(frozen=True, slots=True)
class Ruling:
    """An operator's act, without its set.

    Attributes:
        by: Name of the operator.
        reason: The operator's reason; empty if none was given.
        at_us: Time of the act, microseconds UTC.
        expires_us: End of the approval or refusal, microseconds UTC.
    """

    by: str
    reason: str
    at_us: int
    expires_us: int


def end_us(kind: ActKind, why: str, ruling: Ruling) -> int | None:
    """Returns the end of an act, microseconds UTC; None without an end.

    The provisioner holds a refused removal until an approval names its key, or the integration is installed again.
    """
    return None if kind is ActKind.REMOVAL_REFUSED and why == BY_PROVISIONER else ruling.expires_us


class ActRecorder:
    """Writes the audit records of operators' acts."""

    def __init__(self, producer: Producer, topic: str, material: bytes) -> None:
        """Takes an open producer.

        Args:
            producer: The caller closes the producer.
            topic: Full name of the audit topic.
            material: The newest key of `material.audit`.
        """
        self._producer, self._topic, self._material = producer, topic, material

    async def record(self, kind: ActKind, keys: Collection[Key], digest: str, ruling: Ruling, why: str) -> None:
        """Writes a record per key, and waits until all are acknowledged.

        Raises:
            KafkaError: a record was not acknowledged; some of the records may stand.
        """
        act = OperatorAct(
            by=ruling.by, reason=ruling.reason, digest=digest, number=len(keys), expires_at=end_us(kind, why, ruling)
        )
        lines = [
            audit.line(
                line_id=f"{key}/{kind}/{digest}/{ruling.at_us}",
                key=key,
                what=kind,
                verdict=_VERDICTS[kind],
                why=why,
                at_us=ruling.at_us,
                material=self._material,
                act=act,
            )
            for key in sorted(keys)
        ]
        messages = [audit.message(line, "operator", None) for line in lines]
        await asyncio.gather(*(self._producer.send_and_wait(self._topic, message) for message in messages))


@asynccontextmanager
async def recording(settings: KafkaSettings, material: Material) -> AsyncIterator[ActRecorder]:
    """Opens a recorder of acts for the context.

    Args:
        settings: The environment.
        material: The key material of the installation.
    """
    producer = Producer(settings.kafka, linger_ms=_LINGER_MS, timeout_ms=_TIMEOUT_MS)
    try:
        yield ActRecorder(producer, named(AUDIT, settings.topic_prefix), raw(material.audit[0]))
    finally:
        await producer.close(_TIMEOUT_MS / 1000)


async def held_removals(registry: Registry, scope: ReportScope) -> list[HeldRemoval]:
    """Returns the removals in the scope that the brake of the provisioner holds, in the order of their keys."""
    return [one for one in await registry.held_removals() if scope.has(one.key)]


def offered(held: Sequence[HeldRemoval], scope: ReportScope) -> list[HeldRemoval]:
    """Returns the held removals that an approval or a refusal by digest names.

    A refused removal is among them only where the scope names keys: whoever approves the removals of today must not let
    go what a colleague refused yesterday.
    """
    return [one for one in held if one.refused_by is None or scope.keys is not None]


def digest_of(held: Sequence[HeldRemoval]) -> str | None:
    """Returns the digest by which held removals are approved or refused; None without a held removal."""
    return removals_digest(one.key for one in held) if held else None


@dataclass(frozen=True, slots=True)
class GracedRemoval:
    """A removal whose first delete a grace period puts off.

    Attributes:
        key: `orgId:integrationId`.
        until_us: Earliest time of the first delete, at which the brake is asked; microseconds UTC.
    """

    key: Key
    until_us: int


async def removals_in_grace(registry: Registry, scope: ReportScope, now_us: int) -> list[GracedRemoval]:
    """Returns the removals under way in the scope whose grace period runs, in the order of their keys.

    Raises:
        RegistryAway: the database does not answer or refuses.
    """
    rows = await registry.sagas(phases=(Phase.REMOVING,), limit=_MOST)
    return await _graced(registry, [row for row in rows if scope.has(row.key)], now_us)


async def put_off_beyond(registry: Registry, keys: Collection[Key], ruling: Ruling) -> list[GracedRemoval]:
    """Returns the removals of an approval that a grace period puts off beyond the approval's end.

    Raises:
        RegistryAway: the database does not answer or refuses.
    """
    rows = [row async for batch in registry.all_sagas(sorted(keys), None) for row in batch]
    found = await _graced(registry, rows, ruling.at_us)
    return [one for one in found if one.until_us >= ruling.expires_us]


async def _graced(registry: Registry, rows: Sequence[SagaRow], now_us: int) -> list[GracedRemoval]:
    graces: dict[str, dict[str, int]] = {}
    found = []
    for row in rows:
        plan = row.journal.life.plan if row.journal.life else ""
        if plan not in graces:
            graces[plan] = graces_of(await registry.plan_text(plan) or "")
        until_us = first_delete_us(row.journal, graces[plan], now_us)
        if until_us is not None and until_us > now_us:
            found.append(GracedRemoval(row.key, until_us))
    return sorted(found, key=lambda one: one.key)


async def approve_removals(
    registry: Registry, recorder: ActRecorder, keys: Collection[Key], digest: str, ruling: Ruling, why: str
) -> list[Key]:
    """Records an approval, and stores the approval for the provisioner; returns the keys with a stored approval.

    A key without a resource outside takes no approval, and needs none.

    Args:
        registry: An open registry.
        recorder: Writes the audit records.
        keys: The whole approved set.
        digest: `removals_digest` of the set.
        ruling: The act.
        why: `BY_RECONCILER` or `BY_PROVISIONER`.

    Raises:
        KafkaError: the act was not recorded, and nothing was approved.
        RegistryAway: the act was recorded, and may have been stored or not.
    """
    await recorder.record(ActKind.REMOVAL_APPROVED, keys, digest, ruling, why)
    return await registry.approve_removals(
        sorted(keys), digest=digest, by=ruling.by, reason=ruling.reason, expires_us=ruling.expires_us
    )


async def refuse_removals(
    registry: Registry, recorder: ActRecorder, keys: Collection[Key], digest: str, ruling: Ruling
) -> list[Key]:
    """Records a refusal, and marks the removals held by the provisioner; returns the keys of marked removals.

    A removal that was let go since the caller read the set takes no mark, and goes on.

    Raises:
        KafkaError: the act was not recorded, and nothing was refused.
        RegistryAway: the act was recorded, and may have been stored or not.
    """
    await recorder.record(ActKind.REMOVAL_REFUSED, keys, digest, ruling, BY_PROVISIONER)
    return await registry.refuse_removals(sorted(keys), by=ruling.by, reason=ruling.reason)
