"""Genesys compared with the view: which observations to publish, what to look at again, what to refuse.

Rule: only what a complete reading says counts. Nothing that Genesys did not say, said once, or said of a key younger
than the second look may change a tenant; no run removes more than `REMOVE_LEAST` or `REMOVE_PERCENT` of them unasked.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Final

from schemas.event import Observed
from schemas.genesys import Organisation, Reading
from schemas.tenant import Tenant
from schemas.times import rfc3339
from schemas.values import EventType, Key
from services.core.reconcile.observed_state import ABSENT, ObservedKey, differences, look_at, observed

REMOVE_LEAST: Final = 5
REMOVE_PERCENT: Final = 2
"""At most the greater of the two in one run (docs/decisions/0002)."""
CLAIM_LIFE_US: Final = 24 * 3_600_000_000
"""A first sight that nobody confirmed within a day is no first sight any more."""

Tenants = Mapping[Key, Tenant]


class Action(StrEnum):
    """What a line of the plan does."""

    INSTALL = "install"
    REMOVE = "remove"
    ALIGN = "align"
    CONFIRM = "confirm"
    WAIT = "wait"
    REFUSE = "refuse"
    UNREAD = "unread"
    """Genesys did not tell, or told in a way that cannot be read; what it did tell of the key is another line."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A claim of Genesys' that counts when it is seen again, one second look after `since_us`."""

    claim: str
    since_us: int


@dataclass(frozen=True, slots=True)
class Sight:
    """What earlier runs remember of one key.

    Attributes:
        seen_by: Client id that last saw it listed: absence means nothing to a client that never did.
        doubt: A claim waiting for its second sight.
        observed_at_us: `read_at` of the last observation published; 0 before the first.
    """

    seen_by: str | None = None
    doubt: Doubt | None = None
    observed_at_us: int = 0


Memory = Mapping[Key, Sight]


@dataclass(frozen=True, slots=True)
class ReconcileRules:
    """What a run is given.

    Attributes:
        began_us: Our clock before anything was read: no answer of this run is older.
        now_us: Our clock after everything was read: no answer of this run is newer.
        second_look_us: How much later an absence or a contradiction must be seen again.
        configuration_key: Key of `configuration_mac`.
        approval: An operator's word for exactly one set of removals (`Stop.approval`), or None.
    """

    began_us: int
    now_us: int
    second_look_us: int
    configuration_key: bytes
    approval: str | None = None


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One line of the plan; `observed` is what will be published, None where nothing is."""

    key: Key
    action: Action
    reason: str
    observed: Observed | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The brake: nothing of this run is published.

    Attributes:
        absent: Tenants that are gone from Genesys, seen once or twice.
        limit: How many may go in one run.
        approval: What an operator may answer to remove exactly those seen twice; None while there is none.
    """

    absent: int
    limit: int
    approval: str | None


@dataclass(frozen=True, slots=True)
class ReconcilePlan:
    """What one run wants; `memory` holds the keys it looked at."""

    lines: tuple[PlanLine, ...]
    memory: Memory
    stopped: Stop | None


def is_asked(tenant: Tenant | None) -> bool:
    """Whether a re-check of this key is owed: its observation is published even when it agrees."""
    return tenant is not None and (bool(tenant.flags) or tenant.recheck_at is not None)


def scope(reading: Reading, organisation: Organisation, tenants: Tenants, keys: Collection[Key] | None) -> list[Key]:
    """The keys of one organisation that a run compares: what is listed and ours, and what the view has installed."""
    prefix = f"{reading.org_id}:"
    ours = organisation.integration_type
    listed = {
        f"{prefix}{entity.id}"
        for entity in reading.integrations.values()
        if ours in (None, entity.type_id) or entity.type_id is None or f"{prefix}{entity.id}" in tenants
    }
    held = {k for k, tenant in tenants.items() if k.startswith(prefix) and (tenant.installed or is_asked(tenant))}
    return sorted(key for key in listed | held if keys is None or key in keys)


