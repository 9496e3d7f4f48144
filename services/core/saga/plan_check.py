"""Strict check of a plan given by the operator: unknown keys, values of a wrong type, references without a target.

Rule: a given plan is checked against the keys of every step and of each kind, against the rules on URLs
(`services.core.saga.plan_urls`), and by the kind's own check; a stored plan is only parsed
(`services.core.saga.plan`). A life is finished with the plan of its beginning, and a later release may have other keys:
a strict check of stored plans would stop living tenants after an upgrade.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from services.core.saga.kind_traits import KindTraits
from services.core.saga.plan import BadPlan, Plan, parse
from services.core.saga.plan_faults import PlanFault, of_file, of_step
from services.core.saga.plan_forms import faults_of, nearest, unknown
from services.core.saga.plan_keys import FORMER, STEP
from services.core.saga.plan_urls import EarlierStep, UrlRules, origin_faults, url_faults
from services.core.saga.references import REFERENCE, references

_NEARLY: Final = re.compile(r"\{\{[ \t]*[A-Za-z_][A-Za-z0-9_. \t?-]*\}\}|\$?\{[ \t]*[A-Za-z_][A-Za-z0-9_. \t?-]*\}")
"""Text in braces, loose enough to find references with a stray space, an invalid name (`{ tenant.id }`), or the marks
of other template languages (`${tenant.id}`, `{{tenant.id}}`)."""
_STRAY: Final = re.compile(r"[ \t?${}]")
_TOP: Final = ("step",)


def check(
    text: str, *, kinds: Mapping[str, KindTraits], settings: Mapping[str, Any], allow: Sequence[str] | None = None
) -> Plan:
    """Parses and strictly checks a plan for new lives.

    Args:
        text: TOML, an ordered list of `[[step]]`.
        kinds: Name to traits of the known kinds.
        settings: Values of `{settings.NAME}` by name; None for a setting not given by the operator.
        allow: Allow-list of hosts for a URL from an event (EGRESS_ALLOW); None if the list is not known.

    Raises:
        BadPlan: the plan has faults; carries every fault, in the order of the steps.
    """
    plan, faults = None, list[PlanFault]()
    try:
        plan = parse(text, kinds=kinds, settings=settings)
    except BadPlan as bad:
        faults += bad.details
    # The first fault of a key counts; only each of its references is a fault of its own.
    told = {(fault.number, fault.key) for fault in faults if not fault.is_reference}
    with suppress(tomllib.TOMLDecodeError):  # already a fault found by `parse`
        for fault in _strict_faults(tomllib.loads(text), kinds, settings, allow):
            place = (fault.number, fault.key)
            if fault.is_reference or place not in told:
                faults.append(fault)
            if not fault.is_reference:
                told.add(place)
    if plan is None or faults:
        raise BadPlan(faults)
    return plan


def _strict_faults(
    document: Mapping[str, Any],
    kinds: Mapping[str, KindTraits],
    settings: Mapping[str, Any],
    allow: Sequence[str] | None,
) -> Iterator[PlanFault]:
    # Faults found by `parse` do not end the check, so no type in the document is taken for granted here.
    for name in document:
        if name not in _TOP:
            near = nearest(name, _TOP) or "; take it out"
            yield of_file(f"no such table{near}; a plan is a list of [[step]]", name)
    rows = document.get("step")
    if not isinstance(rows, list):
        return
    earlier: dict[str, EarlierStep] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            continue
        found, kind = [*_typos(row)], kinds.get(str(row.get("kind")))
        if kind is not None:
            rules = UrlRules(settings, allow, earlier)
            found = [
                *origin_faults(row, rules),
                *url_faults(row, kind, rules),
                *_kind_faults(row, kind, kinds),
                *_output_faults(row, earlier),
                *found,
                *kind.step_faults(row),
            ]
            # After the checks of this row, so that a step cannot refer to its own outputs.
            earlier[str(row.get("name"))] = EarlierStep(row, kind)
        yield from (of_step(number, row, fault) for fault in found)


def _kind_faults(row: Mapping[str, Any], kind: KindTraits, kinds: Mapping[str, KindTraits]) -> Iterator[str]:
    yield from faults_of(kind.keys, row)
    for fault in unknown((*STEP, *kind.keys), row, f"kind {kind.name}"):
        name = fault.partition(":")[0]
        if name in FORMER:
            yield f"{name}: no such key any more; {FORMER[name]}"
            continue
        others = [other for other, traits in kinds.items() if name in {key.name for key in traits.keys}]
        yield fault + (f" ({name} is a key of kind {', '.join(others)})" if others else "")


def _output_faults(row: Mapping[str, Any], earlier: Mapping[str, EarlierStep]) -> Iterator[str]:
    for key, value in row.items():
        for path, _ in references(value):
            root, *names = path.split(".")
            if root == "steps" and len(names) == 2 and names[0] in earlier:
                known = earlier[names[0]].outputs
                if names[1] not in known:
                    has = ", ".join(known) or "no outputs"
                    yield f"{key}: {{{path}}}: no such output{nearest(names[1], known)}; {names[0]} has {has}"
            elif root == "configuration" and "" in names:
                yield f"{key}: {{{path}}}: names nothing after a dot; write {{configuration.NAME}}"


def _typos(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields a fault for every text in braces that is nearly a reference and would be sent literally."""
    for key, value in row.items():
        for text, is_name in _texts(value):
            for found in _NEARLY.finditer(text):
                if is_name:
                    yield f"{key}: {found[0]}: no reference is replaced in the name of a key; write the name itself"
                elif not REFERENCE.fullmatch(found[0]):
                    yield f"{key}: {found[0]}: not a reference; write {_mended(found[0])}"


def _mended(text: str) -> str:
    """Returns the reference that was probably meant."""
    return f"{{{_STRAY.sub('', text)}{'?' if '?' in text else ''}}}"


def _texts(value: Any, *, is_name: bool = False) -> Iterator[tuple[str, bool]]:
    """Yields every text at any depth, and True for the name of a key."""
    if isinstance(value, str):
        yield value, is_name
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _texts(name, is_name=True)
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
