"""Refuses what a plan says in vain: keys that nobody reads, values of another type, references that lead nowhere.

Rule: a plan that is given is checked by every table; one that was kept is only parsed (`services.core.saga.plan`). A
life is finished with the plan it began with, also when a later release has other keys.
"""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from services.core.saga.plan import BadPlan, Plan, label, parse
from services.core.saga.plan_forms import faults_of, nearest, unknown
from services.core.saga.plan_keys import FORMER, KINDS, STEP, KindKeys
from services.core.saga.references import REFERENCE, references

_NEARLY: Final = re.compile(r"\{[ \t]*[A-Za-z_][A-Za-z0-9_. \t-]*\??[ \t]*\}")
"""What is in braces and may have been meant as a reference."""
_SPACE: Final = re.compile(r"[ \t]")
_TOP: Final = ("step",)


def check(text: str, *, kinds: Collection[str], settings: Mapping[str, Any]) -> Plan:
    """Read a plan that is given for new lives.

    Args:
        text: TOML, an ordered list of `[[step]]`.
        kinds: The kinds there are.
        settings: What `{settings.NAME}` may name; a value of None is not given.

    Raises:
        BadPlan: with every fault, in the order of steps.
    """
    plan, faults = None, list[str]()
    try:
        plan = parse(text, kinds=kinds, settings=settings)
    except BadPlan as bad:
        faults += bad.faults
    with suppress(tomllib.TOMLDecodeError):  # `parse` has said so
        faults += _said_in_vain(tomllib.loads(text))
    if plan is None or faults:
        raise BadPlan(tuple(sorted(faults, key=_step_number)))
    return plan


def _said_in_vain(document: Mapping[str, Any]) -> Iterator[str]:
    for name in document:
        if name not in _TOP:
            yield f"{name}: no such table{nearest(name, _TOP)}; a plan is a list of [[step]]"
    rows = document.get("step")
    if not isinstance(rows, list):
        return
    outputs: dict[str, KindKeys] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            continue
        kind = KINDS.get(str(row.get("kind")))
        if kind is not None:
            found = [*_kind_faults(row, kind), *_origin_faults(row), *_output_faults(row, outputs), *_almost(row)]
            yield from (f"{label(number, row)}: {fault}" for fault in found)
            outputs[str(row.get("name"))] = kind


def _kind_faults(row: Mapping[str, Any], kind: KindKeys) -> Iterator[str]:
    yield from faults_of(kind.keys, row)
    for fault in unknown((*STEP, *kind.keys), row, f"kind {row['kind']}"):
        name = fault.partition(":")[0]
        if name in FORMER:
            yield f"{name}: no such key any more; {FORMER[name]}"
            continue
        others = [other for other, keys in KINDS.items() if name in {key.name for key in keys.keys}]
        yield fault + (f" ({name} is a key of kind {', '.join(others)})" if others else "")


def _origin_faults(row: Mapping[str, Any]) -> Iterator[str]:
    """A URL that an event gives would be called without the rules of egress, were it taken for the operator's."""
    named = {path.partition(".")[0] for path, _ in references(row.get("url", ""))}
    if row.get("url_from") == "operator" and "configuration" in named:
        yield 'url_from: must be "event", since the url names the configuration, which an event gives'


def _output_faults(row: Mapping[str, Any], outputs: Mapping[str, KindKeys]) -> Iterator[str]:
    for key, value in row.items():
        for path, _ in references(value):
            root, *names = path.split(".")
            if root == "steps" and len(names) == 2 and names[0] in outputs:
                known = outputs[names[0]].outputs
                if names[1] not in known:
                    has = ", ".join(known) or "no outputs"
                    yield f"{key}: {{{path}}}: no such output{nearest(names[1], known)}; {names[0]} has {has}"


def _almost(row: Mapping[str, Any]) -> Iterator[str]:
    for key, value in row.items():
        for text in _texts(value):
            for found in _NEARLY.finditer(text):
                if not REFERENCE.fullmatch(found[0]):
                    yield f"{key}: {found[0]}: not a reference; write {_SPACE.sub('', found[0])}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)


def _step_number(fault: str) -> int:
    found = re.match(r"step (\d+) ", fault)
    return int(found[1]) if found else 0
