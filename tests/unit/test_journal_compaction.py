"""Freezing at 8 hours, folding at 24, lateness, storms: all in log time."""

import pytest

from schemas.rows import pack
from schemas.topics import AUDIT, DEAD_LETTERS, EVENTS, ROW_MAX_BYTES
from schemas.webhook import Delivery
from services.core.ledger.journal_compaction import ENTRIES_MAX
from tests.support.deliveries import HOUR_S, at, delivery, observed
from tests.support.ledger_worker import MemoryLedger, events, letters, values, verdicts, view


def test_a_frozen_entry_is_final() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("enabled", 100, eventId="1"), 100)
    worker.hear(delivery("installed", 0, eventId="0"), 100)
    earlier = worker.hear(delivery("enabled", 0, eventId="1"), 9 * HOUR_S)
    assert (earlier.verdict, earlier.row) == ("duplicate", None)
    conflict = worker.hear(delivery("disabled", 0, eventId="1"), 9 * HOUR_S)
    assert (conflict.verdict, conflict.row, len(letters(conflict))) == ("conflict", None, 1)
    assert worker.tenant.flags == ()


def test_an_entry_of_exactly_8_hours_may_still_change() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("enabled", 100, eventId="1"), 100)
    assert worker.hear(delivery("enabled", 50, eventId="1"), 100 + 8 * HOUR_S).row is not None
    assert worker.hear(delivery("enabled", 0, eventId="1"), 50 + 8 * HOUR_S + 0.000001).row is None


def test_frozen_verdicts_stand_and_the_rest_are_judged_with_them() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("enabled", 0), 0)
    worker.hear(delivery("enabled", 600), 600)
    between = worker.hear(delivery("disabled", 300), 9 * HOUR_S)
    assert events(between) == [(worker.tenant.entries[1].uid, 2)]
    assert [entry.verdict for entry in worker.tenant.entries] == ["new", "new", "absorbed"]


def test_entries_fold_after_24_hours_without_a_visible_change() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0, {"crmEndpoint": "x"}, eventId="1"), 0)
    worker.hear(delivery("disabled", 60, eventId="2"), 60)
    before = view(worker.decisions[-1])
    later = worker.hear(delivery("disabled", 25 * HOUR_S, eventId="3"), 25 * HOUR_S)
    assert [entry.uid for entry in worker.tenant.entries] == ["e:3"]
    assert [entry.uid for entry in later.folded] == ["e:1", "e:2"]
    assert worker.tenant.folded_to == at(60)
    same = ("installed", "enabled", "configuration", "configuration_mac", "tenant_id", "flags", "stage")
    assert {name: view(later)[name] for name in same} == {name: before[name] for name in same}


def test_an_unknown_uid_at_or_below_the_folded_time_is_late_and_rechecked() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0, eventId="1"), 0)
    worker.hear(delivery("disabled", 25 * HOUR_S, eventId="2"), 25 * HOUR_S)
    late = worker.hear(delivery("uninstalled", 0, eventId="3"), 25 * HOUR_S + 1)
    assert (late.verdict, events(late)) == ("late", [])
    assert view(late)["installed"] is True
    assert view(late)["recheck_at"] == "2024-01-16T13:00:01.000000Z"
    assert worker.tenant.revision == 2


@pytest.mark.parametrize(
    ("second", "log_s", "verdict"),
    [
        (20 * 60, 25 * HOUR_S, "late"),
        (20 * 60 + 1, 25 * HOUR_S, "new"),
        (20 * 60, 24 * HOUR_S + 20 * 60, "new"),
    ],
    ids=["within-the-span", "beyond-the-span", "not-a-day-old"],
)
def test_within_the_retry_span_above_the_folded_time_only_old_events_are_late(
    second: int, log_s: int, verdict: str
) -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0, eventId="1"), 0)
    worker.hear(delivery("disabled", 10 * HOUR_S, eventId="2"), 24 * HOUR_S + 1)
    assert worker.tenant.folded_to == at(0)
    assert worker.hear(delivery("enabled", second, eventId="3"), log_s).verdict == verdict


def test_a_replay_of_a_late_event_is_late_again() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0, eventId="1"), 0)
    worker.hear(delivery("disabled", 25 * HOUR_S, eventId="2"), 25 * HOUR_S)
    first = worker.hear(delivery("enabled", 0, eventId="3"), 25 * HOUR_S)
    again = worker.hear(delivery("enabled", 0, eventId="3"), 25 * HOUR_S, offset=2)
    assert (verdicts(again), view(again)) == (verdicts(first), view(first))
    assert values(again, AUDIT) == values(first, AUDIT)


