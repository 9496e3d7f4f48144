"""A reading of Genesys against the view: observations, second looks, refusals."""

from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import UUID

import pytest

from schemas.event import Observed
from schemas.genesys import Organisation, Reading
from schemas.tenant import Tenant
from schemas.values import Json, Key
from services.core.ledger.merge import RETRY_SPAN_US
from services.core.reconcile.audit_gaps import unsettled
from services.core.reconcile.onboarding import OrganisationState, held_back
from services.core.reconcile.reconcile import (
    Action,
    AuditedRemoval,
    Doubt,
    Memory,
    PlanLine,
    ReconcilePlan,
    ReconcileRules,
    Removals,
    Sight,
    Tenants,
    compare,
    ids_to_read,
    remember,
)
from tests.support.genesys_worlds import (
    AMBIGUOUS,
    CLIENT,
    CONFIGURATION,
    HINTED,
    HOUR_US,
    LOOK_US,
    NOW_US,
    ORG,
    configuration_mac,
    integration_id,
    key_of,
    organisation,
    reading,
    rules,
    tenant,
    view,
)

SEEN: Memory = {key_of(number): Sight(seen_by=CLIENT) for number in range(100)}
LATER_US = NOW_US + LOOK_US


def planned(
    what: Reading,
    tenants: Tenants,
    memory: Memory = SEEN,
    given: ReconcileRules | None = None,
    by: Organisation | None = None,
    keys: frozenset[Key] | None = None,
) -> ReconcilePlan:
    return compare([(what, by or organisation())], tenants, memory, given or rules(), keys, named=keys or ())


def only(plan: ReconcilePlan) -> PlanLine:
    (line,) = plan.lines
    return line


def told(plan: ReconcilePlan) -> Observed:
    observed = only(plan).observed
    assert observed is not None, only(plan)
    return observed


def twice(first: Reading, second: Reading, tenants: Tenants, memory: Memory = SEEN) -> ReconcilePlan:
    """Two runs, one second look apart."""
    before = planned(first, tenants, memory)
    return planned(second, tenants, {**memory, **before.memory}, rules(LATER_US))


def test_a_tenant_that_agrees_has_no_plan_line() -> None:
    assert planned(reading({1: "ENABLED"}), view(tenant(1))).lines == ()


def test_a_disabled_integration_is_observed_with_its_difference_only() -> None:
    plan = planned(reading({1: "DISABLED"}), view(tenant(1)))
    assert only(plan).action is Action.ALIGN
    assert told(plan) == Observed(
        orgId=ORG,
        integrationId=integration_id(1),
        tenant_id="tenant-1",
        read_at=NOW_US,
        installed=True,
        enabled=False,
        configuration=None,
        cause="drift",
    )


def test_a_tenant_without_an_enabled_event_counts_as_enabled() -> None:
    assert planned(reading({1: "ENABLED"}), view(tenant(1, enabled=None))).lines == ()


def test_another_configuration_is_observed_whole() -> None:
    other: Json = {"crmEndpoint": "https://other.my.salesforce.com"}
    observed = told(planned(reading({1: "ENABLED"}, properties={1: other}), view(tenant(1))))
    assert (observed.configuration, observed.enabled) == (other, None)


def test_an_unread_configuration_changes_no_tenant_and_is_named() -> None:
    line = only(planned(reading({1: "ENABLED"}, properties={}), view(tenant(1))))
    assert line == PlanLine(key_of(1), Action.UNREAD, "its configuration: it was not read")


def test_an_unhashable_configuration_changes_no_tenant_and_is_named() -> None:
    deep: Json = {}
    for _ in range(40):
        deep = {"deep": deep}
    for odd, why in (({"n": 2**60}, "2^53"), (deep, "deeper than 32"), ({"text": "\ud800"}, "not Unicode")):
        line = only(planned(reading({1: "ENABLED"}, properties={1: odd}), view(tenant(1))))
        assert (line.action, line.observed) == (Action.UNREAD, None)
        assert why in line.reason


