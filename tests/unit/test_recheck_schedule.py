"""Keys that are due before the next hourly run."""

import pytest

from schemas.tenant import Stage
from services.core.reconcile.recheck_schedule import (
    ABSENT_LIFE_US,
    HINTED_EVERY_US,
    RECHECK_EVERY_US,
    SETTLE_MAX_US,
    SETTLE_US,
    due,
    unseen,
)
from services.core.reconcile.reconcile import Doubt, Sight
from tests.support.genesys_worlds import AMBIGUOUS, CLIENT, HINTED, LOOK_US, NOW_US, ORG, key_of, rules, tenant, view

SETTLED_US = NOW_US - SETTLE_US
OWED = [{"flags": AMBIGUOUS}, {"recheck_at": SETTLED_US}]


@pytest.mark.parametrize("owed", OWED, ids=["flag", "recheck_at"])
def test_a_recheck_is_due_at_once_and_then_every_five_minutes(owed: dict[str, object]) -> None:
    tenants = view(tenant(1, **owed, updated_at=SETTLED_US), tenant(2))
    assert due(tenants, {}, {}, {}, rules()) == {key_of(1)}
    assert due(tenants, {}, {key_of(1): NOW_US - RECHECK_EVERY_US + 1}, {}, rules()) == frozenset()
    assert due(tenants, {}, {key_of(1): NOW_US - RECHECK_EVERY_US}, {}, rules()) == {key_of(1)}


def test_a_recheck_waits_until_its_second_has_passed_on_genesys_clock() -> None:
    tenants = view(tenant(1, flags=AMBIGUOUS, updated_at=SETTLED_US + 1))
    assert due(tenants, {}, {}, {}, rules()) == frozenset()


def test_changes_in_a_row_put_a_recheck_off_for_ten_seconds_at_most() -> None:
    tenants = view(tenant(1, recheck_at=NOW_US - 1_000_000, updated_at=NOW_US - 1))
    assert due(tenants, {}, {}, {key_of(1): NOW_US - SETTLE_MAX_US + 1}, rules()) == frozenset()
    assert due(tenants, {}, {}, {key_of(1): NOW_US - SETTLE_MAX_US}, rules()) == {key_of(1)}
    looked = {key_of(1): NOW_US - RECHECK_EVERY_US + 1}
    assert due(tenants, {}, looked, {key_of(1): NOW_US - SETTLE_MAX_US}, rules()) == frozenset()


def test_a_second_look_is_due_one_second_look_after_the_first() -> None:
    memory = {key_of(1): Sight(CLIENT, Doubt("absent", NOW_US - LOOK_US))}
    assert due({}, memory, {}, {}, rules()) == {key_of(1)}
    assert due({}, memory, {}, {}, rules(NOW_US - 1)) == frozenset()


def test_a_second_look_without_information_is_not_repeated_at_once() -> None:
    memory = {key_of(1): Sight(CLIENT, Doubt("absent", NOW_US - LOOK_US))}
    assert due({}, memory, {key_of(1): NOW_US - RECHECK_EVERY_US + 1}, {}, rules()) == frozenset()


def test_an_active_tenant_is_due_for_one_first_sight() -> None:
    tenants = view(tenant(1), tenant(2), tenant(3, stage=Stage.PENDING_INSTALL), tenant(4, installed=False))
    memory = {key_of(1): Sight(seen_by=CLIENT), key_of(2): Sight()}
    assert unseen(tenants, memory, set()) == {key_of(2)}
    assert unseen(tenants, memory, {key_of(2)}) == frozenset()


def test_a_hinted_key_is_due_at_once_and_a_second_time_and_then_never_before_the_hourly_run() -> None:
    tenants = view(tenant(1, **HINTED, updated_at=SETTLED_US))
    assert due(tenants, {}, {}, {}, rules()) == {key_of(1)}
    second_us = NOW_US + RECHECK_EVERY_US
    assert due(tenants, {}, {key_of(1): NOW_US}, {}, rules(second_us)) == {key_of(1)}
    assert due(tenants, {}, {key_of(1): second_us}, {}, rules(SETTLED_US + ABSENT_LIFE_US)) == frozenset()
    assert due(tenants, {}, {}, {}, rules(SETTLED_US + ABSENT_LIFE_US)) == frozenset()


def test_a_recheck_of_a_removed_tenant_is_due_twice_and_a_flag_until_it_ends() -> None:
    gone = {"installed": False, "enabled": None, "stage": Stage.DEPROVISIONED, "recheck_at": SETTLED_US}
    tenants = view(tenant(1, **gone, updated_at=SETTLED_US))
    assert due(tenants, {}, {}, {}, rules()) == {key_of(1)}
    late_us = SETTLED_US + ABSENT_LIFE_US
    assert due(tenants, {}, {}, {}, rules(late_us)) == frozenset()
    flagged = view(tenant(1, **gone | {"flags": AMBIGUOUS}, updated_at=SETTLED_US))
    assert due(flagged, {}, {}, {}, rules(late_us)) == {key_of(1)}


def test_a_further_hint_makes_a_key_due_again() -> None:
    late_us = SETTLED_US + ABSENT_LIFE_US
    tenants = view(tenant(1, **HINTED, updated_at=late_us - SETTLE_US))
    assert due(tenants, {}, {key_of(1): late_us - RECHECK_EVERY_US}, {}, rules(late_us)) == {key_of(1)}


def test_hinted_keys_of_an_organisation_wait_for_each_other_and_hold_up_nobody_else() -> None:
    other = ORG.replace("1", "2")
    tenants = view(
        tenant(1, **HINTED, updated_at=SETTLED_US),
        tenant(2, recheck_at=SETTLED_US, updated_at=SETTLED_US),
        tenant(3, **HINTED, updated_at=SETTLED_US, key=key_of(3, other)),
    )
    looked = {key_of(9): NOW_US - HINTED_EVERY_US + 1}
    assert due(tenants, {}, looked, {}, rules()) == {key_of(2), key_of(3, other)}
    assert due(tenants, {}, looked, {}, rules(NOW_US + 1)) == {key_of(1), key_of(2), key_of(3, other)}