def test_a_reset_of_offsets_ignores_folded_committed_events() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0, eventId="1"), 0)
    worker.hear(delivery("disabled", 25 * HOUR_S, eventId="2"), 25 * HOUR_S)
    replayed = worker.hear(delivery("installed", 0, eventId="1"), 0, offset=0)
    assert (replayed.row, replayed.outputs) == (None, ())


def test_a_replay_finds_an_event_that_folded_before_its_commit() -> None:
    worker = MemoryLedger()
    first = worker.hear(delivery("installed", 0, eventId="1"), 0, committed=-1)
    worker.hear(delivery("disabled", 26 * HOUR_S, eventId="2"), 26 * HOUR_S, committed=-1)
    assert [entry.uid for entry in worker.tenant.entries] == ["e:2"]
    replayed = worker.hear(delivery("installed", 0, eventId="1"), 0, offset=0, committed=-1)
    assert events(replayed) == [("e:1", 1)]
    assert verdicts(replayed) == verdicts(first)
    worker.hear(delivery("enabled", 27 * HOUR_S, eventId="3"), 27 * HOUR_S, committed=1)
    assert worker.tenant.parted == ()


def test_a_duplicate_just_before_its_entry_folded_is_a_duplicate_again() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0, eventId="1"), 0)
    first = worker.hear(delivery("installed", 0, eventId="1"), 60)
    worker.hear(delivery("disabled", 26 * HOUR_S, eventId="2"), 26 * HOUR_S, committed=0)
    replayed = worker.hear(delivery("installed", 0, eventId="1"), 60, offset=1, committed=0)
    assert verdicts(replayed) == verdicts(first) == [("delivery", "duplicate")]
    worker.hear(delivery("enabled", 27 * HOUR_S, eventId="3"), 27 * HOUR_S, committed=1)
    assert worker.tenant.parted == ()


def test_a_replay_finds_both_copies_of_a_folded_observation() -> None:
    worker = MemoryLedger()
    first = worker.hear(observed(0), 0, committed=-1)
    again = worker.hear(observed(0), 25 * HOUR_S, committed=-1)
    worker.hear(delivery("disabled", 50 * HOUR_S, eventId="1"), 50 * HOUR_S, committed=-1)
    assert [len(worker.tenant.parted), events(first), events(again)] == [
        2,
        [(f"r:{at(0)}:installed", 1)],
        [(f"r:{at(0)}:installed", 2)],
    ]
    for offset, then, log_s in ((0, first, 0), (1, again, 25 * HOUR_S)):
        replayed = worker.hear(observed(0), log_s, offset=offset, committed=-1)
        assert (events(replayed), verdicts(replayed)[0]) == (events(then), verdicts(then)[0])


def test_a_flag_outlives_its_entry_until_its_aspect_is_observed() -> None:
    worker = MemoryLedger()
    for event, second in (("installed", -60), ("enabled", 0), ("disabled", 1)):
        worker.hear(delivery(event, second))
    worker.hear(delivery("enabled", 2, retryCount=1))
    worker.hear(delivery("configuration_updated", 30 * HOUR_S), 30 * HOUR_S)
    assert [mark.flag for mark in worker.tenant.marks] == ["ambiguous"]
    assert [*worker.tenant.flags] == ["ambiguous"]
    worker.hear(observed(31 * HOUR_S), 31 * HOUR_S)
    assert [*worker.tenant.flags] == ["ambiguous"]
    worker.hear(observed(32 * HOUR_S, enabled=True), 32 * HOUR_S)
    assert [*worker.tenant.flags, *worker.tenant.marks] == []


def test_a_storm_folds_the_oldest_early_flags_the_key_and_asks() -> None:
    worker = MemoryLedger()
    for number in range(ENTRIES_MAX + 40):
        worker.hear(
            delivery("enabled" if number % 2 else "disabled", number * 0.01, eventId=str(number)), number * 0.01
        )
    row = worker.tenant
    assert len(row.entries) == ENTRIES_MAX
    assert row.flags == ("storm",)
    assert row.recheck_at_us is not None
    assert row.revision == ENTRIES_MAX + 40
    assert view(worker.decisions[-1])["enabled"] is None
    assert row.now.enabled is not None
    assert row.now.enabled.uid == f"e:{ENTRIES_MAX + 39}"
    assert worker.hear(delivery("enabled", 0, eventId="0"), 60).verdict == "late"
    resolved = worker.hear(observed(3600, enabled=True), 3600)
    assert (view(resolved)["flags"], view(resolved)["recheck_at"]) == ([], None)


