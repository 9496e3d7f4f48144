"""The hostile sequences S1 to S12, S16, S17, S19 and S20, through the offline replay."""

import json
from itertools import permutations
from typing import Any

import pytest

from schemas.journal import VARIANTS_MAX
from schemas.rows import pack
from schemas.topics import AUDIT, DEAD_LETTERS, EVENTS
from services.core.ledger.replay import replay
from tests.support.deliveries import HOUR_S, INTEGRATION, KEY, ORG, body, delivery, line
from tests.support.ledger_worker import MemoryLedger, letters, values

CRM_A = {"crmEndpoint": "https://a.salesforce.com", "syncInterval": "PT5M"}
CRM_B = {"crmEndpoint": "https://b.salesforce.com", "syncInterval": "PT5M"}


def judged(*bodies: dict[str, Any], received_s: list[float] | None = None) -> tuple[list[str], dict[str, Any]]:
    """Verdicts in order of arrival, and the tenant at the end."""
    times: list[float | None] = [None] * len(bodies) if received_s is None else [*received_s]
    report = replay(line(whole, moment) for whole, moment in zip(bodies, times, strict=True)).as_json()
    return [delivery["verdict"] for delivery in report["deliveries"]], report["tenants"][KEY]


def test_s1_the_same_bytes_six_times_are_one_event() -> None:
    verdicts, tenant = judged(*[body("installed")] * 6)
    assert verdicts == ["new"] + ["duplicate"] * 5
    assert tenant["installed"] is True


def test_s2_a_retry_with_the_same_id_and_another_time_is_a_duplicate() -> None:
    first, retry = body("enabled", 0, eventId="1"), body("enabled", 7, eventId="1", retryCount=1)
    assert judged(first, retry)[0] == ["new", "duplicate"]
    assert judged(retry, first)[0] == ["new", "duplicate"]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_s3_the_first_attempt_dates_the_event_in_any_order(order: tuple[int, ...]) -> None:
    history = [
        body("enabled", 7, eventId="1", deliveryAttempt=2),
        body("disabled", 5, eventId="2"),
        body("enabled", 0, eventId="1", deliveryAttempt=1),
    ]
    _, tenant = judged(body("installed", -60), *(history[i] for i in order))
    assert tenant["enabled"] is False
    assert tenant["flags"] == []


def test_s4_enabled_disabled_enabled_within_seconds_are_three_events() -> None:
    verdicts, tenant = judged(body("installed", -60), body("enabled", 0), body("disabled", 1), body("enabled", 2))
    assert verdicts == ["new"] * 4
    assert tenant["enabled"] is True


def test_s5_a_marked_third_is_ambiguous_and_changes_nothing() -> None:
    history = body("installed", -60), body("enabled", 0), body("disabled", 1), body("enabled", 2, deliveryAttempt=2)
    verdicts, tenant = judged(*history)
    assert verdicts == ["new", "new", "new", "ambiguous"]
    assert tenant["enabled"] is False
    assert tenant["flags"] == ["ambiguous"]


def test_s5_an_unmarked_fourth_after_the_ambiguous_third_is_new() -> None:
    history = body("enabled", 0), body("disabled", 1), body("enabled", 2, deliveryAttempt=2), body("enabled", 3)
    verdicts, tenant = judged(body("installed", -60), *history)
    assert verdicts == ["new", "new", "new", "ambiguous", "new"]
    assert tenant["enabled"] is True


def test_s6_five_restamped_installs_are_absorbed() -> None:
    verdicts, _ = judged(*(body("installed", minutes * 60) for minutes in (0, 4, 8, 12, 16, 20)))
    assert verdicts == ["new"] + ["absorbed"] * 5


def test_s7_a_restamped_install_does_not_put_an_old_configuration_back() -> None:
    history = body("installed", 0, CRM_A), body("configuration_updated", 5, CRM_B), body("installed", 60, CRM_A)
    verdicts, tenant = judged(*history)
    assert verdicts == ["new", "new", "absorbed"]
    assert tenant["configuration"] == CRM_B


def test_s8_a_configuration_may_return_to_a_former_value() -> None:
    history = (
        body("installed", 0, CRM_B),
        body("configuration_updated", 1 * HOUR_S, CRM_A),
        body("configuration_updated", 2 * HOUR_S, CRM_B),
        body("configuration_updated", 3 * HOUR_S, CRM_A),
    )
    verdicts, tenant = judged(*history)
    assert verdicts == ["new"] * 4
    assert tenant["configuration"] == CRM_A


def test_s9_one_id_for_two_events_is_a_conflict_and_the_least_counts() -> None:
    enabled, disabled = body("enabled", 0, eventId="1"), body("disabled", 5, eventId="1")
    installed = body("installed", -60)
    for order in ((enabled, disabled), (disabled, enabled)):
        verdicts, tenant = judged(installed, *order)
        assert sorted(verdicts) == ["conflict", "new", "new"]
        assert tenant["enabled"] is True
        assert tenant["flags"] == ["conflict"]


def test_s10_one_id_on_two_keys_is_two_events() -> None:
    one = body("installed", 0, eventId="1")
    other_integration = {**one, "integrationId": ORG}
    other_org = {**one, "orgId": INTEGRATION}
    report = replay(map(line, (one, other_integration, other_org)))
    assert [delivery.verdict for delivery in report.deliveries] == ["new"] * 3
    assert len(report.tenants) == 3


def test_s11_any_name_inside_the_configuration_is_data() -> None:
    history = body("configuration_updated", 0, {"retryCount": 3}), body("configuration_updated", 1, {"retryCount": 5})
    verdicts, tenant = judged(*history)
    assert verdicts == ["new", "new"]
    assert tenant["configuration"] == {"retryCount": 5}


