"""What an audit asks for, and when a cursor moves: nothing is skipped, nothing is asked twice."""

from dataclasses import replace

import pytest

from schemas.genesys_audits import GenesysAudit
from schemas.times import LAST_US
from services.core.reconcile.audit_gaps import (
    ACTIONS,
    OVERLAP_US,
    PATIENCE,
    REACH_US,
    AuditCursor,
    AuditedKey,
    AuditSort,
    audited,
    cursor_for,
    removals,
    settle,
    span_of,
    take_on,
    unsettled,
)
from services.core.reconcile.recheck_schedule import RECHECK_EVERY_US
from services.core.reconcile.reconcile import Action, AuditedRemoval, PlanLine
from tests.support.genesys_worlds import CLIENT, HOUR_US, NOW_US, ORG, integration_id, key_of

SECOND_US = 1_000_000
SETTLE_US = 30 * SECOND_US
CURSOR = AuditCursor(CLIENT, NOW_US - 60 * SECOND_US)


def audit(number: int, action: str = "Update", at_us: int | None = NOW_US - 30 * SECOND_US) -> GenesysAudit:
    return GenesysAudit(f"audit-{number}-{action}", at_us, action, integration_id(number), "Integration")


def taken(cursor: AuditCursor, *audits: GenesysAudit, now_us: int = NOW_US) -> AuditCursor:
    return take_on(cursor, ORG, audits, now_us, now_us)[0]


def test_a_lost_cursor_begins_fourteen_days_back() -> None:
    begin_us, end_us = span_of(cursor_for(None, CLIENT, NOW_US), NOW_US, 365 * 24 * HOUR_US)
    assert 14 * 24 * HOUR_US - 2 * OVERLAP_US < end_us - begin_us <= 14 * 24 * HOUR_US
    assert end_us == NOW_US


def test_a_held_cursor_goes_on_where_it_stood_however_long_ago() -> None:
    old = replace(CURSOR, until_us=NOW_US - 40 * 24 * HOUR_US)
    assert cursor_for(old, CLIENT, NOW_US) == old
    assert span_of(old, NOW_US, HOUR_US) == (old.until_us - OVERLAP_US, old.until_us + HOUR_US)


@pytest.mark.parametrize("listed_days_ago", [0, 20])
def test_an_old_cursor_goes_on_from_a_whole_listing_and_skips_none_of_the_last_fourteen_days(
    listed_days_ago: int,
) -> None:
    day_us = 24 * HOUR_US
    listed_us = NOW_US - listed_days_ago * day_us
    old = replace(CURSOR, until_us=NOW_US - 40 * day_us, listed_us=listed_us, waiting={key_of(1): AuditedKey(1, 1)})
    found = cursor_for(old, CLIENT, NOW_US)
    assert found == replace(old, until_us=min(listed_us, NOW_US - REACH_US))
    young = replace(CURSOR, listed_us=NOW_US)
    assert cursor_for(young, CLIENT, NOW_US) == young, "a listing moves no cursor within the reach"


def test_new_credentials_begin_fourteen_days_back_and_keep_what_waits() -> None:
    held = taken(CURSOR, audit(1))
    found = cursor_for(held, "client-2", NOW_US)
    assert (found.until_us, found.taken, found.waiting.keys()) == (NOW_US - REACH_US, {}, held.waiting.keys())


@pytest.mark.parametrize("action", [*ACTIONS, "SoftDelete", "RestoreDeleted", "Hibernate", ""])
def test_every_action_but_a_reading_asks_for_the_key(action: str) -> None:
    asks = ACTIONS.get(action.lower(), AuditSort.UNKNOWN) is not AuditSort.READ
    assert (key_of(1) in taken(CURSOR, audit(1, action)).waiting) is asks


@pytest.mark.parametrize(
    ("kind", "asks"), [("Integration", True), ("", True), ("INTEGRATION", True), ("Action", False)]
)
def test_an_audit_of_another_entity_asks_for_nobody(kind: str, *, asks: bool) -> None:
    assert (key_of(1) in taken(CURSOR, replace(audit(1), entity_type=kind)).waiting) is asks


def test_the_actions_of_the_platform_are_known() -> None:
    told = "Create Update Delete Enable Disable Activate Deactivate Restore RestoreDeleted SoftDelete HardDelete"
    assert {action.lower() for action in told.split()} <= ACTIONS.keys()


