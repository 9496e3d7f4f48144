"""The ledger's three decisions: on a received record, on an outcome, and on publishing a key again.

Rule: a decision depends on the two rows, the record and the record's position alone, and returns the row to write and
the records to send. A record with new information changes the row and raises the version. A replayed record writes row
and records again, unchanged. A record without new information is audited and leaves the row alone.
"""

from dataclasses import dataclass, replace

from schemas import codec
from schemas.dead_letter import DeadLetterReason
from schemas.event import Observed, Recheck
from schemas.hint import IntegrationAudit
from schemas.journal import Entry, Move, Verdict
from schemas.outcome import Outcome
from schemas.rows import StageRow, TenantRow
from schemas.tenant import Stage
from schemas.topics import AUDIT, RECEIVED
from schemas.values import Key
from schemas.webhook import Delivery
from services.core.delivery.timestamp_rule import WINDOW_US
from services.core.ledger import audit, journal, journal_compaction, projections
from services.core.ledger.identity import EventClaim, identify
from services.core.ledger.journal import JournalChange, RecordPosition
from services.core.ledger.projections import Output, ProjectionRules
from services.core.ledger.stage import stage, with_outcome

# Theory. The worker writes the row, sends the records, and commits the offset only after all are acknowledged. A crash
# in between makes Kafka deliver the record again, perhaps with the row already written. The repetition must give events
# and audit lines equal to the byte, or consumers would see two events. A decision distinguishes by the row's `offset`:
#
#   position above `row.offset`      the record is new to the row
#   position at or below             a replay: the row holds the record's effect, and everything the record caused is
#                                    derived again from marks in the row (`Entry.revision_offset`, `Move.offset`)
#
# Verdict, events and audit lines must not depend on the present time, on the committed offset (which decides only what
# a row keeps for replays), or on later records. `desired` and the public view always follow from the present row.

Received = Delivery | IntegrationAudit | Observed | Recheck
"""A parsed record of `lifecycle.received`."""

_MOVES_MAX = 32
"""Changes of stage kept for a replay. Of more changes in a commit interval, a replay omits the oldest audit lines."""

KIND = {Delivery: "delivery", IntegrationAudit: "audited", Observed: "observation", Recheck: "recheck"}
"""The sort of a record in audit trail and metrics."""

_REFUSED = {
    Verdict.CONFLICT: (DeadLetterReason.CONFLICT, "uid: was told before with another content"),
    Verdict.FUTURE: (DeadLetterReason.FUTURE, "time: is more than 90 s ahead of the log's time"),
    Verdict.TOO_LARGE: (DeadLetterReason.TOO_LARGE, "configuration: the row of its key would not fit into one record"),
}
"""Reason and detail of the dead letter, for each verdict with a dead letter."""

WHY = {
    Verdict.NEW: "first delivery of this uid",
    Verdict.ABSORBED: "an equal event was there within 20 minutes and nothing contradicted it since",
    Verdict.AMBIGUOUS: "marked as a retry, and something between says otherwise: Genesys is asked",
    Verdict.DUPLICATE: "this uid was told before",
    Verdict.CONFLICT: "this uid was told before with another content",
    Verdict.LATE: "older than what the journal remembers: Genesys is asked",
    Verdict.ASKED: "a look at Genesys is asked",
    Verdict.FUTURE: "of a time that is still to come by the log's clock",
    Verdict.TOO_LARGE: "no room is left in the row of this key until what is under way is committed: Genesys is asked",
}
"""Explanation of each verdict in the audit trail and for people; no value from outside."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The row to write and the records to send.

    Attributes:
        row: The row to write, unchanged on a replay; None for no write.
        verdict: The verdict on the record for audit trail and metrics.
        outputs: The records to send, in this order.
        folded: The entries removed from the journal, with final verdicts.
    """

    row: TenantRow | StageRow | None
    verdict: str
    outputs: tuple[Output, ...]
    folded: tuple[Entry, ...] = ()


