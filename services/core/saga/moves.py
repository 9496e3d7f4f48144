"""The possible moves of a saga, one frozen class each.

`Run`, `LookUp` and `Undo` are calls to an outside system. `Wait` ends a turn. `TakeUp`, `GiveUp`, `Finish` and
`OrphanCheckDone` change the journal alone. `services.core.saga.next_move` chooses the move.
"""

from dataclasses import dataclass

from schemas.saga import Phase
from schemas.tenant import Desired
from schemas.values import Json
from services.core.saga.calls import Verb
from services.core.saga.plan import Step


@dataclass(frozen=True, slots=True)
class TakeUp:
    """Takes up the newest desired version.

    Attributes:
        phase: The phase in which the saga continues.
        desired: The version to take up.
    """

    phase: Phase
    desired: Desired


@dataclass(frozen=True, slots=True)
class Run:
    """Creates or updates the resource of a step.

    Attributes:
        generation: The life that the call is for.
        step: The step of the plan.
        verb: CREATE or UPDATE.
        n: Number of the intent. A repeat of a lost call keeps the number, and with it the idempotency key; any other
            call takes the next number.
        inputs: `configuration` (the names used by the step) and `enabled`.
        intended: Hash of the step's settings with these inputs.
        location: The `url` of the call; None if the step has no `url`.
    """

    generation: int
    step: Step
    verb: Verb
    n: int
    inputs: Json
    intended: str
    location: str | None


@dataclass(frozen=True, slots=True)
class LookUp:
    """Looks up the resource of a step by name; changes nothing outside and has no intent.

    Attributes:
        generation: The life that the call is for.
        step: The step of the plan.
        n: Number of the step's newest intent.
    """

    generation: int
    step: Step
    n: int


@dataclass(frozen=True, slots=True)
class Undo:
    """Deletes the resource of a step.

    Attributes:
        generation: The life that the call is for.
        step: The step of the plan.
        n: Number of the intent, counted as in `Run`.
    """

    generation: int
    step: Step
    n: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Ends the turn: the saga has nothing to do before `until_us`.

    Attributes:
        until_us: Microseconds UTC; None until a newer desired version arrives.
        reason: `retrying`, `system_away`, `system_refuses`, `grace`, the reason of a held removal (`HELD_REMOVALS`) or
            of a held version (`install_unknown`, `tenant_unknown`, `tenant_conflict` or `released`), or empty for a
            saga at rest and for a busy system.
        step: Name of the step at which the saga stands; None outside a step.
    """

    until_us: int | None
    reason: str = ""
    step: str | None = None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Ends a phase without success, because a step was refused or the outage at a step outlasted `give_up_after`.

    Attributes:
        step: Name of the step.
        error_class: `refused` or `exhausted`.
        reason: Text of the step's last answer, or the names missing for the step.
    """

    step: str
    error_class: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Ends a phase with success: no step has anything left to do."""


@dataclass(frozen=True, slots=True)
class OrphanCheckDone:
    """Ends the orphan check of an ended life: no resource of the life has to be looked up or removed any more."""

    generation: int


Called = Run | LookUp | Undo
Move = TakeUp | Run | LookUp | Undo | Wait | GiveUp | Finish | OrphanCheckDone
