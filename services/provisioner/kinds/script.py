"""Kind `script`: any program of the operator, run once for each call (docs/own-steps-in-code.md, docs/decisions/0048).

The program reads a JSON object on standard input, answers with an exit status and a JSON object on standard output, and
tells people on standard error. `services.core.saga.program_contract` has the contract, `services.adapters.programs` the
processes: time limit, working folder, and no process left behind.

Rule: nothing of a tenant reaches the command line. `argv` is taken from the plan as written, and no shell reads it.
"""

import json
from typing import ClassVar, Self

from services.adapters.process.settings import ProvisionerSettings
from services.core.saga.calls import Answer, Call, Refused
from services.core.saga.kind_traits import KindTraits, SystemBy
from services.core.saga.program_contract import request
from services.core.saga.program_traits import ARGV, PROGRAM_KEYS, ProgramTraits
from services.provisioner.kinds.child_program import ChildProgram
from services.provisioner.kinds.step_kind import Shared


class ScriptKind:
    """Runs the program of a step."""

    traits: ClassVar[KindTraits] = ProgramTraits(
        name="script",
        meaning="Runs a program of yours for each call ([the contract](own-steps-in-code.md)).",
        keys=(ARGV, *PROGRAM_KEYS),
        outputs=(),
        secret_outputs=frozenset(),
        credentials=frozenset(),
        system=SystemBy.STEP,
        silent_verbs=frozenset(),
        reissued=False,
        left_behind=False,
    )

    def __init__(self, programs: ChildProgram) -> None:
        self._programs = programs

    @classmethod
    def build(cls, settings: ProvisionerSettings, shared: Shared) -> Self:
        """Returns the kind, with working folders below STATE_DIR."""
        return cls(ChildProgram.of(settings, shared.log))

    async def call(self, call: Call) -> Answer:
        """Carries out one call."""
        try:
            text = json.dumps(request(call), ensure_ascii=False, allow_nan=False)
            text.encode()
        except ValueError:
            return Refused("inputs: no JSON text", heard=False)
        return await self._programs.answer(call, tuple(call.settings["argv"]), text)

    async def close(self) -> None:
        """Waits for the end of programs whose calls were cancelled."""
        await self._programs.close()