def receive(
    row: TenantRow | None,
    last: StageRow | None,
    record: Received,
    position: RecordPosition,
    rules: ProjectionRules,
    *,
    restamps: bool = True,
    raw: codec.Message | None = None,
) -> Decision:
    """Returns the decision on a record of `lifecycle.received`.

    Args:
        row: The key's row of the table `tenants`; None before the first record.
        last: The key's row of the table `stages`; None before the first outcome.
        record: The parsed record.
        position: The record's position.
        rules: Keys and published names.
        restamps: False for a sender with a constant `eventTimestamp` over retries.
        raw: The untouched record, for the body of a dead letter.
    """
    before = journal.rebased(row or TenantRow(record.key), position)
    claims = () if isinstance(record, Recheck) else identify(record, rules.identity, restamps=restamps)
    entered = _enter(before, record, claims, position)
    if entered.verdicts and all(verdict is Verdict.FORGOTTEN for verdict in entered.verdicts):
        return Decision(None, Verdict.FORGOTTEN, ())
    verdict = _verdict(entered.verdicts)
    changed = entered.row is not before
    after = _next_version(before, entered, last, position) if changed else before
    events = _events(after, entered.folded, position, rules)
    line = _verdict_line(record, position, verdict, rules)
    why = _REFUSED.get(verdict)
    refused = () if why is None else (projections.dead_letter(record.key, *why, position, raw),)
    if not changed and position.offset > before.offset:
        # New to the row and without effect. An unchanged row at or below `before.offset` is a replay and goes on below.
        return Decision(None, verdict, (line, *refused))
    # A replay cannot tell whether its first run published `desired`, so it publishes again, with the unchanged version.
    with_desired = not changed or after.desired_version == after.version
    state = (*(projections.desired(after, rules) if with_desired else ()), *projections.tenant(after, last, rules))
    stage_lines = _stage_lines(after, position, rules)
    return Decision(after, verdict, (*events, *state, line, *stage_lines, *refused), entered.folded)


def receive_outcome(
    row: TenantRow | None, last: StageRow | None, outcome: Outcome, position: RecordPosition, rules: ProjectionRules
) -> Decision:
    """Returns the decision on a record of `lifecycle.outcomes`.

    Args:
        row: The key's row of the table `tenants`; None before the first record.
        last: The key's row of the table `stages`; None before the first outcome.
        outcome: The parsed record.
        position: The record's position.
        rules: Keys and published names.
    """
    before = last or StageRow(outcome.key)
    # Offsets of a recreated topic start at 0 again: compared with old offsets, every record would look like a replay.
    if before.incarnation != position.incarnation:
        before = replace(before, incarnation=position.incarnation, offset=-1, moves=())
    after = with_outcome(before, outcome)
    if after is before:
        if position.offset > before.offset:
            return Decision(None, Verdict.DUPLICATE, ())
    else:
        version = max(position.offset, before.version + 1)
        after = replace(after, version=version, offset=position.offset, updated_at_us=position.log_time_us)
        shown = version + (row.version if row is not None else 0)
        moves = _moves(before.moves, stage(row, last), stage(row, after), shown, position)
        after = replace(after, moves=moves)
    outputs = (*projections.tenant(row, after, rules), *_stage_lines(after, position, rules))
    return Decision(after, Verdict.DUPLICATE if after is before else Verdict.NEW, outputs)


def republish(row: TenantRow | None, last: StageRow | None, rules: ProjectionRules) -> tuple[Output, ...]:
    """Returns the records of a key's present state: `desired`, as last published, and the public view."""
    return (*(() if row is None else projections.desired(row, rules)), *projections.tenant(row, last, rules))


def recheck_request(key: Key, reason: str, at_us: int) -> Output:
    """Returns a request for a re-check as a message for `lifecycle.received`, the topic of every tenant's changes."""
    asked = Recheck(key=key, reason=reason, at=at_us)
    ce_id = f"{key}/recheck/{reason}/{at_us}"
    return Output(RECEIVED, codec.encode(asked, key=key, ce_id=ce_id, source="/genesys-lifecycle/ledger", at_us=at_us))


def _enter(row: TenantRow, record: Received, claims: tuple[EventClaim, ...], position: RecordPosition) -> JournalChange:
    """Returns the effect of a record on the key's journal."""
    if isinstance(record, Recheck):
        return journal.enter_recheck(row, record.at, position)
    if any(claim.at_us > position.log_time_us + WINDOW_US for claim in claims) and not isinstance(record, Delivery):
        # Taken in, the record would win over every event before the future time. The ingress refuses such a delivery.
        return JournalChange(row, (Verdict.FUTURE,))
    seen = journal.observe(row, claims) if isinstance(record, Observed) else row
    entered = journal.enter(seen, claims, position)
    if entered.row is row or not journal_compaction.too_large(entered.row):
        return entered
    # The last resort: a row above Kafka's limit would fail at every attempt and stop the partition for good. A replay
    # may find room, after a commit has released entries kept aside.
    return journal.enter_recheck(row, position.log_time_us, position)._replace(verdicts=(Verdict.TOO_LARGE,))


