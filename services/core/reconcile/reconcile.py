"""Comparison of Genesys with the view: the plan of one reconciliation run.

Problem: an uninstall webhook may be lost, and the listing of Genesys is the only witness left. But a listing lies
easily: an empty page, a client without rights or a maintenance answer looks like "everything was uninstalled".
Elsewhere reconcilers have removed hundreds of tenants after one such answer (docs/decisions/0001).

Approach: four independent locks stand before a change of a tenant.

    complete reading   only a listing proven complete counts; an error is no information
    seen before        an absence counts only for credentials with an earlier sight of the integration, or that read an
                       audit of its removal
    second look        an absence, or a difference from an event younger than the second look, must be seen twice
    brake              no run removes more than max(`REMOVE_LEAST`, `REMOVE_PERCENT` %) without an operator's approval

Invariants:
- The plan is a pure function; nothing is published before the whole plan exists, because the brake needs the whole.
- An observation of one key is never published twice for one second: both would be one uid with two contents.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from schemas.event import Observed
from schemas.genesys import Organisation, Reading
from schemas.removal import REMOVE_LEAST, REMOVE_PERCENT, removals_digest
from schemas.tenant import Tenant
from schemas.times import rfc3339
from schemas.values import EventType, Key
from services.core.ledger.merge import RETRY_SPAN_US
from services.core.reconcile.observed_state import (
    ABSENT,
    ObservedKey,
    awaits_recheck,
    differences,
    is_told,
    look_at,
    observed,
)
from services.core.rulings import RefusedRemovals

CLAIM_LIFE_US: Final = 24 * 3_600_000_000
"""Microseconds after which an unconfirmed first sight is forgotten: one day."""

Tenants = Mapping[Key, Tenant]


class Action(StrEnum):
    """Effect of a line of the plan."""

    INSTALL = "install"
    REMOVE = "remove"
    ALIGN = "align"
    CONFIRM = "confirm"
    WAIT = "wait"
    REFUSE = "refuse"
    KEEP = "keep"
    """A removal that an operator refused: the tenant stays until the refusal expires."""
    UNREAD = "unread"
    """Genesys did not answer, or answered in an unreadable form. The readable part of the key has a line of its own."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A claim of Genesys, waiting for the second sight.

    Attributes:
        claim: `ObservedKey.claim` of the first sight.
        since_us: Our clock at the first sight, microseconds UTC; the claim counts one second look later.
    """

    claim: str
    since_us: int


@dataclass(frozen=True, slots=True)
class Sight:
    """Memory of earlier runs about one key.

    Attributes:
        seen_by: Client id of the last credentials with a sight of the key; None before the first sight.
        doubt: The claim waiting for the second sight, or None.
        observed_at_us: `read_at` of the last published observation; 0 before the first.
    """

    seen_by: str | None = None
    doubt: Doubt | None = None
    observed_at_us: int = 0


Memory = Mapping[Key, Sight]


@dataclass(frozen=True, slots=True)
class AuditedRemoval:
    """An audit of Genesys that an integration was removed: the newest audit of its key.

    Attributes:
        client_id: Client id of the credentials that read the audit.
        at_us: Time of the audit by Genesys' clock, microseconds UTC.
    """

    client_id: str
    at_us: int


Removals = Mapping[Key, AuditedRemoval]
_NO_REMOVALS: Final[Removals] = {}


@dataclass(frozen=True, slots=True)
class ReconcileRules:
    """Times and limits of one run.

    Attributes:
        began_us: Our clock before the first read, microseconds UTC: no answer of this run is older.
        now_us: Our clock after the last read, microseconds UTC: no answer of this run is newer.
        second_look_us: Microseconds from the first sight of an absence or contradiction to the second.
        configuration_key: Key of `configuration_mac`.
        approval: An operator's approval of exactly one set of removals (`Stop.approval`), or None.
        refused: Keys whose removal an operator refused, with the refusals in force.
    """

    began_us: int
    now_us: int
    second_look_us: int
    configuration_key: bytes
    approval: str | None = None
    refused: Mapping[Key, RefusedRemovals] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One line of the plan.

    Attributes:
        key: `orgId:integrationId`.
        action: Effect of the line.
        reason: Text for log and operator.
        observed: The observation to publish; None if the line publishes nothing.
    """

    key: Key
    action: Action
    reason: str
    observed: Observed | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The brake holds: nothing of this run is published.

    Attributes:
        absent: Number of absent tenants, seen once or twice, by this run or an earlier one.
        limit: Greatest number of absent tenants without a brake.
        approval: Text to approve exactly `ReconcilePlan.offered`; None if there is nothing to approve yet.
        refused: Number of the plan's removals that an operator refused, and that the text does not name.
    """

    absent: int
    limit: int
    approval: str | None
    refused: int


@dataclass(frozen=True, slots=True)
class ReconcilePlan:
    """The plan of one run.

    Attributes:
        lines: Keys with a difference, a wait, a refusal or an unread part.
        memory: New memory of the keys in this run; the memory of all remaining keys is unchanged.
        stopped: The brake, or None.
        looks: Every key in this run as read.
        absent: Number of absent tenants, seen once or twice, by this run or an earlier one.
        limit: Greatest number of absent tenants without a brake.
        offered: The absences seen twice that an approval or a refusal by digest names, sorted: those that nobody has
            refused, and of the refused ones those that the operator named by key.
    """

    lines: tuple[PlanLine, ...]
    memory: Memory
    stopped: Stop | None
    looks: Mapping[Key, ObservedKey]
    absent: int
    limit: int
    offered: tuple[Key, ...]

    @property
    def approval(self) -> str | None:
        """Returns the digest of exactly the offered removals; None without one."""
        return removals_digest(self.offered) if self.offered else None


def scope(reading: Reading, organisation: Organisation, tenants: Tenants, keys: Collection[Key] | None) -> list[Key]:
    """Returns the keys of one organisation to compare, sorted.

    A listed key is compared if the integration has a type of the organisation's file or an unknown type, or if the
    view knows of the key. An unlisted key is compared if the view has the key as installed, flagged or marked for a
    re-check. A mark alone is no knowledge: anybody's integration may be hinted at, and would be installed here.

    Args:
        reading: A complete reading.
        organisation: The organisation's file.
        tenants: The view, or the tenants of this organisation.
        keys: Compare these keys alone; None for all.
    """
    prefix = f"{reading.org_id}:"
    ours = organisation.types
    listed = {
        f"{prefix}{entity.id}"
        for entity in reading.integrations.values()
        if not ours or entity.type_id in ours or entity.type_id is None or is_told(tenants.get(f"{prefix}{entity.id}"))
    }
    # A key that was only hinted at and is not listed is not asked for by id: its absence would count for nothing, since
    # nobody saw the integration here. So a flood of invented keys costs the listing alone.
    held = {
        key
        for key, tenant in tenants.items()
        if key.startswith(prefix) and (tenant.installed or (awaits_recheck(tenant) and is_told(tenant)))
    }
    # Of equal texts the union has those of the view: a run holds no second text of 50,000 keys.
    return sorted(key for key in held | listed if keys is None or key in keys)


def by_organisation(tenants: Tenants) -> Mapping[str, Tenants]:
    """Returns the tenants of each organisation.

    A run that went through all tenants for each organisation would take the square of their number: with 2,000 of
    each it held the event loop, and with it `/metrics`, for half a second and more.
    """
    found: dict[str, dict[Key, Tenant]] = {}
    for key, tenant in tenants.items():
        found.setdefault(key.partition(":")[0], {})[key] = tenant
    return found


def ids_to_read(
    listing: Reading, organisation: Organisation, tenants: Tenants, keys: Collection[Key] | None
) -> tuple[list[str], list[str]]:
    """Returns the integration ids to read after a listing.

    Returns:
        Ids missing from the listing, to look up singly; and listed ids with a configuration to read.
    """
    ids = [key.partition(":")[2] for key in scope(listing, organisation, tenants, keys)]
    return [i for i in ids if i not in listing.integrations], [i for i in ids if i in listing.integrations]


def compare(
    readings: Iterable[tuple[Reading, Organisation]],
    tenants: Tenants,
    memory: Memory,
    rules: ReconcileRules,
    keys: Collection[Key] | None = None,
    named: Collection[Key] = (),
    removals: Removals = _NO_REMOVALS,
) -> ReconcilePlan:
    """Compares complete readings with the view.

    Args:
        readings: Complete readings, each with the organisation's file. An incomplete reading is no information and must
            be left out.
        tenants: The view of all organisations.
        memory: The memory of earlier runs about all keys.
        rules: Times and limits.
        keys: Compare these keys alone; None for all.
        named: Keys that an operator named.
        removals: Keys whose newest audit, still waiting for a settled read, is of a removal.

    Returns:
        A plan with a line for each key with a difference, a wait, a refusal or an unread part, and for each of `named`
        that is neither listed nor in the view. A key without a difference has no line.
    """
    lines: list[PlanLine] = []
    doubted = [key for key, sight in memory.items() if sight.doubt is not None and (keys is None or key in keys)]
    looked: dict[Key, Sight] = {}
    looks: dict[Key, ObservedKey] = {}
    read: set[str] = set()
    own = by_organisation(tenants)
    for reading, organisation in readings:
        read.add(reading.org_id)
        # Forgets the claims of keys that are out of scope by now (neither listed nor installed): no look would settle
        # such a claim, and it would be due for ever. Keys in scope are overwritten below.
        looked |= {k: replace(memory[k], doubt=None) for k in doubted if k.startswith(f"{reading.org_id}:")}
        for key in scope(reading, organisation, own.get(reading.org_id, {}), keys):
            sight = _sight(reading, key, memory.get(key, Sight()))
            tenant, seen_by = tenants.get(key), sight.seen_by
            if _vouches(removals.get(key), tenant, reading.client_id):
                # For this look alone, and never remembered: the integration may be restored under its id, and these
                # credentials may still not see it.
                seen_by = reading.client_id
            look = look_at(key, reading, organisation, tenant, seen_by, rules.configuration_key)
            line, looked[key] = _judge(look, tenant, sight, rules)
            looks[key] = look
            lines.extend([line] if line else [])
            if look.unread:
                lines.append(PlanLine(key, Action.UNREAD, look.unread))
    # A named key that exists nowhere is probably a typing error of the operator; silence would look like agreement.
    lines += [
        PlanLine(key, Action.UNREAD, "neither listed nor in the view")
        for key in sorted(set(named) - looked.keys() - tenants.keys())
        if key.partition(":")[0] in read
    ]
    absent, limit = absent_tenants(tenants, {**memory, **looked}, rules.now_us), removals_limit(tenants)
    gone = sorted(line.key for line in lines if line.action is Action.REMOVE)
    # Whoever approves a set of today must not let go what a colleague refused yesterday, unless by name.
    offered = tuple(key for key in gone if key not in rules.refused or key in named)
    approval = removals_digest(offered) if offered else None
    approved = frozenset(offered) if approval is not None and approval == rules.approval else frozenset[Key]()
    lines = [line if line.key in approved else _kept_if_refused(line, rules.refused) for line in lines]
    stopped = None
    if not approved:
        stopped = _brake(lines, absent, limit, approval, rules.refused, len(gone) - len(offered))
    return ReconcilePlan(tuple(lines), looked, stopped, looks, len(absent), limit, offered)


def remember(sight: Sight, observation: Observed) -> Sight:
    """Returns the memory of a key after the publication of an observation."""
    return replace(sight, doubt=None, observed_at_us=observation.read_at)


def seen(readings: Iterable[Reading], keys: Iterable[Key], memory: Memory) -> dict[Key, Sight]:
    """Returns the memory after listings: the credentials of a listing have now seen each listed key.

    Args:
        readings: Listings of organisations.
        keys: The keys to mark.
        memory: The memory of earlier runs.
    """
    by_org = {reading.org_id: reading for reading in readings}
    found = {key: memory.get(key, Sight()) for key in keys if key.partition(":")[0] in by_org}
    return {**memory, **{key: _sight(by_org[key.partition(":")[0]], key, sight) for key, sight in found.items()}}


def _sight(reading: Reading, key: Key, sight: Sight) -> Sight:
    if sight.seen_by == reading.client_id or key.partition(":")[2] not in reading.integrations:
        return sight
    return replace(sight, seen_by=reading.client_id)


def _certain(sight: Sight) -> Sight:
    """Returns the memory without a claim; the same object if it has none, because a run holds one a key."""
    return sight if sight.doubt is None else replace(sight, doubt=None)


def _vouches(removal: AuditedRemoval | None, tenant: Tenant | None, client_id: str) -> bool:
    """True if an audit of a removal stands for the sight of these credentials, in the look at hand.

    Without, a tenant that was removed before its first sight would stay for ever: its absence counts for nothing. An
    event after the audit, like a reinstall under the same id, takes the evidence away. The view has the time of an
    event's arrival alone, and a webhook of before the removal may arrive as late as the sender retries.
    """
    if removal is None or tenant is None or not tenant.installed:
        return False
    return removal.client_id == client_id and removal.at_us > _event_us(tenant) - RETRY_SPAN_US


def _judge(
    look: ObservedKey, tenant: Tenant | None, sight: Sight, rules: ReconcileRules
) -> tuple[PlanLine | None, Sight]:
    """Returns the line of one key (None if the key agrees) and the key's new memory.

    Args:
        look: State of the key as read.
        tenant: The view of the key; None if the view has none.
        sight: Memory of earlier runs, with `seen_by` of this reading.
        rules: Times and limits.
    """
    asked = awaits_recheck(tenant)
    # Another claim than the waiting one ends the wait: an absence must be seen twice without a sight in between.
    if look.claim is not None and sight.doubt is not None and sight.doubt.claim != look.claim:
        sight = _certain(sight)
    if look.installed is None:
        action = Action.WAIT if look.is_late else Action.REFUSE
        return (PlanLine(look.key, action, f"no information: {look.reason}") if look.reason else None), sight
    differing = differences(look, tenant)
    # A tenant provisioned without the configuration would be another tenant than the customer asked for. `compare` adds
    # the line with the reason.
    is_bare = EventType.INSTALLED in differing and look.mac is None
    if is_bare or (not differing and not asked):
        return None, _certain(sight)
    certain = look.installed and not differing
    if certain:
        sight = _certain(sight)
    if early := _too_early(look, tenant, sight, rules):
        return PlanLine(look.key, Action.WAIT, early), sight
    reason = ", ".join(event.value for event in differing) or "agrees"
    reason += " (re-check)" if asked else ""
    doubt = None if certain else _doubt(look, tenant, sight.doubt, rules)
    if doubt is not None:
        again = rfc3339(doubt.since_us + rules.second_look_us)
        return PlanLine(look.key, Action.WAIT, f"{reason}: counts when seen again after {again}"), replace(
            sight, doubt=doubt
        )
    return PlanLine(look.key, _action(differing), reason, observed(look, tenant, differing, asked=asked)), sight


def _too_early(look: ObservedKey, tenant: Tenant | None, sight: Sight, rules: ReconcileRules) -> str:
    """Returns why a difference may be our own last observation, not yet folded by the ledger; else empty.

    Likewise of a re-check that was asked for after its key was read: no observation of such a read answers it.
    """
    if look.is_released and awaits_recheck(tenant):
        return "a re-check was asked for while Genesys was read"
    if not sight.observed_at_us:
        return ""
    if look.read_at_us <= sight.observed_at_us:
        # The uid of an observation contains `read_at`, a `Date` header in whole seconds: two observations of one second
        # would be one uid with two contents.
        return "read within the second of the last observation"
    folded = tenant is not None and tenant.updated_at >= sight.observed_at_us
    if not folded and rules.now_us < sight.observed_at_us + rules.second_look_us:
        return "the last observation is on its way"
    return ""


def _doubt(look: ObservedKey, tenant: Tenant | None, held: Doubt | None, rules: ReconcileRules) -> Doubt | None:
    """Returns the claim to be seen again, or None if the look may be published.

    A reading takes time. The first sight counts from the end of a reading and the second from the beginning, to keep
    the answers at least one second look apart.

    Args:
        look: State of the key as read.
        tenant: The view of the key; None if the view has none.
        held: The waiting claim of an earlier run, equal to the claim of `look`; or None.
        rules: Times and limits.
    """
    # It agreed when it was read, so the view has changed since: a reading of after the change has to tell.
    if look.is_released:
        return Doubt(look.claim or "", rules.now_us)
    event_us = _event_us(tenant)
    # A first sight from before the newest event proves nothing about the state after the event: the wait begins anew.
    if held is None or held.since_us < event_us or rules.now_us - held.since_us > CLAIM_LIFE_US:
        young = rules.now_us - event_us < rules.second_look_us
        return Doubt(look.claim or "", rules.now_us) if young or not look.installed else None
    return None if rules.began_us >= held.since_us + rules.second_look_us else held


def _event_us(tenant: Tenant | None) -> int:
    """Returns the log time of the newest event of a key, microseconds UTC; 0 without an event."""
    if tenant is None:
        return 0
    # A hint marks a re-check and changes the view, yet nothing was said that a read could contradict.
    return (tenant.updated_at if is_told(tenant) else 0) if tenant.event_at is None else tenant.event_at


def _action(differing: tuple[EventType, ...]) -> Action:
    if EventType.UNINSTALLED in differing:
        return Action.REMOVE
    if EventType.INSTALLED in differing:
        return Action.INSTALL
    return Action.ALIGN if differing else Action.CONFIRM


def _kept_if_refused(line: PlanLine, refused: Mapping[Key, RefusedRemovals]) -> PlanLine:
    if line.action is not Action.REMOVE or line.key not in refused:
        return line
    refusal = refused[line.key]
    reason = f"{line.reason}: refused by {refusal.by} until {rfc3339(refusal.expires_us)}"
    return PlanLine(line.key, Action.KEEP, reason)


def is_braked(tenants: Tenants, memory: Memory, now_us: int, refused: Collection[Key]) -> bool:
    """True if more tenants wait as absent than one run may remove: the brake holds until an operator approves.

    Args:
        tenants: The view.
        memory: The memory of earlier runs.
        now_us: Our clock, microseconds UTC.
        refused: Keys whose removal an operator refused; the brake is silent about these alone.
    """
    absent = absent_tenants(tenants, memory, now_us)
    return len(absent) > removals_limit(tenants) and not absent <= set(refused)


def absent_tenants(tenants: Tenants, memory: Memory, now_us: int) -> set[Key]:
    """Returns the tenants that wait as absent, seen once or twice, by any run of the last day."""
    return {
        key
        for key, sight in memory.items()
        if sight.doubt is not None
        and sight.doubt.claim == ABSENT
        and now_us - sight.doubt.since_us <= CLAIM_LIFE_US
        and key in tenants
        and tenants[key].installed
    }


def removals_limit(tenants: Tenants) -> int:
    """Returns the greatest number of absent tenants without a brake."""
    return max(REMOVE_LEAST, sum(1 for tenant in tenants.values() if tenant.installed) * REMOVE_PERCENT // 100)


def _brake(
    lines: Collection[PlanLine],
    absent: set[Key],
    limit: int,
    approval: str | None,
    refused: Collection[Key],
    left_out: int,
) -> Stop | None:
    """Returns the brake if a run meets an absence and more tenants are absent than one run may remove; else None.

    Absences count from the first sight on, over all runs. Otherwise one mass disappearance could leave in many small
    runs, each within the limit. A run without an absence goes on: the brake of one organisation must not hold up the
    re-checks of the rest. So does a run whose absences were all refused by an operator: its removals are left out.
    """
    if len(absent) <= limit or absent.isdisjoint(line.key for line in lines) or absent <= set(refused):
        return None
    return Stop(len(absent), limit, approval, left_out)
