"""Observations of the reconciler or an operator are folded as events of full authority."""

import pytest

from schemas.topics import EVENTS
from schemas.values import Source
from tests.support.deliveries import HOUR_S, KEY, at, delivery, observed
from tests.support.ledger_worker import MemoryLedger, desired_of, events, letters, values, verdicts, view


def test_an_observation_is_up_to_three_events_under_its_time() -> None:
    decision = MemoryLedger().hear(observed(60, enabled=False, configuration={"crmEndpoint": "x"}, tenant_id="t"))
    moment = at(60)
    assert events(decision) == [
        (f"r:{moment}:disabled", 1),
        (f"r:{moment}:installed", 2),
        (f"r:{moment}:configuration_updated", 3),
    ]
    assert {event["source"] for event in values(decision, EVENTS)} == {"reconciler"}
    assert (view(decision)["enabled"], view(decision)["configuration"]) == (False, {"crmEndpoint": "x"})
    assert verdicts(decision)[0] == ("observation", "new")


def test_an_observed_absence_has_no_other_aspect() -> None:
    decision = MemoryLedger().hear(observed(60, installed=False, enabled=False, configuration={"a": 1}))
    assert events(decision) == [(f"r:{at(60)}:uninstalled", 1)]
    assert view(decision)["installed"] is False


def test_an_observed_install_keeps_tenant_id_and_configuration() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0, {"crmEndpoint": "x"}))
    decision = worker.hear(observed(60))
    assert (desired_of(decision)["tenant_id"], desired_of(decision)["configuration"]) == (
        "tenant_acme_corp",
        {"crmEndpoint": "x"},
    )
    assert values(decision, EVENTS)[0]["tenant_id"] is None
    assert desired_of(worker.hear(observed(90, tenant_id="other")))["tenant_id"] == "other"


def test_an_operator_is_named_as_the_source() -> None:
    decision = MemoryLedger().hear(observed(0, source=Source.OPERATOR, cause="operator:resolve"))
    assert values(decision, EVENTS)[0]["source"] == "operator"


def test_an_observation_is_never_refused_for_age() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("enabled", 0, eventId="1"))
    worker.hear(delivery("disabled", 30 * HOUR_S, eventId="2"), 30 * HOUR_S)
    assert worker.tenant.folded_to == at(0)
    assert worker.hear(delivery("enabled", 0, eventId="3"), 30 * HOUR_S).verdict == "late"
    assert worker.hear(observed(-60, enabled=True), 30 * HOUR_S).verdict == "new"


def test_an_ambiguity_ends_with_an_observation_of_its_aspect_only() -> None:
    worker = MemoryLedger()
    for event, second in (("installed", -60), ("enabled", 0), ("disabled", 1)):
        worker.hear(delivery(event, second))
    worker.hear(delivery("enabled", 2, deliveryAttempt=2))
    assert worker.tenant.flags == ("ambiguous",)
    worker.hear(observed(60, configuration={}))
    assert worker.tenant.flags == ("ambiguous",)
    worker.hear(observed(1, enabled=True))
    assert worker.tenant.flags == ("ambiguous",)
    resolved = worker.hear(observed(61, enabled=True))
    assert (view(resolved)["flags"], view(resolved)["enabled"]) == ([], True)


def test_a_tie_of_install_and_uninstall_counts_as_installed_until_observed() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0))
    tied = worker.hear(delivery("uninstalled", 0))
    assert (view(tied)["installed"], view(tied)["flags"]) == (True, ["tie"])
    assert view(worker.hear(observed(60, installed=False)))["flags"] == []


def test_an_absence_ends_the_flags_of_every_aspect() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", -60))
    worker.hear(delivery("enabled", 0))
    worker.hear(delivery("disabled", 0))
    assert worker.tenant.flags == ("tie",)
    assert view(worker.hear(observed(60, installed=False)))["flags"] == []


def test_a_restamp_is_absorbed_despite_an_observation_between() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0))
    worker.hear(observed(60))
    assert worker.hear(delivery("installed", 120)).verdict == "absorbed"


def test_a_repeated_observation_is_a_duplicate() -> None:
    worker = MemoryLedger()
    worker.hear(observed(60, enabled=True))
    assert worker.hear(observed(60, enabled=True)).verdict == "duplicate"


def test_an_observation_from_a_clock_ahead_goes_to_dead_letters_and_changes_nothing() -> None:
    worker = MemoryLedger()
    assert worker.hear(observed(90), 0).verdict == "new"
    before = worker.tenant
    ahead = worker.hear(observed(91), 0)
    assert (ahead.verdict, ahead.row, verdicts(ahead)) == ("future", None, [("observation", "future")])
    assert [(letter["reason"], letter["key"]) for letter in letters(ahead)] == [("future", KEY)]
    worker.hear(observed(60, enabled=True), 60)
    again = worker.hear(observed(91), 0, offset=1)
    assert (letters(again), verdicts(again)[0]) == (letters(ahead), verdicts(ahead)[0])
    assert before.revision == 1


@pytest.mark.parametrize("later", [1, 9 * HOUR_S])
def test_two_differing_observations_of_one_instant_are_rechecked(later: int) -> None:
    worker = MemoryLedger()
    worker.hear(observed(0, configuration={"crmEndpoint": "x"}), 1)
    assert worker.tenant.recheck_at_us is None
    other = worker.hear(observed(0, configuration={"crmEndpoint": "y"}), later)
    assert other.verdict == "conflict"
    assert view(other)["recheck_at"] is not None
