"""What an operator sees of a saga: where it stands, why, and how it ended."""

from typing import Any

import pytest

from schemas.saga import Failure, Journal, Life, OrphanCheck, Phase, Standstill, StepLog, StepState, StepVerdict
from schemas.saga_row import SagaRow
from schemas.tenant import Desired
from services.core.saga.phase_groups import PHASES, PhaseGroup
from services.core.saga.view import SagaEnd, end_of, steps_of, view_of

KEY = "98765432-1234-5678-9abc-def012345678:a1b2c3d4-e5f6-7890-abcd-ef1234567890"
DESIRED = Desired(
    key=KEY,
    version=3,
    installed=True,
    enabled=True,
    configuration={},
    tenant_id="acme",
    installed_at=1,
    uninstalled_at=None,
)
ANSWERED = StepLog(
    n=2,
    state=StepState.IN_DOUBT,
    verdict=StepVerdict.RETRYABLE,
    tries=1,
    not_before=9,
    reason="HTTP 503",
    inputs={"configuration": {"password": "canary"}},
    outputs={"token": "canary"},
)
UNDER_WAY = ANSWERED.model_copy(update={"tries": 0, "reason": "waiting for the system's work"})
FAILED = Failure(step="crm", error_class="refused", reason="HTTP 422")


def life(generation: int = 2, **logs: StepLog) -> Life:
    return Life(generation=generation, plan="p", tenant_id="acme", steps=logs)


def row(journal: Journal, **values: Any) -> SagaRow:
    of: dict[str, Any] = {
        "key": KEY, "desired_version": 3, "phase": journal.phase.value, "generation": journal.generation,
        "tenant_id": None, "waits_for": None, "why": None, "due_s": None, "changed_s": 1.5, "worker": None,
    }  # fmt: skip
    return SagaRow(**{**of, **values}, journal=journal)


def creating(**values: Any) -> Journal:
    return Journal(phase=Phase.CREATING, generation=2, target=DESIRED, **{"life": life(crm=ANSWERED), **values})


STANDS = Standstill(step="crm", since=7)
AWAY = Standstill(step="crm", since=7, outage_since=7)


@pytest.mark.parametrize(
    ("of", "step", "reason"),
    [
        (row(creating(standstill=STANDS)), "crm", "retryable: HTTP 503 (1 try)"),
        (row(creating(standstill=STANDS, life=life(crm=UNDER_WAY))), "crm", "waiting for crm: the system's work"),
        (row(creating(standstill=STANDS, life=life())), "crm", None),
        (
            row(creating(standstill=STANDS), why="its plan cannot be carried out"),
            "crm",
            "its plan cannot be carried out",
        ),
        (row(creating(standstill=STANDS, failure=FAILED, life=life())), "crm", None),
        (row(Journal(phase=Phase.ROLLED_BACK, failure=FAILED)), "crm", "refused: HTTP 422"),
        (row(creating()), "crm", "retryable: HTTP 503 (1 try)"),
        (
            row(creating(life=life(crm=ANSWERED.model_copy(update={"tries": 2})))),
            "crm",
            "retryable: HTTP 503 (2 tries)",
        ),
        (row(Journal(held="tenant_conflict")), None, "tenant_conflict"),
        (row(Journal()), None, None),
        (row(creating(standstill=AWAY), waits_for="crm"), "crm", "crm is away (retryable: HTTP 503 (1 try))"),
        (row(creating(life=life()), waits_for="crm"), None, "crm is away"),
        (
            row(creating(standstill=STANDS, life=life()), waits_for="crm"),
            "crm",
            "crm refuses the operator's credentials or set-up",
        ),
    ],
)
def test_a_saga_says_where_it_stands_and_why(of: SagaRow, step: str | None, reason: str | None) -> None:
    found = view_of(of)
    assert (found.step, found.reason) == (step, reason)


def test_times_are_microseconds_and_the_tenant_is_known_after_its_life() -> None:
    found = view_of(row(creating(standstill=STANDS), due_s=2.25, worker="one"))
    assert (found.since_us, found.due_us, found.changed_us, found.worker) == (7, 2_250_000, 1_500_000, "one")
    over = view_of(row(Journal(target=DESIRED)))
    assert (over.tenant_id, over.since_us, over.due_us) == ("acme", None, None)
    assert view_of(row(creating(), tenant_id="bound")).tenant_id == "bound"
    assert view_of(row(Journal())).tenant_id is None


def test_steps_of_ended_lives_come_first_and_show_nothing_secret() -> None:
    check = OrphanCheck(due_at=1, life=life(1, schema=StepLog(state=StepState.PENDING_IN_DOUBT)))
    before, now = steps_of(creating(orphan_checks=(check,)))
    assert (before.generation, before.step, before.open, before.not_before_us, before.reason) == (
        1, "schema", True, None, None,
    )  # fmt: skip
    assert (now.generation, now.step, now.intents, now.tries, now.not_before_us) == (2, "crm", 2, 1, 9)
    assert (now.presence, now.verdict, now.reason) == ("maybe", "retryable", "HTTP 503")
    assert "canary" not in repr(now)
    assert steps_of(Journal()) == []


@pytest.mark.parametrize(
    ("of", "end"),
    [
        (row(creating()), None),
        (row(Journal(phase=Phase.ACTIVE, target=DESIRED, life=life()), worker="one"), None),
        (row(Journal(phase=Phase.ACTIVE, target=DESIRED, life=life()), desired_version=4), None),
        (row(Journal()), None),
        (
            row(Journal(phase=Phase.ACTIVE, target=DESIRED, life=life().model_copy(update={"last_applied": DESIRED}))),
            SagaEnd(reached=True, text="active"),
        ),
        (
            row(Journal(phase=Phase.ACTIVE, target=DESIRED, life=life())),
            SagaEnd(reached=False, text="active, update refused"),
        ),
        (row(Journal(target=DESIRED)), SagaEnd(reached=True, text="deprovisioned")),
        (
            row(Journal(phase=Phase.ROLLED_BACK, target=DESIRED, failure=FAILED)),
            SagaEnd(reached=False, text="rolled back: crm HTTP 422"),
        ),
        (row(Journal(phase=Phase.ROLLED_BACK, target=DESIRED)), SagaEnd(reached=False, text="rolled back")),
    ],
)
def test_a_saga_has_ended_once_the_newest_version_is_answered_and_nobody_is_at_it(
    of: SagaRow, end: SagaEnd | None
) -> None:
    assert end_of(of) == end


def test_every_phase_is_in_one_group() -> None:
    assert sorted(phase for phases in PHASES.values() for phase in phases) == sorted(Phase)
    assert set(PHASES) == set(PhaseGroup)
