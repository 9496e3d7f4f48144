"""The plan: an ordered list of steps as data, checked whole before anything runs.

Rule: a plan that parses can be carried out: every kind is known, every reference is to an earlier step or to something
that is given, every step says how it is undone. Teardown is the reverse of the list, so a plan needs no second half.
"""

import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from services.core.saga.plan_forms import duration_s, faults_of, nearest
from services.core.saga.plan_keys import FORMER, STEP, default_of
from services.core.saga.references import references

_OWN: Final = frozenset((*(key.name for key in STEP), *FORMER))
_ROOTS: Final = ("tenant", "configuration", "steps", "settings")

TENANT_NAMES: Final = frozenset({"key", "id", "org", "integration", "generation", "name", "schema", "enabled"})
"""What `{tenant.…}` may name."""

REISSUED: Final = frozenset({"oauth"})
"""Kinds that are undone and done again when an `uninstalled` lay between two installs."""

LEFT_BEHIND: Final = frozenset({"archive"})
"""Kinds whose undo leaves something on purpose: nothing to look for afterwards."""


class BadPlan(ValueError):
    """The plan cannot be carried out; `faults` has one sentence a fault."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class UndoBy(StrEnum):
    """How a step is undone."""

    REVERSE = "reverse"
    """By the kind's own `delete`."""
    NOTHING = "nothing"
    """There is nothing to undo, and the plan says so."""


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the plan.

    Attributes:
        name: Unique in the plan.
        kind: Which hand carries it out.
        undo: How it is undone.
        give_up_after_s: How long an outage may last before a first provisioning is compensated.
        timeout_s: Of one call.
        destroy_after_s: How long teardown waits before it undoes this step.
        settings: The kind's own, with references.
        given: What `{settings.…}` is replaced with, the same for every tenant; some are secret.
    """

    name: str
    kind: str
    undo: UndoBy
    give_up_after_s: int
    timeout_s: float
    destroy_after_s: int
    settings: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order of creation.

    Attributes:
        steps: At least one.
        digest: Of the text: a life is finished with the plan it began with.
    """

    steps: tuple[Step, ...]
    digest: str

    @property
    def longest_s(self) -> float:
        """The longest a call may take."""
        return max(step.timeout_s for step in self.steps)


def parse(text: str, *, kinds: Collection[str], settings: Mapping[str, Any]) -> Plan:
    """Read and check a plan.

    Args:
        text: TOML, an ordered list of `[[step]]`.
        kinds: The kinds there are.
        settings: What `{settings.NAME}` may name; a value of None is not given.

    Raises:
        BadPlan: with every fault.
    """
    try:
        rows = tomllib.loads(text).get("step", [])
    except tomllib.TOMLDecodeError as error:
        raise BadPlan((f"not TOML: {error}",)) from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadPlan(("no [[step]]",))
    faults: list[str] = []
    earlier: list[str] = []
    steps: list[Step] = []
    for number, row in enumerate(rows, 1):
        step = label(number, row)
        own = {name: value for name, value in row.items() if name not in _OWN}
        found = [*_row_faults(row, earlier, kinds), *_reference_faults(own, earlier, settings)]
        faults += [f"{step}: {fault}" for fault in found]
        if not found:
            steps.append(_step(row, own, settings))
        earlier.append(str(row.get("name")))
    if faults:
        raise BadPlan(tuple(faults))
    return Plan(tuple(steps), sha256(text.encode()).hexdigest())


def schema_name(key: str, generation: int) -> str:
    """The database schema (and role) of one life: `t_` and 32 hex digits, nothing of the sender's."""
    org, _, integration = key.partition(":")
    return "t_" + sha256(f"{org}|{integration}|{generation}".encode()).hexdigest()[:32]


def label(number: int, row: Mapping[str, Any]) -> str:
    """How a fault names its step."""
    return f"step {number} ({row.get('name', 'without a name')})"


def _row_faults(row: Mapping[str, Any], earlier: list[str], kinds: Collection[str]) -> Iterator[str]:
    yield from faults_of(STEP, row)
    if row.get("name") in earlier:
        yield "name: used twice"
    kind = row.get("kind")
    if isinstance(kind, str) and kind not in kinds:
        yield f"kind: {kind!r} is none of {', '.join(sorted(kinds))}{nearest(kind, kinds)}"


def _reference_faults(own: Mapping[str, Any], earlier: list[str], settings: Mapping[str, Any]) -> Iterator[str]:
    for key, value in own.items():
        for path, optional in references(value):
            fault = _reference_fault(path, earlier, settings, optional=optional)
            if fault:
                yield f"{key}: {{{path}}}: {fault}"


def _reference_fault(path: str, earlier: list[str], settings: Mapping[str, Any], *, optional: bool) -> str:
    root, *names = path.split(".")
    name = names[0] if names else ""
    if root not in _ROOTS:
        return f"references are to {', '.join(_ROOTS)}{nearest(root, _ROOTS)}"
    if root == "tenant" and (len(names) != 1 or name not in TENANT_NAMES):
        return f"tenant has {', '.join(sorted(TENANT_NAMES))}{nearest(name, TENANT_NAMES)}"
    if root == "steps" and (len(names) != 2 or name not in earlier):
        return f"not an output of an earlier step{nearest(name, earlier)}"
    if root == "settings" and (len(names) != 1 or name not in settings):
        return f"no such setting{nearest(name, settings)}"
    if root == "settings" and settings[name] is None and not optional:
        return f"{name.upper()} is missing, and the plan needs it"
    return ""


def _step(row: Mapping[str, Any], own: Mapping[str, Any], settings: Mapping[str, Any]) -> Step:
    return Step(
        name=row["name"],
        kind=row["kind"],
        undo=UndoBy(row["undo"]),
        give_up_after_s=duration_s(row.get("give_up_after", default_of("give_up_after"))) or 0,
        timeout_s=float(row.get("timeout_s", default_of("timeout_s"))),
        destroy_after_s=duration_s(row.get("destroy_after", default_of("destroy_after"))) or 0,
        settings=own,
        given=settings,
    )
