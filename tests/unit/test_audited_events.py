"""Audits that count as events: the event of each audit, and the state of a key that nobody can be asked about."""

import json

import pytest

from schemas.rows import TenantRow, pack, unpack
from schemas.times import rfc3339
from schemas.topics import DESIRED, EVENTS
from schemas.values import EventType
from services.core.delivery.audited_events import BY_ACTION, BY_STATE, audited_event
from services.core.delivery.hint_rule import ACTIONS
from services.core.ledger.merge import is_removed_by_audits_alone
from services.core.ledger.replay import replay
from tests.support.deliveries import HOUR_S, KEY, RULES, at, audited, body, delivery, line, observed
from tests.support.hints import envelope
from tests.support.ledger_worker import MemoryLedger, desired_of, events, letters, values, verdicts, view


@pytest.mark.parametrize(
    ("action", "state", "event"),
    [
        ("Create", None, "installed"),
        ("Restore", None, "installed"),
        ("RestoreDeleted", None, "installed"),
        ("Delete", None, "uninstalled"),
        ("SoftDelete", None, "uninstalled"),
        ("HARDDELETE", None, "uninstalled"),
        ("Enable", None, "enabled"),
        ("Disable", None, "disabled"),
        ("Update", "ENABLED", "enabled"),
        ("Update", "Disabled", "disabled"),
        ("Update", "RESTORED", "installed"),
        ("Update", "DELETED", "uninstalled"),
        ("Create", "DISABLED", "installed"),
        ("Update", None, None),
        ("Update", "UNHEARD_OF", None),
        ("Activate", None, None),
        ("Deactivate", "DISABLED", None),
        ("View", None, None),
        ("Teleport", None, None),
    ],
)
def test_an_audit_states_one_event_or_none(action: str, state: str | None, event: str | None) -> None:
    assert audited_event(audited(action, state=state)) == event


def test_a_changed_property_but_the_state_gives_no_event() -> None:
    assert audited_event(audited("Update")._replace(changed={"properties": "disabled"})) is None


def test_the_actions_with_an_event_are_actions_that_the_ingress_knows() -> None:
    assert BY_ACTION.keys() < ACTIONS
    assert set(BY_STATE.values()) == set(BY_ACTION.values()) == set(EventType) - {EventType.CONFIGURATION_UPDATED}


def test_an_audit_is_one_event_under_its_own_id() -> None:
    worker = MemoryLedger()
    decision = worker.hear(audited("Create", 60, "1f2e"), 61)
    assert events(decision) == [("a:1f2e", 1)]
    (event,) = values(decision, EVENTS)
    assert (event["source"], event["tenant_id"], event["configuration"]) == ("audit", None, {})
    assert verdicts(decision)[0] == ("audited", "new")
    assert (view(decision)["installed"], view(decision)["stage"]) == (True, "pending_install")
    assert (desired_of(decision)["installed"], desired_of(decision)["remove_after_s"]) == (True, None)
    again = worker.hear(audited("Create", 60, "1f2e"), 62)
    assert (events(again), verdicts(again)[0]) == ([], ("audited", "duplicate"))


def test_one_id_with_two_contents_is_a_conflict_and_one_event() -> None:
    worker = MemoryLedger()
    worker.hear(audited("Create", 60, "1f2e"), 61)
    decision = worker.hear(audited("Delete", 60, "1f2e"), 62)
    assert decision.verdict == "conflict"
    assert letters(decision)[0]["reason"] == "conflict"
    assert worker.tenant.revision == 1


def test_an_audit_keeps_the_tenant_id_and_the_configuration_of_a_webhook() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0, {"crmEndpoint": "x"}), 1)
    decision = worker.hear(audited("Create", 0.3), 2)
    found = desired_of(decision)
    assert (found["tenant_id"], found["configuration"]) == ("tenant_acme_corp", {"crmEndpoint": "x"})


def test_webhook_and_audit_of_one_change_at_one_time_are_no_tie() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0, {"crmEndpoint": "x"}), 1)
    worker.hear(audited("Create", 0), 2)
    assert worker.tenant.flags == ()
    decision = worker.hear(audited("Delete", 0), 3)
    assert view(decision)["flags"] == ["tie"], "an install and an uninstall at one time are"
    assert view(decision)["installed"] is True, "and never tear down"


