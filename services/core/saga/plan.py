"""The plan: an ordered list of steps as data, checked as a whole before anything runs.

Rule: a plan without faults can be carried out. Every kind is known, every reference names an earlier step or a given
value, and every step declares an undo. Teardown is the reverse of the list, so a plan has no second half.

`parse` is also used for stored plans of former releases, because each life is finished with the plan from the life's
beginning. A check belongs here only if a step without the check could not be carried out. Every stricter check belongs
into `plan_check`, or an upgrade would make the plans of living tenants unusable.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from services.core.saga.kind_traits import KindTraits
from services.core.saga.plan_faults import PlanFault, in_order, not_toml, of_file, of_step
from services.core.saga.plan_forms import duration_s, faults_of, nearest, not_json
from services.core.saga.plan_keys import FORMER, STEP, default_of
from services.core.saga.plan_order import StepOrder, order_of
from services.core.saga.references import LATE, references

_STEP_KEYS: Final = frozenset((*(key.name for key in STEP), *FORMER))
"""Keys of every step, in this release and in former ones; every other key is a setting of the step's kind."""
_ROOTS: Final = ("tenant", "configuration", "steps", "settings")
_KIND_SHOWN: Final = 40
"""Characters of an unknown kind in a sentence."""

TENANT_NAMES: Final = frozenset({"key", "id", "org", "integration", "generation", "name", "schema", "enabled"})
"""Names allowed in `{tenant.…}`."""


class BadPlan(ValueError):
    """The plan cannot be carried out.

    Attributes:
        details: The faults, in the order of the steps.
        faults: One sentence per fault; the text of the exception has one fault per line.
    """

    def __init__(self, details: Sequence[PlanFault]) -> None:
        self.details = in_order(details)
        self.faults = tuple(map(str, self.details))
        super().__init__("\n".join(self.faults))


class UndoBy(StrEnum):
    """The declared undo of a step."""

    REVERSE = "reverse"
    """The kind's own `delete`."""
    NOTHING = "nothing"
    """An explicit "nothing to undo"."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the plan.

    Attributes:
        name: Name, unique in the plan.
        traits: Traits of the kind, of this release also in a stored plan.
        undo: Declared undo.
        give_up_after_s: Seconds of outage until a first provisioning is compensated.
        timeout_s: Longest time of a call, in seconds.
        destroy_after_s: Grace period: seconds from the beginning of a teardown to the undo of this step.
        settings: The kind's own keys, with unreplaced references.
        given: Values of `{settings.…}`, equal for every tenant; some are secret.
        late_s: Seconds after a call during which the call may still take effect.
    """

    name: str
    traits: KindTraits
    undo: UndoBy
    give_up_after_s: int
    timeout_s: float
    destroy_after_s: int
    settings: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)
    late_s: float = 0.0

    @property
    def kind(self) -> str:
        """Returns the name of the kind; selects the code for the calls."""
        return self.traits.name


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked plan.

    Attributes:
        steps: Steps in the order of creation; at least one.
        digest: SHA-256 of the plan's text; a life stores the digest of the plan from the life's beginning.
    """

    steps: tuple[Step, ...]
    digest: str

    @property
    def longest_s(self) -> float:
        """Returns the seconds within which every call of a step has had its effect."""
        return max(step.timeout_s + step.late_s for step in self.steps)


def parse(text: str, *, kinds: Mapping[str, KindTraits], settings: Mapping[str, Any]) -> Plan:
    """Parses a plan and checks that the plan can be carried out.

    Args:
        text: TOML, an ordered list of `[[step]]`.
        kinds: Name to traits of the known kinds.
        settings: Values of `{settings.NAME}` by name; None for a setting not given by the operator.

    Raises:
        BadPlan: the text is not TOML, has no step, or has faults; carries every fault, not only the first.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadPlan((not_toml(text, error),)) from None
    rows = document.get("step", [])
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadPlan((_no_steps(document),))
    faults: list[PlanFault] = []
    steps: list[Step] = []
    order = order_of(rows)
    for number, row in enumerate(rows, 1):
        own = {name: value for name, value in row.items() if name not in _STEP_KEYS}
        # A faulty step stays in the order: else every later reference to the step would be a fault of its own.
        found = [
            *_row_faults(number, row, order, kinds),
            *_reference_faults(number, own, order, settings),
            *(f"{key}: {fault}" for key, value in own.items() for fault in not_json(value)),
        ]
        faults += [of_step(number, row, fault) for fault in found]
        if not found:
            steps.append(_step(row, kinds[row["kind"]], own, settings))
    if faults:
        raise BadPlan(faults)
    return Plan(tuple(steps), sha256(text.encode()).hexdigest())