def test_the_other_fields_beside_an_unread_configuration_count() -> None:
    aligned, unread = planned(reading({1: "DISABLED"}, properties={}), view(tenant(1))).lines
    assert (aligned.action, unread.action) == (Action.ALIGN, Action.UNREAD)
    assert aligned.observed is not None
    assert (aligned.observed.enabled, aligned.observed.configuration) == (False, None)


def test_no_integration_is_installed_without_its_configuration() -> None:
    for tenants in ({}, view(tenant(1, installed=False))):
        line = only(planned(reading({1: "ENABLED"}, properties={}), tenants))
        assert (line.action, line.observed) == (Action.UNREAD, None)


def test_the_tenant_id_among_the_properties_is_no_difference() -> None:
    named = {**CONFIGURATION, "tenantId": "tenant-1"}
    assert planned(reading({1: "ENABLED"}, properties={1: named}), view(tenant(1))).lines == ()
    whole = tenant(1, configuration_mac=configuration_mac(named))
    assert planned(reading({1: "ENABLED"}, properties={1: named}), view(whole)).lines == ()


def test_an_unreported_integration_is_installed_with_every_known_field() -> None:
    named = {**CONFIGURATION, "tenantId": "acme"}
    plan = planned(reading({1: "DISABLED"}, properties={1: named}), {})
    observed = told(plan)
    assert only(plan).action is Action.INSTALL
    assert (observed.tenant_id, observed.enabled, observed.configuration) == ("acme", False, named)


@pytest.mark.parametrize("value", [None, 7, "", "-begins-wrong", "x" * 129])
def test_a_property_that_names_no_tenant_leaves_the_tenant_unknown(value: object) -> None:
    assert told(planned(reading({1: "ENABLED"}, properties={1: {"tenantId": value}}), {})).tenant_id is None


def test_an_integration_of_another_type_is_not_ours_to_install() -> None:
    plan = planned(reading({1: "ENABLED"}), {}, by=organisation(integration_type="another"))
    assert plan.lines == ()
    assert planned(reading({1: "ENABLED"}), {}, by=organisation(integration_type="ours")).lines != ()


def test_a_reinstalled_integration_takes_its_tenant_id_from_the_property() -> None:
    gone = tenant(1, installed=False)
    named = {"tenantId": "fresh"}
    observed = told(planned(reading({1: "ENABLED"}, properties={1: named}), view(gone)))
    assert (observed.installed, observed.tenant_id) == (True, "fresh")


def test_a_restored_integration_is_installed_without_an_enabled_field() -> None:
    observed = told(planned(reading({1: "RESTORED"}), view(tenant(1, installed=False))))
    assert (observed.installed, observed.enabled) == (True, None)


def test_an_unknown_state_is_no_information() -> None:
    line = only(planned(reading({1: "HIBERNATED"}), view(tenant(1))))
    assert (line.action, line.observed) == (Action.UNREAD, None)


def test_absence_seen_once_waits() -> None:
    plan = planned(reading({}, absent=(1,)), view(tenant(1)))
    assert only(plan).action is Action.WAIT
    assert plan.memory[key_of(1)].doubt == Doubt("absent", NOW_US)


@pytest.mark.parametrize("gone", [reading({}, absent=(1,), at_us=LATER_US), reading({1: "DELETED"}, at_us=LATER_US)])
def test_absence_seen_twice_removes(gone: Reading) -> None:
    plan = twice(gone, gone, view(tenant(1)))
    assert only(plan).action is Action.REMOVE
    observed = told(plan)
    assert (observed.installed, observed.enabled, observed.configuration) == (False, None, None)
    assert observed.tenant_id == "tenant-1"


def test_absence_seen_twice_within_one_second_look_waits() -> None:
    first = planned(reading({}, absent=(1,)), view(tenant(1)))
    soon = rules(LATER_US - 1)
    second = planned(reading({}, absent=(1,)), view(tenant(1)), {**SEEN, **first.memory}, soon)
    assert only(second).action is Action.WAIT
    assert second.memory[key_of(1)].doubt == Doubt("absent", NOW_US)


