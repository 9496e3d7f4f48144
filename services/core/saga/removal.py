"""The first delete of a teardown: the point of no return, before which the brake and Genesys are asked.

Rule: a life that was once applied as a whole is asked for; a first provisioning that never ended has nothing that a
customer uses, and its compensation or teardown passes.
"""

from enum import StrEnum

from schemas.genesys import Integration
from schemas.saga import Journal, Phase
from services.core.saga.calls import Verb
from services.core.saga.intents import log_of
from services.core.saga.moves import Called, LookUp, Undo

_PRESENT = frozenset({"ENABLED", "DISABLED", "RESTORED"})
_GONE = "DELETED"


class GenesysSays(StrEnum):
    """The answer of Genesys to a question about a removed integration."""

    GONE = "gone"
    INSTALLED = "installed"
    UNREAD = "unread"
    """No information."""


def begins_destruction(before: Journal, after: Journal, move: Called) -> bool:
    """True if a move is the first delete in the teardown of a life that was once applied as a whole.

    The look-up of a lost delete counts as a delete: the repeat follows at once. A delete that is older than the
    teardown (a lost revocation of tokens) is not taken for its first.

    Args:
        before: The journal before the turn.
        after: The journal with the move's intent.
        move: The call.
    """
    life = after.life
    if after.phase is not Phase.REMOVING or life is None or life.generation != move.generation:
        return False
    if life.last_applied is None or not _is_of_a_delete(after, move):
        return False
    # A delete of an earlier phase (tokens issued anew) is older than the teardown, also by a clock that was set back:
    # the teardown begins after every call of its life. A clock set back meanwhile makes a later delete look older: the
    # brake is then asked once more, and knows that it has admitted the teardown.
    logs = before.life.steps.values() if before.life and before.phase is Phase.REMOVING else ()
    return not any(log.verb == Verb.DELETE and log.at >= before.phase_began_at for log in logs)


def _is_of_a_delete(journal: Journal, move: Called) -> bool:
    if isinstance(move, LookUp):
        log = log_of(journal, move)
        return log.open and log.verb == Verb.DELETE
    return isinstance(move, Undo)


def genesys_says(found: Integration | None) -> GenesysSays:
    """Returns the meaning of a proven answer of Genesys.

    Args:
        found: The integration; None if Genesys knows no such integration.
    """
    if found is None or found.intended_state == _GONE:
        return GenesysSays.GONE
    return GenesysSays.INSTALLED if found.intended_state in _PRESENT else GenesysSays.UNREAD


def held_by(says: GenesysSays | None, *, is_contradicted: bool, needs_answer: bool) -> GenesysSays | None:
    """Returns the answer for which a removal is held; None if the removal may begin.

    A contradiction stands until Genesys says that the integration is gone: a later question without an answer is no
    consent to the removal.

    Args:
        says: The present answer; None if the question was put off, which holds a removal as no information does with
            `needs_answer`.
        is_contradicted: True if Genesys has had the integration since this removal was admitted.
        needs_answer: True to hold a removal about which Genesys gives no information.
    """
    if says is GenesysSays.GONE:
        return None
    if says is GenesysSays.INSTALLED or is_contradicted:
        return GenesysSays.INSTALLED
    return GenesysSays.UNREAD if needs_answer or says is None else None
