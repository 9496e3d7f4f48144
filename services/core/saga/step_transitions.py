"""The transitions of a step's state, and the states that a decision asks for.

Rule: `state` of a log changes by `TRANSITIONS` alone. The newest intent and the knowledge about the resource are one
state, since each event changes both together: a resource asked for is in doubt as soon as the answer is lost. A log
begun anew by a recovery or by the end of a life starts in `IN_DOUBT`.

Most transitions take a pending intent to its end:

    pending, repeated   Done, Absent → settled; Refused → closed
    pending             Retryable, OperatorRefused, Contradicted → closed
    repeated            Retryable, OperatorRefused, Contradicted → to repeat: the first call may have had an effect
    pending, repeated   Unknown → unchanged; the look-up by name settles the intent, or → to repeat
    to repeat           the repeat → repeated; a call with other inputs → pending
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from schemas.saga import StepState as S


class StepEvent(StrEnum):
    """An event in the life of a step."""

    CHANGE_BEGUN = "change_begun"
    """A create or update was written down, with a new number."""
    DELETE_BEGUN = "delete_begun"
    """A delete was written down, with a new number."""
    REPEAT_BEGUN = "repeat_begun"
    """The repeat of an intent was written down, with the number of the intent."""
    SHOWN = "shown"
    """An answer proves the resource and settles the step."""
    GONE = "gone"
    """An answer proves the absence of the resource and settles the step."""
    ANSWERED = "answered"
    """An answer ended the call and settled nothing: retryable, operator refused or contradicted."""
    REFUSED = "refused"
    """The system refused the call."""
    REFUSED_IN_PART = "refused_in_part"
    """The system refused a create or update, and a part of the resource exists."""
    LOOKED_UP = "looked_up"
    """The look-up of an open intent showed no resource, and only a repeat of the call can settle the intent."""
    FOUND = "found"
    """The look-up of an open update or delete showed the resource, and does not settle the intent."""
    HIDDEN = "hidden"
    """The system refused the look-up of a resource in doubt."""


_LOOKED_UP: Final[Mapping[S, S]] = {
    S.PENDING_DENIED: S.TO_REPEAT_IN_DOUBT,
    S.PENDING_IN_DOUBT: S.TO_REPEAT_IN_DOUBT,
    S.REPEATED_IN_DOUBT: S.TO_REPEAT_IN_DOUBT,
    S.PENDING_PRESENT: S.TO_REPEAT_PRESENT,
    S.REPEATED_PRESENT: S.TO_REPEAT_PRESENT,
}
_CLOSED: Final[Mapping[S, S]] = {
    S.PENDING_DENIED: S.DENIED,
    S.PENDING_IN_DOUBT: S.IN_DOUBT,
    S.REPEATED_IN_DOUBT: S.IN_DOUBT,
    S.PENDING_PRESENT: S.PRESENT,
    S.REPEATED_PRESENT: S.PRESENT,
}
_SUPERSEDED: Final[Mapping[S, S]] = {
    S.PRESENT: S.PENDING_PRESENT,
    S.PENDING_IN_DOUBT: S.PENDING_IN_DOUBT,
    S.TO_REPEAT_IN_DOUBT: S.PENDING_IN_DOUBT,
    S.REPEATED_IN_DOUBT: S.PENDING_IN_DOUBT,
    S.PENDING_PRESENT: S.PENDING_PRESENT,
    S.TO_REPEAT_PRESENT: S.PENDING_PRESENT,
    S.REPEATED_PRESENT: S.PENDING_PRESENT,
}
_SETTLED: Final = (*_CLOSED, S.DENIED, S.IN_DOUBT, S.PRESENT)
"""States in which an answer may settle the step: a call is pending, or a resource is looked up."""

TRANSITIONS: Final[Mapping[StepEvent, Mapping[S, S]]] = {
    StepEvent.CHANGE_BEGUN: {
        **_SUPERSEDED,
        S.ABSENT: S.PENDING_DENIED,
        S.DENIED: S.PENDING_DENIED,
        S.PENDING_DENIED: S.PENDING_DENIED,
    },
    # A delete that replaces an open create leaves the create in doubt: the resource may exist from now on.
    StepEvent.DELETE_BEGUN: {
        **_SUPERSEDED,
        S.DENIED: S.PENDING_DENIED,
        S.IN_DOUBT: S.PENDING_IN_DOUBT,
        S.PENDING_DENIED: S.PENDING_IN_DOUBT,
    },
    StepEvent.REPEAT_BEGUN: {
        S.TO_REPEAT_IN_DOUBT: S.REPEATED_IN_DOUBT,
        S.TO_REPEAT_PRESENT: S.REPEATED_PRESENT,
    },
    StepEvent.SHOWN: dict.fromkeys(_SETTLED, S.PRESENT),
    StepEvent.GONE: dict.fromkeys(_SETTLED, S.ABSENT),
    # The answer speaks of the repeat and not of the first call, so the intent of a repeat stays open.
    StepEvent.ANSWERED: {
        **_CLOSED,
        S.REPEATED_IN_DOUBT: S.TO_REPEAT_IN_DOUBT,
        S.REPEATED_PRESENT: S.TO_REPEAT_PRESENT,
    },
    StepEvent.REFUSED: _CLOSED,
    StepEvent.REFUSED_IN_PART: {**_CLOSED, S.PENDING_DENIED: S.IN_DOUBT},
    StepEvent.LOOKED_UP: _LOOKED_UP,
    StepEvent.FOUND: dict.fromkeys(_LOOKED_UP, S.TO_REPEAT_PRESENT),
    StepEvent.HIDDEN: {S.IN_DOUBT: S.DENIED},
}
"""The state after each event, by the state before. A pair without an entry never arises."""

IN_DOUBT: Final = frozenset({S.IN_DOUBT, *_CLOSED})
"""The resource must be looked up by name before a further change."""
TO_REPEAT: Final = frozenset({S.TO_REPEAT_IN_DOUBT, S.TO_REPEAT_PRESENT})
"""The intent is repeated with the same idempotency key, if equal inputs are still wanted."""
REPEATED: Final = frozenset({S.REPEATED_IN_DOUBT, S.REPEATED_PRESENT})
"""The intent was called before, so an answer without an effect does not speak of every call."""
NOT_MADE: Final = frozenset({S.ABSENT, S.DENIED, S.PENDING_DENIED})
"""The resource must be created, and leaves nothing to delete for an orphan check."""


def state_after(state: S, event: StepEvent) -> S:
    """Returns the state after an event.

    Raises:
        AssertionError: the event never arises in this state.
    """
    after = TRANSITIONS[event].get(state)
    if after is None:
        raise AssertionError(f"{event} in the state {state}")
    return after
