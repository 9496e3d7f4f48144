"""An operator's refusal keeps exactly its tenants, until it expires or an approval of exactly the present set."""

from collections.abc import Collection, Iterable

import pytest

from schemas.removal import removals_digest
from schemas.values import Key
from services.adapters.registry.types import HeldRemoval
from services.core.reconcile.reconcile import Action, ReconcilePlan, compare, is_braked
from services.core.rulings import RefusedRemovals, in_force, newcomers_digest, orphans_digest, without_keys
from services.operations.reconciliation import ReportScope
from services.operations.rulings import offered
from tests.support.genesys_worlds import NOW_US, ORG, key_of, organisation, reading, rules, tenant, view
from tests.unit.test_reconcile_brake import doubted, removals

SIX = frozenset(map(key_of, range(6)))
REFUSAL = RefusedRemovals(removals_digest(SIX), "Ada", "", SIX, NOW_US + 1)


def planned(
    gone: int, refused: Iterable[Key] = SIX, approval: str | None = None, named: Collection[Key] = ()
) -> ReconcilePlan:
    """The first of 20 tenants are absent for the second time; the last is disabled."""
    states = {**dict.fromkeys(range(gone, 19), "ENABLED"), 19: "DISABLED"}
    given = rules(refused=dict.fromkeys(refused, REFUSAL), approval=approval)
    told = reading(states, absent=tuple(range(gone)))
    return compare([(told, organisation())], view(*map(tenant, range(20))), doubted(*range(gone)), given, named=named)


def published(plan: ReconcilePlan) -> list[Key]:
    return [line.key for line in plan.lines if line.observed is not None and plan.stopped is None]


@pytest.mark.parametrize("gone", [1, 4, 6])
def test_refused_removals_stay_and_other_differences_go_out(gone: int) -> None:
    plan = planned(gone)
    assert (plan.stopped, removals(plan), published(plan)) == (None, 0, [key_of(19)])
    kept = [line for line in plan.lines if line.action is Action.KEEP]
    assert [line.key for line in kept] == [key_of(n) for n in range(gone)]
    assert all("refused by Ada until" in line.reason for line in kept)


def test_one_new_absence_brakes_again_and_its_digest_leaves_the_refused_ones_out() -> None:
    plan = planned(7)
    assert plan.stopped is not None
    assert (plan.stopped.absent, plan.stopped.refused) == (7, 6)
    assert (plan.stopped.approval, plan.offered) == (removals_digest([key_of(6)]), (key_of(6),))
    assert published(plan) == []
    approved = planned(7, approval=plan.stopped.approval)
    assert published(approved) == [key_of(6), key_of(19)]
    assert [line.key for line in approved.lines if line.action is Action.KEEP] == sorted(SIX)


def test_a_refusal_of_few_keeps_only_these() -> None:
    plan = planned(4, refused=[key_of(0)])
    assert published(plan) == [key_of(1), key_of(2), key_of(3), key_of(19)]


def test_a_refused_removal_goes_only_if_its_key_is_named() -> None:
    every, named = removals_digest(SIX), removals_digest([key_of(0)])
    assert removals(planned(6, approval=every)) == 0
    assert planned(6).approval is None
    asked = planned(6, named=[key_of(0)])
    assert (asked.approval, removals(asked)) == (named, 0), "a look at a key removes nobody"
    assert published(planned(6, named=[key_of(0)], approval=named)) == [key_of(0), key_of(19)]
    assert removals(planned(6, named=sorted(SIX), approval=every)) == 6


def test_the_digest_of_held_removals_leaves_the_refused_ones_out_unless_they_are_named() -> None:
    held = [HeldRemoval(key_of(n), 1, NOW_US, "Ada" if n else None, NOW_US if n else None) for n in range(7)]
    assert [one.key for one in offered(held, ReportScope())] == [key_of(0)]
    assert [one.key for one in offered(held, ReportScope(orgs=[ORG]))] == [key_of(0)]
    assert [one.key for one in offered(held, ReportScope(keys=[one.key for one in held]))] == [one.key for one in held]


def test_the_brake_is_silent_about_refused_absences_alone() -> None:
    tenants = view(*map(tenant, range(20)))
    assert is_braked(tenants, doubted(*range(6)), NOW_US, ())
    assert not is_braked(tenants, doubted(*range(6)), NOW_US, SIX)
    assert is_braked(tenants, doubted(*range(7)), NOW_US, SIX)


def test_an_expired_refusal_refuses_nothing() -> None:
    assert set(in_force([REFUSAL], NOW_US)) == SIX
    assert in_force([REFUSAL], NOW_US + 1) == {}


def test_the_longest_refusal_of_a_key_counts() -> None:
    longer = RefusedRemovals("d", "Bob", "", frozenset({key_of(1)}), NOW_US + 9)
    found = in_force([longer, REFUSAL], NOW_US)
    assert (found[key_of(1)].by, found[key_of(2)].by) == ("Bob", "Ada")


def test_an_approval_takes_its_keys_out_of_every_refusal() -> None:
    (left,) = without_keys([REFUSAL], frozenset({key_of(0)}), NOW_US)
    assert left.keys == SIX - {key_of(0)}
    assert without_keys([REFUSAL], SIX, NOW_US) == ()
    assert without_keys([REFUSAL], frozenset(), NOW_US + 1) == (), "an expired refusal is not kept"


def test_sets_of_different_sorts_never_share_a_digest() -> None:
    assert len({removals_digest(SIX), newcomers_digest(SIX), orphans_digest(SIX)}) == 3
    assert newcomers_digest(sorted(SIX)) == newcomers_digest(sorted(SIX, reverse=True))
