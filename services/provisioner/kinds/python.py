"""Kind `python`: a class of the operator with `do`, `undo` and `observe`, found by an entry point (`services.steps`).

Problem: in the process of the provisioner a blocking class would stop every saga, a hanging class could never be ended,
and a class that goes on after the time limit would act although no saga expects an effect any more. Approach: each call
has a process of its own (`services/steps/host.py`), started and ended like a program of kind `script`, with an equal
contract. docs/decisions/0048 has the price.

Rule: the code of a class never runs in the process of the provisioner, also not for the check at the start.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, ClassVar, Final

from services import steps
from services.adapters.programs.run import ProgramEnd
from services.core.saga.calls import Answer, Call, OperatorRefused, Refused
from services.core.saga.kind_traits import KindTraits
from services.core.saga.plan import Plan, Step
from services.core.saga.plan_forms import nearest
from services.core.saga.program_contract import DONE, WORDS_MOST, request
from services.core.saga.program_traits import CLASS, program_traits
from services.provisioner.kinds.child_program import ChildProgram, ProgramKind

_HOST: Final = Path(steps.__file__).with_name("host.py")
_DESCRIBE_S: Final = 30.0
_INSTALL: Final = "install the distribution with this class on every machine of the provisioner, and start it again"


class PythonKind(ProgramKind):
    """Calls the class of a step."""

    traits: ClassVar[KindTraits] = program_traits(
        "python", "Calls an installed Python class of yours ([the interface](own-steps-in-code.md)).", CLASS
    )

    def __init__(self, programs: ChildProgram) -> None:
        super().__init__(programs)
        self._classes: Mapping[str, list[str]] | None = None

    async def call(self, call: Call) -> Answer:
        """Carries out one call."""
        name = str(call.settings["class"])
        if fault := self._fault_of(name):
            return OperatorRefused(f"class: {fault}"[:WORDS_MOST], _INSTALL)
        try:
            text = json.dumps(self._request(name) | {"call": request(call)}, allow_nan=False)
        except ValueError:
            return Refused("inputs: no JSON text", heard=False)
        return await self._programs.answer(call, _argv(), text)

    async def faults_of(self, plan: Plan) -> list[str]:
        """Returns one sentence for each fault: a class that is missing, cannot be loaded or declares less."""
        found = []
        for number, step in enumerate(plan.steps, 1):
            if step.kind == self.traits.name:
                found += [f"step {number} ({step.name}): {fault}" for fault in await self._step_faults(step)]
        return found

    async def _step_faults(self, step: Step) -> list[str]:
        name = str(step.settings["class"])
        if fault := self._fault_of(name):
            return [f"class: {fault}"]
        environment = {
            key: value for key, value in step.settings.get("environment", {}).items() if "{" not in str(value)
        }
        result = await self._programs.result(_argv(), json.dumps(self._request(name)), environment, _DESCRIBE_S)
        if result.end is not ProgramEnd.EXITED:
            return [f"class: {name}: its import ended the process: {result.end}"]
        try:
            told: dict[str, Any] = json.loads(result.output)
        except ValueError:
            return [f"class: {name}: its import ended the process with status {result.status}"]
        if result.status != DONE:
            return [str(told.get("reason", "cannot be loaded")).replace("class ", "class: ", 1)]
        return list(_differences(step, name, told))

    def _fault_of(self, name: str) -> str:
        """Returns the fault of an entry point; empty if exactly one distribution offers the name."""
        found = self._known().get(name, [])
        if len(set(found)) == 1:
            return ""
        if found:
            return f"{name} is offered by several distributions: {', '.join(sorted(set(found)))}"
        known = sorted(self._known())
        has = ", ".join(known) or "none"
        return f"no installed distribution offers {name}{nearest(name, known)}; the group {steps.GROUP} has {has}"

    def _known(self) -> Mapping[str, list[str]]:
        # Looked up once: a distribution that is replaced under a running process would be half of each.
        if self._classes is None:
            self._classes = _offered()
        return self._classes

    def _request(self, name: str) -> dict[str, Any]:
        path = [str(Path(part).absolute()) for part in sys.path if part]
        return {"path": path, "name": name, "load": self._known()[name][0]}


def _offered() -> dict[str, list[str]]:
    """Returns the entry points of the group by name, each as `MODULE:CLASS`."""
    found: dict[str, list[str]] = {}
    seen = set[str]()
    for distribution in distributions():
        try:
            name, points = distribution.metadata["Name"], list(distribution.entry_points)
        except Exception:  # noqa: BLE001, S112 - a damaged distribution, perhaps of somebody else, offers nothing
            continue
        # The first on the path is the one that is imported.
        if name not in seen:
            for point in points:
                if point.group == steps.GROUP:
                    found.setdefault(point.name, []).append(f"{point.module}:{point.attr}")
        seen.add(name)
    return found


def _argv() -> tuple[str, ...]:
    # -I: neither PYTHON… variables nor the working folder choose the code.
    return (sys.executable, "-I", str(_HOST))


def _differences(step: Step, name: str, told: Mapping[str, Any]) -> Iterator[str]:
    """Yields the faults of a step that wants more of a class than the class declares."""
    inputs = step.settings.get("inputs", {})
    may = [*told["inputs"], *told["optional_inputs"]]
    for wanted in inputs:
        if wanted not in may:
            has = ", ".join(may) or "none"
            yield f"inputs.{wanted}: {name} takes no such input{nearest(wanted, may)}; it takes {has}"
    yield from (f"inputs.{missing}: {name} needs it" for missing in told["inputs"] if missing not in inputs)
    secret = step.traits.secret_outputs_of(step.settings)
    for output in step.traits.outputs_of(step.settings):
        if output not in told["outputs"]:
            has = ", ".join(told["outputs"]) or "none"
            yield f"outputs: {name} has no output {output}{nearest(output, told['outputs'])}; it has {has}"
        elif output in told["secret_outputs"] and output not in secret:
            yield f"outputs: {output} is secret: name it in secret_outputs"
