"""The effect of one record on its key, and the records that follow."""

from base64 import b64decode
from typing import Any

import pytest

from schemas import codec
from schemas.event import Recheck
from schemas.outcome import Direction, State
from schemas.topics import AUDIT, DESIRED, EVENTS, TENANTS, Topic
from services.core.ledger.decisions import Decision, republish
from services.core.ledger.projections import published_configuration
from tests.support.deliveries import KEY, RULES, at, delivery, observed
from tests.support.ledger_worker import MemoryLedger, desired_of, events, letters, values, verdicts, view

CONFIGURATION = {"crmEndpoint": "https://acme.salesforce.com", "crmClientSecret": "canary", "syncInterval": "PT5M"}
PUBLISHED = {"crmEndpoint": "https://acme.salesforce.com", "syncInterval": "PT5M"}


def test_a_new_event_writes_event_desired_tenant_and_audit_in_that_order() -> None:
    decision = MemoryLedger().hear(delivery("installed", 0, CONFIGURATION, eventId="1"))
    assert [output.topic for output in decision.outputs] == [EVENTS, DESIRED, TENANTS, AUDIT, AUDIT]
    (event,) = values(decision, EVENTS)
    assert event == {
        "key": KEY,
        "uid": "e:1",
        "event": "installed",
        "occurred_at": "2024-01-15T12:00:00.000000Z",
        "revision": 1,
        "tenant_id": "tenant_acme_corp",
        "source": "webhook",
        "configuration": PUBLISHED,
    }
    asked = desired_of(decision)
    assert (asked["version"], asked["installed"], asked["enabled"]) == (1, True, True)
    assert asked["configuration"] == CONFIGURATION
    shown = view(decision)
    assert (shown["stage"], shown["revision"], shown["version"]) == ("pending_install", 1, 1)
    assert shown["configuration"] == PUBLISHED
    assert verdicts(decision) == [("delivery", "new"), ("stage", "none → pending_install")]
    ids = {name.decode() for o in decision.outputs for header, name in o.message.headers if header == "ce_id"}
    assert f"{KEY}/e:1" in ids
    assert {output.message.key for output in decision.outputs} == {KEY.encode()}


def test_every_record_that_a_delivery_causes_names_its_trace_also_when_it_is_replayed() -> None:
    first, second, third = (f"00-{digit * 32}-{digit * 16}-01" for digit in "123")
    worker = MemoryLedger()

    def traces(decision: Decision) -> list[tuple[Topic, str | None]]:
        return [(output.topic, codec.traceparent(output.message.headers)) for output in decision.outputs]

    told = worker.hear(delivery("installed", 0, CONFIGURATION, eventId="1"), trace=first)
    assert traces(told) == [(topic, first) for topic in (EVENTS, DESIRED, TENANTS, AUDIT, AUDIT)]
    duplicate = worker.hear(delivery("installed", 0, CONFIGURATION, eventId="1"), trace=second)
    assert traces(duplicate) == [(AUDIT, second)]
    # An outcome names the trace of the version that it answers; the view keeps that of the newest version.
    outcome = worker.told(1, Direction.UP, State.DONE, trace=first)
    assert traces(outcome) == [(TENANTS, first), (AUDIT, first)]
    untraced = worker.hear(delivery("disabled", 9, eventId="2"))
    assert {trace for _, trace in traces(untraced)} == {None}
    worker.hear(delivery("enabled", 20, eventId="3"), trace=third)
    again = worker.hear(delivery("installed", 0, CONFIGURATION, eventId="1"), offset=0, trace=first)
    replayed = [(topic, trace) for topic, trace in traces(again) if topic in (EVENTS, AUDIT)]
    assert replayed == [(EVENTS, first), (AUDIT, first), (AUDIT, first)]
    assert {trace for topic, trace in traces(again) if topic in (DESIRED, TENANTS)} == {third}


