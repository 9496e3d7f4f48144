"""Views of a saga for operators: the step a saga stands at and the reason, the steps, and the end of a saga.

Rule: no view holds inputs or outputs of a step, since both may hold secrets.
"""

from dataclasses import dataclass

from schemas.saga import Journal, Phase, Presence, StepLog, StepVerdict
from schemas.saga_row import SagaRow
from services.core.reasons import reason_text
from services.core.saga.results import WAITS_FOR
from services.core.unwell import HELD_REMOVALS


@dataclass(frozen=True, slots=True)
class SagaView:
    """A saga as shown to operators; times are microseconds UTC.

    Attributes:
        key: `orgId:integrationId`.
        phase: The present task.
        generation: Generation of the newest life.
        version: The newest stored version.
        tenant_id: The bound tenantId; without a life the tenantId of the version taken up last.
        step: The step of the standstill, or of the failure; None if the saga stands nowhere.
        reason: The reason for the standstill, failure or wait, in words; None without any.
        since_us: Beginning of the standstill; None without a standstill.
        waits_for: The outside system that the saga waits for; None if the saga waits for no system.
        due_us: The next due time; None: due only when a newer version is stored.
        changed_us: Time of the last write.
        worker: The worker at the saga now; None if no worker is.
    """

    key: str
    phase: str
    generation: int
    version: int
    tenant_id: str | None
    step: str | None
    reason: str | None
    since_us: int | None
    waits_for: str | None
    due_us: int | None
    changed_us: int
    worker: str | None


@dataclass(frozen=True, slots=True)
class StepView:
    """A step of a life as shown to operators.

    Attributes:
        generation: Generation of the life.
        step: The step's name.
        presence: Knowledge about the resource.
        verdict: Class of the newest answer.
        open: True if the newest intent has no known outcome.
        intents: Number of intents so far.
        tries: Calls of this phase without progress.
        not_before_us: Earliest time of the next call, microseconds UTC; None for no wait.
        reason: The reason why the newest answer was not `done`; None after an answer `done`.
    """

    generation: int
    step: str
    presence: Presence
    verdict: StepVerdict
    open: bool
    intents: int
    tries: int
    not_before_us: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class SagaEnd:
    """The end of the work for the newest desired version.

    Attributes:
        reached: True if the desired state was reached.
        text: The end in words.
    """

    reached: bool
    text: str


def view_of(row: SagaRow) -> SagaView:
    """Returns the view of a saga."""
    journal = row.journal
    step, reason = _position(journal)
    return SagaView(
        key=row.key,
        phase=row.phase,
        generation=row.generation,
        version=row.desired_version,
        # The binding ends with the life; the desired version still names the tenantId.
        tenant_id=row.tenant_id or (journal.target.tenant_id if journal.target else None),
        step=step,
        reason=_gate_reason(row.waits_for, journal, reason) if row.waits_for else _row_reason(row) or reason,
        since_us=journal.standstill.since if journal.standstill else None,
        waits_for=row.waits_for,
        due_us=None if row.due_s is None else int(row.due_s * 1_000_000),
        changed_us=int(row.changed_s * 1_000_000),
        worker=row.worker,
    )


def steps_of(journal: Journal) -> list[StepView]:
    """Returns the steps of a saga, ended lives first."""
    lives = [*(check.life for check in journal.orphan_checks), *([journal.life] if journal.life else [])]
    return [_step(life.generation, name, log) for life in lives for name, log in life.steps.items()]


def end_of(row: SagaRow) -> SagaEnd | None:
    """Returns the end of a saga; None while the newest desired version is unanswered or a worker holds the saga."""
    journal = row.journal
    answered = journal.target is not None and journal.target.version >= row.desired_version
    # A worker that still holds the lease may be about to commit a further turn; its end is not certain yet.
    if not answered or row.worker is not None:
        return None
    match row.phase:
        case Phase.ACTIVE:
            # An active tenant with an older good version than its target: the update was refused, the former
            # configuration stands.
            refused = journal.life is not None and journal.life.last_applied != journal.target
            return (
                SagaEnd(reached=False, text="active, update refused")
                if refused
                else SagaEnd(reached=True, text="active")
            )
        case Phase.EMPTY:
            return SagaEnd(reached=True, text="deprovisioned")
        case Phase.ROLLED_BACK:
            failure = journal.failure
            text = f"rolled back: {failure.step} {failure.reason}" if failure else "rolled back"
            return SagaEnd(reached=False, text=text)
    return None


def _row_reason(row: SagaRow) -> str | None:
    """Returns the reason that the row gives; the reason of a held removal is put into words."""
    return reason_text(row.why, 0) if row.why in HELD_REMOVALS else row.why


def _position(journal: Journal) -> tuple[str | None, str | None]:
    """Returns the step of a saga's standstill, and the reason."""
    standstill = journal.standstill
    log = journal.life.steps.get(standstill.step) if journal.life and standstill else None
    if standstill is not None:
        return standstill.step, _answer_text(standstill.step, log) if log is not None and log.reason else None
    # A rolled-back saga stands nowhere; the failure names the step that caused the rollback.
    if journal.failure is not None:
        return journal.failure.step, f"{journal.failure.error_class}: {journal.failure.reason}"
    for name, log in journal.life.steps.items() if journal.life else ():
        if log.reason:
            return name, _answer_text(name, log)
    return None, journal.held


def _gate_reason(system: str, journal: Journal, reason: str | None) -> str:
    """Returns the reason for waiting at the gate of a system, with the last answer to this saga, if any."""
    standstill = journal.standstill
    # `outage_since` is set while a system is away; a standstill without it is a refusal of the operator's credentials.
    operator_refused = standstill is not None and not standstill.outage_since
    trouble = "refuses the operator's credentials or set-up" if operator_refused else "is away"
    return f"{system} {trouble}" + (f" ({reason})" if reason else "")


def _answer_text(step: str, log: StepLog) -> str:
    """Returns the last answer to a step: verdict, reason and number of tries."""
    if log.reason.startswith(WAITS_FOR):
        return f"{WAITS_FOR}{step}: {log.reason.removeprefix(WAITS_FOR)}"
    tries = "1 try" if log.tries == 1 else f"{log.tries} tries"
    return f"{log.verdict}: {log.reason} ({tries})"


def _step(generation: int, name: str, log: StepLog) -> StepView:
    return StepView(
        generation=generation,
        step=name,
        presence=log.presence,
        verdict=log.verdict,
        open=log.open,
        intents=log.n,
        tries=log.tries,
        not_before_us=log.not_before or None,
        reason=log.reason or None,
    )
