"""Parses the file of `lifecycle adopt`: JSON Lines, a tenant a line, judged against the plan.

Rule: a bad line costs its own tenant alone, and is named by its number. No text quotes a value, since configuration and
outputs may hold secrets.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from schemas import webhook
from schemas.adoption import AdoptionLine
from schemas.values import Key
from services.core.saga.plan import Plan
from services.core.saga.plan_forms import nearest

LINE_MOST: Final = 256 * 1024
"""Bytes of a line: a delivery may have as many, and the ledger's row must hold the configuration."""
_WORDS: Final = {
    "key": "must be orgId:integrationId, two UUIDs",
    "tenantId": "must be 1 to 128 letters, digits, dots, dashes and underscores",
    "configuration": "must be an object",
    "enabled": "must be true or false",
    "steps": "must be an object of objects: the name of a step to the outputs of the step",
}
"""The form of each field, for the text of a fault."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be used.

    Attributes:
        number: Number of the line, from 1.
        why: The fault; no value.
    """

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class AdoptionFile:
    """A parsed file.

    Attributes:
        tenants: Number of the line to the tenant, in the order of the file.
        bad: The lines that cannot be used.
    """

    tenants: dict[int, AdoptionLine] = field(default_factory=dict)
    bad: list[BadLine] = field(default_factory=list)


def parse_file(lines: Iterable[bytes], plan: Plan) -> AdoptionFile:
    """Returns the tenants of a file, and the lines that cannot be used; empty lines are skipped.

    Args:
        lines: The lines of the file.
        plan: The current plan, by which the tenants are adopted.
    """
    found = AdoptionFile()
    numbers: dict[Key, int] = {}
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        line = _parsed(raw)
        if isinstance(line, AdoptionLine):
            first = numbers.setdefault(line.key, number)
            why = f"key: stands in line {first} already" if first != number else _step_fault(line, plan)
        else:
            why = line
        if isinstance(line, str) or why:
            found.bad.append(BadLine(number, why))
        else:
            found.tenants[number] = line
    return found


def _parsed(raw: bytes) -> AdoptionLine | str:
    """Returns the tenant of a line, or the first fault in words."""
    if len(raw) > LINE_MOST:
        return f"longer than {LINE_MOST // 1024} KiB"
    try:
        value = webhook.read_json(raw)
    except webhook.Malformed as malformed:
        return f"the line {malformed.rule}"
    if not isinstance(value, dict):
        return "the line must be a JSON object"
    if isinstance(value.get("key"), str):
        value = {**value, "key": value["key"].lower()}  # as the ingress takes ids in any case
    try:
        return AdoptionLine.model_validate(value, strict=True)
    except ValidationError as error:
        return _fault_text(error)


def _fault_text(error: ValidationError) -> str:
    """Returns the first fault of a line in words."""
    fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
    name = str(fault["loc"][0])
    if fault["type"] == "missing":
        return f"{name}: is missing"
    if name in _WORDS:
        return f"{name}: {_WORDS[name]}"
    return f"no field {_shown(name)}{nearest(name, AdoptionLine.model_fields)}"


def _step_fault(line: AdoptionLine, plan: Plan) -> str:
    """Returns the first step or output that the plan does not know; empty without one."""
    known = {step.name: step.traits.outputs for step in plan.steps}
    for name, outputs in line.steps.items():
        if name not in known:
            return f"steps: the plan has no step {_shown(name)}{nearest(name, known)}"
        for output in outputs:
            # A kind without declared outputs picks them by its plan: every name may be one.
            if known[name] and output not in known[name]:
                return f"steps.{name}: no output {_shown(output)}; there are {', '.join(known[name])}"
    return ""


def _shown(name: str) -> str:
    """Returns a name of the file for a fault; a name with odd characters may be a value, and is left out."""
    return repr(name) if name.replace("-", "_").isidentifier() and len(name) <= 64 else "of this name"
