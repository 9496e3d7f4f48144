"""Metrics and log lines of the ledger: one call per decision, after the decision."""

from jiter import from_json

from schemas.rows import StageRow, TenantRow
from schemas.topics import DEAD_LETTERS, EVENTS
from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.core.ledger.decisions import Decision
from services.core.ledger.journal import RecordPosition


def record_decision(
    log: Logger, kind: str, before: TenantRow | StageRow | None, decision: Decision, position: RecordPosition
) -> None:
    """Counts a decision, and logs the change of the row.

    Args:
        log: The service's logger.
        kind: `delivery`, `observation`, `recheck` or `outcome`.
        before: The row before the decision.
        decision: The decision.
        position: Position of the record.
    """
    metrics.LEDGER_RECORDS.labels(kind, decision.verdict).inc()
    for output in decision.outputs:
        if output.topic is DEAD_LETTERS:
            metrics.LEDGER_DEAD_LETTERS.labels(decision.verdict).inc()
    row = decision.row
    # A row with an unchanged version is a replay: its events and stages were counted when they were new.
    if row is None or (before is not None and row.version == before.version):
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
            metrics.LEDGER_STAGES.labels(str(move.after)).inc()
            log.info("stage", key=row.key, before=move.before, after=move.after, reason=move.reason)


def record_refusal(log: Logger, reason: str, detail: str, position: RecordPosition) -> None:
    """Counts and logs an unprocessable record.

    Args:
        log: The service's logger.
        reason: Reason of the `UnprocessableRecord`.
        detail: A field and a rule, never a value.
        position: Position of the record.
    """
    metrics.LEDGER_RECORDS.labels("unread", reason).inc()
    metrics.LEDGER_DEAD_LETTERS.labels(reason).inc()
    where = f"{position.topic}[{position.partition}] offset {position.offset}"
    log.warning("dead letter", reason=reason, detail=detail, at_record=where)
