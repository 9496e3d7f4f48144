"""The stage table of the specification, line by line, and the effect of outcomes on a key."""

from dataclasses import replace

import pytest

from schemas.journal import Register, Registers
from schemas.outcome import Direction, Outcome, State
from schemas.rows import StageRow, TenantRow
from schemas.tenant import Stage
from services.core.ledger.stage import TABLE, situation, stage, with_outcome
from tests.support.deliveries import KEY

UP, DOWN = Direction.UP, Direction.DOWN
N = Register(10, 2, "e:1")
U = Register(20, 0, "e:2")

UNKNOWN = TenantRow(KEY)
NEVER = TenantRow(KEY, now=Registers(uninstalled=U), turned=0)
GONE = TenantRow(KEY, now=Registers(installed=N, uninstalled=U), turned=50, ever=True)
THERE = TenantRow(KEY, now=Registers(installed=N), turned=50, ever=True)


def last(
    direction: Direction = UP, state: State = State.WORKING, version: int = 50, reason: str | None = None, **more: bool
) -> StageRow:
    row = StageRow(KEY, version=1, seq=1, desired_version=version, generation=1, direction=direction, state=state)
    return replace(row, reason=reason, **more)  # type: ignore[arg-type]  # `more` holds the two flags


@pytest.mark.parametrize(
    ("row", "outcome", "expected", "line"),
    [
        (UNKNOWN, None, None, 0),
        (UNKNOWN, last(UP, State.DONE, up_done=True), None, 0),
        (NEVER, None, Stage.DEPROVISIONED, 1),
        (NEVER, last(DOWN, State.WORKING), Stage.DEPROVISIONED, 1),
        (GONE, last(DOWN, State.DONE, 50), Stage.DEPROVISIONED, 2),
        (GONE, last(DOWN, State.DONE, 51), Stage.DEPROVISIONED, 2),
        (GONE, last(DOWN, State.FAILED, 50), Stage.DEPROVISIONING_FAILED, 3),
        (GONE, None, Stage.DEPROVISIONING, 4),
        (GONE, last(DOWN, State.DONE, 49), Stage.DEPROVISIONING, 4),
        (GONE, last(DOWN, State.FAILED, 49), Stage.DEPROVISIONING, 4),
        (GONE, last(UP, State.DONE, 50, up_done=True), Stage.DEPROVISIONING, 4),
        (GONE, last(DOWN, State.HELD, 50), Stage.DEPROVISIONING, 4),
        (THERE, last(UP, State.DONE, up_done=True), Stage.ACTIVE, 5),
        (THERE, last(UP, State.WORKING, up_done=True), Stage.ACTIVE, 5),
        (THERE, last(UP, State.FAILED, up_done=True), Stage.ACTIVE, 5),
        (THERE, last(UP, State.HELD, up_done=True), Stage.ACTIVE, 5),
        (THERE, last(UP, State.ROLLED_BACK), Stage.PROVISIONING_ROLLED_BACK, 6),
        (THERE, last(UP, State.ROLLED_BACK, 40), Stage.PROVISIONING_ROLLED_BACK, 6),
        (THERE, last(UP, State.FAILED), Stage.PENDING_INSTALL, 7),
        (THERE, last(DOWN, State.FAILED, down_began=True, up_done=True), Stage.PENDING_INSTALL, 7),
        (THERE, None, Stage.PENDING_INSTALL, 7),
        (THERE, last(UP, State.WORKING), Stage.PENDING_INSTALL, 7),
        (THERE, last(UP, State.HELD), Stage.PENDING_INSTALL, 7),
        (THERE, last(DOWN, State.DONE, 49, up_done=True, down_began=True), Stage.PENDING_INSTALL, 7),
        (THERE, last(DOWN, State.WORKING, up_done=True, down_began=True), Stage.PENDING_INSTALL, 7),
    ],
)
def test_the_first_applying_line_decides_the_stage(
    row: TenantRow, outcome: StageRow | None, expected: Stage | None, line: int
) -> None:
    assert stage(row, outcome)[0] is expected
    applying = [number for number, candidate in enumerate(TABLE) if candidate.applies(situation(row, outcome))]
    assert applying[0] == line


