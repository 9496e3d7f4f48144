"""Adoption of tenants at an operator's request.

Rule: the registry first, the ledger afterwards. A row with the adopted life and its audit record is one commit; then
the observation is sent. A crash in between leaves a row that awaits the ledger, and a repetition of the command sends
the same observation again, which the ledger takes once.

Rule: of two writers of a new row, intake and adoption, the first wins. A key that intake has stored before is known,
and is left as it is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas import codec
from schemas.adoption import AdoptionLine
from schemas.audit import OperatorAct
from schemas.event import Observed
from schemas.removal import set_digest
from schemas.saga import Journal, Phase
from schemas.saga_row import SagaRow
from schemas.tenant import Tenant
from schemas.topics import AUDIT, RECEIVED, named
from schemas.values import Key
from services.adapters.kafka.producer import Producer
from services.adapters.registry.registry import Registry
from services.adapters.registry.types import (
    AdoptedRow,
    Claim,
    NewerDesired,
    OutboxMessage,
    TenantTaken,
    Written,
)
from services.core.saga.adoption import (
    FIRST_GENERATION,
    AdoptionBase,
    Differing,
    LookedLife,
    StepFinding,
    act_line,
    adopted_journal,
    adoption_observed,
    awaits_ledger,
    is_adoptable_again,
    is_adopted,
)
from services.core.saga.next_move import is_released
from services.operations.sagas import claim_with_patience, give_back

BATCH: Final = 200
"""Tenants looked up, written and told of together: so many are looked up once more after a crash."""
_SOURCE: Final = "/genesys-lifecycle/operator"

_TAKEN: Final = "bound to another organisation"

Look = Callable[[AdoptionLine, AdoptionBase], Awaitable[LookedLife]]
"""Reads every resource of a tenant, read-only."""


class AdoptionEnd(StrEnum):
    """The ends of an adoption of one tenant."""

    ADOPTED = "adopted"
    ADOPTABLE = "can be adopted"
    """Of a dry run."""
    ALREADY = "adopted already"
    LEFT = "left"
    """A resource differs, is missing or was not read."""
    KNOWN = "known already"
    """The key has a row in the registry or a state in the view; nothing of it was changed."""
    TENANT_TAKEN = "tenantId taken"
    """The tenantId is bound to another organisation."""
    CHANGED = "changed meanwhile"
    """Another worker was at the saga; a repetition of the command decides."""


IN_ORDER: Final = frozenset({AdoptionEnd.ADOPTED, AdoptionEnd.ADOPTABLE, AdoptionEnd.ALREADY})
"""Ends that leave nothing to do."""


@dataclass(frozen=True, slots=True)
class AdoptedTenant:
    """The end of one line.

    Attributes:
        number: Number of the line.
        key: `orgId:integrationId`.
        end: The end.
        findings: The looks; empty for a tenant that was not looked at.
        detail: The stage of a known tenant; else empty.
    """

    number: int
    key: Key
    end: AdoptionEnd
    findings: tuple[StepFinding, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AdoptionOrder:
    """What an operator asked for.

    Attributes:
        act: The operator's act, about all tenants of the file.
        told_us: Time of the vendor's file, microseconds UTC.
        differing: What becomes of a tenant with a resource that differs.
        dry_run: True to look alone.
    """

    act: OperatorAct
    told_us: int
    differing: Differing
    dry_run: bool


def adoption_digest(keys: Sequence[Key]) -> str:
    """Returns the digest of exactly these tenants."""
    return set_digest(keys, "adopt")


class Teller:
    """Sends observations of an operator's act to the ledger."""

    def __init__(self, producer: Producer, prefix: str) -> None:
        """Takes an open producer; the caller closes.

        Args:
            producer: The producer.
            prefix: Prefix of the installation's topics.
        """
        self._producer, self._topic = producer, named(RECEIVED, prefix)

    async def tell(self, observations: Sequence[Observed]) -> None:
        """Sends the observations, and waits until all are acknowledged.

        Raises:
            KafkaError: an observation was not acknowledged.
        """
        messages = [
            codec.encode(one, key=one.key, ce_id=f"{one.key}/r:{one.read_at}", source=_SOURCE, at_us=one.read_at)
            for one in observations
        ]
        await asyncio.gather(*(self._producer.send_and_wait(self._topic, message) for message in messages))