def schema_name(key: str, generation: int) -> str:
    """Returns the name of the database schema and role of one life: `t_` and 32 hex digits.

    The name is a hash: no text of the sender becomes a part of an SQL identifier.
    """
    org, _, integration = key.partition(":")
    return "t_" + sha256(f"{org}|{integration}|{generation}".encode()).hexdigest()[:32]


def _no_steps(document: Mapping[str, Any]) -> PlanFault:
    """Returns the fault of a plan without a list of steps."""
    if "step" in document and document["step"] != []:
        return of_file("must be a list of tables; write [[step]], with two brackets, above each step", "step")
    near = next((name for name in document if nearest(name, ("step",))), None)
    if near is not None:
        return of_file("no such table (did you mean step?); a plan is a list of [[step]]", near)
    return of_file("no [[step]]; write a list of them, each with name, kind and undo")


def _row_faults(
    number: int, row: Mapping[str, Any], order: StepOrder, kinds: Mapping[str, KindTraits]
) -> Iterator[str]:
    yield from faults_of([key for key in STEP if key.name != "kind"], row)
    name, kind = row.get("name"), row.get("kind")
    if name in order.earlier(number):
        first = order.names.index(str(name)) + 1
        yield f"name: used twice, by step {first} and by this one; give one of both another name"
    if isinstance(kind, str) and kind not in kinds:
        yield f"kind: {kind[:_KIND_SHOWN]!r} is none of {', '.join(sorted(kinds))}{nearest(kind, kinds)}"
    elif not isinstance(kind, str):
        told = "is no text" if "kind" in row else "is missing"
        yield f"kind: must be one of {', '.join(sorted(kinds))}, and {told}"


def _reference_faults(
    number: int, own: Mapping[str, Any], order: StepOrder, settings: Mapping[str, Any]
) -> Iterator[str]:
    for key, value in own.items():
        for path, optional in references(value):
            if path.partition(".")[0] in LATE:
                continue  # a reference of the kind, which checks the name (`KindTraits.step_faults`)
            fault = _reference_fault(path, number, order, settings, optional=optional)
            if fault:
                yield f"{key}: {{{path}}}: {fault}"


def _reference_fault(path: str, number: int, order: StepOrder, settings: Mapping[str, Any], *, optional: bool) -> str:
    root, *names = path.split(".")
    name = names[0] if names else ""
    if root not in _ROOTS:
        return f"references are to {', '.join(_ROOTS)}{nearest(root, _ROOTS)}"
    if root == "tenant" and (len(names) != 1 or name not in TENANT_NAMES):
        return f"tenant has {', '.join(sorted(TENANT_NAMES))}{nearest(name, TENANT_NAMES)}"
    if root == "steps":
        return order.fault(number, names)
    if root == "settings" and (len(names) != 1 or name not in settings):
        has = f"; a plan may name {', '.join(settings)}" if settings else ""
        return f"no such setting{nearest(name, settings)}{has}"
    if root == "settings" and settings[name] is None and not optional:
        return f"{name.upper()} is missing, and the plan needs it; set it in the provisioner's environment"
    return ""


def _step(row: Mapping[str, Any], traits: KindTraits, own: Mapping[str, Any], settings: Mapping[str, Any]) -> Step:
    return Step(
        name=row["name"],
        traits=traits,
        undo=UndoBy(row["undo"]),
        give_up_after_s=duration_s(row.get("give_up_after", default_of("give_up_after"))) or 0,
        timeout_s=float(row.get("timeout_s", default_of("timeout_s"))),
        destroy_after_s=duration_s(row.get("destroy_after", default_of("destroy_after"))) or 0,
        settings=own,
        given=settings,
        late_s=traits.late_s(own),
    )
