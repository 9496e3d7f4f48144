"""The table of differences covers every pair of states, and a key in each row is told with its decision."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from schemas.saga import Journal, Life, Phase, StepLog, StepState
from schemas.saga_row import SagaRow
from schemas.tenant import Flag
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
from services.core.reconcile.onboarding import HeldOrganisation
from services.core.reconcile.reconcile import ReconcilePlan, Sight, compare
from services.core.reconcile.three_views import (
    ComparedKey,
    DesiredView,
    GenesysView,
    Orphan,
    OutsideSight,
    OutsideView,
    compared,
    outside_view,
)
from services.core.rulings import RefusedRemovals
from services.core.unwell import GENESYS_SAYS_INSTALLED, GENESYS_UNREAD
from services.operations.reconciliation import GenesysReading, ReportScope, hold_of, three_views
from tests.support.genesys_worlds import CLIENT, NOW_US, ORG, key_of, organisation, reading, rules, tenant, view
from tests.unit.test_reconcile_brake import doubted, vanished

KEY = key_of(1)
LOCKED = frozenset({
    Difference.INSTALL_LOST, Difference.GENESYS_LOST, Difference.SETTINGS_DIFFER, Difference.RECHECK_OWED,
})  # fmt: skip
"""Differences whose decision follows from what holds them back."""


def test_the_tables_name_a_difference_for_every_pair_of_states() -> None:
    assert set(BETWEEN_GENESYS) == set(product(GenesysState, DesiredState))
    assert set(BETWEEN_OUTSIDE) == set(product(DesiredState, OutsideState))
    assert set(BY_LOCK) == set(Lock)


def test_every_difference_is_of_some_row_and_has_one_decision() -> None:
    named = {*BETWEEN_GENESYS.values(), *BETWEEN_OUTSIDE.values(), Difference.RECHECK_OWED, Difference.ORPHAN}
    assert named == set(Difference)
    assert set(RULES) == set(Difference) - LOCKED - {Difference.AGREES}


@pytest.mark.parametrize("desired", DesiredState)
def test_without_information_nobody_does_anything(desired: DesiredState) -> None:
    nothing = OutsideView(OutsideState.UNKNOWN, why="no row")
    found = compared(KEY, GenesysView(GenesysState.UNKNOWN, why="HTTP 503"), DesiredView(desired), nothing)
    assert {one.by for one in found.findings} == {Actor.NOBODY}
    assert [one.why for one in found.findings] == ["HTTP 503", "no row"]


@pytest.mark.parametrize(("genesys", "desired"), tuple(product(GenesysState, DesiredState)))
def test_only_an_uninstall_that_genesys_tells_of_is_a_removal(genesys: GenesysState, desired: DesiredState) -> None:
    is_removal = BETWEEN_GENESYS[genesys, desired] is Difference.GENESYS_LOST
    assert is_removal == ((genesys, desired) == (GenesysState.GONE, DesiredState.INSTALLED))


@pytest.mark.parametrize(("desired", "outside"), tuple(product(DesiredState, OutsideState)))
def test_only_an_uninstalled_key_is_torn_down(desired: DesiredState, outside: OutsideState) -> None:
    if BETWEEN_OUTSIDE[desired, outside] is Difference.TEARDOWN_DUE:
        assert desired is DesiredState.GONE


@pytest.mark.parametrize("lock", Lock)
def test_a_lock_decides_about_a_difference_to_genesys(lock: Lock) -> None:
    found = compared(KEY, GenesysView(GenesysState.GONE, lock, why="w"), DesiredView(DesiredState.INSTALLED), None)
    (one,) = found.findings
    assert (one.difference, one.decision, one.by) == (Difference.GENESYS_LOST, BY_LOCK[lock].decision, BY_LOCK[lock].by)


def told(plan: ReconcilePlan, *tenants: Any, **more: Any) -> dict[str, ComparedKey]:
    """The compared keys of a plan, without a registry."""
    given = {"held": (), "unread": {}} | more
    found = three_views(GenesysReading(plan, view(*tenants), **given), ReportScope(), None, {}, every=True)
    return {one.key: one for one in found.differing}


def differences_of(one: ComparedKey) -> list[tuple[str, str]]:
    return [(found.difference.value, found.by.value) for found in one.findings]


def test_a_plan_is_told_in_the_words_of_the_table() -> None:
    tenants = [tenant(0), tenant(1), tenant(2), tenant(3, flags=(Flag.AMBIGUOUS,)), tenant(4, installed=False)]
    states = {0: "ENABLED", 1: "DISABLED", 3: "ENABLED", 5: "ENABLED", 6: "HIBERNATED"}
    memory = {key_of(2): Sight(CLIENT)}
    plan = compare([(reading(states, absent=(2,)), organisation())], view(*tenants), memory, rules())
    found = {key: differences_of(one) for key, one in told(plan, *tenants).items()}
    assert found == {
        key_of(0): [],
        key_of(1): [("settings differ", "reconciler")],
        key_of(2): [("Genesys lost it", "reconciler")],
        key_of(3): [("re-check owed", "reconciler")],
        key_of(4): [],
        key_of(5): [("install lost", "reconciler")],
        key_of(6): [("no information", "nobody")],
    }
    (waiting,) = told(plan, *tenants)[key_of(2)].findings
    assert waiting.decision == BY_LOCK[Lock.SECOND_LOOK].decision
    assert "counts when seen again after" in waiting.why


def test_a_braked_plan_waits_for_an_operator() -> None:
    found = told(vanished(20, 6), *map(tenant, range(20)))
    assert {tuple(differences_of(found[key_of(n)])) for n in range(6)} == {(("Genesys lost it", "operator"),)}
    assert differences_of(found[key_of(7)]) == []


def test_a_refused_removal_is_nobodys() -> None:
    refusal = RefusedRemovals("d", "Ada", "", frozenset(map(key_of, range(6))), NOW_US + 1)
    told_twice = reading(dict.fromkeys(range(6, 20), "ENABLED"), absent=tuple(range(6)))
    tenants = list(map(tenant, range(20)))
    given = rules(refused=dict.fromkeys(refusal.keys, refusal))
    plan = compare([(told_twice, organisation())], view(*tenants), doubted(*range(6)), given)
    (one,) = told(plan, *tenants)[key_of(0)].findings
    assert (one.by, one.decision) == (Actor.NOBODY, BY_LOCK[Lock.REFUSED].decision)
    assert "refused by Ada until" in one.why


def test_new_tenants_of_a_held_organisation_wait_for_an_operator() -> None:
    keys = tuple(map(key_of, range(6)))
    plan = compare([(reading(dict.fromkeys(range(6), "ENABLED")), organisation())], {}, {}, rules())
    found = told(plan, held=(HeldOrganisation(ORG, keys),))
    assert [differences_of(found[key]) for key in keys] == [[("install lost", "operator")]] * 6


def test_an_unread_organisation_gives_no_information_about_its_tenants() -> None:
    plan = compare([], view(tenant(0)), {}, rules())
    (one,) = told(plan, tenant(0), unread={ORG: "HTTP 401"})[key_of(0)].findings
    assert (one.difference, one.why) == (Difference.NO_INFORMATION, "HTTP 401")


def test_an_integration_read_without_its_configuration_is_no_information() -> None:
    plan = compare([(reading({0: "ENABLED"}, properties={}), organisation())], {}, {}, rules())
    (one,) = told(plan)[key_of(0)].findings
    assert one.difference is Difference.NO_INFORMATION
    assert one.why.startswith("its configuration: ")


def test_a_named_key_that_exists_nowhere_is_no_information() -> None:
    plan = compare([(reading({}), organisation())], {}, {}, rules(), [KEY], [KEY])
    (one,) = told(plan)[KEY].findings
    assert (one.difference, one.why) == (Difference.NO_INFORMATION, "neither listed nor in the view")


def test_a_difference_is_told_with_the_part_that_was_not_read() -> None:
    disabled = reading({0: "DISABLED"}, properties={})
    plan = compare([(disabled, organisation())], view(tenant(0)), {}, rules())
    (one,) = told(plan, tenant(0))[key_of(0)].findings
    assert one.difference is Difference.SETTINGS_DIFFER
    assert one.why.startswith("disabled; its configuration: ")


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_of_a_saga_is_a_state_outside(phase: Phase) -> None:
    life = Life(generation=2, plan="p", tenant_id="acme", steps={"crm": StepLog(n=1, state=StepState.PRESENT)})
    with_life = phase not in {Phase.EMPTY, Phase.ROLLED_BACK}
    journal = Journal(phase=phase, generation=2, life=life if with_life else None)
    assert outside_view(journal).shows in set(OutsideState) - {OutsideState.UNKNOWN, OutsideState.MISSING}
    for hold in (OutsideState.HELD, OutsideState.UNCONFIRMED):
        assert outside_view(journal, hold=hold).shows is hold
    missing = outside_view(journal, OutsideSight(missing=("crm",))).shows
    assert (missing is OutsideState.MISSING) == (phase is Phase.ACTIVE)


@pytest.mark.parametrize("why", [GENESYS_SAYS_INSTALLED, GENESYS_UNREAD])
def test_a_teardown_that_genesys_does_not_confirm_does_not_go_on_by_itself(why: str) -> None:
    life = Life(generation=2, plan="p", tenant_id="acme", steps={"crm": StepLog(n=1, state=StepState.PRESENT)})
    row = SagaRow(
        key=KEY, desired_version=2, phase=Phase.REMOVING, generation=2, tenant_id="acme", waits_for=None, why=why,
        due_s=1.0, changed_s=0.0, worker=None, journal=Journal(phase=Phase.REMOVING, generation=2, life=life),
    )  # fmt: skip
    hold = hold_of(row, held=())
    assert hold is OutsideState.UNCONFIRMED
    outside = outside_view(row.journal, hold=hold, why="held")
    (one,) = compared(KEY, GenesysView(GenesysState.GONE), DesiredView(DesiredState.GONE), outside).findings
    assert (one.difference, one.by) == (Difference.TEARDOWN_UNCONFIRMED, Actor.PROVISIONER)
    assert "until it confirms the removal" in one.decision
    assert hold_of(row, held=[KEY]) is OutsideState.HELD
    assert hold_of(replace(row, why=None), held=()) is None


def test_missing_resources_and_orphans_are_named() -> None:
    sight = OutsideSight(("crm", "schema"), {"tokens": "HTTP 503"}, (Orphan(KEY, 1, "schema"),))
    life = Life(generation=2, plan="p", tenant_id="acme")
    outside = outside_view(Journal(phase=Phase.ACTIVE, generation=2, life=life), sight)
    found = compared(KEY, GenesysView(GenesysState.INSTALLED), DesiredView(DesiredState.INSTALLED), outside)
    assert [(one.difference, one.why) for one in found.findings] == [
        (Difference.OUTSIDE_MISSING, "crm, schema"),
        (Difference.OUTSIDE_UNREAD, "tokens: HTTP 503"),
        (Difference.ORPHAN, "schema of generation 1"),
    ]


def test_agreeing_keys_are_only_counted() -> None:
    tenants = [tenant(n) for n in range(3)]
    plan = compare(
        [(reading({0: "ENABLED", 1: "ENABLED", 2: "DISABLED"}), organisation())], view(*tenants), {}, rules()
    )
    found = three_views(GenesysReading(plan, view(*tenants), (), {}), ReportScope(), None, {}, every=False)
    assert ([one.key for one in found.differing], found.agreeing) == ([key_of(2)], 2)
    scoped = three_views(GenesysReading(plan, view(*tenants), (), {}), ReportScope(keys=[KEY]), None, {}, every=True)
    assert ([one.key for one in scoped.differing], scoped.agreeing) == ([KEY], 1)


def test_the_page_for_operators_has_the_tables() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reconciliation.md").read_text()
    rows = {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in page.splitlines() if line[:1] == "|"}
    for (genesys, desired), difference in BETWEEN_GENESYS.items():
        assert (genesys.value, desired.value, difference.value) in rows
    for (desired, outside), difference in BETWEEN_OUTSIDE.items():
        assert (desired.value, outside.value, difference.value) in rows
    for named, rule in [*BY_LOCK.items(), *RULES.items()]:
        assert (named.value, rule.decision, rule.by.value) in rows