def test_secrets_are_published_in_desired_only() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0, CONFIGURATION, eventId="1"))
    worker.hear(delivery("configuration_updated", 5, CONFIGURATION | {"token": "canary"}, eventId="2"))
    worker.hear(observed(60, configuration=CONFIGURATION, cause="operator:Ann"))
    worker.told(1, Direction.UP, State.DONE)
    for decision in worker.decisions:
        for output in decision.outputs:
            if output.topic is not DESIRED:
                assert b"canary" not in output.message.value
                assert b"admin@acme.com" not in output.message.value
                assert b"Ann" not in output.message.value


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("https://acme.salesforce.com", "https://acme.salesforce.com"),
        ("https://acme.salesforce.com:8443/services/data", "https://acme.salesforce.com:8443/services/data"),
        ("https://ann:canary@acme.salesforce.com/x", "https://acme.salesforce.com/x"),
        ("https://ann:can@canary@acme.salesforce.com/x", "https://acme.salesforce.com/x"),
        ("https://acme.salesforce.com/x?token=canary#canary", "https://acme.salesforce.com/x"),
        ("//ann:canary@acme.salesforce.com", "//acme.salesforce.com"),
        ("https://ann:canary@[acme", None),
        ("PT5M", "PT5M"),
        ("acme.salesforce.com/?token=canary", "acme.salesforce.com/"),
        ("ann:canary@acme.salesforce.com", "acme.salesforce.com"),
        ("https:/\\ann:canary@acme/#canary", "acme/"),
        ("is it? yes", "is it? yes"),
        ("HTTPS://Acme.salesforce.com/@ann/x", "HTTPS://Acme.salesforce.com/@ann/x"),
        ("see https://ann:canary@acme/x?token=1", "see https://acme/x"),
        ("jdbc:postgresql://ann:canary@acme/db?password=canary", "jdbc:postgresql://acme/db"),
        ("jdbc:oracle:thin:ann/canary@//acme:1521/db", "//acme:1521/db"),
        ("a b ann:canary@acme?tok=1", "a b acme"),
        ("x:ann:canary@acme//y", "acme//y"),
        ("https:\\\\ann:canary@acme//x", "acme//x"),
        ("https://ann:can/ary@acme/x", None),
        ("https://ann:can?ary@acme/x", None),
        ("ann:can?ary@acme", None),
        ("mail ann@acme.com, is it? yes", "mail acme.com, is it? yes"),
        ("https://acme/x?mail=ann@acme.com", "https://acme/x"),
        ({"https://canary@acme/?canary": 1, "ann:can?ary@acme": 2}, {"https://acme/": 1}),
        (["https://canary@a.salesforce.com", 7], ["https://a.salesforce.com", 7]),
        ({"primary": "https://canary@a.salesforce.com"}, {"primary": "https://a.salesforce.com"}),
    ],
)
def test_a_published_url_has_no_user_query_or_fragment(told: Any, shown: Any) -> None:
    configuration = {"syncInterval": "PT5M", "featureFlags": [], "crmEndpoint": told}
    assert published_configuration(configuration, RULES) == {
        "syncInterval": "PT5M",
        "featureFlags": [],
        "crmEndpoint": shown,
    }


def test_an_uninstall_before_an_install_leaves_the_tenant_deprovisioned() -> None:
    worker = MemoryLedger()
    gone = worker.hear(delivery("uninstalled", 10))
    assert (desired_of(gone)["installed"], view(gone)["stage"]) == (False, "deprovisioned")
    late = worker.hear(delivery("installed", 0))
    assert (desired_of(late)["installed"], view(late)["stage"]) == (False, "deprovisioned")
    assert desired_of(late)["configuration"] == {}


def test_a_late_uninstall_between_two_installs_keeps_the_tenant_installed() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0, eventId="1"))
    worker.told(1, Direction.UP, State.DONE)
    worker.hear(delivery("installed", 1800, eventId="3"))
    late = worker.hear(delivery("uninstalled", 900, eventId="2"))
    assert events(late) == [("e:2", 3)]
    assert desired_of(late)["installed"] is True
    assert desired_of(late)["uninstalled_at"] == "2024-01-15T12:15:00.000000Z"
    assert view(late)["stage"] == "active"


