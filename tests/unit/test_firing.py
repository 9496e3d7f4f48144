"""Alerts at an hour a minute: times are divided and nothing else, and the table of faults names every alert."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.boards import scaled
from deploy.boards.faults import FAULTS, UNFIRED, Expected
from deploy.boards.firing import ROUTES, Seen, arrivals, every_alert, firing, table
from deploy.boards.receiver import Notice
from services.cli.local import observe

SCALE = 60


@pytest.mark.parametrize(
    ("whole", "shorter"),
    [("1h", "60s"), ("2m", "2s"), ("30s", "500ms"), ("3d", "4320s"), ("1h30m", "90s"), ("90s", "1500ms"), ("0s", "0s")],
)
def test_a_duration_is_divided(whole: str, shorter: str) -> None:
    assert scaled.duration(whole, SCALE) == shorter


@pytest.mark.parametrize(
    ("whole", "shorter"),
    [
        ("rate(a_total[5m])", "rate(a_total[5s])"),
        ("increase(a_total[3d] offset 6h)", "increase(a_total[4320s] offset 360s)"),
        ("max(a_lag_seconds) > 60", "max(a_lag_seconds) > 60 / 60"),
        ('max(a_seconds{why="due"}) > 300', 'max(a_seconds{why="due"}) > 300 / 60'),
        ("time() - max(a_timestamp_seconds) > 3 * 3600", "time() - max(a_timestamp_seconds) > 3 * 3600 / 60"),
        # No times: a number of events, a ratio, a bucket.
        ("increase(a_total[1h]) >= 20", "increase(a_total[60s]) >= 20"),
        ("a:ratio_rate1h > 14.4 * 0.001", "a:ratio_rate1h > 14.4 * 0.001"),
        ("max(a_seconds) > 300 and avg(a_running) >= 32", "max(a_seconds) > 300 / 60 and avg(a_running) >= 32"),
        ('a_seconds_bucket{le="2.7"} > 5', 'a_seconds_bucket{le="2.7"} > 5'),
    ],
)
def test_every_time_in_an_expression_is_divided_and_nothing_else(whole: str, shorter: str) -> None:
    assert scaled.expression(whole, SCALE) == shorter


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


def test_the_rules_of_the_repository_keep_all_but_their_times() -> None:
    for file in observe.RULES.glob("*.yaml"):
        whole = read(file)
        assert scaled.rules(whole, 1)["groups"][0]["name"] == whole["groups"][0]["name"]
        for group, shorter in zip(whole["groups"], scaled.rules(whole, SCALE)["groups"], strict=True):
            for one, other in zip(group["rules"], shorter["rules"], strict=True):
                assert one.keys() == other.keys()
                untimed = one.keys() - {"expr", "for", "annotations"}
                assert {name: one[name] for name in untimed}.items() <= other.items()


def test_a_window_in_an_annotation_is_divided_and_the_words_are_not() -> None:
    rule = {"alert": "A", "expr": "a > 1", "annotations": {"summary": 'in 6 h {{ query "increase(a_total[2h])" }}'}}
    shorter = scaled.rules({"groups": [{"rules": [rule]}]}, SCALE)["groups"][0]["rules"][0]
    assert shorter["annotations"] == {"summary": 'in 6 h {{ query "increase(a_total[120s])" }}'}


def test_alertmanager_gets_shorter_timings_and_the_address_of_the_receiver() -> None:
    whole = read(ROUTES)
    shorter = scaled.routes(whole, SCALE, "http://127.0.0.1:9")
    assert (shorter["route"]["group_wait"], shorter["route"]["group_interval"]) == ("500ms", "5s")
    assert [each["repeat_interval"] for each in shorter["route"]["routes"] if "repeat_interval" in each] == ["60s"]
    urls = [one["url"] for each in shorter["receivers"] for one in each["webhook_configs"]]
    assert urls == ["http://127.0.0.1:9/page", "http://127.0.0.1:9/ticket"]
    assert shorter["inhibit_rules"] == whole["inhibit_rules"]


def notice(alert: str, status: str, at_s: float, severity: str = "page", route: str = "page", **labels: str) -> Notice:
    told = {"alertname": alert, "severity": severity, **labels}
    return Notice(alert, severity, route, status, at_s, told, {})


def test_an_arrival_is_the_first_firing_notice_at_its_own_route() -> None:
    notices = [
        notice("LifecycleA", "firing", 1.0),
        notice("LifecycleA", "firing", 5.0),
        notice("LifecycleA", "firing", 6.0),
        notice("LifecycleB", "resolved", 7.0),
        notice("LifecycleC", "firing", 8.0, route="ticket"),
    ]
    assert arrivals(notices, 2.0) == {("A", "page"): 5.0}


def test_an_alert_fires_until_each_of_its_label_sets_is_resolved() -> None:
    one, other = notice("LifecycleA", "firing", 1.0, step="crm"), notice("LifecycleA", "firing", 1.0, step="database")
    resolved = notice("LifecycleA", "resolved", 2.0, step="crm")
    assert firing([one, other, resolved]) == {("A", "page")}
    assert firing([one, resolved]) == set()


def test_the_table_tells_what_was_missed_and_what_was_held_back() -> None:
    seen = [
        Seen("the CRM is away", Expected("SystemAway", "ticket"), 12.2),
        Seen("Kafka stands still", Expected("OutboxStuck", "ticket", "KafkaBreakerOpen"), None),
    ]
    lines = table(seen, "2026-01-01").splitlines()
    assert lines[0].startswith("Run on 2026-01-01; ")
    assert lines[4].endswith("| ticket | the CRM is away | 12 |")
    assert "held back by `LifecycleKafkaBreakerOpen`" in lines[5]
    assert lines[5].endswith("| missed |")


def test_every_alert_has_a_fault_or_a_reason() -> None:
    assert (
        every_alert() == {(each.alert, each.severity) for fault in FAULTS for each in fault.expected} | UNFIRED.keys()
    )