def test_a_sighting_in_between_restarts_the_absence() -> None:
    tenants = view(tenant(1))
    first = planned(reading({}, absent=(1,)), tenants)
    back = planned(reading({1: "ENABLED"}), tenants, {**SEEN, **first.memory}, rules(NOW_US + LOOK_US // 2))
    again = planned(reading({}, absent=(1,)), tenants, {**SEEN, **back.memory}, rules(LATER_US))
    assert back.lines == ()
    assert only(again).action is Action.WAIT


def test_absence_of_a_key_that_these_credentials_never_saw_is_no_information() -> None:
    gone = reading({}, absent=(1,))
    assert only(twice(gone, gone, view(tenant(1)), memory={})).action is Action.REFUSE
    other = reading({}, absent=(1,), client_id="client-2")
    assert only(twice(other, other, view(tenant(1)))).action is Action.REFUSE


EVENT_US = NOW_US - HOUR_US
"""The newest event of a tenant, unless a test says otherwise."""


def evidence(at_us: int = EVENT_US + 1, client_id: str = CLIENT) -> Removals:
    """The newest audit of the first tenant says that it was removed."""
    return {key_of(1): AuditedRemoval(client_id, at_us)}


def judged_by_audits(first: Removals, second: Removals, *changes: Tenant) -> list[PlanLine]:
    """Looks at a tenant that nobody has seen and nobody finds: two runs, one second look apart."""
    gone, memory, lines = reading({}, absent=(1,)), dict[Key, Sight](), []
    before, after = changes or (tenant(1), tenant(1))
    for known, found, now_us in ((before, first, NOW_US), (after, second, LATER_US)):
        plan = compare([(gone, organisation())], view(known), memory, rules(now_us), removals=found)
        memory |= plan.memory
        lines.append(only(plan))
    assert memory[key_of(1)].seen_by is None, "an audit is no sight, and is not remembered"
    return lines


def test_an_audit_of_a_removal_stands_for_a_sight_in_both_looks() -> None:
    first, second = judged_by_audits(evidence(), evidence())
    assert (first.action, second.action) == (Action.WAIT, Action.REMOVE)


def test_a_webhook_that_came_after_the_audit_of_the_removal_may_be_of_before_it() -> None:
    late = evidence(EVENT_US - RETRY_SPAN_US + 1)
    assert judged_by_audits(late, late)[1].action is Action.REMOVE


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (evidence(), {}),
        ({}, evidence()),
        (evidence(client_id="client-2"), evidence(client_id="client-2")),
        (evidence(EVENT_US - RETRY_SPAN_US), evidence(EVENT_US - RETRY_SPAN_US)),
    ],
    ids=["settled after the first look", "in the second look alone", "of other credentials", "long before the event"],
)
def test_other_audits_of_a_removal_remove_nobody(first: Removals, second: Removals) -> None:
    assert judged_by_audits(first, second)[1].action is not Action.REMOVE


def test_a_reinstall_under_the_same_id_takes_the_evidence_of_an_audit_away() -> None:
    restored = tenant(1, event_at=EVENT_US + 1 + RETRY_SPAN_US, updated_at=NOW_US + 1)
    assert judged_by_audits(evidence(), evidence(), tenant(1), restored)[1].action is Action.REFUSE


def test_an_unlisted_integration_without_an_answer_by_id_is_no_information() -> None:
    silent = replace(reading({2: "ENABLED"}), unread={integration_id(1): "HTTP 503"})
    plan = twice(silent, silent, view(tenant(1), tenant(2)))
    assert only(plan).action is Action.UNREAD


