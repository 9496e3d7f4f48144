"""Kind `script`: any program of the operator, run once for each call (docs/own-steps-in-code.md, docs/decisions/0048).

The program reads a JSON object on standard input, answers with an exit status and a JSON object on standard output, and
tells people on standard error. `services.core.saga.program_contract` has the contract, `services.adapters.programs` the
processes: time limit, working folder, and no process left behind.

Rule: nothing of a tenant reaches the command line. `argv` is taken from the plan as written, and no shell reads it.
"""

import json
from typing import ClassVar

from services.core.saga.calls import Answer, Call, Refused
from services.core.saga.kind_traits import KindTraits
from services.core.saga.program_contract import request
from services.core.saga.program_traits import ARGV, program_traits
from services.provisioner.kinds.child_program import ProgramKind


class ScriptKind(ProgramKind):
    """Runs the program of a step."""

    traits: ClassVar[KindTraits] = program_traits(
        "script", "Runs a program of yours for each call ([the contract](own-steps-in-code.md)).", ARGV
    )

    async def call(self, call: Call) -> Answer:
        """Carries out one call."""
        try:
            text = json.dumps(request(call), ensure_ascii=False, allow_nan=False)
            text.encode()
        except ValueError:
            return Refused("inputs: no JSON text", heard=False)
        return await self._programs.answer(call, tuple(call.settings["argv"]), text)
