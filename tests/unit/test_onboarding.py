"""An organisation's first comparison creates at most five tenants, unless an operator approved exactly that set."""

import pytest

from schemas.removal import removals_digest
from services.core.reconcile.onboarding import (
    CREATE_MOST,
    HeldOrganisation,
    OrganisationState,
    admissions_after,
    after_adoption,
    held_back,
    newcomers,
)
from services.core.reconcile.reconcile import Tenants, compare
from services.core.rulings import newcomers_digest
from tests.support.genesys_worlds import ORG, key_of, organisation, reading, rules, tenant, view

NOBODY: Tenants = {}


@pytest.mark.parametrize(("count", "held"), [(0, 0), (5, 0), (6, 1), (300, 1)])
def test_the_first_comparison_is_held_above_five_new_tenants(count: int, held: int) -> None:
    found = held_back([(reading(dict.fromkeys(range(count), "ENABLED")), organisation())], NOBODY, {})
    assert [(one.org_id, one.newcomers) for one in found] == [(ORG, count)] * held


def test_the_held_keys_are_those_that_the_plan_would_install() -> None:
    told = reading({1: "ENABLED", 2: "DISABLED", 3: "RESTORED", 4: "DELETED", 5: "HIBERNATED"})
    plan = compare([(told, organisation())], NOBODY, {}, rules())
    assert newcomers(told, organisation(), NOBODY) == [line.key for line in plan.lines if line.observed]


def test_an_integration_without_a_readable_configuration_counts_as_new() -> None:
    told = reading(dict.fromkeys(range(6), "ENABLED"), properties={})
    assert held_back([(told, organisation())], NOBODY, {})


def test_integrations_of_foreign_types_do_not_count() -> None:
    told = reading(dict.fromkeys(range(6), "ENABLED"))
    assert held_back([(told, organisation(integration_types=("another",)))], NOBODY, {}) == ()


def test_an_organisation_with_tenants_by_webhook_is_not_held() -> None:
    told = reading(dict.fromkeys(range(20), "ENABLED"))
    for installed in (True, False):
        assert held_back([(told, organisation())], view(tenant(0, installed=installed)), {}) == ()


def test_a_mere_change_of_an_integration_lets_no_organisation_in() -> None:
    told = reading(dict.fromkeys(range(20), "ENABLED"))
    assert held_back([(told, organisation())], view(tenant(0, installed=None)), {})


def test_a_tenant_that_arrives_later_does_not_release_a_held_organisation() -> None:
    told = reading(dict.fromkeys(range(20), "ENABLED"))
    (held,) = held_back([(told, organisation())], view(tenant(0)), {ORG: OrganisationState.HELD})
    assert held.newcomers == 19


def test_an_organisation_with_adopted_tenants_is_judged_as_a_new_one() -> None:
    """What a vendor's file has left out must not be made because of what it has."""
    told, adopted = reading(dict.fromkeys(range(20), "ENABLED")), view(*map(tenant, range(3)))
    (held,) = held_back([(told, organisation())], adopted, after_adoption({}, [ORG]))
    assert held.newcomers == 17
    few = view(*map(tenant, range(16)))
    assert held_back([(told, organisation())], few, after_adoption({}, [ORG])) == ()


@pytest.mark.parametrize("before", list(OrganisationState))
def test_an_adoption_changes_no_state_of_an_organisation_that_was_judged(before: OrganisationState) -> None:
    assert after_adoption({ORG: before}, [ORG]) == {ORG: before}


def test_a_held_organisation_is_released_when_few_newcomers_are_left() -> None:
    told = reading(dict.fromkeys(range(20), "ENABLED"))
    most = view(*map(tenant, range(20 - CREATE_MOST)))
    assert held_back([(told, organisation())], most, {ORG: OrganisationState.HELD}) == ()


def test_an_organisation_admitted_is_never_held_again() -> None:
    told = reading(dict.fromkeys(range(20), "ENABLED"))
    assert held_back([(told, organisation())], NOBODY, {ORG: OrganisationState.ADMITTED}) == ()


def test_an_approval_names_exactly_its_keys() -> None:
    keys = [key_of(number) for number in range(6)]
    assert newcomers_digest(keys) == newcomers_digest(reversed(keys))
    assert newcomers_digest(keys) != newcomers_digest(keys[:5])
    assert removals_digest(keys) != newcomers_digest(keys), "an approval to remove creates nobody"


def test_a_published_organisation_is_admitted_and_a_held_one_is_not() -> None:
    held = HeldOrganisation(ORG, tuple(key_of(number) for number in range(6)))
    assert admissions_after({}, [held], {ORG, "other"}) == {
        ORG: OrganisationState.HELD,
        "other": OrganisationState.ADMITTED,
    }
    assert admissions_after({ORG: OrganisationState.HELD}, [], {ORG}) == {ORG: OrganisationState.ADMITTED}


def test_an_organisation_that_was_not_published_keeps_its_state() -> None:
    assert admissions_after({}, [], set()) == {}
    assert admissions_after({ORG: OrganisationState.HELD}, [], set()) == {ORG: OrganisationState.HELD}