def test_a_key_that_came_into_the_view_while_genesys_was_read_is_not_unread() -> None:
    before, after = view(tenant(2)), view(tenant(1), tenant(2), tenant(3))
    told = replace(reading({2: "ENABLED", 3: "ENABLED"}, properties={2: CONFIGURATION}), unread={})
    by = organisation(integration_types=("other",))
    assert ids_to_read(told, by, before, None) == ([], [integration_id(2)]), "the reader asked for the others never"
    plan = planned(told, after, by=by)
    assert [(line.key, line.action) for line in plan.lines] == [(key_of(1), Action.WAIT), (key_of(3), Action.WAIT)]
    assert all("came into the view while Genesys was read" in line.reason for line in plan.lines)
    assert unsettled(plan.lines) == {key_of(1), key_of(3)}, "its audits still ask for a read"


def test_an_absence_older_than_a_day_must_be_seen_twice_again() -> None:
    old = {key_of(1): Sight(CLIENT, Doubt("absent", NOW_US - 25 * HOUR_US))}
    assert only(planned(reading({}, absent=(1,)), view(tenant(1, updated_at=1)), old)).action is Action.WAIT


def test_an_event_after_the_first_sight_restarts_the_absence() -> None:
    memory = {key_of(1): Sight(CLIENT, Doubt("absent", NOW_US - 2 * LOOK_US))}
    newer = view(tenant(1, updated_at=NOW_US - LOOK_US))
    assert only(planned(reading({}, absent=(1,)), newer, memory)).action is Action.WAIT


def test_a_contradiction_of_a_recent_event_is_read_again_first() -> None:
    young = view(tenant(1, updated_at=NOW_US - 1_000_000))
    first = planned(reading({1: "DISABLED"}), young)
    assert only(first).action is Action.WAIT
    early = planned(reading({1: "DISABLED"}), young, first.memory, rules(LATER_US - 1))
    assert only(early).action is Action.WAIT
    second = planned(reading({1: "DISABLED"}, at_us=LATER_US), young, first.memory, rules(LATER_US))
    assert told(second).enabled is False


def test_a_different_contradiction_waits_anew() -> None:
    young = view(tenant(1, updated_at=NOW_US - 1_000_000))
    first = planned(reading({1: "DISABLED"}), young)
    other = planned(reading({}, absent=(1,)), young, first.memory, rules(LATER_US))
    assert only(other).action is Action.WAIT


def test_an_unreported_key_is_installed_without_a_second_look() -> None:
    assert only(planned(reading({1: "ENABLED"}), {}, {})).action is Action.INSTALL


@pytest.mark.parametrize("owed", [{"flags": AMBIGUOUS}, {"recheck_at": NOW_US - 5_000_000}], ids=["flag", "recheck_at"])
def test_a_recheck_is_published_whole_even_if_it_agrees(owed: dict[str, object]) -> None:
    plan = planned(reading({1: "ENABLED"}), view(tenant(1, **owed, updated_at=NOW_US - 1)))
    observed = told(plan)
    assert only(plan).action is Action.CONFIRM
    assert (observed.installed, observed.enabled, observed.configuration) == (True, True, CONFIGURATION)
    assert observed.cause == "recheck"


def test_a_recheck_that_finds_an_absence_needs_a_second_look() -> None:
    flagged = view(tenant(1, flags=AMBIGUOUS))
    gone = reading({}, absent=(1,), at_us=LATER_US)
    assert only(planned(gone, flagged)).action is Action.WAIT
    assert only(twice(gone, gone, flagged)).action is Action.REMOVE


def test_a_single_long_reading_does_not_count_as_a_second_look() -> None:
    gone = reading({}, absent=(1,))
    first = planned(gone, view(tenant(1)), given=rules(NOW_US + 1_000_000, began_us=NOW_US))
    known = {**SEEN, **first.memory}
    patient = rules(NOW_US + LOOK_US + 2_000_000, began_us=NOW_US + 3_000_000)
    assert only(
        planned(reading({}, absent=(1,), at_us=NOW_US + 3_000_000), view(tenant(1)), known, patient)
    ).action is (Action.WAIT)
    later = rules(NOW_US + LOOK_US + 3_000_000, began_us=NOW_US + LOOK_US + 1_000_000)
    assert only(planned(reading({}, absent=(1,), at_us=LATER_US), view(tenant(1)), known, later)).action is (
        Action.REMOVE
    )


