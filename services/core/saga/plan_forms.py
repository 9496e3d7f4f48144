"""What a key of a plan may hold: its form, and a sentence for everything that does not have it.

Rule: a fault names the key, what it must be and what it is, never a value: a plan may hold a secret.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from math import isfinite
from typing import Any, Final

from services.core.saga.references import REFERENCE

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_DURATION: Final = re.compile(r"P(?:(\d{1,9})W)?(?:(\d{1,9})D)?(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9})S)?)?")
_UNITS_S: Final = (604_800, 86_400, 3_600, 60, 1)


class Form(StrEnum):
    """What a value must be, in the words of docs/plan.md."""

    NAME = "name"
    TEXT = "text"
    URL = "URL"
    CHOICE = "choice"
    NUMBER = "number"
    DURATION = "ISO 8601 duration"
    TEXTS = "list of text"
    TABLE = "table"


_MAY_REFER: Final = frozenset({Form.TEXT, Form.URL, Form.TEXTS})
"""Whose whole value one reference may stand for. A table's may not: an event would name its keys."""


@dataclass(frozen=True, slots=True)
class PlanKey:
    """One key.

    Attributes:
        name: As in TOML.
        form: Of its value.
        meaning: One or two sentences for docs/plan.md.
        default: What a missing key is taken for; None where that is nothing.
        required: True if the step cannot be carried out without it.
        choices: The values of a choice.
        most: The greatest number, or seconds of a duration; of numbers 0 itself is too small.
        keys: Those of a table; a table without any may have every key.
        reserved: Keys that a table may not have.
    """

    name: str
    form: Form
    meaning: str
    default: Any = None
    required: bool = False
    choices: tuple[str, ...] = ()
    most: int = 0
    keys: tuple["PlanKey", ...] = ()
    reserved: frozenset[str] = frozenset()


def duration_s(text: str) -> int | None:
    """Seconds of an ISO 8601 duration of weeks, days, hours, minutes and seconds; None when it is not one."""
    found = _DURATION.fullmatch(text)
    if found is None or text.endswith(("P", "T")):
        return None
    return sum(int(digits or 0) * unit_s for digits, unit_s in zip(found.groups(), _UNITS_S, strict=True))


def faults_of(keys: Collection[PlanKey], given: Mapping[str, Any]) -> Iterator[str]:
    """Returns what is wrong with the values of these keys, a sentence each; unknown keys are left alone."""
    for key in keys:
        if key.name in given:
            yield from _faults(key, given[key.name])
        elif key.required:
            yield f"{key.name}: must be {_wanted(key)}, and is missing"


def unknown(keys: Collection[PlanKey], given: Mapping[str, Any], whose: str) -> Iterator[str]:
    """Returns a sentence for every key that these tables do not have, nested ones included."""
    names = [key.name for key in keys]
    for name in given:
        if name not in names:
            yield f"{name}: no such key{nearest(name, names)}; {whose} has {', '.join(names) or 'none'}"
    for key in keys:
        inner = given.get(key.name)
        if key.keys and isinstance(inner, Mapping):
            yield from (f"{key.name}.{fault}" for fault in unknown(key.keys, inner, key.name))


def nearest(name: str, names: Collection[str]) -> str:
    """Returns the nearest of some names as the end of a sentence; empty where none is near."""
    found = get_close_matches(name.lower(), names, 1)
    return f" (did you mean {found[0]}?)" if found else ""


def _faults(key: PlanKey, value: Any) -> Iterator[str]:
    if key.form in _MAY_REFER and isinstance(value, str) and REFERENCE.fullmatch(value):
        return  # what it will be is not known yet
    if not _CHECKS[key.form](key, value):
        yield f"{key.name}: must be {_wanted(key)}, and is {_shown(value)}"
    elif isinstance(value, Mapping):
        yield from (f"{key.name}.{fault}" for fault in faults_of(key.keys, value))
        for name in sorted(key.reserved & value.keys()):
            yield f"{key.name}.{name}: is a field of the contract, which we fill; name yours otherwise"


def _is_number(key: PlanKey, value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and 0 < value <= key.most


def _is_duration(key: PlanKey, value: Any) -> bool:
    span_s = duration_s(value) if isinstance(value, str) else None
    return span_s is not None and span_s <= key.most


def _is_url(_: PlanKey, value: Any) -> bool:
    # With a reference in it, what it will be is judged when it is called.
    return isinstance(value, str) and (bool(REFERENCE.search(value)) or value.startswith(("https://", "http://")))


_CHECKS: Final[Mapping[Form, Callable[[PlanKey, Any], bool]]] = {
    Form.NAME: lambda _, value: isinstance(value, str) and _NAME.fullmatch(value) is not None,
    Form.TEXT: lambda _, value: isinstance(value, str),
    Form.URL: _is_url,
    Form.CHOICE: lambda key, value: isinstance(value, str) and value in key.choices,
    Form.NUMBER: _is_number,
    Form.DURATION: _is_duration,
    Form.TEXTS: lambda _, value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    Form.TABLE: lambda _, value: isinstance(value, Mapping),
}


def _wanted(key: PlanKey) -> str:
    """Returns what the value must be, for a sentence."""
    said = {
        Form.NAME: "lower-case letters, digits and _, a letter first, 40 at most",
        Form.CHOICE: " or ".join(f'"{choice}"' for choice in key.choices),
        Form.NUMBER: f"a number above 0, at most {key.most}",
        Form.DURATION: f"an ISO 8601 duration of weeks, days, hours, minutes, seconds, at most P{key.most // 86_400}D",
        Form.URL: "an http or https URL",
        Form.TEXTS: "a list of text",
        Form.TABLE: "a table",
    }
    return said.get(key.form, str(key.form))


def _shown(value: Any) -> str:
    """Returns the TOML name of a value's type."""
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "another text",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), "a date or time")
