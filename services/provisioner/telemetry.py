"""Counts and logs the outcomes of a turn.

Rule: an outcome for which an operator has to act is logged as an error, every other outcome as information.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from schemas.outcome import Outcome, State
from schemas.saga import Journal, StepVerdict
from services.adapters.process import clock, metrics
from services.adapters.process.logs import Logger
from services.core.saga.intents import UPDATE_REFUSED, Turn, is_at_rest
from services.core.saga.milestones import Milestones
from services.core.unwell import WAITING_FOR

_ENDS: Final = frozenset({State.DONE, State.ROLLED_BACK, State.FAILED})
_ALARMING: Final = frozenset({UPDATE_REFUSED, "tenant_conflict", "tenant_changed"})
"""Reasons of outcomes for which an operator has to act."""


def record_outcomes(turn: Turn, met: Milestones, began_us: int, log: Logger) -> None:
    """Counts and logs every outcome of a committed turn.

    Args:
        turn: The turn; outcomes of an uncommitted turn must not be recorded.
        met: Milestones of the turn.
        began_us: Begin of the phase of the turn, microseconds UTC; 0 if unknown, then no duration is observed.
        log: Logger of the service.
    """
    for end in met.converged:
        metrics.PROVISIONER_CONVERGED_S.labels(end.direction).observe(max(0, end.at_us - end.since_us) / 1_000_000)
    for outcome in turn.outcomes:
        metrics.PROVISIONER_OUTCOMES.labels(outcome.direction, outcome.state).inc()
        if outcome.state in _ENDS and began_us:
            # Times come from the database's clock, which may be set back between two leases.
            metrics.PROVISIONER_SAGA_S.labels(outcome.direction).observe(max(0, outcome.at - began_us) / 1_000_000)
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


def show_circuits(steps: Iterable[str], away: Callable[[], list[str]], refusing: Callable[[], list[str]]) -> None:
    """Registers the counts of outside systems by step, read at a scrape.

    Args:
        steps: Steps of the present plan, shown at 0 too; steps of former plans appear while a system of theirs counts.
        away: Returns the systems with an open circuit.
        refusing: Returns the systems that refuse the operator.
    """
    none = dict.fromkeys(steps, 0)

    def by_step(systems: list[str]) -> dict[tuple[str, ...], float]:
        # The name of a system begins with the step; a host may follow, which is no label: hosts are unbounded.
        found = none | Counter(system.partition(" ")[0] for system in systems)
        return {(step,): number for step, number in found.items()}

    metrics.PROVISIONER_CIRCUITS_OPEN.set_function(lambda: by_step(away()))
    metrics.PROVISIONER_CIRCUITS_REFUSED.set_function(lambda: by_step(refusing()))


def record_first_call(met: Milestones) -> None:
    """Observes how long the first call of a desired version took to come; called at the call."""
    if met.first_call_since_us is not None:
        metrics.PROVISIONER_FIRST_CALL_S.observe(max(0, clock.now_us() - met.first_call_since_us) / 1_000_000)


def record_dead_letter(key: str | None, reason: str, place: str, why: str, log: Logger) -> None:
    """Counts and logs an unreadable desired version.

    Args:
        key: Key of the record; None without one.
        reason: Reason of the dead letter.
        place: Id of the dead letter: topic, partition and offset.
        why: A field and a rule, never a value.
        log: Logger of the service.
    """
    metrics.PROVISIONER_DEAD_LETTERS.labels(reason).inc()
    log.error("dead letter", key=key, record=place, reason=reason, why=why)


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
