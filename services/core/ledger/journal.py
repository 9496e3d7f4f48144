"""The journal of a key: adds claims of a record, and returns the verdict on each claim.

Rule: adding claims is commutative, associative and idempotent, so the journal is a function of the set of deliveries.
The verdict on a record depends on no later record, so a replay returns the first verdict again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from schemas.journal import VARIANTS_MAX, Aspect, Entry, ObservedTimes, Published, Variant, Verdict
from schemas.rows import TenantRow
from schemas.values import EventType
from services.core.ledger import merge, revisions
from services.core.ledger.identity import EventClaim
from services.core.ledger.journal_compaction import MEMORY_US, age, fold_excess, recompute, request_recheck

# Theory. Two judgements of an event must be kept apart. The final verdict (`Entry.verdict`) follows from the whole set
# of events and may change as long as the entry is not frozen: a late delivery can turn a new event into a restamp. The
# first verdict (`Entry.first_verdict`) is the one on arrival; audit trail and outputs of the record were written with
# it, so a replay must find it again, whatever the journal has learnt since.
#
# A replay is a record at or below `row.offset`. Between first run and replay the row may have gone on: entries froze,
# folded, or were kept aside (`parted`). So a replay is not aged again (`_age`), finds folded entries in `parted`, and
# must not see entries from later records (`_known_entry`). Offsets decide, never the clock and never the committed
# offset: that one differs between a run and its repetition (docs/decisions/0005).
#
# `enter` returns the very row it was given (`is`, not `==`) if a record has no effect. The caller relies on this
# identity.


@dataclass(frozen=True, slots=True)
class RecordPosition:
    """Position of a record in Kafka.

    Attributes:
        topic: Name of the topic.
        partition: Number of the partition.
        offset: Offset of the record.
        log_time_us: Time at which the broker appended the record, microseconds UTC.
        committed: The greatest offset of the partition that Kafka will never deliver again. Decides only what a row
            keeps for replays. None if unknown: every offset before this record then counts as committed.
        incarnation: Identity of the topic; offsets of different incarnations are not comparable.
        trace: The record's `traceparent`, well-formed; None without one.
    """

    topic: str
    partition: int
    offset: int
    log_time_us: int
    committed: int | None = None
    incarnation: str = ""
    trace: str | None = None

    @property
    def settled(self) -> int:
        """Returns the greatest offset that counts as committed, below this record's offset."""
        return self.offset - 1 if self.committed is None else min(self.committed, self.offset - 1)


class JournalChange(NamedTuple):
    """The effect of a record on a row.

    Attributes:
        row: The identical object if nothing changed; else the changed row, with the version not raised yet.
        verdicts: A verdict per claim.
        folded: Entries removed from the journal, with final verdicts.
    """

    row: TenantRow
    verdicts: tuple[Verdict, ...]
    folded: tuple[Entry, ...] = ()


def rebased(row: TenantRow, position: RecordPosition) -> TenantRow:
    """Returns the row with all offsets reset if the topic was recreated: old and new offsets are not comparable."""
    if row.incarnation == position.incarnation:
        return row
    # With offset -1 every record of the new topic is new to the row. Entries kept aside and changes of stage go, since
    # only replays of the former topic read them.
    entries = tuple(
        entry._replace(offset=-1, revision_offset=-1, variants=tuple(v._replace(offset=-1) for v in entry.variants))
        for entry in row.entries
    )
    return replace(
        row, incarnation=position.incarnation, offset=-1, folded_offset=-1, entries=entries, parted=(), moves=()
    )