def test_a_recheck_of_a_removed_tenant_confirms_it_after_two_looks() -> None:
    flagged = view(tenant(1, installed=False, flags=AMBIGUOUS))
    gone = reading({}, absent=(1,), at_us=LATER_US)
    assert only(twice(gone, gone, flagged)).action is Action.CONFIRM


def test_an_unfolded_observation_is_not_published_again() -> None:
    first = planned(reading({1: "DISABLED"}), view(tenant(1)))
    known = {key_of(1): remember(first.memory[key_of(1)], told(first))}
    again = planned(
        reading({1: "DISABLED"}, at_us=NOW_US + 5_000_000), view(tenant(1)), known, rules(NOW_US + 5_000_000)
    )
    assert only(again).action is Action.WAIT
    lost = planned(reading({1: "DISABLED"}, at_us=LATER_US), view(tenant(1)), known, rules(LATER_US))
    assert only(lost).action is Action.ALIGN


def test_two_observations_of_one_second_are_never_published() -> None:
    flagged = view(tenant(1, flags=AMBIGUOUS, updated_at=NOW_US + 100_000))
    known = {key_of(1): Sight(CLIENT, None, NOW_US)}
    plan = planned(reading({1: "ENABLED"}), flagged, known, rules(NOW_US + 900_000))
    assert only(plan).action is Action.WAIT


def test_a_run_over_named_keys_leaves_the_others_unchanged() -> None:
    plan = planned(reading({1: "DISABLED", 2: "DISABLED"}), view(tenant(1), tenant(2)), keys=frozenset({key_of(2)}))
    assert only(plan).key == key_of(2)
    assert set(plan.memory) == {key_of(2)}


def test_a_tenant_of_another_organisation_is_not_compared() -> None:
    elsewhere = "99999999-1111-4111-8111-111111111111"
    other = tenant(1, key=key_of(1, elsewhere))
    assert planned(reading({2: "ENABLED"}), view(other, tenant(2))).lines == ()


def test_unlisted_integrations_and_their_configurations_are_asked_by_id() -> None:
    missing, present = ids_to_read(reading({2: "ENABLED"}), organisation(), view(tenant(1), tenant(2)), None)
    assert (missing, present) == ([integration_id(1)], [integration_id(2)])


@pytest.mark.parametrize("claim", ["absent", "present:True:x"])
def test_a_doubt_about_a_removed_key_is_dropped(claim: str) -> None:
    memory = {key_of(1): Sight(CLIENT, Doubt(claim, NOW_US - LOOK_US))}
    plan = planned(reading({2: "ENABLED"}), view(tenant(1, installed=False), tenant(2)), memory)
    assert (plan.lines, plan.memory[key_of(1)].doubt) == ((), None)


def test_a_requested_key_neither_listed_nor_in_the_view_is_named() -> None:
    plan = planned(reading({1: "ENABLED"}), view(tenant(1)), keys=frozenset({key_of(1), key_of(2)}))
    assert plan.lines == (PlanLine(key_of(2), Action.UNREAD, "neither listed nor in the view"),)
    gone = planned(reading({}), view(tenant(1, installed=False)), keys=frozenset({key_of(1)}))
    assert gone.lines == (), "the view says what Genesys says"


def test_a_hinted_integration_of_ours_is_installed() -> None:
    plan = planned(reading({1: "ENABLED"}), view(tenant(1, **HINTED)), by=organisation(integration_type="ours"))
    assert only(plan).action is Action.INSTALL
    assert (told(plan).installed, told(plan).configuration) == (True, CONFIGURATION)


