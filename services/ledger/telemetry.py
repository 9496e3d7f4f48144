"""Metrics and log lines of the ledger: one call per decision, after the decision."""

from collections.abc import Callable

from jiter import from_json

from schemas.codec import Message
from schemas.rows import StageRow, TenantRow
from schemas.topics import DEAD_LETTERS, EVENTS
from schemas.webhook import Delivery
from services.adapters.process import clock, metrics, tracing
from services.adapters.process.logs import Logger
from services.core.ledger.decisions import KIND, Decision
from services.core.ledger.journal import RecordPosition


def record_decision(
    log: Logger, kind: str, before: TenantRow | StageRow | None, decision: Decision, position: RecordPosition
) -> None:
    """Counts a decision, and logs the change of the row.

    Args:
        log: The service's logger.
        kind: `delivery`, `audited`, `observation`, `recheck` or `outcome`.
        before: The row before the decision.
        decision: The decision.
        position: Position of the record.
    """
    metrics.LEDGER_RECORDS.labels(kind, decision.verdict).inc()
    tracing.note("lifecycle.verdict", decision.verdict)
    for output in decision.outputs:
        if output.topic is DEAD_LETTERS:
            metrics.LEDGER_DEAD_LETTERS.labels(decision.verdict).inc()
    row = decision.row
    if row is None or _is_replay(before, decision):
        return
    if isinstance(row, TenantRow):
        metrics.LEDGER_JOURNAL.observe(len(row.entries))
    for output in decision.outputs:
        if output.topic is EVENTS:
            metrics.LEDGER_EVENTS.labels(from_json(output.message.value)["event"]).inc()
    log.debug("decided", kind=kind, key=row.key, verdict=decision.verdict, version=row.version)
    # A row keeps earlier moves for replays; only those of this record are new.
    for move in row.moves:
        if move.offset == position.offset:
            metrics.LEDGER_STAGES.labels(move.after or "none").inc()
            log.info("stage", key=row.key, before=move.before, after=move.after, reason=move.reason)


def when_published(
    kind: str, before: TenantRow | StageRow | None, decision: Decision, position: RecordPosition
) -> Callable[[], None] | None:
    """Returns what to call when Kafka has acknowledged an event of a decision: observes how long publishing took.

    Args:
        kind: As of `record_decision`.
        before: The row before the decision.
        decision: The decision.
        position: Position of the record.

    Returns:
        The callback; None for a replay, and for a record that is no delivery.
    """
    if kind != KIND[Delivery] or _is_replay(before, decision):
        return None
    return lambda: metrics.LEDGER_PUBLISHED_S.observe(max(0, clock.now_us() - position.log_time_us) / 1_000_000)


def _is_replay(before: TenantRow | StageRow | None, decision: Decision) -> bool:
    """True if the version of the row is unchanged: events and stages were counted when they were new."""
    row = decision.row
    return row is not None and before is not None and row.version == before.version


def record_refusal(log: Logger, raw: Message, reason: str, detail: str, position: RecordPosition) -> None:
    """Counts and logs an unprocessable record.

    Args:
        log: The service's logger.
        raw: The untouched record.
        reason: Reason of the `UnprocessableRecord`.
        detail: A field and a rule, never a value.
        position: Position of the record.
    """
    metrics.LEDGER_RECORDS.labels("unread", reason).inc()
    tracing.note("lifecycle.verdict", reason)
    metrics.LEDGER_DEAD_LETTERS.labels(reason).inc()
    key = (raw.key or b"").decode("utf-8", "replace") or None
    where = f"{position.topic}/{position.partition}/{position.offset}"
    log.warning("dead letter", key=key, record=where, reason=reason, why=detail)
