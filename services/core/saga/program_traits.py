"""Traits of the kinds that run code of the operator: the plan names the outputs of each step.

Rule: what a step does with its outputs stands in the plan and not in the code, because a life is finished with the plan
of its beginning while the code may be another by then. So the sealed outputs of a life stay sealed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.core.saga.kind_traits import KindTraits, SystemBy
from services.core.saga.plan_forms import Form, PlanKey
from services.core.saga.program_contract import HOLD
from services.core.saga.references import references

ARGV: Final = PlanKey("argv", Form.TEXTS, "Program and arguments, as they are: no shell, no references.", required=True)
CLASS: Final = PlanKey(
    "class", Form.TEXT, "Name of the class: an entry point of the group `genesys_lifecycle.steps`.", required=True
)
INPUTS: Final = PlanKey("inputs", Form.TABLE, "Values for the step: `{configuration.…}`, `{steps.…}` and so on.")
OUTPUTS: Final = PlanKey("outputs", Form.TEXTS, "Names of its outputs. An answer must show each of them.", default=[])
SECRET_OUTPUTS: Final = PlanKey(
    "secret_outputs", Form.TEXTS, "Names of further outputs, which are sealed before they are stored.", default=[]
)
ENVIRONMENT: Final = PlanKey(
    "environment", Form.TABLE, "Environment variables, beside PATH, HOME, TMPDIR and LANG. None is inherited."
)
UNKNOWN: Final = PlanKey(
    "unknown",
    Form.CHOICE,
    "What follows where an answer is lost: the step is asked `read`; or, for a step that cannot look, it is held until "
    "a person has made it answer `read`.",
    default="read",
    choices=("read", HOLD),
)

_OUTPUT: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LITERAL: Final = ("argv", "class", "outputs", "secret_outputs")
"""Keys without references. Every user of a machine sees arguments, and a tenant's value may look like an option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramTraits(KindTraits):
    """Traits of a kind whose steps name their outputs (`program_traits`)."""

    def outputs_of(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the outputs named in the plan, the sealed ones included."""
        return (*_names(settings, OUTPUTS), *_names(settings, SECRET_OUTPUTS))

    def secret_outputs_of(self, settings: Mapping[str, Any]) -> frozenset[str]:
        """Returns the outputs that the plan declares secret."""
        return frozenset(_names(settings, SECRET_OUTPUTS))

    def left_behind_of(self, settings: Mapping[str, Any]) -> bool:
        """Returns True for a step that cannot look: an orphan check would be held for ever, for each ended life."""
        return settings.get(UNKNOWN.name) == HOLD

    def step_faults(self, row: Mapping[str, Any]) -> Iterator[str]:
        """Yields the faults of a step beyond unknown keys and wrong forms."""
        # By name: a class with slots is made anew, and `super()` would mean the former one.
        yield from KindTraits.step_faults(self, row)
        for name in _LITERAL:
            for path, _ in references(row.get(name)):
                yield f"{name}: {{{path}}}: takes no reference; a value of a tenant belongs into inputs"
        if row.get("argv") == []:
            yield "argv: names no program"
        program = next(iter(_names(row, ARGV)), "")
        if "/" in program and not program.startswith("/"):
            yield f"argv: {program}: must begin with /, since each call has a working folder of its own"
        outputs = self.outputs_of(row)
        for name in outputs:
            if _OUTPUT.fullmatch(name) is None and not any(references(name)):
                yield f"outputs: {name!r}: an output has lower-case letters, digits and _, a letter first, 40 at most"
        yield from (
            f"outputs: {name} is named twice" for name in sorted({name for name in outputs if outputs.count(name) > 1})
        )
        yield from _variable_faults(row)


def program_traits(name: str, meaning: str, code: PlanKey) -> ProgramTraits:
    """Returns the traits of a kind for the operator's code.

    Args:
        name: Name of the kind.
        meaning: Purpose of the kind, for the page of the plan.
        code: Key of the plan with the name of the code.
    """
    return ProgramTraits(
        name=name,
        meaning=meaning,
        keys=(code, INPUTS, OUTPUTS, SECRET_OUTPUTS, ENVIRONMENT, UNKNOWN),
        outputs=(),
        secret_outputs=frozenset(),
        credentials=frozenset(),
        system=SystemBy.STEP,
        silent_verbs=frozenset(),
        reissued=False,
        left_behind=False,
    )


def _variable_faults(row: Mapping[str, Any]) -> Iterator[str]:
    environment = row.get(ENVIRONMENT.name)
    for name in environment if isinstance(environment, Mapping) else ():
        if _VARIABLE.fullmatch(name) is None:
            yield f"environment: {name!r}: a variable has letters, digits and _, no digit first"


def _names(settings: Mapping[str, Any], key: PlanKey) -> tuple[str, ...]:
    """Returns the names in a list of the plan; a value of a wrong form has none, and is a fault of its own."""
    given = settings.get(key.name)
    return tuple(name for name in given if isinstance(name, str)) if isinstance(given, list | tuple) else ()
