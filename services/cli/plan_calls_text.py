"""Prints the calls of a tenant beforehand, as text of 80 columns or as JSON."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from schemas.saga import Phase
from services.cli import show, wording
from services.cli.plan_calls import TenantCalls
from services.provisioner.preview import PreviewedCall

_INDENT: Final = "  "


def calls_json(found: TenantCalls) -> dict[str, Any]:
    """Returns the calls as JSON."""
    preview = found.preview
    return {
        "key": found.key,
        "tenant_id": found.tenant_id,
        "phase": preview.phase.value,
        "generation": preview.generation,
        "plan": {"source": found.source, "digest": preview.plan.digest},
        "calls": [_call_json(call) for call in preview.calls],
        "unchanged": _unchanged(found),
        "missing": {step: list(names) for step, names in preview.missing.items()},
        "ends": preview.ends or None,
    }


def print_calls(found: TenantCalls) -> None:
    """Prints a block per call, in order, and a summary on standard error."""
    preview = found.preview
    show.styled(found.key, "bold")
    show.folded(f"tenant {found.tenant_id or '-'}, generation {preview.generation}, {preview.phase}")
    show.folded(f"plan {found.source}")
    for number, call in enumerate(preview.calls, 1):
        print()
        show.styled(f"{number} {call.step.name} ({call.step.kind}): {call.verb}", "bold")
        for line in _lines(call):
            show.folded(line, _INDENT)
    if preview.calls:
        print()
    if unchanged := _unchanged(found):
        show.folded(f"no call for {', '.join(unchanged)}")
    for step, names in preview.missing.items():
        show.folded(f"{step}: missing {', '.join(names)}; the tenant is refused at this step and rolled back")
    if preview.phase is Phase.REMOVING and preview.calls:
        show.folded("the brake on removals is not asked here; it may hold the first delete")
    if preview.ends:
        show.folded(f"it ends here: {preview.ends}")
    show.say(f"{wording.counted(len(preview.calls), 'call')}; nothing was called")


def _call_json(call: PreviewedCall) -> dict[str, Any]:
    built = call.call
    return {
        "step": call.step.name,
        "kind": call.step.kind,
        "verb": call.verb.value,
        "requests": [{"target": one.target, "body": one.body} for one in call.requests],
        "settings": None if built is None else dict(built.settings),
        "timeout_s": call.step.timeout_s,
        "idempotency_key": None if built is None else built.idempotency_key,
        "waits_for": call.waits_for or None,
        "wait_s": call.wait_us / 1_000_000,
        "missing": list(call.missing),
        "why": call.why or None,
    }


def _lines(call: PreviewedCall) -> Iterator[str]:
    if call.waits_for:
        yield f"after a wait of {wording.span(call.wait_us)}: {call.waits_for}"
    if call.call is None:
        yield f"cannot be built: {call.why}"
        return
    if call.verb.value == "read":
        yield "looked up first; shown as if it is found as asked"
    for request in call.requests:
        yield request.target
        yield from (f"{_INDENT}{line}" for line in _flat(request.body))
    if not call.requests:
        yield "no request"
    settings = [*_flat(call.call.settings)]
    yield from (("settings", *(f"{_INDENT}{line}" for line in settings)) if settings else ())


def _flat(value: Any, path: str = "") -> Iterator[str]:
    """Yields a line `NAME = VALUE` per value of a table, names of inner tables with dots."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(part, f"{path}.{name}" if path else str(name))
    elif value is not None or path:
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield f"{path} = {shown}" if path else shown


def _unchanged(found: TenantCalls) -> list[str]:
    called = {call.step.name for call in found.preview.calls}
    return [step.name for step in found.preview.plan.steps if step.name not in called]