def questions(
    listing: Reading, organisation: Organisation, tenants: Tenants, keys: Collection[Key] | None
) -> tuple[list[str], list[str]]:
    """What a listing alone does not say: ids to ask for by id (not listed), and ids whose configuration to read."""
    ids = [key.partition(":")[2] for key in scope(listing, organisation, tenants, keys)]
    return [i for i in ids if i not in listing.integrations], [i for i in ids if i in listing.integrations]


def compare(
    readings: Iterable[tuple[Reading, Organisation]],
    tenants: Tenants,
    memory: Memory,
    rules: ReconcileRules,
    keys: Collection[Key] | None = None,
) -> ReconcilePlan:
    """Compare complete readings with the view.

    Args:
        readings: Only organisations that were read whole; the others are no information and must not be here.
        tenants: The view, every organisation's.
        memory: What earlier runs remember, every key's.
        rules: Time and limits.
        keys: Look at these alone; None for all.

    Returns:
        Lines for what differs, waits or is refused, and for each of `keys` that is nobody's; nothing for a key that
        agrees.
    """
    lines: list[PlanLine] = []
    doubted = [key for key, sight in memory.items() if sight.doubt is not None and (keys is None or key in keys)]
    looked: dict[Key, Sight] = {}
    read: set[str] = set()
    for reading, organisation in readings:
        read.add(reading.org_id)
        # A doubt of a key that is nobody's any more, neither listed nor installed, would be due for ever.
        looked |= {k: replace(memory[k], doubt=None) for k in doubted if k.startswith(f"{reading.org_id}:")}
        for key in scope(reading, organisation, tenants, keys):
            sight = _sight(reading, key, memory.get(key, Sight()))
            look = look_at(key, reading, organisation, tenants.get(key), sight.seen_by, rules.configuration_key)
            line, looked[key] = _judge(look, tenants.get(key), sight, rules)
            lines.extend([line] if line else [])
            if look.unread:
                lines.append(PlanLine(key, Action.UNREAD, look.unread))
    # What was named and is nobody's is a slip of the pen, and no key that agrees.
    lines += [
        PlanLine(key, Action.UNREAD, "neither listed nor in the view")
        for key in sorted(set(keys or ()) - looked.keys() - tenants.keys())
        if key.partition(":")[0] in read
    ]
    return ReconcilePlan(tuple(lines), looked, _brake(lines, tenants, {**memory, **looked}, rules))


def approval_of(lines: Iterable[PlanLine]) -> str | None:
    """The word by which an operator approves exactly the removals of a plan; None where it removes nobody."""
    going = sorted(line.key for line in lines if line.action is Action.REMOVE)
    return sha256("\n".join(going).encode()).hexdigest()[:16] if going else None


def remember(sight: Sight, observation: Observed) -> Sight:
    """What to remember of a key once this observation was published."""
    return replace(sight, doubt=None, observed_at_us=observation.read_at)


def seen(readings: Iterable[Reading], keys: Iterable[Key], memory: Memory) -> dict[Key, Sight]:
    """The memory, with those of `keys` that a reading lists known as seen."""
    by_org = {reading.org_id: reading for reading in readings}
    found = {key: memory.get(key, Sight()) for key in keys if key.partition(":")[0] in by_org}
    return {**memory, **{key: _sight(by_org[key.partition(":")[0]], key, sight) for key, sight in found.items()}}


def _sight(reading: Reading, key: Key, sight: Sight) -> Sight:
    return replace(sight, seen_by=reading.client_id) if key.partition(":")[2] in reading.integrations else sight


