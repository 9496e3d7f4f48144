"""What a decision means in metrics and in the log: one call per decision, after it."""

from jiter import from_json

from schemas.rows import StageRow, TenantRow
from schemas.topics import DEAD_LETTERS, EVENTS
from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.core.ledger.decisions import Decision
from services.core.ledger.journal import RecordPosition


def tell(
    log: Logger, kind: str, before: TenantRow | StageRow | None, decision: Decision, place: RecordPosition
) -> None:
    """Count one decision, and say what it changed.

    Args:
        log: Of the service.
        kind: `delivery`, `observation`, `recheck` or `outcome`.
        before: The row as it was.
        decision: What was decided.
        place: Of the record.
    """
    metrics.LEDGER_RECORDS.labels(kind, decision.verdict).inc()
    for output in decision.outputs:
        if output.topic is DEAD_LETTERS:
            metrics.LEDGER_DEAD_LETTERS.labels(decision.verdict).inc()
    row = decision.row
    if row is None or (before is not None and row.version == before.version):
        return
    if isinstance(row, TenantRow):
        metrics.LEDGER_JOURNAL.observe(len(row.entries))
    for output in decision.outputs:
        if output.topic is EVENTS:
            metrics.LEDGER_EVENTS.labels(from_json(output.message.value)["event"]).inc()
    log.debug("decided", kind=kind, key=row.key, verdict=decision.verdict, version=row.version)
    for move in row.moves:
        if move.offset == place.offset:
            metrics.LEDGER_STAGES.labels(str(move.after)).inc()
            log.info("stage", key=row.key, before=move.before, after=move.after, reason=move.reason)


def tell_refused(log: Logger, reason: str, detail: str, place: RecordPosition) -> None:
    """Count one record that went to the dead letters unread."""
    metrics.LEDGER_RECORDS.labels("unread", reason).inc()
    metrics.LEDGER_DEAD_LETTERS.labels(reason).inc()
    where = f"{place.topic}[{place.partition}] offset {place.offset}"
    log.warning("dead letter", reason=reason, detail=detail, at_record=where)