def test_a_mark_of_a_hint_is_no_event_that_a_read_could_contradict() -> None:
    just_us = NOW_US - 3_000_000
    hinted = tenant(1, **HINTED, updated_at=just_us)
    assert only(planned(reading({1: "ENABLED"}), view(hinted))).action is Action.INSTALL
    owed = tenant(1, recheck_at=just_us, event_at=NOW_US - HOUR_US, updated_at=just_us)
    assert only(planned(reading({1: "DISABLED"}), view(owed))).action is Action.ALIGN
    young = tenant(1, recheck_at=just_us, event_at=just_us, updated_at=just_us)
    assert only(planned(reading({1: "DISABLED"}), view(young))).action is Action.WAIT
    of_before = tenant(1, recheck_at=just_us, updated_at=just_us)
    assert only(planned(reading({1: "DISABLED"}), view(of_before))).action is Action.WAIT, "a record without the field"


def test_an_outcome_between_two_sights_of_an_absence_does_not_begin_the_wait_anew() -> None:
    gone, before = reading({}, absent=(1,)), tenant(1, event_at=NOW_US - HOUR_US)
    first = planned(gone, view(before))
    concluded = before.model_copy(update={"updated_at": NOW_US + LOOK_US // 2})
    second = planned(gone, view(concluded), {**SEEN, **first.memory}, rules(LATER_US))
    assert [only(first).action, only(second).action] == [Action.WAIT, Action.REMOVE]


@pytest.mark.parametrize("keys", [None, frozenset({key_of(1)})], ids=["hourly", "early"])
def test_a_hinted_integration_of_another_type_is_not_ours(keys: frozenset[Key] | None) -> None:
    tenants, other = view(tenant(1, **HINTED)), organisation(integration_type="theirs")
    found = planned(reading({1: "ENABLED", 2: "ENABLED"}), tenants, by=other, keys=keys)
    assert found.lines == ()
    assert ids_to_read(reading({1: "ENABLED"}), other, tenants, keys) == ([], [])


def test_an_integration_of_another_type_that_a_webhook_told_of_stays_ours() -> None:
    owed = tenant(1, recheck_at=NOW_US - 5_000_000)
    plan = planned(reading({1: "DISABLED"}), view(owed), by=organisation(integration_type="theirs"))
    assert told(plan).enabled is False


def test_a_hinted_key_that_is_not_listed_is_not_asked_for() -> None:
    keys = frozenset({key_of(1)})
    found = planned(reading({2: "ENABLED"}), view(tenant(1, **HINTED), tenant(2)), memory={}, keys=keys)
    assert (found.lines, found.memory) == ((), {})
    assert ids_to_read(reading({2: "ENABLED"}), organisation(), view(tenant(1, **HINTED)), keys) == ([], [])


class CountingView(UserDict[Key, Tenant]):
    """A view that counts how often all its tenants are gone through."""

    passes = 0

    def __iter__(self) -> Iterator[Key]:
        self.passes += 1
        return super().__iter__()


def passes(of: Callable[[Tenants, list[tuple[Reading, Organisation]]], object], organisations: int) -> int:
    orgs = [str(UUID(int=number)) for number in range(organisations)]
    readings = [(replace(reading({1: "ENABLED"}), org_id=org), organisation(org_id=org)) for org in orgs]
    tenants = CountingView(view(*(tenant(1, key=f"{org}:{integration_id(1)}") for org in orgs)))
    of(tenants, readings)
    return tenants.passes


def test_a_comparison_goes_through_all_tenants_equally_often_for_few_and_for_many_organisations() -> None:
    def judged(tenants: Tenants, readings: list[tuple[Reading, Organisation]]) -> None:
        assert compare(readings, tenants, {}, rules()).lines == ()

    assert passes(judged, 20) == passes(judged, 2) > 0


def test_held_organisations_go_through_all_tenants_equally_often_for_few_and_for_many() -> None:
    def judged(tenants: Tenants, readings: list[tuple[Reading, Organisation]]) -> None:
        assert held_back(readings, tenants, {one.org_id: OrganisationState.HELD for one, _ in readings}) == ()

    assert passes(judged, 20) == passes(judged, 2) > 0
