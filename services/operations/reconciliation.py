"""Reconciliation for operators: the three views of every key in one report.

Rule: a report reads and changes nothing. A source that was not read is named; nothing is concluded about its keys.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from schemas.saga import Phase
from schemas.saga_row import SagaRow
from schemas.values import Key
from services.adapters.registry.registry import Registry
from services.core.reconcile.difference_table import OutsideState
from services.core.reconcile.onboarding import HeldOrganisation
from services.core.reconcile.reconcile import PlanLine, ReconcilePlan, Tenants
from services.core.reconcile.three_views import (
    NOT_LOOKED,
    ComparedKey,
    OutsideSight,
    OutsideView,
    compared,
    desired_view,
    genesys_view,
    outside_view,
)
from services.core.saga.view import view_of
from services.core.unwell import GENESYS_SAYS_INSTALLED, GENESYS_UNREAD

LookOutside = Callable[[SagaRow], Awaitable[OutsideSight]]
"""Looks up the resources of a key by name, read-only."""


@dataclass(frozen=True, slots=True)
class ReportScope:
    """The keys of a report.

    Attributes:
        keys: These keys alone; None for all.
        orgs: These organisations alone; None for all.
    """

    keys: Collection[Key] | None = None
    orgs: Collection[str] | None = None

    def has(self, key: Key) -> bool:
        """True if the key is in the scope."""
        if self.keys is not None:
            return key in self.keys
        return self.orgs is None or key.partition(":")[0] in self.orgs


@dataclass(frozen=True, slots=True)
class GenesysReading:
    """A comparison of Genesys with the view, of which nothing was published.

    Attributes:
        plan: The plan, with every key as read.
        tenants: The view.
        held: Organisations whose first comparison waits for an approval.
        unread: Organisation to the reason of no information.
    """

    plan: ReconcilePlan
    tenants: Tenants
    held: tuple[HeldOrganisation, ...]
    unread: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ThreeViews:
    """The compared keys of a report.

    Attributes:
        differing: Keys with a difference, sorted; every key if all were wanted.
        agreeing: Number of the keys whose views agree.
    """

    differing: tuple[ComparedKey, ...]
    agreeing: int


async def outside_views(
    registry: Registry,
    scope: ReportScope,
    held: Collection[Key],
    look: LookOutside | None,
    on_progress: Callable[[int, int], None],
) -> dict[Key, OutsideView]:
    """Returns every key of the registry, with what a look at the outside systems shows.

    Args:
        registry: An open registry; rows that this release cannot read are left out.
        scope: The keys to read.
        held: Keys whose removal the brake of the provisioner holds.
        look: Looks up the resources of a key; None to take the journal's word.
        on_progress: Called with the number of finished keys, and of all keys.

    Raises:
        RegistryAway: the database does not answer or refuses.
    """
    found: dict[Key, OutsideView] = {}
    keys = None if scope.keys is None else list(scope.keys)
    orgs = None if scope.orgs is None else list(scope.orgs)
    count = await registry.count_sagas(keys, orgs)

    async def view(row: SagaRow) -> None:
        sight = NOT_LOOKED if look is None else await look(row)
        found[row.key] = outside_view(row.journal, sight, hold=hold_of(row, held), why=_wait_of(row))
        on_progress(len(found), max(count, len(found)))

    async for rows in registry.all_sagas(keys, orgs):
        await asyncio.gather(*map(view, rows))
    return found


def hold_of(row: SagaRow, held: Collection[Key]) -> OutsideState | None:
    """Returns what holds the removal of a saga before its first delete; None if nothing does.

    Args:
        row: The saga.
        held: Keys whose removal the brake of the provisioner holds.
    """
    if row.key in held:
        return OutsideState.HELD
    is_asked = row.journal.phase is Phase.REMOVING and row.why in {GENESYS_SAYS_INSTALLED, GENESYS_UNREAD}
    return OutsideState.UNCONFIRMED if is_asked else None


def three_views(
    reading: GenesysReading,
    scope: ReportScope,
    outside: Mapping[Key, OutsideView] | None,
    unreadable: Mapping[Key, str],
    *,
    every: bool,
) -> ThreeViews:
    """Compares the three views of every key.

    Args:
        reading: Genesys and the view.
        scope: The keys of the report.
        outside: The keys of the registry; None if the registry was not read, and nothing is said about the outside.
        unreadable: Keys of the registry that this release cannot read, with the reasons.
        every: True to return the agreeing keys as well.
    """
    plan, held = reading.plan, {one.org_id for one in reading.held}
    lines: dict[Key, list[PlanLine]] = {}
    for line in plan.lines:
        lines.setdefault(line.key, []).append(line)
    keys = {*reading.tenants, *plan.looks, *lines, *(outside or ()), *unreadable}
    differing: list[ComparedKey] = []
    agreeing = 0
    for key in sorted(key for key in keys if scope.has(key)):
        org_id, tenant = key.partition(":")[0], reading.tenants.get(key)
        genesys = genesys_view(
            plan.looks.get(key),
            tenant,
            lines.get(key, ()),
            stopped=plan.stopped,
            is_new=org_id in held,
            unread=reading.unread.get(org_id, ""),
        )
        one = compared(key, genesys, desired_view(tenant), _outside_of(key, outside, unreadable))
        agreeing += not one.findings
        if one.findings or every:
            differing.append(one)
    return ThreeViews(tuple(differing), agreeing)


def _outside_of(
    key: Key, outside: Mapping[Key, OutsideView] | None, unreadable: Mapping[Key, str]
) -> OutsideView | None:
    if outside is None:
        return None
    if key in unreadable:
        return OutsideView(OutsideState.UNKNOWN, why=unreadable[key])
    return outside.get(key, OutsideView(OutsideState.NOTHING))


def _wait_of(row: SagaRow) -> str:
    """Returns the step and the reason of a saga's wait; empty for a saga that does not wait."""
    view = view_of(row)
    return ": ".join(text for text in (view.step, view.reason) if text)
