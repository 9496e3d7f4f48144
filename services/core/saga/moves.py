"""What a saga may do next, one frozen value each; `Run`, `Observe` and `Undo` are calls, the others need nobody."""

from dataclasses import dataclass

from schemas.saga import Phase
from schemas.tenant import Desired
from schemas.values import Json
from services.core.saga.calls import Verb
from services.core.saga.plan import Step


@dataclass(frozen=True, slots=True)
class Take:
    """Take up the newest desired version (or, where `phase` is one that ends first, move again because of it)."""

    phase: Phase
    desired: Desired


@dataclass(frozen=True, slots=True)
class Run:
    """Create or update a step's resource, at its `url` if it has one; `n` is the last one's only for a repeat."""

    generation: int
    step: Step
    verb: Verb
    n: int
    inputs: Json
    intended: str
    place: str | None


@dataclass(frozen=True, slots=True)
class Observe:
    """Look a step's resource up by name."""

    generation: int
    step: Step
    n: int


@dataclass(frozen=True, slots=True)
class Undo:
    """Delete a step's resource."""

    generation: int
    step: Step
    n: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until_us` (None: before a newer version comes).

    Attributes:
        until_us: Microseconds UTC.
        reason: `retrying`, `system_away`, `system_refuses`, `grace`, why it is held (`install_unknown` …), or empty.
        step: Where it stands.
    """

    until_us: int | None
    reason: str = ""
    step: str | None = None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A step was refused or is exhausted: the phase cannot end well."""

    step: str
    error_class: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The phase has done all it had to."""


@dataclass(frozen=True, slots=True)
class Swept:
    """Nothing of an ended life is left."""

    generation: int


Called = Run | Observe | Undo
Move = Take | Run | Observe | Undo | Wait | GiveUp | Finish | Swept