def _verdict(verdicts: tuple[Verdict, ...]) -> Verdict:
    """Returns the verdict on a record from the verdicts on the record's events: the most important for an operator."""
    order = (Verdict.CONFLICT, Verdict.NEW, *Verdict)
    return min(verdicts, key=order.index)


def _next_version(
    before: TenantRow, entered: JournalChange, last: StageRow | None, position: RecordPosition
) -> TenantRow:
    """Returns the changed row with the next version, and with every field derived from the change."""
    # At least the offset: later records give greater versions, even if a worker lost earlier versions of the row.
    version = max(position.offset, before.version + 1)
    wanted, wants = projections.desired_values(before.now), projections.desired_values(entered.row.now)
    # A late arrival may free an absorbed event, which then gets a revision although its uid is known.
    has_new_event = Verdict.NEW in entered.verdicts or any(
        entry.revision_offset == position.offset for entry in (*entered.row.entries, *entered.folded)
    )
    after = replace(
        entered.row,
        version=version,
        offset=max(position.offset, before.offset),
        updated_at_us=position.log_time_us,
        ever=before.ever or wants.installed,
        turned=before.turned if wants.installed == wanted.installed else version,
    )
    # `desired` is published for every new event, even with an equal value (docs/specification.md, section 5).
    if has_new_event or wants != wanted:
        after = replace(after, desired_version=version, desired_at_us=position.log_time_us, trace=position.trace)
    shown = version + (last.version if last is not None else 0)
    return replace(after, moves=_moves(before.moves, stage(before, last), stage(after, last), shown, position))


def _moves(
    moves: tuple[Move, ...],
    before: tuple[Stage | None, str | None],
    after: tuple[Stage | None, str | None],
    version: int,
    position: RecordPosition,
) -> tuple[Move, ...]:
    """Returns the changes of stage still needed by a replay, with the present change if the stage changes now."""
    kept = tuple(move for move in moves if position.committed is None or move.offset > position.committed)
    if before[0] is after[0]:
        return kept[-_MOVES_MAX:]
    (was, _), (now, reason) = before, after
    return (*kept, Move(position.offset, version, was, now, reason, position.log_time_us))[-_MOVES_MAX:]


def _events(
    row: TenantRow, folded: tuple[Entry, ...], position: RecordPosition, rules: ProjectionRules
) -> tuple[Output, ...]:
    """Returns the events with a revision from this record, at the first delivery and at a replay."""
    # A uid may stand in several of these groups, as folded in this step and kept aside; the last in this order counts.
    kept = (*(parted.entry for parted in row.parted), *folded, *row.entries)
    by_uid = {entry.uid: entry for entry in kept if entry.revision_offset == position.offset}
    published = sorted(by_uid.values(), key=lambda entry: entry.revision)
    return tuple(
        projections.event(row, entry, rules, at_us=position.log_time_us, trace=position.trace) for entry in published
    )


def _verdict_line(record: Received, position: RecordPosition, verdict: Verdict, rules: ProjectionRules) -> Output:
    kind = KIND[type(record)]
    line = audit.line(
        line_id=f"{position.topic}/{position.partition}/{position.offset}/{kind}",
        key=record.key,
        what=kind,
        verdict=verdict,
        why=WHY[verdict],
        at_us=position.log_time_us,
        material=rules.audit,
    )
    return Output(AUDIT, audit.message(line, "ledger", position.trace))


def _stage_lines(row: TenantRow | StageRow, position: RecordPosition, rules: ProjectionRules) -> tuple[Output, ...]:
    """Returns the audit lines of the changes of stage from this record, at the first delivery and at a replay."""
    # The version alone would not identify a change. A version is the sum of two rows' versions; a worker without its
    # last writes may meet the two topics in a different order and reach an equal sum by a different change. Hence topic
    # and offset in the id (docs/decisions/0020).
    lines = (
        audit.line(
            line_id=f"{row.key}/stage/{move.version}/{position.topic}/{move.offset}",
            key=row.key,
            what="stage",
            verdict=f"{move.before or 'none'} → {move.after or 'none'}",
            why=move.reason or "",
            at_us=move.at_us,
            material=rules.audit,
        )
        for move in row.moves
        if move.offset == position.offset
    )
    return tuple(Output(AUDIT, audit.message(line, "ledger", position.trace)) for line in lines)
