"""Counts and logs the outcomes of a turn.

Rule: an outcome for which an operator has to act is logged as an error, every other outcome as information.
"""

from typing import Final

from schemas.outcome import Outcome, State
from schemas.saga import Journal, StepVerdict
from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.core.saga.intents import Turn, is_at_rest
from services.core.unwell import WAITING_FOR

_ENDS: Final = frozenset({State.DONE, State.ROLLED_BACK, State.FAILED})
_ALARMING: Final = frozenset({"update_refused", "tenant_conflict", "tenant_changed"})
"""Reasons of outcomes for which an operator has to act."""


def record_outcomes(turn: Turn, began_us: int, log: Logger) -> None:
    """Counts and logs every outcome of a committed turn.

    Args:
        turn: The turn; outcomes of an uncommitted turn must not be recorded.
        began_us: Begin of the phase of the turn, microseconds UTC; 0 if unknown, then no duration is observed.
        log: Logger of the service.
    """
    for outcome in turn.outcomes:
        metrics.SAGA_OUTCOMES.labels(outcome.direction, outcome.state).inc()
        if outcome.state in _ENDS and began_us:
            # Times come from the database's clock, which may be set back between two leases.
            metrics.SAGA_S.labels(outcome.direction).observe(max(0, outcome.at - began_us) / 1_000_000)
        needs_operator = (
            outcome.state in {State.ROLLED_BACK, State.FAILED}
            or _is_alarming(outcome.reason or "")
            or outcome.error_class == StepVerdict.EXHAUSTED
            # Only the last outcome describes the journal after the turn.
            or (outcome is turn.outcomes[-1] and is_at_rest(turn.journal))
        )
        (log.error if needs_operator else log.info)(
            "outcome",
            key=outcome.key,
            version=outcome.desired_version,
            generation=outcome.generation,
            direction=outcome.direction.value,
            state=outcome.state.value,
            step=outcome.step,
            error_class=outcome.error_class,
            reason=outcome.reason,
            answer=_answer(turn.journal, outcome),
        )


def _is_alarming(reason: str) -> bool:
    return reason in _ALARMING or reason.startswith(WAITING_FOR) or reason.endswith(f"_{StepVerdict.CONTRADICTED}")


def _answer(journal: Journal, outcome: Outcome) -> str | None:
    """Returns the last answer (status and short code) of the failed step in an outcome; None without a failed step."""
    if outcome.error_class is None:
        return None
    # Giving a step up clears the reason in the step's log; the failure keeps the reason.
    if journal.failure is not None and journal.failure.step == outcome.step:
        return journal.failure.reason
    log = journal.life.steps.get(outcome.step or "") if journal.life else None
    return log.reason or None if log else None