def test_restamps_of_an_event_folded_by_a_storm_stay_absorbed() -> None:
    worker = MemoryLedger()
    worker.hear(delivery("installed", 0), 0)
    worker.hear(delivery("installed", 60), 60)
    for number in range(ENTRIES_MAX - 1):
        worker.hear(delivery("enabled", 120 + number, eventId=str(number)), 120 + number)
    absorbed = worker.tenant.entries[0]
    assert (absorbed.at_us, absorbed.verdict, absorbed.frozen) == (at(60), "absorbed", True)


def large(number: int, length: int, letter: str = "a") -> Delivery:
    """A configuration of this length, unlike every other."""
    return delivery("configuration_updated", number, {"note": f"{number:04}" + letter * length}, eventId=str(number))


def test_early_folded_events_are_kept_until_their_offset_is_committed() -> None:
    worker = MemoryLedger()
    history = [large(number, 250_000) for number in range(6)]
    first = [worker.hear(told, number, committed=-1) for number, told in enumerate(history)]
    end = worker.tenant
    assert 0 < len(end.parted) < 6
    for offset, told in enumerate(history):
        again = worker.hear(told, offset, offset=offset, committed=-1)
        assert (values(again, EVENTS), values(again, AUDIT)) == (
            values(first[offset], EVENTS),
            values(first[offset], AUDIT),
        )
    assert worker.tenant is end
    assert end.revision == 6


@pytest.mark.slow
def test_a_record_that_makes_the_row_too_large_is_a_dead_letter_and_rechecked() -> None:
    worker = MemoryLedger()
    history = [large(number, 60_000, '"') for number in range(24)]
    first = [worker.hear(told, number, committed=-1) for number, told in enumerate(history)]
    assert len(pack(worker.tenant)) <= ROW_MAX_BYTES
    taken = [decision.verdict for decision in first].count("new")
    assert [decision.verdict for decision in first] == ["new"] * taken + ["too_large"] * (24 - taken)
    assert [[letter["reason"] for letter in letters(decision)] for decision in first[taken:]] == [["too_large"]] * (
        24 - taken
    )
    assert all(values(decision, AUDIT) for decision in first)
    assert (worker.tenant.revision, worker.tenant.recheck_at_us) == (taken, at(23))
    assert "storm" in worker.tenant.flags
    for offset, told in enumerate(history):
        again = worker.hear(told, offset, offset=offset, committed=-1)
        for topic in (EVENTS, AUDIT, DEAD_LETTERS):
            assert values(again, topic) == values(first[offset], topic)
    assert worker.hear(large(24, 60_000, '"'), 24, committed=23).verdict == "new"


def test_ageing_alone_raises_no_flag() -> None:
    worker = MemoryLedger()
    for event, second in (("enabled", 0), ("disabled", 0), ("enabled", 2400)):
        worker.hear(delivery(event, second), second)
    assert worker.tenant.flags == ()
    worker.hear(delivery("configuration_updated", 24 * HOUR_S + 200), 24 * HOUR_S + 201)
    assert len(worker.tenant.entries) == 2
    assert worker.tenant.flags == ()


def test_an_unresolved_tie_outlives_its_entries() -> None:
    worker = MemoryLedger()
    for event in ("enabled", "disabled"):
        worker.hear(delivery(event, 0), 0)
    worker.hear(delivery("configuration_updated", 24 * HOUR_S + 200), 24 * HOUR_S + 201)
    assert [mark.flag for mark in worker.tenant.marks] == ["tie"]
    worker.hear(delivery("enabled", 24 * HOUR_S + 300), 24 * HOUR_S + 301)
    assert worker.tenant.flags == ("tie",)


@pytest.mark.slow
def test_a_storm_within_one_commit_interval_replays_to_the_byte() -> None:
    worker, total = MemoryLedger(), ENTRIES_MAX + 60
    history = [
        (delivery("enabled" if number % 2 else "disabled", number * 7 % total, eventId=str(number)), number * 0.01)
        for number in range(total)
    ]
    first = [worker.hear(told, log_s, committed=-1) for told, log_s in history]
    end = worker.tenant
    for offset, (told, log_s) in enumerate(history):
        again = worker.hear(told, log_s, offset=offset, committed=-1)
        assert values(again, EVENTS) == values(first[offset], EVENTS)
        assert values(again, AUDIT) == values(first[offset], AUDIT)
    assert worker.tenant is end
    assert end.revision == sum(len(values(decision, EVENTS)) for decision in first)
