"""A reading gives up the configurations that agree with the view, and the plan is the same as with them."""

from dataclasses import replace
from typing import Any

import pytest

from schemas.genesys import Reading
from schemas.tenant import Tenant
from services.core.reconcile.observed_state import released
from services.core.reconcile.reconcile import Action, Doubt, ReconcilePlan, Sight, Tenants, compare
from tests.support.genesys_worlds import (
    AMBIGUOUS,
    CLIENT,
    CONFIGURATION,
    LOOK_US,
    MAC_KEY,
    NOW_US,
    configuration_mac,
    integration_id,
    key_of,
    organisation,
    reading,
    rules,
    tenant,
    view,
)

OTHER_MAC = configuration_mac({"crmEndpoint": "https://other.my.salesforce.com"})


def held(told: Reading, tenants: Tenants, **changes: Any) -> set[str]:
    """The ids whose configuration is still held after the release."""
    return set(released(told, organisation(**changes), tenants, MAC_KEY).configurations)


def test_a_configuration_that_agrees_is_given_up() -> None:
    told = reading({1: "ENABLED", 2: "ENABLED"})
    tenants = view(tenant(1), tenant(2, configuration_mac=OTHER_MAC))
    left = released(told, organisation(), tenants, MAC_KEY)
    assert set(left.configurations) == {integration_id(2)}
    assert left.released == {integration_id(1): configuration_mac(CONFIGURATION)}


def test_a_configuration_that_agrees_without_the_property_of_the_tenant_id_is_given_up() -> None:
    told = reading({1: "ENABLED"}, properties={1: {**CONFIGURATION, "tenantId": "tenant-1"}})
    assert held(told, view(tenant(1))) == set()
    assert held(told, view(tenant(1)), tenant_id_from="another") == {integration_id(1)}


@pytest.mark.parametrize(
    "changes",
    [
        {"installed": False},
        {"installed": None},
        {"enabled": False},
        {"configuration_mac": None},
        {"flags": AMBIGUOUS},
        {"recheck_at": NOW_US - 5_000_000},
        {"tenant_id": None},
    ],
)
def test_a_configuration_that_the_plan_may_need_is_kept(changes: dict[str, Any]) -> None:
    assert held(reading({1: "ENABLED"}), view(tenant(1, **changes))) == {integration_id(1)}


def test_a_configuration_of_nobody_and_one_in_an_unreadable_state_are_kept() -> None:
    assert held(reading({1: "ENABLED"}), {}) == {integration_id(1)}
    assert held(reading({1: "HIBERNATED"}), view(tenant(1))) == {integration_id(1)}


def ran(before: Tenant, after: Tenant, memory: dict[str, Sight] | None = None) -> ReconcilePlan:
    """A run whose view shows one tenant before Genesys is read, and the other afterwards."""
    left = released(reading({1: "ENABLED"}), organisation(), view(before), MAC_KEY)
    assert not left.configurations
    return compare([(left, organisation())], view(after), memory or {}, rules())


def test_a_configuration_that_was_given_up_and_still_agrees_gives_no_line() -> None:
    plan = ran(tenant(1), tenant(1, version=2, updated_at=NOW_US))
    assert (plan.lines, plan.looks[key_of(1)].unread) == ((), "")
    assert plan.memory == {key_of(1): Sight(CLIENT)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"configuration_mac": OTHER_MAC}, "configuration_updated"),
        ({"installed": False}, "installed"),
        ({"enabled": False}, "enabled"),
    ],
)
@pytest.mark.parametrize("age_us", [0, 2 * LOOK_US])
def test_a_view_that_changes_while_genesys_is_read_is_seen_again(
    changes: dict[str, Any], reason: str, age_us: int
) -> None:
    plan = ran(tenant(1), tenant(1, version=2, updated_at=NOW_US - age_us, **changes))
    (line,) = plan.lines
    assert (line.action, line.observed) == (Action.WAIT, None)
    assert line.reason.startswith(f"{reason}: counts when seen again after")
    doubt = plan.memory[key_of(1)].doubt
    assert doubt == Doubt(f"present:True:{configuration_mac(CONFIGURATION)}", NOW_US)


@pytest.mark.parametrize("changes", [{"flags": AMBIGUOUS}, {"recheck_at": NOW_US}])
def test_a_recheck_that_is_asked_for_while_genesys_is_read_stays_owed(changes: dict[str, Any]) -> None:
    plan = ran(tenant(1), tenant(1, version=2, **changes))
    assert [(line.action, line.reason) for line in plan.lines] == [
        (Action.WAIT, "a re-check was asked for while Genesys was read")
    ]
    assert plan.memory == {key_of(1): Sight(CLIENT)}


def test_a_second_release_gives_up_no_more_and_forgets_nothing() -> None:
    told = reading({1: "ENABLED", 2: "DISABLED"})
    tenants = view(tenant(1), tenant(2))
    once = released(told, organisation(), tenants, MAC_KEY)
    assert released(once, organisation(), tenants, MAC_KEY) == once
    assert replace(once, configurations=told.configurations, released={}) == told
