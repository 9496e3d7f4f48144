"""Texts about sagas: phase, step, reason; neither inputs nor outputs of a step, which may hold secrets."""

from typing import Any, Final

from schemas.saga import Phase, StepLog
from schemas.times import instant, rfc3339
from services.adapters.process.clock import now_us
from services.adapters.registry.types import SagaRow
from services.cli import show, wording

_STYLES: Final = {
    Phase.ACTIVE: "green",
    Phase.EMPTY: "dim",
    Phase.ROLLED_BACK: "red",
}
"""Colour of a phase; any other is under way."""


def listing(found: list[dict[str, Any]]) -> None:
    """Prints sagas, one a line; a pipe gets whole keys."""
    now, keys = now_us(), [one["key"] for one in found]
    shown = wording.short_keys(keys) if show.shows_results() else {key: key for key in keys}
    show.listing(
        ("tenant", "key", "phase", "stands at", "changed", "due in"),
        [
            show.ListingRow(
                cells=(
                    one["tenant_id"] or "-",
                    shown[one["key"]],
                    one["phase"],
                    one["stands_at"] or "-",
                    f"{wording.span(now - instant(one['changed']))} ago",
                    wording.span(instant(one["due"]) - now) if one["due"] else "-",
                ),
                styles={1: "dim", 2: _STYLES.get(one["phase"], "yellow")},
                note=one["why"] or "",
            )
            for one in found
        ],
    )


def told(row: SagaRow) -> dict[str, Any]:
    """Returns a saga as JSON."""
    step, why = _standing(row)
    return {
        "key": row.key,
        "phase": row.phase,
        "generation": row.generation,
        "version": row.desired_version,
        # Of a life that is over the binding is gone; what was asked for names it still.
        "tenant_id": row.tenant_id or (row.journal.target.tenant_id if row.journal.target else None),
        "stands_at": step,
        "why": _waits_for(row) if row.waits_for else row.why or why,
        "since": _since(row),
        "due": None if row.due_s is None else rfc3339(int(row.due_s * 1_000_000)),
        "changed": rfc3339(int(row.changed_s * 1_000_000)),
        "worker": row.worker,
    }


def _since(row: SagaRow) -> str | None:
    stands = row.journal.standstill
    return rfc3339(stands.since) if stands else None


def _waits_for(row: SagaRow) -> str:
    """Why a saga waits at the gate before a system, with what that answered last where this saga was answered."""
    _, why = _standing(row)
    stands = row.journal.standstill
    refuses = stands is not None and not stands.outage_since
    trouble = "refuses the operator's credentials or set-up" if refuses else "is away"
    return f"{row.waits_for} {trouble}" + (f" ({why})" if why else "")


def _standing(row: SagaRow) -> tuple[str | None, str | None]:
    """The step that a saga stands at, and why."""
    journal = row.journal
    stands = journal.standstill
    log = journal.life.steps.get(stands.step) if journal.life and stands else None
    if stands is not None and log is not None and log.reason:
        return stands.step, _answered(log)
    if stands is not None:
        return stands.step, None
    if journal.failure is not None:
        return journal.failure.step, f"{journal.failure.error_class}: {journal.failure.reason}"
    for name, log in journal.life.steps.items() if journal.life else ():
        if log.reason:
            return name, _answered(log)
    return None, journal.held


def _answered(log: StepLog) -> str:
    """What a step was answered last."""
    tries = "1 try" if log.tries == 1 else f"{log.tries} tries"
    return f"{log.verdict}: {log.reason} ({tries})"


def one(told: dict[str, Any], steps: list[dict[str, Any]]) -> None:
    """Prints a saga and its steps, at any width."""
    now = now_us()

    def relative(text: str | None) -> str:
        if text is None:
            return "-"
        away_us = instant(text) - now
        return f"in {wording.span(away_us)}" if away_us > 0 else f"{wording.span(-away_us)} ago"

    instants = ("since", "due", "changed")
    show.styled(told["key"], "bold")
    show.table(
        ("field", "value"),
        [
            (name, f"{relative(value)} ({value[:19]}Z)" if name in instants else value)
            for name, value in told.items()
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
                    step["step"], str(step["generation"]), step["there"], step["verdict"], str(step["tries"]),
                    relative(step["not_before"]) if step["why"] else "-",
                ),
                note=step["why"] or "",
            )
            for step in steps
        ],
    )  # fmt: skip


def steps(row: SagaRow) -> list[dict[str, Any]]:
    """Returns the steps of a saga, those of ended lives first."""
    lives = [*(sweep.life for sweep in row.journal.sweeps), *([row.journal.life] if row.journal.life else [])]
    return [
        {
            "generation": life.generation,
            "step": name,
            "there": log.there.value,
            "verdict": log.verdict.value,
            "open": log.open,
            "intents": log.n,
            "tries": log.tries,
            "not_before": rfc3339(log.not_before) if log.not_before else None,
            "why": log.reason or None,
        }
        for life in lives
        for name, log in life.steps.items()
    ]
