"""Texts about sagas: phase, step, reason; never inputs or outputs of a step: both may hold secrets."""

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
"""Colour of a phase; phases not listed are in progress."""


def print_sagas(found: list[dict[str, Any]]) -> None:
    """Prints a line per saga; in a pipe, keys are printed in full."""
    now, keys = now_us(), [saga["key"] for saga in found]
    shown = wording.short_keys(keys) if show.shows_results() else {key: key for key in keys}
    show.listing(
        ("tenant", "key", "phase", "stands at", "changed", "due in"),
        [
            show.ListingRow(
                cells=(
                    saga["tenant_id"] or "-",
                    shown[saga["key"]],
                    saga["phase"],
                    saga["stands_at"] or "-",
                    f"{wording.span(now - instant(saga['changed']))} ago",
                    wording.span(instant(saga["due"]) - now) if saga["due"] else "-",
                ),
                styles={1: "dim", 2: _STYLES.get(saga["phase"], "yellow")},
                note=saga["why"] or "",
            )
            for saga in found
        ],
    )


def saga_json(row: SagaRow) -> dict[str, Any]:
    """Returns a saga as JSON."""
    step, why = _position(row)
    return {
        "key": row.key,
        "phase": row.phase,
        "generation": row.generation,
        "version": row.desired_version,
        # The binding ends with the life; the desired version still names the tenantId.
        "tenant_id": row.tenant_id or (row.journal.target.tenant_id if row.journal.target else None),
        "stands_at": step,
        "why": _gate_text(row) if row.waits_for else row.why or why,
        "since": _since(row),
        "due": None if row.due_s is None else rfc3339(int(row.due_s * 1_000_000)),
        "changed": rfc3339(int(row.changed_s * 1_000_000)),
        "worker": row.worker,
    }


def _since(row: SagaRow) -> str | None:
    """Returns the beginning of the standstill."""
    standstill = row.journal.standstill
    return rfc3339(standstill.since) if standstill else None


def _gate_text(row: SagaRow) -> str:
    """Returns the reason for waiting at the gate of a system, with the system's last answer to this saga, if any."""
    _, why = _position(row)
    standstill = row.journal.standstill
    # `outage_since` is set while a system is away; a standstill without it is a refusal of the operator's credentials.
    refuses = standstill is not None and not standstill.outage_since
    trouble = "refuses the operator's credentials or set-up" if refuses else "is away"
    return f"{row.waits_for} {trouble}" + (f" ({why})" if why else "")


def _position(row: SagaRow) -> tuple[str | None, str | None]:
    """Returns the step of a saga's standstill, and the reason."""
    journal = row.journal
    standstill = journal.standstill
    log = journal.life.steps.get(standstill.step) if journal.life and standstill else None
    if standstill is not None and log is not None and log.reason:
        return standstill.step, _answer_text(log)
    if standstill is not None:
        return standstill.step, None
    # A rolled-back saga stands nowhere; the failure names the step that caused the rollback.
    if journal.failure is not None:
        return journal.failure.step, f"{journal.failure.error_class}: {journal.failure.reason}"
    for name, log in journal.life.steps.items() if journal.life else ():
        if log.reason:
            return name, _answer_text(log)
    return None, journal.held


def _answer_text(log: StepLog) -> str:
    """Returns the last answer to a step: verdict, reason and number of tries."""
    tries = "1 try" if log.tries == 1 else f"{log.tries} tries"
    return f"{log.verdict}: {log.reason} ({tries})"


def print_saga(saga: dict[str, Any], steps: list[dict[str, Any]]) -> None:
    """Prints a saga and the steps; readable at any width."""
    now = now_us()

    def relative(text: str | None) -> str:
        if text is None:
            return "-"
        away_us = instant(text) - now
        return f"in {wording.span(away_us)}" if away_us > 0 else f"{wording.span(-away_us)} ago"

    instants = ("since", "due", "changed")
    show.styled(saga["key"], "bold")
    show.table(
        ("field", "value"),
        [
            (name, f"{relative(value)} ({value[:19]}Z)" if name in instants else value)
            for name, value in saga.items()
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


def steps_json(row: SagaRow) -> list[dict[str, Any]]:
    """Returns the steps of a saga as JSON, ended lives first."""
    lives = [*(sweep.life for sweep in row.journal.sweeps), *([row.journal.life] if row.journal.life else [])]
    return [
        {
            "generation": life.generation,
            "step": name,
            "there": log.presence.value,
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