def test_s12_trace_ids_key_order_and_spelling_of_numbers_make_no_new_event() -> None:
    first = body("configuration_updated", 0, {"a": 1, "b": 2})
    traced = body("configuration_updated", 0, {"a": 1, "b": 2}, traceId="t-1", requestId="r-2", nextRetryAt="soon")
    turned = body("configuration_updated", 0, {"b": 2.0, "a": 1.0})
    assert judged(first, traced, {**turned, "sentAt": "x"})[0] == ["new", "duplicate", "duplicate"]


def test_s16_after_26_hours_of_standstill_a_retry_in_the_log_is_still_a_duplicate() -> None:
    first, retry = body("enabled", 0, eventId="1"), body("enabled", 600, eventId="1", retryCount=1)
    later = body("disabled", 26 * HOUR_S, eventId="2")
    assert judged(first, retry, later, received_s=[1, 601, 26 * HOUR_S + 1])[0] == ["new", "duplicate", "new"]


def test_s17_a_tie_of_one_second_is_disabled_for_now_and_flagged() -> None:
    verdicts, tenant = judged(body("installed", -60), body("enabled"), body("disabled"), body("enabled"))
    assert verdicts == ["new", "new", "new", "duplicate"]
    assert tenant["enabled"] is False
    assert tenant["flags"] == ["tie"]


@pytest.mark.parametrize(
    ("mark", "counts"),
    [("2", True), (1, True), (1000, True), (-1, False), (True, False), (10**9, False), (2.5, False), ("12345", False)],
    ids=["text", "one", "thousand", "negative", "boolean", "huge", "fraction", "long-text"],
)
def test_s19_only_a_readable_count_is_a_mark(mark: Any, counts: bool) -> None:  # noqa: FBT001 - a column of the table
    history = body("installed", -60), body("enabled", 0), body("disabled", 1), body("enabled", 2, retryCount=mark)
    assert judged(*history)[0][-1] == ("ambiguous" if counts else "new")


def test_s20_an_offset_and_z_are_one_instant() -> None:
    zulu = {**body("installed"), "eventTimestamp": "2024-01-15T12:00:00Z"}
    offset = {**body("installed"), "eventTimestamp": "2024-01-15T14:00:00.000+02:00"}
    assert judged(zulu, offset)[0] == ["new", "duplicate"]


@pytest.mark.slow
def test_all_720_orders_of_a_history_end_in_one_state() -> None:
    history = [
        body("installed", 0, CRM_A),
        body("configuration_updated", 5, CRM_B),
        body("installed", 60, CRM_A),
        body("disabled", 70),
        body("uninstalled", 100),
        body("installed", 200, CRM_B),
    ]
    ends = set()
    for order in permutations(history):
        report = replay(line(whole, 300) for whole in order)
        ends.add(json.dumps(report.tenants, sort_keys=True))
        numbered = {delivery.uid: delivery.verdict for delivery in report.deliveries}
        assert sorted(numbered.values()) == ["absorbed", *["new"] * 5]
        shown = sorted(delivery.revision for delivery in report.deliveries if delivery.revision is not None)
        assert shown == list(range(1, len(shown) + 1))
    assert len(ends) == 1
    tenant = json.loads(ends.pop())[KEY]
    assert (tenant["installed"], tenant["enabled"], tenant["configuration"]) == (True, True, CRM_B)


def test_an_unreadable_line_is_invalid_and_the_replay_continues() -> None:
    lines = ["{", '{"received_at":"now","body":{}}', line(body("exploded")), "", line(body("installed"))]
    duplicate_key = line(body("installed")).replace('"event": "installed"', '"event":"installed","event":"uninstalled"')
    report = replay([*lines, duplicate_key])
    verdicts = [(delivery.line, delivery.verdict) for delivery in report.deliveries]
    assert verdicts == [(1, "invalid"), (2, "invalid"), (3, "invalid"), (5, "new"), (6, "invalid")]
    assert set(report.as_json()["deliveries"][0]) == {"line", "key", "uid", "verdict", "revision"}


def test_one_id_for_80_contents_keeps_32_and_the_least_counts_in_any_order() -> None:
    history = [delivery("configuration_updated", number, {"i": number}, eventId="constant") for number in range(80)]
    ends = []
    for order in (history, history[::-1], history[40:] + history[:40]):
        worker = MemoryLedger()
        told = [worker.hear(one, 80) for one in order]
        assert [decision.verdict for decision in told[1:]] == ["conflict"] * 79
        assert all(len(letters(decision)) == 1 for decision in told[1:])
        assert len(worker.entry("e:constant").variants) == VARIANTS_MAX
        assert worker.tenant.flags == ("conflict", "storm")
        assert len(pack(worker.tenant)) < 20_000
        ends.append((worker.entry("e:constant")[:8], worker.tenant.now))
    assert ends == ends[:1] * 3


def test_a_replay_of_an_unkept_content_repeats_its_first_records() -> None:
    worker = MemoryLedger()
    history = [delivery("configuration_updated", number, {"i": number}, eventId="constant") for number in range(40)]
    first = [worker.hear(told, 40, committed=-1) for told in history]
    again = [worker.hear(told, 40, offset=offset, committed=-1) for offset, told in enumerate(history)]
    for topic in (EVENTS, AUDIT, DEAD_LETTERS):
        assert [values(decision, topic) for decision in again] == [values(decision, topic) for decision in first]


def test_a_late_duplicate_stays_late_after_its_event_folded() -> None:
    day = 25 * 3600
    lines = [line(body("installed", 0), 1), line(body("installed", 0), day), line(body("installed", 0), day + 1)]
    assert [judged.verdict for judged in replay(lines).deliveries] == ["new", "late", "late"]
