"""A drill of the on-call: the notices of now, and an order in which the fault that nothing goes on after comes last."""

from deploy.boards.drill import DRILLS, Drills, notices, shuffled
from deploy.boards.receiver import Notice


def notice(alert: str, status: str, at_s: float, summary: str = "", **labels: str) -> Notice:
    told = {"alertname": alert, "severity": "page", **labels}
    return Notice(alert, "page", "page", status, at_s, told, {"summary": summary})


def test_what_fires_stands_with_its_newest_numbers_and_what_ended_before_does_not() -> None:
    told = [
        notice("LifecycleOver", "firing", 10),
        notice("LifecycleOver", "resolved", 50),
        notice("LifecycleNow", "firing", 110, "3 tenants", reason="retrying"),
        notice("LifecycleNow", "firing", 130, "7 tenants", reason="retrying"),
        notice("LifecycleBrief", "firing", 120),
        notice("LifecycleBrief", "resolved", 140),
    ]
    text = notices(told, 100, 150)
    assert "LifecycleOver" not in text
    assert "## LifecycleNow (page), since 00:01:50, fires\n- labels: reason=retrying\n- summary: 7 tenants\n" in text
    assert "## LifecycleBrief (page), since 00:02:00, resolved at 00:02:20" in text


def test_an_alert_that_comes_back_counts_from_its_return() -> None:
    told = [
        notice("LifecycleA", "firing", 10),
        notice("LifecycleA", "resolved", 50),
        notice("LifecycleA", "firing", 120),
    ]
    assert "## LifecycleA (page), since 00:02:00, fires" in notices(told, 100, 150)


def test_a_quiet_time_says_so() -> None:
    assert "No alert fires." in notices([], 0, 10)


def test_every_fault_is_drilled_once_and_the_ledger_that_stays_down_comes_last() -> None:
    for seed in range(20):
        order = shuffled(DRILLS, seed)
        assert sorted(drill.name for drill in order) == sorted(drill.name for drill in DRILLS)
        assert order[-1].make is Drills.unreadable_in_a_row