def test_the_table_has_a_line_for_every_situation() -> None:
    outcomes = [
        last(direction, state, version, up_done=up, down_began=down)
        for direction in Direction
        for state in State
        for version in (49, 50)
        for up in (True, False)
        for down in (True, False)
    ]
    for row in (UNKNOWN, NEVER, GONE, THERE):
        for outcome in (None, *outcomes):
            assert any(line.applies(situation(row, outcome)) for line in TABLE)


@pytest.mark.parametrize(
    ("row", "outcome", "reason"),
    [
        (THERE, last(UP, State.HELD, reason="tenant_conflict"), "tenant_conflict"),
        (THERE, last(UP, State.HELD, 49, reason="tenant_conflict"), None),
        (GONE, last(DOWN, State.WORKING, reason="grace"), "grace"),
        (GONE, last(UP, State.HELD, 49, reason="tenant_unknown"), None),
        (THERE, last(UP, State.DONE, reason="update_refused", up_done=True), "update_refused"),
        (THERE, last(UP, State.ROLLED_BACK, reason="refused"), "refused"),
        (NEVER, last(DOWN, State.DONE, reason="nothing"), None),
        (THERE, last(UP, State.WORKING, reason="compensating"), "compensating"),
        (THERE, last(UP, State.WORKING, reason="waiting_for:crm", up_done=True), "waiting_for:crm"),
        (THERE, last(DOWN, State.FAILED, 49, reason="schema_refused", down_began=True), "former_life"),
        (THERE, last(DOWN, State.WORKING, 49, down_began=True), "former_life"),
        (THERE, last(DOWN, State.DONE, 49, down_began=True), None),
        (GONE, last(DOWN, State.FAILED, 50, reason="waiting_for:crm"), "waiting_for:crm"),
    ],
)
def test_a_reason_is_shown_while_it_concerns_the_desired_version(
    row: TenantRow, outcome: StageRow, reason: str | None
) -> None:
    assert stage(row, outcome)[1] == reason


def outcome(seq: int, direction: Direction, state: State, generation: int = 1, version: int = 50) -> Outcome:
    return Outcome(
        key=KEY, seq=seq, desired_version=version, generation=generation, direction=direction, state=state, at=0
    )


def after(*outcomes: Outcome) -> StageRow:
    row = StageRow(KEY)
    for told in outcomes:
        row = with_outcome(row, told)
    return row


def test_an_outcome_whose_seq_is_not_above_the_rows_changes_nothing() -> None:
    row = after(outcome(3, UP, State.DONE))
    assert with_outcome(row, outcome(3, DOWN, State.DONE)) is row
    assert with_outcome(row, outcome(2, DOWN, State.FAILED)) is row


def test_up_done_lasts_through_an_update_and_ends_with_a_teardown() -> None:
    active = after(outcome(1, UP, State.WORKING), outcome(2, UP, State.DONE), outcome(3, UP, State.WORKING))
    assert stage(THERE, active)[0] is Stage.ACTIVE
    ending = with_outcome(active, outcome(4, DOWN, State.WORKING))
    assert stage(THERE, ending)[0] is Stage.PENDING_INSTALL


def test_up_done_again_revives_a_generation_in_its_grace() -> None:
    row = after(outcome(1, UP, State.DONE), outcome(2, DOWN, State.WORKING), outcome(3, UP, State.WORKING))
    assert stage(THERE, row)[0] is Stage.PENDING_INSTALL
    assert stage(THERE, with_outcome(row, outcome(4, UP, State.DONE)))[0] is Stage.ACTIVE


def test_the_facts_of_a_generation_do_not_count_for_the_next() -> None:
    row = after(outcome(1, UP, State.DONE, 1), outcome(2, UP, State.WORKING, 2))
    assert (row.up_done, row.down_began) == (False, False)
    assert stage(THERE, row)[0] is Stage.PENDING_INSTALL


def test_rolled_back_stands_until_newer_work_begins() -> None:
    row = after(outcome(1, UP, State.ROLLED_BACK))
    corrected = replace(THERE, desired_version=60)
    assert stage(corrected, row)[0] is Stage.PROVISIONING_ROLLED_BACK
    assert stage(corrected, with_outcome(row, outcome(2, UP, State.WORKING, 2, 60)))[0] is Stage.PENDING_INSTALL