def enter(row: TenantRow, claims: Sequence[EventClaim], position: RecordPosition) -> JournalChange:
    """Adds the claims of a record to a row.

    Args:
        row: The row of the table, or an empty row.
        claims: The events claimed by the record.
        position: The record's position.
    """
    aged, folded = _age(row, position)
    before = {entry.uid: entry for entry in aged.entries}
    # A uid may have folded twice. Below the first parting offset the replayed record met the first of both entries, so
    # in reversed order the first one overwrites the second.
    parted = {kept.entry.uid: kept.entry for kept in reversed(aged.parted) if position.offset < kept.offset}
    results = {
        claim.uid: _add_claim(aged, _known_entry(claim.uid, before, parted, position), claim, position)
        for claim in claims
    }
    # Entries kept aside are final: a replayed record never brings a folded entry back into the journal.
    after = {
        entry.uid: entry for entry, _ in results.values() if entry is not None and parted.get(entry.uid) is not entry
    }
    if all(before.get(uid) is entry for uid, entry in after.items()):
        verdicts = tuple(verdict for _, verdict in results.values())
        if _needs_recheck(results) and position.offset > row.offset:
            # The aged row is written although no entry changed: `late` depends on how far the row has folded, and a
            # replay must find the row in this state to return `late` again.
            return JournalChange(recompute(request_recheck(aged, position.log_time_us)), verdicts, folded)
        return JournalChange(row, verdicts)
    texts = {claim.digest: claim.text for claim in claims if claim.digest is not None and claim.text is not None}
    changed = [entry for uid, entry in after.items() if before.get(uid) is not entry]
    # A verdict looks only at events at or before its own time, so verdicts below the earliest changed time stand. The
    # former time of a changed entry counts as well: at that time an event has vanished.
    since_us = min(entry.at_us for now in changed for entry in (now, before.get(now.uid, now)))
    judged = merge.judge(sorted((before | after).values()), since_us)
    judged_entries = [
        entry._replace(first_verdict=entry.verdict) if entry.uid in after and entry.uid not in before else entry
        for entry in judged.entries
    ]
    entries, revision = revisions.assign(judged._replace(entries=judged_entries), row.revision, position.offset)
    entered = recompute(replace(aged, entries=entries, revision=revision, texts={**(aged.texts or {}), **texts}))
    bounded, early = fold_excess(entered, position.offset, position.log_time_us, position.settled)
    first_verdicts = {entry.uid: entry.first_verdict for entry in entries}
    verdicts = tuple(
        first_verdicts[uid] if uid in after and uid not in before else verdict for uid, (_, verdict) in results.items()
    )
    checked = request_recheck(bounded, position.log_time_us) if _needs_recheck(results) else bounded
    return JournalChange(recompute(checked) if checked is not entered else entered, verdicts, (*folded, *early))


def _needs_recheck(results: Mapping[str, tuple[Entry | None, Verdict]]) -> bool:
    """True if a claim was late, or if two observations of an equal time disagree."""
    return any(
        verdict is Verdict.LATE or (verdict is Verdict.CONFLICT and uid.startswith("r:"))
        for uid, (_, verdict) in results.items()
    )


def _known_entry(
    uid: str, journal: dict[str, Entry], parted: dict[str, Entry], position: RecordPosition
) -> Entry | None:
    """Returns the entry of a uid as the record met the entry at the first delivery; None for an unknown uid."""
    # An entry from above the record's offset came later. At the first delivery the record met the entry kept aside.
    entry = journal.get(uid)
    return entry if entry is not None and position.offset >= entry.offset else parted.get(uid, entry)


def _add_claim(
    row: TenantRow, entry: Entry | None, claim: EventClaim, position: RecordPosition
) -> tuple[Entry | None, Verdict]:
    """Returns the entry with a claim added, and the verdict on the claim.

    The verdict on a new entry is provisional; `enter` replaces the verdict after judging the whole journal.
    """
    if entry is not None and position.offset < entry.offset:
        # A replay of a record from below the entry's first delivery. The record left no entry, so it was late.
        return entry, Verdict.LATE
    if entry is not None:
        joined = entry if entry.frozen else join(entry, claim, position.offset)
        return joined, _verdict_on_repeat(joined, claim, position.offset)
    refusal = _refusal(row, claim, position)
    if refusal is not None:
        return None, refusal
    fresh = Entry(
        at_us=claim.at_us,
        rank=merge.RANK[claim.event],
        uid=claim.uid,
        event=claim.event,
        f=claim.f,
        marked=claim.marked,
        tenant_id=claim.tenant_id,
        digest=claim.digest,
        source=claim.source,
        offset=position.offset,
    )
    return fresh, Verdict.NEW


def enter_recheck(row: TenantRow, at_us: int, position: RecordPosition) -> JournalChange:
    """Adds a request for a re-check as of `at_us` (microseconds UTC) to a row."""
    aged, folded = _age(row, position)
    # At most log time: with a time in the future, no read of Genesys could answer the request for a while.
    checked = request_recheck(aged, min(at_us, position.log_time_us))
    if checked.recheck_at_us == row.recheck_at_us:
        return JournalChange(row, (Verdict.ASKED,))
    return JournalChange(recompute(checked), (Verdict.ASKED,), folded)


def _age(row: TenantRow, position: RecordPosition) -> tuple[TenantRow, tuple[Entry, ...]]:
    """Returns the row frozen and folded up to the record's log time, and the folded entries."""
    # A replay finds the row as it is: ageing again could fold the entries which the replay has to publish again.
    if position.offset <= row.offset:
        return row, ()
    return age(row, position.offset, position.log_time_us, position.settled)


