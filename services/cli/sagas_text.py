"""Prints sagas: a line per saga, or a saga with the steps; as text or as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from schemas.saga import Phase
from schemas.times import rfc3339
from services.adapters.process.clock import now_us
from services.cli import show, wording
from services.core.saga.view import SagaView, StepView

_STYLES: Final[Mapping[str, str]] = {
    Phase.ACTIVE: "green",
    Phase.EMPTY: "dim",
    Phase.ROLLED_BACK: "red",
}
"""Colour of a phase; phases not listed are in progress."""


def print_sagas(found: Sequence[SagaView]) -> None:
    """Prints a line per saga; in a pipe, keys are printed in full."""
    now, keys = now_us(), [saga.key for saga in found]
    shown = wording.short_keys(keys) if show.shows_results() else {key: key for key in keys}
    show.listing(
        ("tenant", "key", "phase", "stands at", "changed", "due in"),
        [
            show.ListingRow(
                cells=(
                    saga.tenant_id or "-",
                    shown[saga.key],
                    saga.phase,
                    saga.step or "-",
                    f"{wording.span(now - saga.changed_us)} ago",
                    "-" if saga.due_us is None else wording.span(saga.due_us - now),
                ),
                styles={1: "dim", 2: _STYLES.get(saga.phase, "yellow")},
                note=saga.reason or "",
            )
            for saga in found
        ],
    )


def saga_json(saga: SagaView) -> dict[str, Any]:
    """Returns a saga as JSON."""
    return {
        "key": saga.key,
        "phase": saga.phase,
        "generation": saga.generation,
        "version": saga.version,
        "tenant_id": saga.tenant_id,
        "stands_at": saga.step,
        "why": saga.reason,
        "since": _time(saga.since_us),
        "due": _time(saga.due_us),
        "changed": _time(saga.changed_us),
        "worker": saga.worker,
    }


def step_json(step: StepView) -> dict[str, Any]:
    """Returns a step as JSON."""
    return {
        "generation": step.generation,
        "step": step.step,
        "there": step.presence.value,
        "verdict": step.verdict.value,
        "open": step.open,
        "intents": step.intents,
        "tries": step.tries,
        "not_before": _time(step.not_before_us),
        "why": step.reason,
    }


def print_saga(saga: SagaView, steps: Sequence[StepView]) -> None:
    """Prints a saga and the steps; readable at any width."""
    now = now_us()
    instants = {"since": saga.since_us, "due": saga.due_us, "changed": saga.changed_us}
    show.styled(saga.key, "bold")
    show.table(
        ("field", "value"),
        [
            (name, f"{_relative(instants[name], now)} ({value[:19]}Z)" if name in instants else value)
            for name, value in saga_json(saga).items()
            if name != "key" and value is not None
        ],
        whole=1,
    )
    if not steps:
        return
    print()
    show.listing(
        ("step", "life", "there", "verdict", "tries", "next try"),
        [
            show.ListingRow(
                cells=(
                    step.step, str(step.generation), step.presence.value, step.verdict.value, str(step.tries),
                    _relative(step.not_before_us, now) if step.reason else "-",
                ),
                note=step.reason or "",
            )
            for step in steps
        ],
    )  # fmt: skip


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else rfc3339(at_us)


def _relative(at_us: int | None, now: int) -> str:
    """Formats an instant by the distance from now."""
    if at_us is None:
        return "-"
    away_us = at_us - now
    return f"in {wording.span(away_us)}" if away_us > 0 else f"{wording.span(-away_us)} ago"
