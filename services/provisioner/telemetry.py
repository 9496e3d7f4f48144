"""Counts and logs the outcomes of a turn: what needs a person is an error, everything else is information."""

from typing import Final

from schemas.outcome import Outcome, State
from schemas.saga import Journal, StepVerdict
from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.core.saga.intents import Turn, is_at_rest
from services.core.unwell import WAITING_FOR

_ENDS: Final = frozenset({State.DONE, State.ROLLED_BACK, State.FAILED})
_ALARMING: Final = frozenset({"update_refused", "tenant_conflict", "tenant_changed"})


def tell(turn: Turn, began_us: int, log: Logger) -> None:
    """Counts and logs every outcome of a turn that is committed.

    Args:
        turn: The turn.
        began_us: When the phase that it belongs to began; 0 where that is not known.
        log: Of the service.
    """
    for said in turn.outcomes:
        metrics.SAGA_OUTCOMES.labels(said.direction, said.state).inc()
        if said.state in _ENDS and began_us:
            metrics.SAGA_S.labels(said.direction).observe(max(0, said.at - began_us) / 1_000_000)
        needs_people = (
            said.state in {State.ROLLED_BACK, State.FAILED}
            or _is_alarming(said.reason or "")
            or said.error_class == StepVerdict.EXHAUSTED
            or (said is turn.outcomes[-1] and is_at_rest(turn.journal))
        )
        (log.error if needs_people else log.info)(
            "outcome",
            key=said.key,
            version=said.desired_version,
            generation=said.generation,
            direction=said.direction.value,
            state=said.state.value,
            step=said.step,
            error_class=said.error_class,
            reason=said.reason,
            answer=_answer(turn.journal, said),
        )


def _is_alarming(reason: str) -> bool:
    return reason in _ALARMING or reason.startswith(WAITING_FOR) or reason.endswith(f"_{StepVerdict.CONTRADICTED}")


def _answer(journal: Journal, said: Outcome) -> str | None:
    """Returns the last answer of the step that an outcome names as failed: status and short code."""
    if said.error_class is None:
        return None
    if journal.failure is not None and journal.failure.step == said.step:
        return journal.failure.reason
    log = journal.life.steps.get(said.step or "") if journal.life else None
    return log.reason or None if log else None
