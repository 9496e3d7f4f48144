"""The memory of a key: what a record adds to it, and what is said about each delivery.

Rule: joining a delivery commutes, associates and repeats without effect, so the journal is a function of the set of
deliveries; and what is said of a record depends on nothing that came after it, so a replay says the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from schemas.journal import VARIANTS_MAX, Aspect, Entry, ObservedTimes, Published, Variant, Verdict
from schemas.rows import TenantRow
from schemas.values import EventType
from services.core.ledger import merge, revisions
from services.core.ledger.identity import EventClaim
from services.core.ledger.journal_compaction import MEMORY_US, ask, relieve, summed, sweep


@dataclass(frozen=True, slots=True)
class RecordPosition:
    """Where a record stands in its topic.

    Attributes:
        topic: Name of the topic.
        partition: Its partition.
        offset: Its offset.
        log_time_us: When the broker appended it, microseconds UTC.
        committed: The greatest offset of the partition that will never be delivered again; it decides what a row
            keeps for replays, nothing else. None where nobody knows: then everything before this record counts.
        incarnation: Identity of the topic; the offsets of another one say nothing.
    """

    topic: str
    partition: int
    offset: int
    log_time_us: int
    committed: int | None = None
    incarnation: str = ""

    @property
    def settled(self) -> int:
        """The greatest offset that counts as committed."""
        return self.offset - 1 if self.committed is None else min(self.committed, self.offset - 1)


class JournalChange(NamedTuple):
    """What a record made of a row.

    Attributes:
        row: The very one that came in if nothing changed; else the next, its version not raised yet.
        verdicts: One a claim.
        folded: Entries that left the journal, with their final verdicts.
    """

    row: TenantRow
    verdicts: tuple[Verdict, ...]
    folded: tuple[Entry, ...] = ()


def rebased(row: TenantRow, place: RecordPosition) -> TenantRow:
    """The row, its offsets forgotten if they are another topic's: that one counts as above every version."""
    if row.incarnation == place.incarnation:
        return row
    entries = tuple(
        entry._replace(offset=-1, given=-1, variants=tuple(v._replace(offset=-1) for v in entry.variants))
        for entry in row.entries
    )
    return replace(
        row, incarnation=place.incarnation, offset=-1, folded_offset=-1, entries=entries, parted=(), moves=()
    )


def take(row: TenantRow, claims: Sequence[EventClaim], place: RecordPosition) -> JournalChange:
    """Add what a record claims to a row.

    Args:
        row: As the table holds it, or an empty one.
        claims: The events that the record tells.
        place: Where it stands.
    """
    swept, folded = _aged(row, place)
    before = {entry.uid: entry for entry in swept.entries}
    # A uid that folded twice was, below the first parting, the entry that parted first.
    parted = {kept.entry.uid: kept.entry for kept in reversed(swept.parted) if place.offset < kept.offset}
    said = {claim.uid: _said(swept, _known(claim.uid, before, parted, place), claim, place) for claim in claims}
    after = {entry.uid: entry for entry, _ in said.values() if entry is not None and parted.get(entry.uid) is not entry}
    if all(before.get(uid) is entry for uid, entry in after.items()):
        verdicts = tuple(verdict for _, verdict in said.values())
        if _doubted(said) and place.offset > row.offset:
            # How old the row was is kept with what was said of it, so that a replay says the same.
            return JournalChange(summed(ask(swept, place.log_time_us)), verdicts, folded)
        return JournalChange(row, verdicts)
    texts = {claim.digest: claim.text for claim in claims if claim.digest is not None and claim.text is not None}
    changed = [entry for uid, entry in after.items() if before.get(uid) is not entry]
    since_us = min(entry.at_us for now in changed for entry in (now, before.get(now.uid, now)))
    judged = merge.judge(sorted((before | after).values()), since_us)
    greeted = [e._replace(greeted=e.verdict) if e.uid in after and e.uid not in before else e for e in judged.entries]
    entries, revision = revisions.give(judged._replace(entries=greeted), row.revision, place.offset)
    taken = summed(replace(swept, entries=entries, revision=revision, texts={**(swept.texts or {}), **texts}))
    relieved, early = relieve(taken, place.offset, place.log_time_us, place.settled)
    final = {entry.uid: entry.greeted for entry in entries}
    verdicts = tuple(
        final[uid] if uid in after and uid not in before else verdict for uid, (_, verdict) in said.items()
    )
    asked = ask(relieved, place.log_time_us) if _doubted(said) else relieved
    return JournalChange(summed(asked) if asked is not taken else taken, verdicts, (*folded, *early))


def _doubted(said: Mapping[str, tuple[Entry | None, Verdict]]) -> bool:
    """Whether Genesys must be asked: something came too late, or two looks at one moment saw different things."""
    return any(
        verdict is Verdict.LATE or (verdict is Verdict.CONFLICT and uid.startswith("r:"))
        for uid, (_, verdict) in said.items()
    )