def test_an_audit_in_the_overlap_asks_once() -> None:
    first = taken(CURSOR, audit(1))
    assert first.until_us == NOW_US
    read = settle(first, {key_of(1)}, (), NOW_US + SETTLE_US, SETTLE_US)
    assert read.waiting == {}
    assert taken(read, audit(1), now_us=NOW_US + 60 * SECOND_US).waiting == {}


def test_an_old_audit_is_settled_by_any_read_of_now() -> None:
    held = taken(CURSOR, audit(1, at_us=NOW_US - HOUR_US), audit(2))
    assert audited([held], {}, NOW_US, SETTLE_US) == {key_of(1)}
    assert settle(held, None, (), NOW_US, SETTLE_US).waiting.keys() == {key_of(2)}


def test_an_old_audit_does_not_shorten_the_wait_of_a_new_one() -> None:
    held = taken(CURSOR, audit(1), audit(1, "Enable", at_us=NOW_US - HOUR_US))
    (wait,) = settle(held, None, (), NOW_US, SETTLE_US).waiting.values()
    assert (wait.since_us, wait.newest_us) == (NOW_US, NOW_US)


REMOVED = {key_of(1): AuditedRemoval(CLIENT, NOW_US - 20 * SECOND_US)}
"""Evidence of an audit that is 20 s old."""


def test_the_newest_audit_by_genesys_clock_tells_if_the_integration_was_removed() -> None:
    created, deleted = audit(1, "Create", NOW_US - 40 * SECOND_US), audit(1, "Delete", NOW_US - 20 * SECOND_US)
    for order in ((created, deleted), (deleted, created)):
        assert removals([taken(CURSOR, *order)]) == REMOVED
        assert removals([taken(taken(CURSOR, order[0]), order[1])]) == REMOVED
    again = audit(1, "Restore", NOW_US - 10 * SECOND_US)
    assert removals([taken(CURSOR, deleted, again)]) == removals([taken(CURSOR, again, deleted)]) == {}
    assert removals([taken(CURSOR, audit(1, "Delete", None))]) == {}, "without a time nothing is newest"


@pytest.mark.parametrize("kind", ["", "IntegrationCredential", "Action"])
def test_the_removal_of_a_part_or_of_an_unknown_entity_is_no_evidence(kind: str) -> None:
    assert removals([taken(CURSOR, replace(audit(1, "Delete"), entity_type=kind))]) == {}


def test_evidence_belongs_to_the_credentials_that_read_it_and_goes_with_the_key() -> None:
    told_us = NOW_US - 20 * SECOND_US
    held = taken(CURSOR, audit(1, "Delete", told_us))
    other = cursor_for(held, "client-2", NOW_US)
    assert removals([other]) == {}
    assert removals([taken(other, audit(1, "Delete"))]) == {
        key_of(1): AuditedRemoval("client-2", NOW_US - 30 * SECOND_US)
    }
    assert removals([settle(held, {key_of(1)}, {key_of(1)}, NOW_US + SETTLE_US, SETTLE_US)]) == REMOVED
    assert removals([settle(held, {key_of(1)}, (), NOW_US + SETTLE_US, SETTLE_US)]) == {}


def test_an_audit_that_arrives_late_is_in_the_next_span_and_asks() -> None:
    first = taken(CURSOR, audit(1))
    later_us = NOW_US + 60 * SECOND_US
    late = audit(2, at_us=NOW_US - 200 * SECOND_US)
    begin_us, _ = span_of(first, later_us, HOUR_US)
    assert late.at_us is not None
    assert begin_us <= late.at_us
    assert key_of(2) in taken(first, audit(1), late, now_us=later_us).waiting


def test_ids_are_forgotten_with_the_overlap_and_not_before() -> None:
    first = taken(CURSOR, audit(1), audit(2, at_us=None))
    just_us = NOW_US + OVERLAP_US - 60 * SECOND_US
    assert len(taken(first, now_us=just_us).taken) == 2
    assert taken(first, now_us=NOW_US + 2 * OVERLAP_US).taken == {}


def test_an_audit_of_the_far_future_is_forgotten_with_the_overlap_too() -> None:
    first = taken(CURSOR, audit(1, at_us=LAST_US))
    assert taken(first, audit(1, at_us=LAST_US)) == first, "it asks once in the overlap"
    assert taken(first, now_us=NOW_US + OVERLAP_US + 1).taken == {}
    assert {key: (wait.since_us, wait.newest_us) for key, wait in first.waiting.items()} == {
        key_of(1): (NOW_US, NOW_US)
    }


