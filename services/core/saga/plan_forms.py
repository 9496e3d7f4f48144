"""Forms of the values in a plan, and one sentence for each value with another form.

Rule: a fault names the key, the wanted form and the type found, and never the value, because a plan may hold a secret.
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
    """Form of a value; the texts appear in docs/plan.md."""

    NAME = "name"
    TEXT = "text"
    URL = "URL"
    BASE_URL = "base URL"
    PATH = "path"
    CHOICE = "choice"
    NUMBER = "number"
    DURATION = "ISO 8601 duration"
    TEXTS = "list of text"
    STATUSES = "list of HTTP statuses"
    TABLE = "table"


_MAY_REFER: Final = frozenset({Form.TEXT, Form.URL, Form.BASE_URL, Form.TEXTS})
"""Forms whose whole value may be one reference. A table is none of them: an event would choose the table's keys."""


@dataclass(frozen=True, slots=True)
class PlanKey:
    """Declaration of one key of a plan.

    Attributes:
        name: Name in TOML.
        form: Form of the value.
        meaning: One or two sentences for docs/plan.md.
        default: Value of a missing key; None for a key without a default.
        required: True if the step cannot be carried out without the key.
        choices: Allowed values of the form CHOICE.
        most: Greatest allowed number, or seconds of a duration. A number must be above 0.
        keys: Keys of the form TABLE; a table declared without keys may have any key.
        reserved: Keys forbidden in a table.
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
    """Returns the seconds of an ISO 8601 duration (weeks, days, hours, minutes, seconds), or None for other text."""
    found = _DURATION.fullmatch(text)
    # The expression alone would accept `P`, `PT` and `P1DT`, which name no amount.
    if found is None or text.endswith(("P", "T")):
        return None
    return sum(int(digits or 0) * unit_s for digits, unit_s in zip(found.groups(), _UNITS_S, strict=True))


def faults_of(keys: Collection[PlanKey], given: Mapping[str, Any]) -> Iterator[str]:
    """Yields one sentence per fault in the values of these keys; unknown keys are ignored.

    Args:
        keys: The declared keys.
        given: The table of the plan.
    """
    for key in keys:
        if key.name in given:
            yield from _faults(key, given[key.name])
        elif key.required:
            yield f"{key.name}: must be {_wanted(key)}, and is missing"


def unknown(keys: Collection[PlanKey], given: Mapping[str, Any], whose: str) -> Iterator[str]:
    """Yields one sentence per key that is not declared, keys of nested tables included.

    Args:
        keys: The declared keys.
        given: The table of the plan.
        whose: Owner of the keys, as the sentence names it.
    """
    names = [key.name for key in keys]
    for name in given:
        if name not in names:
            near = nearest(name, names)
            remedy = "" if near else "; take it out"
            yield f"{name}: no such key{near}; {whose} has {', '.join(names) or 'none'}{remedy}"
    for key in keys:
        inner = given.get(key.name)
        if key.keys and isinstance(inner, Mapping):
            yield from (f"{key.name}.{fault}" for fault in unknown(key.keys, inner, key.name))


def nearest(name: str, names: Collection[str]) -> str:
    """Returns " (did you mean NAME?)" for the nearest of the names; empty if no name is near."""
    found = get_close_matches(name.lower(), names, 1)
    return f" (did you mean {found[0]}?)" if found else ""


def not_json(value: Any, *, inner: bool = False) -> Iterator[str]:
    """Yields one sentence per value inside a table or a list that JSON does not have.

    The settings of a step are hashed and sent as JSON, so a date or an infinite number would stop every tenant.
    """
    if isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from not_json(part, inner=True)
    elif inner and isinstance(value, float) and not isfinite(value):
        yield "has a number without an end, which JSON does not have; write a finite number or text"
    elif inner and not isinstance(value, str | int | float):
        yield "has a date or time, which JSON does not have; put it into double quotes"


def _faults(key: PlanKey, value: Any) -> Iterator[str]:
    if key.form in _MAY_REFER and isinstance(value, str) and REFERENCE.fullmatch(value):
        return  # the value is known only when a tenant is provisioned
    if not _CHECKS[key.form](key, value):
        yield f"{key.name}: must be {_wanted(key)}, and is {_shown(key, value)}"
    elif isinstance(value, Mapping):
        yield from (f"{key.name}.{fault}" for fault in faults_of(key.keys, value))
        for name in sorted(key.reserved & value.keys()):
            yield f"{key.name}.{name}: is a field of the contract, which we fill; give yours another name"


def _is_number(key: PlanKey, value: Any) -> bool:
    # A bool is an int in Python, and TOML has `inf` and `nan`.
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and 0 < value <= key.most


def _is_duration(key: PlanKey, value: Any) -> bool:
    span_s = duration_s(value) if isinstance(value, str) else None
    return span_s is not None and span_s <= key.most


def _is_status(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 200 <= value <= 599


def _is_url(_: PlanKey, value: Any) -> bool:
    # A URL with a reference is judged at the call, when the reference has a value.
    return isinstance(value, str) and (bool(REFERENCE.search(value)) or value.startswith(("https://", "http://")))


def _is_base_url(key: PlanKey, value: Any) -> bool:
    # Paths are appended, and would become a part of a query or a fragment.
    return _is_url(key, value) and not {"?", "#"} & set(REFERENCE.sub("", value))


def _is_path(_: PlanKey, value: Any) -> bool:
    # A path without a slash would go on with the host's name, and so would a reference at its beginning: an event could
    # then choose the host of an operator's URL.
    begins = isinstance(value, str) and (not value or value[0] == "/")
    return begins and not {"?", "#"} & set(REFERENCE.sub("", value))


_CHECKS: Final[Mapping[Form, Callable[[PlanKey, Any], bool]]] = {
    Form.NAME: lambda _, value: isinstance(value, str) and _NAME.fullmatch(value) is not None,
    Form.TEXT: lambda _, value: isinstance(value, str),
    Form.URL: _is_url,
    Form.BASE_URL: _is_base_url,
    Form.PATH: _is_path,
    Form.CHOICE: lambda key, value: isinstance(value, str) and value in key.choices,
    Form.NUMBER: _is_number,
    Form.DURATION: _is_duration,
    Form.TEXTS: lambda _, value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    Form.STATUSES: lambda _, value: isinstance(value, list) and all(map(_is_status, value)),
    Form.TABLE: lambda _, value: isinstance(value, Mapping),
}


def _wanted(key: PlanKey) -> str:
    """Returns the wanted form of a value, for a sentence."""
    wanted = {
        Form.NAME: "lower-case letters, digits and _, a letter first, 40 at most",
        Form.CHOICE: " or ".join(f'"{choice}"' for choice in key.choices),
        Form.NUMBER: f"a number above 0, at most {key.most}",
        Form.DURATION: f"an ISO 8601 duration as P1DT12H or PT30M, at most P{key.most // 86_400}D",
        Form.URL: "an http or https URL",
        Form.BASE_URL: "an http or https URL without ? and #",
        Form.PATH: "text that begins with / and has no ? and no #",
        Form.TEXTS: "a list of text",
        Form.STATUSES: "a list of HTTP statuses from 200 to 599",
        Form.TABLE: "a table",
    }
    return wanted.get(key.form, str(key.form))


def _shown(key: PlanKey, value: Any) -> str:
    """Returns the TOML name of a value's type, and a nearly right choice; never the value."""
    if isinstance(value, str):
        if REFERENCE.fullmatch(value):
            return "a reference, which may not stand here"
        if key.form is Form.DURATION and duration_s(value) is not None:
            return "longer than that"
        return "another text" + (nearest(value, key.choices) if key.form is Form.CHOICE else "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number outside of that" if key.form is Form.NUMBER else "a number"
    if isinstance(value, list):
        return "a list with other values" if key.form is Form.TEXTS else "a list"
    return {bool: "a boolean", dict: "a table"}.get(type(value), "a date or time")