def test_an_audit_is_never_absorbed_and_absorbs_no_webhook() -> None:
    worker = MemoryLedger()
    for second in (0, 1, 2):
        assert worker.hear(audited("Enable", second), 10).verdict == "new"
    assert worker.hear(delivery("enabled", 3), 10).verdict == "new"
    assert worker.hear(audited("Enable", 4), 10).verdict == "new"
    assert worker.hear(delivery("enabled", 5), 10).verdict == "absorbed", "by the webhook, as ever"


def test_a_removal_by_audits_alone_waits_and_a_removal_of_another_source_does_not() -> None:
    worker = MemoryLedger()
    worker.hear(audited("Create", 0), 1)
    assert desired_of(worker.hear(audited("Delete", 100), 101))["remove_after_s"] == RULES.removal_grace_s
    assert desired_of(worker.hear(delivery("uninstalled", 99), 102))["remove_after_s"] is None
    later = worker.hear(audited("HardDelete", 200), 201)
    assert desired_of(later)["remove_after_s"] is None, "a further audit takes nothing back"
    worker.hear(audited("Create", 300), 301)
    assert desired_of(worker.hear(audited("Delete", 400), 401))["remove_after_s"] == RULES.removal_grace_s


def test_an_observation_after_an_audit_is_the_truth() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0), 1)
    worker.hear(audited("Delete", 100), 101)
    assert desired_of(worker.hear(observed(110), 111))["installed"] is True
    worker.hear(audited("Delete", 200), 201)
    decision = worker.hear(observed(210, installed=False), 211)
    assert desired_of(decision)["remove_after_s"] is None


def test_an_audit_of_the_future_is_refused() -> None:
    worker = MemoryLedger()
    worker.hear(audited("Create", 0), 1)
    decision = worker.hear(audited("Delete", 200), 100)
    assert (decision.verdict, letters(decision)[0]["reason"]) == ("future", "future")
    assert worker.tenant.revision == 1
    assert worker.hear(audited("Delete", 190), 100).verdict == "new", "90 s are the difference of two clocks"


def test_an_audit_from_below_the_memory_is_late_and_asks_a_recheck() -> None:
    worker = MemoryLedger()
    worker.hear(audited("Create", 0), 1)
    worker.hear(audited("Enable", 30 * HOUR_S), 30 * HOUR_S)
    decision = worker.hear(audited("Delete", 0, "other"), 30 * HOUR_S)
    assert decision.verdict == "late"
    assert view(decision)["recheck_at"] is not None


def test_what_audits_alone_assert_outlives_the_journal() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0), 1)
    worker.hear(audited("Delete", 100), 101)
    decision = worker.hear(audited("Enable", 60 * HOUR_S), 60 * HOUR_S)
    assert worker.tenant.base.uninstalled is not None, "the removal has left the journal"
    assert unpack(TenantRow, pack(worker.tenant)) == worker.tenant
    assert desired_of(decision)["remove_after_s"] == RULES.removal_grace_s
    assert is_removed_by_audits_alone(worker.tenant.now)


def test_a_row_of_an_earlier_release_asserts_no_removal_by_audits() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0), 1)
    decision = worker.hear(delivery("uninstalled", 10), 11)
    assert values(decision, DESIRED)[0]["remove_after_s"] is None
    assert not is_removed_by_audits_alone(worker.tenant.now)
    assert worker.tenant.key == KEY


def audit_line(action: str, second: float, audit_id: str, received_s: float | None = None) -> str:
    """One line of a history for `lifecycle replay`."""
    whole = envelope(KEY, action, at(second), id=audit_id, propertyChanges=[])
    return json.dumps({"received_at": rfc3339(at(second + 1 if received_s is None else received_s)), "audit": whole})


def test_a_replay_folds_audits_with_deliveries() -> None:
    lines = [
        line(body("installed", 0, {"crmEndpoint": "x"})),
        audit_line("Delete", 60, "gone"),
        audit_line("Delete", 60, "gone"),
        audit_line("Update", 70, "silent"),
        audit_line("Delete", 7200, "ahead", 90),
    ]
    report = replay(lines).as_json()
    assert [(one["uid"], one["verdict"], one["revision"]) for one in report["deliveries"][1:]] == [
        ("a:gone", "new", 2), ("a:gone", "duplicate", None), (None, "invalid", None), ("a:ahead", "future", None),
    ]  # fmt: skip
    assert report["tenants"][KEY]["installed"] is False