def test_a_cursor_never_goes_back() -> None:
    assert take_on(CURSOR, ORG, (), CURSOR.until_us - HOUR_US, NOW_US)[0].until_us == CURSOR.until_us
    begin_us, end_us = span_of(CURSOR, CURSOR.until_us - HOUR_US, HOUR_US)
    assert begin_us < end_us == CURSOR.until_us - HOUR_US


def test_a_key_is_read_once_its_audit_has_settled_and_at_most_every_five_minutes() -> None:
    held = taken(CURSOR, audit(1))
    assert audited([held], {}, NOW_US + SETTLE_US - 1, SETTLE_US) == frozenset()
    due_us = NOW_US + SETTLE_US
    assert audited([held], {}, due_us, SETTLE_US) == {key_of(1)}
    assert audited([held], {key_of(1): due_us - RECHECK_EVERY_US + 1}, due_us, SETTLE_US) == frozenset()


def test_a_stream_of_audits_neither_postpones_the_read_nor_is_ended_by_an_early_one() -> None:
    held = CURSOR
    for number in range(11):
        held = taken(held, audit(1, f"Update{number}"), now_us=NOW_US + number * 10 * SECOND_US)
    due_us = NOW_US + PATIENCE * SETTLE_US
    assert audited([held], {}, due_us - 1, SETTLE_US) == frozenset()
    assert audited([held], {}, due_us, SETTLE_US) == {key_of(1)}
    newest_us = NOW_US + 100 * SECOND_US
    early = settle(held, {key_of(1)}, (), due_us, SETTLE_US)
    assert [(wait.since_us, wait.newest_us) for wait in early.waiting.values()] == [(newest_us, newest_us)]
    assert settle(early, {key_of(1)}, (), newest_us + SETTLE_US, SETTLE_US).waiting == {}


def test_a_key_is_read_once_after_several_changes_in_a_row() -> None:
    held = taken(taken(CURSOR, audit(1, "Create")), audit(1, "Enable"), now_us=NOW_US + 20 * SECOND_US)
    assert audited([held], {}, NOW_US + SETTLE_US, SETTLE_US) == frozenset()
    due_us = NOW_US + 20 * SECOND_US + SETTLE_US
    assert audited([held], {}, due_us, SETTLE_US) == {key_of(1)}
    assert settle(held, {key_of(1)}, (), due_us, SETTLE_US).waiting == {}


def test_a_key_that_was_not_read_or_waits_for_a_second_look_stays() -> None:
    held = taken(CURSOR, audit(1), audit(2), audit(3))
    lines = (
        PlanLine(key_of(1), Action.UNREAD, ""),
        PlanLine(key_of(2), Action.WAIT, ""),
        PlanLine(key_of(3), Action.ALIGN, ""),
    )
    began_us = NOW_US + SETTLE_US
    assert settle(held, None, unsettled(lines), began_us, SETTLE_US).waiting.keys() == {key_of(1), key_of(2)}
    assert settle(held, {key_of(1)}, (), began_us, SETTLE_US).waiting.keys() == {key_of(2), key_of(3)}


def test_an_organisation_is_in_sync_up_to_its_oldest_waiting_key_or_its_last_listing() -> None:
    held = taken(taken(CURSOR, audit(1)), audit(2, at_us=None), now_us=NOW_US + HOUR_US)
    assert held.synced_us == NOW_US
    assert replace(held, listed_us=NOW_US + 2 * HOUR_US).synced_us == NOW_US + 2 * HOUR_US
    assert replace(held, waiting={}).synced_us == NOW_US + HOUR_US


def test_a_new_organisation_is_as_old_as_its_file_and_not_fourteen_days() -> None:
    fresh = cursor_for(None, CLIENT, NOW_US)
    assert (fresh.synced_us, fresh.is_synced) == (NOW_US, False)
    read = taken(fresh, audit(1, at_us=NOW_US - 100 * HOUR_US), now_us=NOW_US + HOUR_US)
    assert (read.synced_us, read.is_synced) == (NOW_US, True), "an old audit of its first reading makes it no older"
    assert replace(fresh, listed_us=NOW_US + 1).is_synced


def test_other_credentials_keep_the_sync_time_of_the_former_ones() -> None:
    held = replace(CURSOR, listed_us=NOW_US - HOUR_US, since_us=NOW_US - 100 * HOUR_US)
    found = cursor_for(held, "client-2", NOW_US)
    assert (found.synced_us, found.is_synced) == (held.synced_us, True)