@dataclass(frozen=True, slots=True)
class AdoptionHands:
    """The hands of an adoption.

    Attributes:
        registry: An open registry with a lease of `LEASE_S`; its plans include the plan of the looks.
        teller: Tells the ledger.
        look: Reads every resource of a tenant.
        tenants: The view.
        material: The newest key of `material.audit`.
        now_us: Our clock, microseconds UTC.
    """

    registry: Registry
    teller: Teller
    look: Look
    tenants: Mapping[Key, Tenant]
    material: bytes
    now_us: Callable[[], int]


async def adopt_all(
    hands: AdoptionHands,
    order: AdoptionOrder,
    lines: Mapping[int, AdoptionLine],
    on_progress: Callable[[int, int], None],
) -> list[AdoptedTenant]:
    """Adopts the tenants of a file, in batches; a batch is committed and told before the next is looked at.

    Args:
        hands: The hands.
        order: What the operator asked for.
        lines: Number of the line to the tenant.
        on_progress: Called with the number of finished tenants, and of all.

    Raises:
        RegistryAway: the database does not answer or refuses.
        KafkaError: an observation was not acknowledged. The rows are written, and a repetition tells of them.
    """
    ends: list[AdoptedTenant] = []
    numbered = list(lines.items())
    for first in range(0, len(numbered), BATCH):
        on_progress(first, len(numbered))
        ends += await _adopt_batch(hands, order, dict(numbered[first : first + BATCH]))
    on_progress(len(numbered), len(numbered))
    return ends


async def _adopt_batch(
    hands: AdoptionHands, order: AdoptionOrder, lines: Mapping[int, AdoptionLine]
) -> list[AdoptedTenant]:
    rows = await _rows(hands.registry, [line.key for line in lines.values()])
    ends: dict[int, AdoptedTenant] = {}
    to_look: dict[int, AdoptionLine] = {}
    to_tell: list[Observed] = []
    for number, line in lines.items():
        row = rows.get(line.key)
        known = _known_end(number, line, row, hands.tenants.get(line.key))
        if known is None:
            to_look[number] = line
            continue
        ends[number] = known
        if known.end is AdoptionEnd.ALREADY and row is not None and awaits_ledger(row.journal):
            to_tell.append(adoption_observed(line, row.journal))
    looked = await _looks(hands, order, to_look, rows)
    fresh: dict[int, LookedLife] = {}
    for number, found in looked.items():
        line = to_look[number]
        if not found.fits(order.differing):
            ends[number] = AdoptedTenant(number, line.key, AdoptionEnd.LEFT, found.findings)
        elif order.dry_run:
            ends[number] = AdoptedTenant(number, line.key, AdoptionEnd.ADOPTABLE, found.findings)
        elif line.key in rows:
            ends[number], journal = await _adopt_again(hands, order, number, line, found)
            to_tell += [] if journal is None else [adoption_observed(line, journal)]
        else:
            fresh[number] = found
    if fresh:
        to_tell += await _adopt_fresh(hands, order, {n: to_look[n] for n in fresh}, fresh, ends)
    if not order.dry_run:
        await hands.teller.tell(to_tell)
    return [ends[number] for number in lines]


def _known_end(number: int, line: AdoptionLine, row: SagaRow | None, tenant: Tenant | None) -> AdoptedTenant | None:
    """Returns the end of a tenant that is not to be looked at; None for one that is."""
    if row is None:
        # A mark of a re-check alone makes no tenant.
        if tenant is None or tenant.installed is None:
            return None
        return AdoptedTenant(number, line.key, AdoptionEnd.KNOWN, detail=str(tenant.stage or ""))
    if row.journal.life is None and is_released(row.journal):
        return None
    if is_adopted(row.journal) and row.journal.phase is not Phase.REMOVING:
        return AdoptedTenant(number, line.key, AdoptionEnd.ALREADY)
    return AdoptedTenant(number, line.key, AdoptionEnd.KNOWN, detail=row.phase)


