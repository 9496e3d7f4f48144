"""An early run after an added or changed organisation file: once, after the edits, and not where tenants are."""

from services.adapters.genesys.organisations_watch import OrganisationChanges
from services.reconciler.fresh_files import FILE_SETTLE_S, FreshFiles
from tests.support.genesys_worlds import ORG, tenant, view

ADDED = OrganisationChanges(added=frozenset({ORG}))
CHANGED = OrganisationChanges(changed=frozenset({ORG}))
REMOVED = OrganisationChanges(removed=frozenset({ORG}))


def test_a_changed_file_is_due_once_its_edits_have_settled() -> None:
    fresh = FreshFiles()
    fresh.note(CHANGED, 100.0)
    fresh.note(CHANGED, 110.0)
    assert fresh.due(view(tenant(1)), 100.0 + FILE_SETTLE_S) == frozenset()
    assert fresh.due(view(tenant(1)), 110.0 + FILE_SETTLE_S) == {ORG}
    assert fresh.due(view(tenant(1)), 126.0) == frozenset(), "a failed run is not repeated at once"
    assert fresh.due(view(tenant(1)), 110.0 + 2 * FILE_SETTLE_S) == {ORG}, "and not forgotten"
    fresh.drop({ORG})
    assert fresh.due(view(tenant(1)), 200.0) == frozenset(), "an early run is not repeated"


def test_a_new_file_of_an_organisation_with_tenants_causes_no_early_run() -> None:
    fresh = FreshFiles()
    fresh.note(ADDED, 100.0)
    assert fresh.due(view(tenant(1)), 200.0) == frozenset()
    fresh.note(ADDED, 200.0)
    assert fresh.due(view(tenant(1, installed=False)), 300.0) == {ORG}


def test_a_removed_file_and_a_run_over_all_take_the_early_run_back() -> None:
    fresh = FreshFiles()
    fresh.note(ADDED, 100.0)
    fresh.note(REMOVED, 101.0)
    assert fresh.due({}, 200.0) == frozenset()
    fresh.note(ADDED, 200.0)
    fresh.clear()
    assert fresh.due({}, 300.0) == frozenset()
