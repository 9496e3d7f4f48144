"""The three views of a key: Genesys as read now, the desired state, and the outside systems; compared by the table.

Rule: a view that was not read gives no difference but "no information" (`difference_table`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from schemas.saga import Journal, Phase, Presence
from schemas.tenant import Tenant
from schemas.values import Key
from services.core.reconcile.difference_table import (
    BETWEEN_GENESYS,
    BETWEEN_OUTSIDE,
    BY_LOCK,
    RULES,
    Actor,
    DesiredState,
    Difference,
    GenesysState,
    Lock,
    OutsideState,
)
from services.core.reconcile.observed_state import ObservedKey, differences
from services.core.reconcile.reconcile import Action, PlanLine, Stop

_PHASES: Final[Mapping[Phase, OutsideState]] = {
    Phase.EMPTY: OutsideState.NOTHING,
    Phase.CREATING: OutsideState.BUILDING,
    Phase.ACTIVE: OutsideState.WHOLE,
    Phase.UPDATING: OutsideState.CHANGING,
    Phase.RESTORING: OutsideState.CHANGING,
    Phase.COMPENSATING: OutsideState.UNDOING,
    Phase.ROLLED_BACK: OutsideState.ROLLED_BACK,
    Phase.REMOVING: OutsideState.REMOVING,
}


@dataclass(frozen=True, slots=True)
class GenesysView:
    """A key in Genesys.

    Attributes:
        says: The state.
        lock: Why a difference is not published yet.
        is_owed: True if a re-check of the key is owed.
        why: Text for the operator: the aspects that differ, the end of a wait, or the reason of no information.
    """

    says: GenesysState
    lock: Lock = Lock.FREE
    is_owed: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class DesiredView:
    """A key in the view of the tenants.

    Attributes:
        says: The state.
        enabled: The integration's flag; None if not known.
        stage: Stage of the tenant; None without one.
        reason: Why the tenant is not further; None without a reason.
    """

    says: DesiredState
    enabled: bool | None = None
    stage: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class OutsideView:
    """A key's newest life in the outside systems.

    Attributes:
        shows: The state.
        generation: Generation of the newest life; 0 before the first.
        steps: Step to the journal's knowledge about its resource.
        missing: Steps whose resource a look outside did not find.
        unread: Step to the reason why a look outside gave no answer.
        orphans: Resources of ended lives that a look outside found.
        why: Text for the operator: the step and the reason of a wait, or why the registry was not read.
    """

    shows: OutsideState
    generation: int = 0
    steps: Mapping[str, Presence] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    orphans: tuple["Orphan", ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A resource outside that belongs to an ended life.

    Attributes:
        key: `orgId:integrationId`.
        generation: Generation of the ended life.
        step: Step of the plan that made the resource.
        first_seen_us: Time of the first sight, microseconds UTC.
        removable: True if the registry knows the life, so that the saga of the key can remove the resource.
    """

    key: Key
    generation: int
    step: str
    first_seen_us: int = 0
    removable: bool = True

    @property
    def name(self) -> str:
        """Returns key, generation and step in one text."""
        return f"{self.key} g{self.generation} {self.step}"


@dataclass(frozen=True, slots=True)
class OutsideSight:
    """What a look at the outside systems showed of a key.

    Attributes:
        missing: Steps of the present life whose resource was not found.
        unread: Step to the reason why the look gave no answer.
        orphans: Resources of ended lives that were found.
    """

    missing: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    orphans: tuple[Orphan, ...] = ()


NOT_LOOKED: Final = OutsideSight()
"""Without a look the journal alone tells."""


@dataclass(frozen=True, slots=True)
class KeyFinding:
    """A difference of a key, and the decision about it.

    Attributes:
        difference: The difference.
        decision: What is done.
        by: Who acts.
        why: Details for the operator; empty without any.
    """

    difference: Difference
    decision: str
    by: Actor
    why: str = ""


@dataclass(frozen=True, slots=True)
class ComparedKey:
    """A key in its three views, with its differences.

    Attributes:
        key: `orgId:integrationId`.
        genesys: The key in Genesys.
        desired: The key in the view.
        outside: The key outside; None if the registry was not read.
        findings: The differences; empty if the three views agree.
    """

    key: Key
    genesys: GenesysView
    desired: DesiredView
    outside: OutsideView | None
    findings: tuple[KeyFinding, ...]


