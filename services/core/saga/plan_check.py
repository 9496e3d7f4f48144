"""Strict check of a plan given by the operator: unknown keys, values of a wrong type, references without a target.

Rule: a given plan is checked against the keys of every step and of each kind; a stored plan is only parsed
(`services.core.saga.plan`). A life is finished with the plan of its beginning, and a later release may have other keys:
a strict check of stored plans would stop living tenants after an upgrade.
"""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from services.core.saga.kind_traits import KindTraits
from services.core.saga.plan import BadPlan, Plan, parse, step_label
from services.core.saga.plan_forms import faults_of, nearest, unknown
from services.core.saga.plan_keys import FORMER, STEP
from services.core.saga.references import REFERENCE, references

_NEARLY: Final = re.compile(r"\{[ \t]*[A-Za-z_][A-Za-z0-9_. \t-]*\??[ \t]*\}")
"""Text in braces, loose enough to find references with a stray space or an invalid name (`{ tenant.id }`)."""
_SPACE: Final = re.compile(r"[ \t]")
_TOP: Final = ("step",)


def check(text: str, *, kinds: Mapping[str, KindTraits], settings: Mapping[str, Any]) -> Plan:
    """Parses and strictly checks a plan for new lives.

    Args:
        text: TOML, an ordered list of `[[step]]`.
        kinds: Name to traits of the known kinds.
        settings: Values of `{settings.NAME}` by name; None for a setting not given by the operator.

    Raises:
        BadPlan: the plan has faults; carries every fault, in the order of the steps.
    """
    plan, faults = None, list[str]()
    try:
        plan = parse(text, kinds=kinds, settings=settings)
    except BadPlan as bad:
        faults += bad.faults
    with suppress(tomllib.TOMLDecodeError):  # already a fault found by `parse`
        faults += _strict_faults(tomllib.loads(text), kinds)
    if plan is None or faults:
        raise BadPlan(tuple(sorted(faults, key=_step_number)))
    return plan


def _strict_faults(document: Mapping[str, Any], kinds: Mapping[str, KindTraits]) -> Iterator[str]:
    # Faults found by `parse` do not end the check, so no type in the document is taken for granted here.
    for name in document:
        if name not in _TOP:
            yield f"{name}: no such table{nearest(name, _TOP)}; a plan is a list of [[step]]"
    rows = document.get("step")
    if not isinstance(rows, list):
        return
    outputs: dict[str, Collection[str]] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            continue
        kind = kinds.get(str(row.get("kind")))
        if kind is not None:
            found = [*_kind_faults(row, kind, kinds), *_origin_faults(row), *_output_faults(row, outputs), *_typos(row)]
            found += kind.step_faults(row)
            yield from (f"{step_label(number, row)}: {fault}" for fault in found)
            # After the checks of this row, so that a step cannot refer to its own outputs.
            outputs[str(row.get("name"))] = kind.outputs_of(row)


def _kind_faults(row: Mapping[str, Any], kind: KindTraits, kinds: Mapping[str, KindTraits]) -> Iterator[str]:
    yield from faults_of(kind.keys, row)
    for fault in unknown((*STEP, *kind.keys), row, f"kind {kind.name}"):
        name = fault.partition(":")[0]
        if name in FORMER:
            yield f"{name}: no such key any more; {FORMER[name]}"
            continue
        others = [other for other, traits in kinds.items() if name in {key.name for key in traits.keys}]
        yield fault + (f" ({name} is a key of kind {', '.join(others)})" if others else "")


def _origin_faults(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields a fault if a URL with a part from the tenant's configuration is declared as the operator's.

    Such a URL would be called without the egress rules, so an event could choose a host inside the operator's network.
    """
    named = {path.partition(".")[0] for path, _ in references(row.get("url", ""))}
    if row.get("url_from") == "operator" and "configuration" in named:
        yield 'url_from: must be "event", since the url names the configuration, which an event gives'


def _output_faults(row: Mapping[str, Any], outputs: Mapping[str, Collection[str]]) -> Iterator[str]:
    for key, value in row.items():
        for path, _ in references(value):
            root, *names = path.split(".")
            if root == "steps" and len(names) == 2 and names[0] in outputs:
                known = outputs[names[0]]
                if names[1] not in known:
                    has = ", ".join(known) or "no outputs"
                    yield f"{key}: {{{path}}}: no such output{nearest(names[1], known)}; {names[0]} has {has}"


def _typos(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields a fault for every text in braces that is nearly a reference and would be sent literally."""
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
