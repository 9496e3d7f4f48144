"""The plan: an ordered list of steps as data, checked whole before anything runs.

Rule: a plan that parses can be carried out: every kind is known, every reference is to an earlier step or to something
that is given, every step says how it is undone. Teardown is the reverse of the list, so a plan needs no second half.
"""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from services.core.references import references

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_DURATION: Final = re.compile(r"P(?:(\d{1,9})W)?(?:(\d{1,9})D)?(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9})S)?)?")
_UNITS_S: Final = (604_800, 86_400, 3_600, 60, 1)
_OWN: Final = frozenset({"name", "kind", "undo", "give_up_after", "timeout_s", "destroy_after", "retries"})
"""`retries` is of an earlier release: lives that began with a plan that has it are finished, and it says nothing."""

GIVE_UP_AFTER: Final = "PT6H"
"""Default of `give_up_after` (spec section 6)."""

GRACE_MAX_S: Final = 3_660 * 86_400
"""Ten years: what outlives that is no grace period, and a date far enough away is none of the database's."""

TENANT_NAMES: Final = frozenset({"key", "id", "org", "integration", "generation", "name", "schema", "enabled"})
"""What `{tenant.…}` may name."""

REISSUED: Final = frozenset({"oauth"})
"""Kinds that are undone and done again when an `uninstalled` lay between two installs (spec section 4)."""

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
        label = f"step {number} ({row.get('name', 'without a name')})"
        own = {name: value for name, value in row.items() if name not in _OWN}
        found = [*_row_faults(row, earlier, kinds), *_reference_faults(own, earlier, settings)]
        faults += [f"{label}: {fault}" for fault in found]
        if not found:
            steps.append(_step(row, own, settings))
        earlier.append(str(row.get("name")))
    if faults:
        raise BadPlan(tuple(faults))
    return Plan(tuple(steps), sha256(text.encode()).hexdigest())


def duration_s(text: str) -> int | None:
    """Seconds of an ISO 8601 duration of weeks, days, hours, minutes and seconds; None when it is not one."""
    found = _DURATION.fullmatch(text)
    if found is None or text.endswith(("P", "T")):
        return None
    return sum(int(digits or 0) * unit_s for digits, unit_s in zip(found.groups(), _UNITS_S, strict=True))


def schema_name(key: str, generation: int) -> str:
    """The database schema (and role) of one life: `t_` and 32 hex digits, nothing of the sender's."""
    org, _, integration = key.partition(":")
    return "t_" + sha256(f"{org}|{integration}|{generation}".encode()).hexdigest()[:32]


def _row_faults(row: Mapping[str, Any], earlier: list[str], kinds: Collection[str]) -> Iterator[str]:
    name = row.get("name")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        yield "name: lower-case letters, digits and _ are allowed, a letter first"
    elif name in earlier:
        yield "name: used twice"
    if row.get("kind") not in kinds:
        yield f"kind: {row.get('kind')!r} is none of {', '.join(sorted(kinds))}"
    if row.get("undo") not in {"reverse", "nothing"}:
        yield 'undo: must be "reverse" or "nothing"'
    if not isinstance(row.get("timeout_s", 10), int | float) or not 0 < row.get("timeout_s", 10) <= 60:
        yield "timeout_s: above 0, at most 60"
    for key in ("give_up_after", "destroy_after"):
        length_s = duration_s(str(row.get(key, "PT0S")))
        if length_s is None:
            yield f"{key}: not an ISO 8601 duration of weeks, days, hours, minutes and seconds"
        elif length_s > GRACE_MAX_S:
            yield f"{key}: at most P{GRACE_MAX_S // 86_400}D"


def _reference_faults(own: Mapping[str, Any], earlier: list[str], settings: Mapping[str, Any]) -> Iterator[str]:
    for path, optional in references(own):
        root, *names = path.split(".")
        if root == "tenant" and (len(names) != 1 or names[0] not in TENANT_NAMES):
            yield f"{{{path}}}: tenant has {', '.join(sorted(TENANT_NAMES))}"
        elif root == "steps" and (len(names) != 2 or names[0] not in earlier):
            yield f"{{{path}}}: not an output of an earlier step"
        elif root == "settings" and (len(names) != 1 or names[0] not in settings):
            yield f"{{{path}}}: no such setting"
        elif root == "settings" and settings[names[0]] is None and not optional:
            yield f"{{{path}}}: {names[0].upper()} is missing, and the plan needs it"
        elif root not in {"tenant", "configuration", "steps", "settings"}:
            yield f"{{{path}}}: references are to tenant, configuration, steps or settings"


def _step(row: Mapping[str, Any], own: Mapping[str, Any], settings: Mapping[str, Any]) -> Step:
    return Step(
        name=row["name"],
        kind=row["kind"],
        undo=UndoBy(row["undo"]),
        give_up_after_s=duration_s(str(row.get("give_up_after", GIVE_UP_AFTER))) or 0,
        timeout_s=float(row.get("timeout_s", 10)),
        destroy_after_s=duration_s(str(row.get("destroy_after", "PT0S"))) or 0,
        settings=own,
        given=settings,
    )