def test_desired_is_published_for_every_new_event_even_if_equal() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("enabled", 0, eventId="1"))
    again = worker.hear(delivery("enabled", 3600, eventId="2"))
    assert desired_of(again)["version"] == again.row.version if again.row else False


def test_a_duplicate_is_only_audited() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0, eventId="1"))
    duplicate = worker.hear(delivery("installed", 7, eventId="1", retryCount=1))
    assert duplicate.row is None
    assert [output.topic for output in duplicate.outputs] == [AUDIT]
    assert verdicts(duplicate) == [("delivery", "duplicate")]


def test_a_duplicate_that_lowers_the_time_folds_again_and_publishes_no_event() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", -60, eventId="0"))
    worker.hear(delivery("enabled", 7, eventId="1"))
    worker.hear(delivery("disabled", 5, eventId="2"))
    assert view(worker.decisions[-1])["enabled"] is True
    earlier = worker.hear(delivery("enabled", 0, eventId="1"))
    assert (events(earlier), verdicts(earlier)) == ([], [("delivery", "duplicate")])
    assert (desired_of(earlier)["enabled"], desired_of(earlier)["version"]) == (False, 4)
    assert view(earlier)["revision"] == 3


def test_a_replay_writes_the_row_and_records_again_byte_for_byte() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0, eventId="1"))
    first = worker.hear(delivery("disabled", 5, eventId="2"))
    worker.hear(delivery("enabled", 9, eventId="3"))
    before = worker.tenant
    again = worker.hear(delivery("disabled", 5, eventId="2"), offset=1)
    assert again.row is before
    assert verdicts(again) == verdicts(first)
    assert [m for m in again.outputs if m.topic in (EVENTS, AUDIT)] == [
        m for m in first.outputs if m.topic in (EVENTS, AUDIT)
    ]
    assert (desired_of(again)["version"], view(again)["version"]) == (before.desired_version, before.version)


def test_a_published_event_is_unchanged_after_its_time_is_lowered_twice() -> None:
    worker = MemoryLedger()
    first = worker.hear(delivery("enabled", 9, eventId="1"))
    worker.hear(delivery("enabled", 7, eventId="1"))
    worker.hear(delivery("enabled", 5, eventId="1"))
    assert worker.entry("e:1").at_us == at(5)
    again = worker.hear(delivery("enabled", 9, eventId="1"), offset=0)
    assert values(again, EVENTS) == values(first, EVENTS)


def test_a_published_event_is_unchanged_after_a_conflicting_content_wins() -> None:
    worker = MemoryLedger()
    first = worker.hear(delivery("enabled", 9, eventId="1"))
    conflict = worker.hear(delivery("disabled", 5, eventId="1"))
    assert (verdicts(conflict), events(conflict)) == ([("delivery", "conflict")], [])
    assert worker.entry("e:1").event == "disabled"
    assert worker.tenant.flags == ("conflict",)
    (letter,) = letters(conflict)
    assert letter["id"] == "lifecycle.received/0/1"
    assert (letter["reason"], b64decode(letter["body_base64"])) == ("conflict", b"as it came")
    assert letter["headers"]["endpoint"] == "default"
    again = worker.hear(delivery("enabled", 9, eventId="1"), offset=0)
    assert values(again, EVENTS) == values(first, EVENTS)
    conflict_again = worker.hear(delivery("disabled", 5, eventId="1"), offset=1)
    assert letters(conflict_again) == [letter]
    retried = worker.hear(delivery("disabled", 5, eventId="1"))
    assert (verdicts(retried), letters(retried)) == ([("delivery", "duplicate")], [])


def test_a_record_of_a_recreated_topic_gets_the_next_version() -> None:
    worker = MemoryLedger()
    for second in range(5):
        worker.hear(delivery("enabled", second * 3600, eventId=str(second)), incarnation="first")
    decision = worker.hear(delivery("disabled", 9 * 3600, eventId="9"), offset=0, incarnation="second")
    assert decision.verdict == "new"
    assert worker.tenant.version == 6
    duplicate = worker.hear(delivery("disabled", 9 * 3600, eventId="9"), offset=1, incarnation="second")
    assert (duplicate.verdict, duplicate.row) == ("duplicate", None)
    replayed = worker.hear(delivery("disabled", 9 * 3600, eventId="9"), offset=0, incarnation="second")
    assert events(replayed) == [("e:9", 6)]