async def _looks(
    hands: AdoptionHands, order: AdoptionOrder, lines: Mapping[int, AdoptionLine], rows: Mapping[Key, SagaRow]
) -> dict[int, LookedLife]:
    bases = {number: _base(order, rows.get(line.key), hands.now_us()) for number, line in lines.items()}
    found = await asyncio.gather(*(hands.look(line, bases[number]) for number, line in lines.items()))
    return dict(zip(lines, found, strict=True))


def _base(order: AdoptionOrder, row: SagaRow | None, now_us: int) -> AdoptionBase:
    if row is None:
        return AdoptionBase(FIRST_GENERATION, 0, order.told_us, now_us)
    # After the release, or the ledger would go on believing the uninstall that the release told.
    told_us = max(order.told_us, row.journal.forgotten_at + 1)
    return AdoptionBase(row.generation, row.desired_version, told_us, now_us)


async def _adopt_fresh(
    hands: AdoptionHands,
    order: AdoptionOrder,
    lines: Mapping[int, AdoptionLine],
    looked: Mapping[int, LookedLife],
    ends: dict[int, AdoptedTenant],
) -> list[Observed]:
    """Writes the rows of tenants that the registry does not have; adds their ends and returns what to tell."""
    written: dict[Key, AdoptedRow] = {}
    for number, line in lines.items():
        life, now_us = looked[number].life, hands.now_us()
        journal = adopted_journal(None, life, now_us)
        assert life.last_applied is not None, "an adopted life has its version"
        written[line.key] = AdoptedRow(
            life.last_applied, journal, _act_message(hands, order, journal, line.key, now_us)
        )
    made = await hands.registry.adopt(list(written.values()))
    # Also rows that this release cannot read.
    left = await hands.registry.progress_of([key for key in written if key not in made])
    for number, line in lines.items():
        end, detail = AdoptionEnd.ADOPTED, ""
        if line.key in left:
            # Intake, or another run of this command, was faster.
            end, detail = AdoptionEnd.KNOWN, "its row was written meanwhile, or cannot be read by this release"
        elif line.key not in made:
            end, detail = AdoptionEnd.TENANT_TAKEN, _TAKEN
        ends[number] = AdoptedTenant(number, line.key, end, looked[number].findings, detail)
    return [adoption_observed(line, written[line.key].journal) for line in lines.values() if line.key in made]


async def _adopt_again(
    hands: AdoptionHands, order: AdoptionOrder, number: int, line: AdoptionLine, found: LookedLife
) -> tuple[AdoptedTenant, Journal | None]:
    """Writes the life of a released key anew; returns the end, and the journal of which the ledger is to be told."""
    end, detail, journal = AdoptionEnd.CHANGED, "", None
    claim = await _claimed(hands.registry, line.key)
    if claim is not None and not is_adoptable_again(claim.journal, claim.desired):
        end, detail = AdoptionEnd.KNOWN, "uninstalled by another source since its release"
    elif claim is not None and claim.desired.version == _told_version(found):
        now_us = claim.now_us()
        anew = adopted_journal(claim.journal, found.life, now_us)
        message = _act_message(hands, order, anew, line.key, now_us)
        match await hands.registry.write(claim, anew, [message], due_in_s=None, release=True):
            case Written() | NewerDesired(written=True):
                end, journal = AdoptionEnd.ADOPTED, anew
            case TenantTaken():
                end, detail = AdoptionEnd.TENANT_TAKEN, _TAKEN
    if claim is not None and journal is None:
        await give_back(hands.registry, claim)
    return AdoptedTenant(number, line.key, end, found.findings, detail), journal


def _told_version(found: LookedLife) -> int | None:
    told = found.life.last_applied
    return None if told is None else told.version


async def _claimed(registry: Registry, key: Key) -> Claim | None:
    try:
        return await claim_with_patience(registry, key)
    except codec.Unreadable:
        return None


def _act_message(hands: AdoptionHands, order: AdoptionOrder, journal: Journal, key: Key, now_us: int) -> OutboxMessage:
    line = act_line(journal, key, "adoption", journal.generation, order.act, now_us, hands.material)
    return OutboxMessage(AUDIT.name, journal.lines, codec.dump(line))


async def _rows(registry: Registry, keys: Sequence[Key]) -> dict[Key, SagaRow]:
    found: dict[Key, SagaRow] = {}
    if keys:
        async for rows in registry.all_sagas(list(keys), None):
            found |= {row.key: row for row in rows}
    return found