def _known(uid: str, journal: dict[str, Entry], parted: dict[str, Entry], place: RecordPosition) -> Entry | None:
    entry = journal.get(uid)
    return entry if entry is not None and place.offset >= entry.offset else parted.get(uid, entry)


def _said(
    row: TenantRow, entry: Entry | None, claim: EventClaim, place: RecordPosition
) -> tuple[Entry | None, Verdict]:
    """What one claim makes of the entry of its uid, and the verdict on it; that on a new entry comes later."""
    if entry is not None and place.offset < entry.offset:
        return entry, Verdict.LATE  # a replay of what came too late before anything of this uid was taken in
    if entry is not None:
        joined = entry if entry.frozen else join(entry, claim, place.offset)
        return joined, _repeated(joined, claim, place.offset)
    refusal = _refusal(row, claim, place)
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
        offset=place.offset,
    )
    return fresh, Verdict.NEW


def look(row: TenantRow, at_us: int, place: RecordPosition) -> JournalChange:
    """Note a wish that Genesys be asked as of `at_us`."""
    aged, folded = _aged(row, place)
    asked = ask(aged, min(at_us, place.log_time_us))
    if asked.recheck_at_us == row.recheck_at_us:
        return JournalChange(row, (Verdict.ASKED,))
    return JournalChange(summed(asked), (Verdict.ASKED,), folded)


def _aged(row: TenantRow, place: RecordPosition) -> tuple[TenantRow, tuple[Entry, ...]]:
    """The row as old as the record; for a replay as old as it is, since what it tells may have folded since."""
    if place.offset <= row.offset:
        return row, ()
    return sweep(row, place.offset, place.log_time_us, place.settled)


def observe(row: TenantRow, claims: Sequence[EventClaim]) -> TenantRow:
    """Let an observation end the flags and the re-check that it answers.

    A read that finds the integration gone speaks of every aspect: nothing below it counts any more.
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
    """Add one delivery of a known uid: least time and common mark per variant; the least (time, hash) counts.

    Of more than `VARIANTS_MAX` variants the greatest is not kept (the first to come always is, with its greeting), so
    which one counts follows from the set in any order. What does not: a variant that was not kept and comes again with
    a lesser time has lost the marks of its former deliveries, and a repeat of one is called a conflict again.

    Returns:
        The very entry that came in if the delivery says nothing new, or is not kept.
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
        greatest = max(list(variants.values())[1:], key=_precedence)
        if greatest.f == claim.f:
            return entry
        del variants[greatest.f]
    counting = min(variants.values(), key=_precedence)
    several = tuple(variants.values()) if len(variants) > 1 else ()
    joined = entry._replace(at_us=counting.at_us, marked=counting.marked, variants=several)
    if counting.f != entry.f:  # only the variant that has just come can overtake, so the claim is its content
        joined = joined._replace(
            rank=merge.RANK[claim.event],
            event=claim.event,
            f=claim.f,
            tenant_id=claim.tenant_id,
            digest=claim.digest,
            source=claim.source,
        )
    if entry.revision and entry.told is None and (joined.at_us, joined.f) != (entry.at_us, entry.f):
        told = Published(entry.event, entry.at_us, entry.tenant_id, entry.digest, entry.source)
        joined = joined._replace(told=told)
    return joined


def _precedence(variant: Variant) -> tuple[int, str]:
    return variant.at_us, variant.f


def _variants(entry: Entry) -> tuple[Variant, ...]:
    return entry.variants or (Variant(entry.f, entry.event, entry.at_us, entry.marked, entry.offset),)


def _repeated(entry: Entry, claim: EventClaim, offset: int) -> Verdict:
    """The verdict on a delivery of a known uid; a replay gets the one it got first."""
    first, *others = _variants(entry)
    if claim.f == first.f:
        return entry.greeted if offset == first.offset else Verdict.DUPLICATE
    told_before = any(variant.f == claim.f and variant.offset != offset for variant in others)
    return Verdict.DUPLICATE if told_before else Verdict.CONFLICT


def _refusal(row: TenantRow, claim: EventClaim, place: RecordPosition) -> Verdict | None:
    """Why an unknown uid is not taken in; None if it is. An observation is never too old."""
    if row.folded_to is None:
        return None
    folded = claim.at_us <= row.folded_to
    if folded and place.offset <= row.folded_offset:
        return Verdict.FORGOTTEN
    if claim.uid.startswith("r:"):
        return None
    near = claim.at_us <= row.folded_to + merge.RETRY_SPAN_US and claim.at_us < place.log_time_us - MEMORY_US
    return Verdict.LATE if folded or near else None
