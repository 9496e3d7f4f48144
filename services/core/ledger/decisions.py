"""The ledger's three decisions: a record received, an outcome heard, a key told again.

Rule: the answer follows from the rows, the record and its place alone: the row to keep and the records to send. What
changes a row raises its version; what was taken in before is written again as it is; what says nothing new is audited
and leaves the row alone. So a crash anywhere repeats records, identical in id and revision, and loses none.
"""

import re
from dataclasses import dataclass, replace

from schemas import codec
from schemas.event import Observed, Recheck
from schemas.journal import Entry, Move, Verdict
from schemas.outcome import Outcome
from schemas.rows import StageRow, TenantRow
from schemas.tenant import Stage
from schemas.topics import AUDIT, RECEIVED
from schemas.values import Key
from schemas.webhook import Delivery
from services.core.delivery.timestamp_rule import WINDOW_US
from services.core.ledger import audit, dead_letters, journal, journal_compaction, projections
from services.core.ledger.identity import EventClaim, identify
from services.core.ledger.journal import JournalChange, RecordPosition
from services.core.ledger.projections import Output, ProjectionRules
from services.core.ledger.stage import follow, stage

Received = Delivery | Observed | Recheck

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, level 1."""
_MOVES_MAX = 32
"""Changes of stage kept for a replay; more of one key within one commit interval lose their oldest audit line."""

KIND = {Delivery: "delivery", Observed: "observation", Recheck: "recheck"}
"""What the audit trail and the metrics call them."""

_REFUSED = {
    Verdict.CONFLICT: "uid: was told before with another content",
    Verdict.FUTURE: "read_at: is more than 90 s ahead of the log's time",
    Verdict.TOO_LARGE: "configuration: the row of its key would not fit into one record",
}
"""Verdicts whose record goes to the dead letters, with the detail."""

WHY = {
    Verdict.NEW: "first delivery of this uid",
    Verdict.ABSORBED: "an equal event was there within 20 minutes and nothing contradicted it since",
    Verdict.AMBIGUOUS: "marked as a retry, and something between says otherwise: Genesys is asked",
    Verdict.DUPLICATE: "this uid was told before",
    Verdict.CONFLICT: "this uid was told before with another content",
    Verdict.LATE: "older than what the journal remembers: Genesys is asked",
    Verdict.ASKED: "a look at Genesys is asked",
    Verdict.FUTURE: "read at a time that is still to come by the log's clock",
    Verdict.TOO_LARGE: "no room is left in the row of this key until what is under way is committed: Genesys is asked",
}
"""What a verdict means, for the audit trail and for people; never a value from outside."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to keep and what to send.

    Attributes:
        row: To be written, on a replay unchanged; None leaves the table alone.
        verdict: What the audit trail says of the record.
        outputs: Records to send, in this order.
        folded: Entries that left the journal, final.
    """

    row: TenantRow | StageRow | None
    verdict: str
    outputs: tuple[Output, ...]
    folded: tuple[Entry, ...] = ()


def receive(
    row: TenantRow | None,
    last: StageRow | None,
    record: Received,
    place: RecordPosition,
    rules: ProjectionRules,
    *,
    restamps: bool = True,
    raw: codec.Message | None = None,
) -> Decision:
    """Decide about one record of `lifecycle.received`.

    Args:
        row: What is known of its key; None before the first record.
        last: What became of its key; None before the first outcome.
        record: Parsed.
        place: Where it stands.
        rules: Keys and published names.
        restamps: False for a sender that keeps `eventTimestamp` over retries.
        raw: The record untouched, for a dead letter, and whose `traceparent` rides along.
    """
    before = journal.rebased(row or TenantRow(record.key), place)
    claims = () if isinstance(record, Recheck) else identify(record, rules.identity, restamps=restamps)
    taken = _take(before, record, claims, place)
    if taken.verdicts and all(verdict is Verdict.FORGOTTEN for verdict in taken.verdicts):
        return Decision(None, Verdict.FORGOTTEN, ())
    verdict = _verdict(taken.verdicts)
    trace = _trace(raw)
    changed = taken.row is not before
    after = _raised(before, taken, last, place, trace) if changed else before
    told = _told(after, taken.folded, place, rules, trace)
    line = _line(record, place, verdict, rules)
    detail = _REFUSED.get(verdict)
    refused = () if detail is None else (dead_letters.letter(record.key, verdict, detail, place, raw),)
    if not changed and place.offset > before.offset:
        return Decision(None, verdict, (line, *refused))
    told_again = not changed or after.desired_version == after.version
    stands = (*(projections.desired(after) if told_again else ()), *projections.tenant(after, last, rules))
    moves = _moves(after, place, rules)
    return Decision(after, verdict, (*told, *stands, line, *moves, *refused), taken.folded)


def conclude(
    row: TenantRow | None, last: StageRow | None, outcome: Outcome, place: RecordPosition, rules: ProjectionRules
) -> Decision:
    """Decide about one record of `lifecycle.outcomes`.

    Args:
        row: What is known of its key.
        last: What became of it before; None before the first outcome.
        outcome: What became of it now.
        place: Where the outcome stands.
        rules: Keys and published names.
    """
    before = last or StageRow(outcome.key)
    if before.incarnation != place.incarnation:
        before = replace(before, incarnation=place.incarnation, offset=-1, moves=())
    after = follow(before, outcome)
    if after is before:
        if place.offset > before.offset:
            return Decision(None, Verdict.DUPLICATE, ())
    else:
        version = max(place.offset, before.version + 1)
        after = replace(after, version=version, offset=place.offset, updated_at_us=place.log_time_us)
        shown = version + (row.version if row is not None else 0)
        moves = _moved(before.moves, stage(row, last), stage(row, after), shown, place)
        after = replace(after, moves=moves)
    outputs = (*projections.tenant(row, after, rules), *_moves(after, place, rules))
    return Decision(after, Verdict.DUPLICATE if after is before else Verdict.NEW, outputs)


def republish(row: TenantRow | None, last: StageRow | None, rules: ProjectionRules) -> tuple[Output, ...]:
    """What stands for a key: desired as it was last published, and the public view."""
    return (*(() if row is None else projections.desired(row)), *projections.tenant(row, last, rules))


def question(key: Key, reason: str, at_us: int) -> Output:
    """The wish that Genesys is asked about a key; it comes back through `lifecycle.received`."""
    wish = Recheck(key=key, reason=reason, at=at_us)
    ce_id = f"{key}/recheck/{reason}/{at_us}"
    return Output(RECEIVED, codec.encode(wish, key=key, ce_id=ce_id, source="/genesys-lifecycle/ledger", at_us=at_us))


def _take(before: TenantRow, record: Received, claims: tuple[EventClaim, ...], place: RecordPosition) -> JournalChange:
    if isinstance(record, Recheck):
        return journal.look(before, record.at, place)
    if isinstance(record, Observed) and record.read_at > place.log_time_us + WINDOW_US:
        # Its time would outdo every event until then.
        return JournalChange(before, (Verdict.FUTURE,))
    seen = journal.observe(before, claims) if isinstance(record, Observed) else before
    taken = journal.take(seen, claims, place)
    if taken.row is before or not journal_compaction.too_large(taken.row):
        return taken
    # The last resort: a row that Kafka refuses would stop the partition for good. Its replay may find room.
    return journal.look(before, place.log_time_us, place)._replace(verdicts=(Verdict.TOO_LARGE,))


def _verdict(verdicts: tuple[Verdict, ...]) -> Verdict:
    """One word for a record that tells several events: what an operator must see first."""
    order = (Verdict.CONFLICT, Verdict.NEW, *Verdict)
    return min(verdicts, key=order.index)


def _raised(
    before: TenantRow, taken: JournalChange, last: StageRow | None, place: RecordPosition, trace: str | None
) -> TenantRow:
    """The changed row with its next version, and what that version is the first to say."""
    version = max(place.offset, before.version + 1)
    wanted, wants = projections.wish(before.now), projections.wish(taken.row.now)
    news = Verdict.NEW in taken.verdicts or any(e.given == place.offset for e in (*taken.row.entries, *taken.folded))
    after = replace(
        taken.row,
        version=version,
        offset=max(place.offset, before.offset),
        updated_at_us=place.log_time_us,
        ever=before.ever or wants.installed,
        turned=before.turned if wants.installed == wanted.installed else version,
    )
    if news or wants != wanted:
        after = replace(after, desired_version=version, desired_at_us=place.log_time_us, trace=trace)
    shown = version + (last.version if last is not None else 0)
    return replace(after, moves=_moved(before.moves, stage(before, last), stage(after, last), shown, place))


def _moved(
    moves: tuple[Move, ...],
    before: tuple[Stage | None, str | None],
    after: tuple[Stage | None, str | None],
    version: int,
    place: RecordPosition,
) -> tuple[Move, ...]:
    """The changes of stage that a replay may have to tell again, and the one that there is now."""
    kept = tuple(move for move in moves if place.committed is None or move.offset > place.committed)
    if before[0] is after[0]:
        return kept[-_MOVES_MAX:]
    (was, _), (now, reason) = before, after
    return (*kept, Move(place.offset, version, was, now, reason, place.log_time_us))[-_MOVES_MAX:]


def _told(
    row: TenantRow, folded: tuple[Entry, ...], place: RecordPosition, rules: ProjectionRules, trace: str | None
) -> tuple[Output, ...]:
    """The events whose revision was given by this record, now or when it came first."""
    kept = (*(parted.entry for parted in row.parted), *folded, *row.entries)
    given = {entry.uid: entry for entry in kept if entry.given == place.offset}.values()
    extra = {} if trace is None else {"traceparent": trace}
    told = sorted(given, key=lambda entry: entry.revision)
    return tuple(projections.event(row, entry, rules, at_us=place.log_time_us, extra=extra) for entry in told)


def _line(record: Received, place: RecordPosition, verdict: Verdict, rules: ProjectionRules) -> Output:
    kind = KIND[type(record)]
    line = audit.line(
        line_id=f"{place.topic}/{place.partition}/{place.offset}/{kind}",
        key=record.key,
        what=kind,
        verdict=verdict,
        why=WHY[verdict],
        at_us=place.log_time_us,
        material=rules.audit,
    )
    return Output(AUDIT, audit.message(line, "ledger"))


def _moves(row: TenantRow | StageRow, place: RecordPosition, rules: ProjectionRules) -> tuple[Output, ...]:
    """The changes of stage that this record caused, now or when it came first.

    The version alone would not name one: it is a sum of two rows' versions, and a worker that lost its partition, or
    its last writes, may have met the two topics in another order and come to the same sum by another change.
    """
    lines = (
        audit.line(
            line_id=f"{row.key}/stage/{move.version}/{place.topic}/{move.offset}",
            key=row.key,
            what="stage",
            verdict=f"{move.before or 'none'} → {move.after or 'none'}",
            why=move.reason or "",
            at_us=move.at_us,
            material=rules.audit,
        )
        for move in row.moves
        if move.offset == place.offset
    )
    return tuple(Output(AUDIT, audit.message(line, "ledger")) for line in lines)


def _trace(raw: codec.Message | None) -> str | None:
    """`traceparent` where it is one: anything else would ride along with every record of the key, however large."""
    told = None if raw is None else codec.texts(raw.headers).get("traceparent")
    return told if told and _TRACEPARENT.fullmatch(told) else None
