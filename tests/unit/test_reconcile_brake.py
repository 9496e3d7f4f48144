"""One run removes at most max(5, 2 %) of tenants, unless an operator approved exactly that set."""

import pytest

from services.core.reconcile.reconcile import Action, Doubt, Memory, ReconcilePlan, Sight, compare
from tests.support.genesys_worlds import CLIENT, LOOK_US, NOW_US, key_of, organisation, reading, rules, tenant, view


def doubted(*numbers: int, since_us: int = NOW_US - LOOK_US) -> Memory:
    return {key_of(number): Sight(CLIENT, Doubt("absent", since_us)) for number in numbers}


def vanished(tenants: int, gone: int, approval: str | None = None, memory: Memory | None = None) -> ReconcilePlan:
    """`gone` of `tenants` are absent for the second time."""
    told = reading(dict.fromkeys(range(gone, tenants), "ENABLED"), absent=tuple(range(gone)))
    before = doubted(*range(gone)) if memory is None else memory
    return compare([(told, organisation())], view(*map(tenant, range(tenants))), before, rules(approval=approval))


def removals(plan: ReconcilePlan) -> int:
    return sum(line.action is Action.REMOVE for line in plan.lines)


@pytest.mark.parametrize(
    ("tenants", "limit"), [(6, 5), (100, 5), (250, 5), (300, 6), (1000, 20)], ids=["6", "100", "250", "300", "1000"]
)
def test_the_limit_is_five_or_two_percent(tenants: int, limit: int) -> None:
    allowed = vanished(tenants, limit)
    assert (removals(allowed), allowed.stopped) == (limit, None)
    refused = vanished(tenants, limit + 1)
    assert refused.stopped is not None
    assert (refused.stopped.absent, refused.stopped.limit) == (limit + 1, limit)


def test_an_approval_removes_exactly_its_set() -> None:
    stopped = vanished(20, 6).stopped
    assert stopped is not None
    assert vanished(20, 6, stopped.approval).stopped is None
    assert vanished(20, 7, stopped.approval).stopped is not None
    assert vanished(20, 6, "another").stopped is not None


def test_too_many_absences_stop_the_run_at_their_first_sight() -> None:
    plan = vanished(20, 6, memory={key: Sight(CLIENT) for key in doubted(*range(6))})
    assert removals(plan) == 0
    assert plan.stopped is not None
    assert plan.stopped.approval is None


def test_absences_seen_by_other_runs_count() -> None:
    told = reading(dict.fromkeys(range(1, 20), "ENABLED"), absent=(0,))
    elsewhere = doubted(*range(20, 26))
    tenants = view(*map(tenant, range(26)))
    keys = [key_of(0)]
    plan = compare([(told, organisation())], tenants, {**doubted(0), **elsewhere}, rules(), keys)
    assert plan.stopped is not None
    old = doubted(*range(20, 26), since_us=NOW_US - 25 * 3_600_000_000)
    assert compare([(told, organisation())], tenants, {**doubted(0), **old}, rules(), keys).stopped is None


def test_a_run_without_an_absence_continues_under_the_brake() -> None:
    told = reading({0: "DISABLED"})
    tenants = view(*map(tenant, range(10)))
    plan = compare([(told, organisation())], tenants, doubted(*range(1, 10)), rules(), [key_of(0)])
    assert plan.stopped is None
    assert [line.action for line in plan.lines] == [Action.ALIGN]


def test_an_already_removed_tenant_is_no_removal() -> None:
    gone = view(*(tenant(n, installed=False) for n in range(10)), tenant(10))
    told = reading({}, absent=(10,))
    plan = compare([(told, organisation())], gone, doubted(*range(11)), rules())
    assert (removals(plan), plan.stopped) == (1, None)
