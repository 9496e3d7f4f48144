"""The trace contexts of a saga's open calls: the next try of a step is linked to the try before, in any process.

Rule: the contexts change beside the journal and are stored with the journal. A turn adds its call; an answer that
leaves nothing to try again removes the context of the step. Every context belongs to a life of the journal, so their
number is limited by the steps of these lives.
"""

from collections.abc import Mapping

from schemas.saga import Journal, StepVerdict
from services.core.saga.intents import log_of
from services.core.saga.moves import Called

OpenCalls = Mapping[str, str]
"""The `traceparent` of each open call, by place."""


def place_of(step: str, generation: int) -> str:
    """Returns the name of a step's context: step and generation."""
    return f"{step} g{generation}"


def with_call(contexts: OpenCalls, journal: Journal, call: OpenCalls) -> dict[str, str]:
    """Returns the contexts to be committed with a turn.

    Args:
        contexts: The contexts before the turn.
        journal: The journal of the turn; contexts of ended lives without an orphan check are dropped.
        call: The `traceparent` of the turn's call by place; empty without a traced call.
    """
    lives = [check.life for check in journal.orphan_checks] + ([journal.life] if journal.life else [])
    known = {str(life.generation) for life in lives}
    return {at: context for at, context in contexts.items() if at.rpartition(" g")[2] in known} | dict(call)


def after_answer(contexts: OpenCalls, journal: Journal, move: Called) -> dict[str, str]:
    """Returns the contexts after an answer.

    Args:
        contexts: The contexts committed with the call.
        journal: The journal with the answer.
        move: The call with this answer.
    """
    log = log_of(journal, move)
    is_settled = not log.open and log.verdict is StepVerdict.DONE
    place = place_of(move.step.name, move.generation)
    return {at: context for at, context in contexts.items() if not (is_settled and at == place)}