def compared(key: Key, genesys: GenesysView, desired: DesiredView, outside: OutsideView | None) -> ComparedKey:
    """Returns a key with the differences of its views, in the order of the journey."""
    found: list[KeyFinding] = []
    drift = BETWEEN_GENESYS[genesys.says, desired.says]
    if drift is Difference.AGREES and genesys.is_owed:
        drift = Difference.RECHECK_OWED
    if drift is Difference.NO_INFORMATION:
        found.append(_ruled(drift, genesys.why))
    elif drift is not Difference.AGREES:
        rule = BY_LOCK[genesys.lock]
        found.append(KeyFinding(drift, rule.decision, rule.by, genesys.why))
    if outside is not None:
        found += _behind(desired, outside)
    return ComparedKey(key, genesys, desired, outside, tuple(found))


def _behind(desired: DesiredView, outside: OutsideView) -> list[KeyFinding]:
    """Returns the differences between the view and the outside systems."""
    found: list[KeyFinding] = []
    behind = BETWEEN_OUTSIDE[desired.says, outside.shows]
    if behind is not Difference.AGREES:
        missing = ", ".join(outside.missing)
        found.append(_ruled(behind, missing if behind is Difference.OUTSIDE_MISSING else outside.why))
    # A life that is whole by the journal may have parts that no look outside could confirm.
    if outside.unread and behind is not Difference.OUTSIDE_UNREAD:
        told = ", ".join(f"{step}: {reason}" for step, reason in outside.unread.items())
        found.append(_ruled(Difference.OUTSIDE_UNREAD, told))
    found += [_ruled(Difference.ORPHAN, f"{one.step} of generation {one.generation}") for one in outside.orphans]
    return found


def _ruled(difference: Difference, why: str) -> KeyFinding:
    rule = RULES[difference]
    return KeyFinding(difference, rule.decision, rule.by, why)


def desired_view(tenant: Tenant | None) -> DesiredView:
    """Returns a key as the view has it; None for a key without a record."""
    if tenant is None:
        return DesiredView(DesiredState.NEVER)
    says = {True: DesiredState.INSTALLED, False: DesiredState.GONE, None: DesiredState.NEVER}[tenant.installed]
    return DesiredView(says, tenant.enabled, tenant.stage, tenant.reason)


def genesys_view(
    look: ObservedKey | None,
    tenant: Tenant | None,
    lines: Iterable[PlanLine],
    *,
    stopped: Stop | None,
    is_new: bool,
    unread: str,
) -> GenesysView:
    """Returns a key as Genesys was read.

    Args:
        look: The key as read; None if the run did not compare the key.
        tenant: The view of the key; None if the view has none.
        lines: The lines of the plan about the key.
        stopped: The brake of the run, or None.
        is_new: True if the first comparison of the organisation is held.
        unread: Why the organisation gave no information; empty if it was read.
    """
    told = list(lines)
    line = next((line for line in told if line.action not in {Action.UNREAD, Action.REFUSE}), None)
    not_read = next((line.reason for line in told if line.action in {Action.UNREAD, Action.REFUSE}), unread)
    if look is None:
        # A key outside the comparison is neither listed nor installed in the view, so both agree.
        return GenesysView(GenesysState.UNKNOWN if not_read else GenesysState.GONE, why=not_read)
    if look.installed is None or (not_read and line is None):
        return GenesysView(GenesysState.UNKNOWN, why=not_read or look.reason or look.unread)
    says = GenesysState.GONE
    if look.installed:
        here = tenant is not None and tenant.installed is True
        says = GenesysState.CHANGED if here and differences(look, tenant) else GenesysState.INSTALLED
    if line is None:
        return GenesysView(says)
    why = "; ".join(text for text in (line.reason, not_read) if text)
    return GenesysView(says, _lock(line, stopped, is_new=is_new), line.action is Action.CONFIRM, why)


def _lock(line: PlanLine, stopped: Stop | None, *, is_new: bool) -> Lock:
    if line.action is Action.KEEP:
        return Lock.REFUSED
    if line.action is Action.WAIT:
        return Lock.SECOND_LOOK
    if is_new:
        return Lock.NEW_ORGANISATION
    return Lock.FREE if stopped is None else Lock.BRAKE


def outside_view(
    journal: Journal, sight: OutsideSight = NOT_LOOKED, *, hold: OutsideState | None = None, why: str = ""
) -> OutsideView:
    """Returns a key as the registry has it, with what a look outside showed.

    Args:
        journal: The journal of the key's saga.
        sight: What a look at the outside systems showed.
        hold: `HELD` or `UNCONFIRMED` if the removal is held before its first delete; else None.
        why: The step and the reason of a wait.
    """
    shows = hold or _PHASES[journal.phase]
    if shows is OutsideState.WHOLE and sight.missing:
        shows = OutsideState.MISSING
    steps = {name: log.presence for name, log in journal.life.steps.items()} if journal.life else {}
    return OutsideView(shows, journal.generation, steps, sight.missing, sight.unread, sight.orphans, why)
