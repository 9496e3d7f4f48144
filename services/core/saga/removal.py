"""The first delete of a teardown: the point of no return, before which the brake and Genesys are asked.

Rule: a life that was once applied as a whole is asked for; a first provisioning that never ended has nothing that a
customer uses, and its compensation or teardown passes.
"""

from enum import StrEnum

from schemas.genesys import Integration
from schemas.saga import Journal, Phase
from services.core.saga.calls import Verb
from services.core.saga.moves import Called, Undo

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

    Args:
        before: The journal before the turn.
        after: The journal with the move's intent.
        move: The call.
    """
    life = after.life
    if not isinstance(move, Undo) or after.phase is not Phase.REMOVING:
        return False
    if life is None or life.generation != move.generation or life.last_applied is None:
        return False
    # A delete of an earlier phase (tokens issued anew) is older than the teardown. A clock that was set back makes a
    # later delete look older: the brake is then asked once more, and knows that it has admitted the teardown.
    logs = before.life.steps.values() if before.life and before.phase is Phase.REMOVING else ()
    return not any(log.verb == Verb.DELETE and log.at >= before.phase_began_at for log in logs)


def genesys_says(found: Integration | None) -> GenesysSays:
    """Returns the meaning of a proven answer of Genesys.

    Args:
        found: The integration; None if Genesys knows no such integration.
    """
    if found is None or found.intended_state == _GONE:
        return GenesysSays.GONE
    return GenesysSays.INSTALLED if found.intended_state in _PRESENT else GenesysSays.UNREAD