def _judge(
    look: ObservedKey, tenant: Tenant | None, sight: Sight, rules: ReconcileRules
) -> tuple[PlanLine | None, Sight]:
    asked = is_asked(tenant)
    if look.claim is not None and sight.doubt is not None and sight.doubt.claim != look.claim:
        sight = replace(sight, doubt=None)
    if look.installed is None:
        return (PlanLine(look.key, Action.REFUSE, f"no information: {look.reason}") if look.reason else None), sight
    differing = differences(look, tenant)
    if EventType.INSTALLED in differing and look.configuration is None:
        # Made without a configuration it would be another tenant than the one asked for; the unread line says why.
        return None, replace(sight, doubt=None)
    certain = look.installed and not differing
    if certain:
        sight = replace(sight, doubt=None)
    if not differing and not asked:
        return None, replace(sight, doubt=None)
    if early := _too_early(look, tenant, sight, rules):
        return PlanLine(look.key, Action.WAIT, early), sight
    told = ", ".join(event.value for event in differing) or "agrees"
    told += " (re-check)" if asked else ""
    doubt = None if certain else _doubt(look, tenant, sight.doubt, rules)
    if doubt is not None:
        again = rfc3339(doubt.since_us + rules.second_look_us)
        return PlanLine(look.key, Action.WAIT, f"{told}: counts when seen again after {again}"), replace(
            sight, doubt=doubt
        )
    return PlanLine(look.key, _action(differing), told, observed(look, tenant, differing, asked=asked)), sight


def _too_early(look: ObservedKey, tenant: Tenant | None, sight: Sight, rules: ReconcileRules) -> str:
    """Why a difference may only be our own last observation, not yet folded; empty when it is not."""
    if not sight.observed_at_us:
        return ""
    if look.read_at_us <= sight.observed_at_us:
        # `Date` has whole seconds: two observations of one instant would be one uid with two contents.
        return "read within the second of the last observation"
    folded = tenant is not None and tenant.updated_at >= sight.observed_at_us
    if not folded and rules.now_us < sight.observed_at_us + rules.second_look_us:
        return "the last observation is on its way"
    return ""


def _doubt(look: ObservedKey, tenant: Tenant | None, held: Doubt | None, rules: ReconcileRules) -> Doubt | None:
    """The claim that must be seen again, with its first sight; None when this look may be published.

    A reading takes its time: the first sight counts from its end, the second from its beginning.
    """
    event_us = tenant.updated_at if tenant is not None else 0
    if held is None or held.since_us < event_us or rules.now_us - held.since_us > CLAIM_LIFE_US:
        young = rules.now_us - event_us < rules.second_look_us
        return Doubt(look.claim or "", rules.now_us) if young or not look.installed else None
    return None if rules.began_us >= held.since_us + rules.second_look_us else held


def _action(differing: tuple[EventType, ...]) -> Action:
    if EventType.UNINSTALLED in differing:
        return Action.REMOVE
    if EventType.INSTALLED in differing:
        return Action.INSTALL
    return Action.ALIGN if differing else Action.CONFIRM


def braked(tenants: Tenants, memory: Memory, now_us: int) -> bool:
    """True if more tenants wait as absent than one run may remove: the brake holds until an operator approves."""
    return len(_waiting(tenants, memory, now_us)) > _limit(tenants)


def _waiting(tenants: Tenants, memory: Memory, now_us: int) -> set[Key]:
    return {
        key
        for key, sight in memory.items()
        if sight.doubt is not None
        and sight.doubt.claim == ABSENT
        and now_us - sight.doubt.since_us <= CLAIM_LIFE_US
        and key in tenants
        and tenants[key].installed
    }


def _limit(tenants: Tenants) -> int:
    return max(REMOVE_LEAST, sum(1 for tenant in tenants.values() if tenant.installed) * REMOVE_PERCENT // 100)


def _brake(lines: Collection[PlanLine], tenants: Tenants, memory: Memory, rules: ReconcileRules) -> Stop | None:
    """Stop a run that meets more absences than it may remove, whether they were seen once or twice, by this run or not.

    A run that meets none goes on: a brake on one organisation holds nobody else's re-check.
    """
    absent, limit = _waiting(tenants, memory, rules.now_us), _limit(tenants)
    if len(absent) <= limit or absent.isdisjoint(line.key for line in lines):
        return None
    approval = approval_of(lines)
    if approval is not None and approval == rules.approval:
        return None
    return Stop(len(absent), limit, approval)