def test_an_outcome_changes_the_stage_and_raises_the_version() -> None:
    worker = MemoryLedger()
    shown = view(worker.hear(delivery("installed", 0)))
    done = worker.told(1, Direction.UP, State.DONE)
    assert (view(done)["stage"], view(done)["generation"]) == ("active", 1)
    assert view(done)["version"] == shown["version"] + 1
    assert verdicts(done) == [("stage", "pending_install → active")]
    assert worker.told(1, Direction.UP, State.DONE, offset=1).outputs == done.outputs
    above = worker.told(1, Direction.DOWN, State.DONE, offset=7)
    assert (above.row, above.outputs) == (None, ())


def test_an_event_for_a_deprovisioned_tenant_does_not_change_its_stage() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0))
    worker.told(1, Direction.UP, State.DONE)
    worker.hear(delivery("uninstalled", 60))
    assert view(worker.told(2, Direction.DOWN, State.DONE))["stage"] == "deprovisioned"
    assert view(worker.hear(delivery("disabled", 90)))["stage"] == "deprovisioned"
    assert view(worker.hear(delivery("installed", 120)))["stage"] == "pending_install"


def test_a_change_of_stage_is_audited_under_its_version() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0))
    worker.told(1, Direction.UP, State.DONE)
    gone = worker.hear(delivery("uninstalled", 60))
    (line,) = [line for line in values(gone, AUDIT) if line["what"] == "stage"]
    assert line["id"] == f"{KEY}/stage/{view(gone)['version']}/lifecycle.received/1"
    assert line["verdict"] == "active → deprovisioning"


def test_republishing_writes_the_current_desired_and_tenant() -> None:
    worker = MemoryLedger()
    last = worker.hear(delivery("installed", 0))
    assert republish(worker.row, None, RULES) == tuple(o for o in last.outputs if o.topic in (DESIRED, TENANTS))
    assert republish(None, None, RULES) == ()


def test_a_recheck_is_shown_until_an_observation_answers_it() -> None:
    worker = MemoryLedger()
    asked = worker.hear(Recheck(key=KEY, reason="stale", at=at(10.7)), 11)
    assert view(asked)["recheck_at"] == "2024-01-15T12:00:10.000000Z"
    assert (view(asked)["installed"], view(asked)["stage"]) == (None, None)
    assert verdicts(asked) == [("recheck", "asked")]
    early = worker.hear(observed(9), 12)
    assert view(early)["recheck_at"] is not None
    answered = worker.hear(observed(10), 13)
    assert view(answered)["recheck_at"] is None
    overtaken = worker.hear(Recheck(key=KEY, reason="stale", at=at(8)), 14)
    assert (overtaken.row, verdicts(overtaken)) == (None, [("recheck", "asked")])


def test_the_view_tells_the_log_time_of_the_newest_event_which_no_recheck_and_no_outcome_is() -> None:
    worker = MemoryLedger()
    asked = worker.hear(Recheck(key=KEY, reason="hint", at=at(10)), 11)
    assert view(asked)["event_at"] is None
    installed = worker.hear(delivery("installed", 12), 13)
    assert view(installed)["event_at"] == view(installed)["updated_at"] == "2024-01-15T12:00:13.000000Z"
    for later in (
        worker.hear(Recheck(key=KEY, reason="hint", at=at(20)), 21),
        worker.told(1, Direction.UP, State.DONE),
    ):
        assert view(later)["event_at"] == "2024-01-15T12:00:13.000000Z"
        assert view(later)["updated_at"] > view(later)["event_at"]


def test_a_recheck_from_a_clock_ahead_can_be_answered() -> None:
    worker = MemoryLedger()
    worker.hear(Recheck(key=KEY, reason="stale", at=at(7200)), 10)
    assert worker.tenant.recheck_at_us == at(10)