def observe(row: TenantRow, claims: Sequence[EventClaim]) -> TenantRow:
    """Clears the flags and the re-check answered by an observation.

    An observed `uninstalled` answers for all aspects, because no earlier value of any aspect counts any more.
    """
    times = row.seen._asdict()
    for claim in claims:
        for aspect in Aspect if claim.event is EventType.UNINSTALLED else (merge.ASPECT[claim.event],):
            times[aspect] = max(times[aspect], claim.at_us)
    seen = ObservedTimes(**times)
    if seen == row.seen:
        return row
    answered = row.recheck_at_us is not None and row.recheck_at_us <= seen.installed
    return replace(
        row,
        seen=seen,
        marks=tuple(mark for mark in row.marks if mark.at_us > times[mark.aspect]),
        recheck_at_us=None if answered else row.recheck_at_us,
    )


def join(entry: Entry, claim: EventClaim, offset: int) -> Entry:
    """Adds a delivery of a known uid to an entry.

    Each variant (body) keeps the least time of all deliveries, and a mark only if all deliveries are marked. The
    variant with the least (time, hash) counts. Of more than `VARIANTS_MAX` variants the greatest is dropped; the first
    arrival is never dropped, because a replay needs the first verdict. The counting variant is thus independent of the
    order of arrival. Two details are not: a dropped variant loses the marks of earlier deliveries, and a repeated
    delivery of a dropped variant is a conflict again instead of a duplicate.

    Returns:
        The joined entry; the identical object if the delivery has no new information or is dropped.
    """
    variants = {variant.f: variant for variant in _variants(entry)}
    known = variants.get(claim.f)
    if known is None:
        variants[claim.f] = Variant(claim.f, claim.event, claim.at_us, claim.marked, offset)
    elif claim.at_us >= known.at_us and (claim.marked or not known.marked):
        return entry
    else:
        at_us, marked = min(known.at_us, claim.at_us), known.marked and claim.marked
        variants[claim.f] = known._replace(at_us=at_us, marked=marked)
    if len(variants) > VARIANTS_MAX:
        greatest = max(list(variants.values())[1:], key=_precedence)  # without the first arrival
        if greatest.f == claim.f:
            return entry
        del variants[greatest.f]
    counting = min(variants.values(), key=_precedence)
    several = tuple(variants.values()) if len(variants) > 1 else ()
    joined = entry._replace(at_us=counting.at_us, marked=counting.marked, variants=several)
    # A new counting variant can only be the present claim's: the older variants stood behind the former one before.
    if counting.f != entry.f:
        joined = joined._replace(
            rank=merge.RANK[claim.event],
            event=claim.event,
            f=claim.f,
            tenant_id=claim.tenant_id,
            digest=claim.digest,
            source=claim.source,
        )
    # The published record is never taken back, so a replay needs the content before the first change.
    if entry.revision and entry.first_published is None and (joined.at_us, joined.f) != (entry.at_us, entry.f):
        published = Published(entry.event, entry.at_us, entry.tenant_id, entry.digest, entry.source)
        joined = joined._replace(first_published=published)
    return joined


def _precedence(variant: Variant) -> tuple[int, str]:
    """Returns the order of variants; the least variant counts."""
    return variant.at_us, variant.f


def _variants(entry: Entry) -> tuple[Variant, ...]:
    """Returns the variants of an entry, in order of arrival; a single variant is stored in the entry itself."""
    return entry.variants or (Variant(entry.f, entry.event, entry.at_us, entry.marked, entry.offset),)


def _verdict_on_repeat(entry: Entry, claim: EventClaim, offset: int) -> Verdict:
    """Returns the verdict on a delivery of a known uid; for a replay the verdict of the first delivery."""
    first, *later = _variants(entry)
    if claim.f == first.f:
        return entry.first_verdict if offset == first.offset else Verdict.DUPLICATE
    # An equal offset is the conflicting delivery itself, replayed.
    is_repeated = any(variant.f == claim.f and variant.offset != offset for variant in later)
    return Verdict.DUPLICATE if is_repeated else Verdict.CONFLICT


def _refusal(row: TenantRow, claim: EventClaim, position: RecordPosition) -> Verdict | None:
    """Returns the verdict that keeps an unknown uid out of the journal; None for a claim to take in."""
    if row.folded_to is None:
        return None
    folded = claim.at_us <= row.folded_to
    # Below `folded_offset` the row holds no trace of some records, so a replay cannot be told from a late record.
    if folded and position.offset <= row.folded_offset:
        return Verdict.FORGOTTEN
    if claim.uid.startswith("r:"):  # an observation reports the present state and is never too old
        return None
    # Up to the retry span above `folded_to` the first attempt of this event may have folded: the retry would look new.
    near = claim.at_us <= row.folded_to + merge.RETRY_SPAN_US and claim.at_us < position.log_time_us - MEMORY_US
    return Verdict.LATE if folded or near else None
