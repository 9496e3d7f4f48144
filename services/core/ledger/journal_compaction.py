"""Ageing of the journal: entries freeze after 8 hours and fold after 24 hours, or earlier in an overfull journal.

Rule: ages are counted in log time, and folding depends on the row and the record alone, so a worker after an outage
folds like a worker without an outage. Folding by age changes no visible register, raises no flag and clears no flag.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from schemas.journal import Aspect, Entry, Mark, Parted, Registers
from schemas.rows import TenantRow, pack
from schemas.tenant import Flag
from schemas.topics import ROW_MAX_BYTES
from services.core.ledger import merge

# Theory. An entry passes through four states:
#
#   open          any delivery of the uid may change time, mark, variant and verdict
#   frozen        final; later deliveries are duplicates or conflicts
#   kept aside    folded into the registers, but still in `row.parted`: Kafka may deliver the entry's records again
#   dropped       every record that met the entry in the journal is committed; `folded_offset` remembers the offset
#
# Only the step from "kept aside" to "dropped" looks at the committed offset, because this offset differs between a run
# and the repetition after a crash. Folding itself must not wait for a commit: then the row would differ as well, and a
# replay would return different verdicts (docs/decisions/0005).
#
# A flag belongs to an entry while the entry is in the journal, and becomes a mark of the row when the entry folds. A
# tie counts only at a time which a register still holds with the whole journal folded on top: otherwise ageing alone
# would raise flags about ties that later events have settled (docs/decisions/0006).

HOUR_US: Final = 3_600 * 1_000_000
FREEZE_US: Final = 8 * HOUR_US
"""More than the ingress' horizon (25 minutes) and the longest wait in a spool (6 hours) together."""
MEMORY_US: Final = 24 * HOUR_US
"""The guide's lifetime of an idempotency key."""
ENTRIES_MAX: Final = 512
"""Greatest number of entries; of more, the oldest fold early."""
TEXTS_MAX_BYTES: Final = 1024 * 1024
"""Greatest size of the journal's configurations in a packed row; of more, the oldest entries fold early."""
_ENTRY_MAX_BYTES: Final = 2_048
"""Upper bound of a packed entry without variants: a uid has at most 128 characters of 4 bytes."""
_VARIANT_MAX_BYTES: Final = 160
"""Upper bound of a packed variant."""


def request_recheck(row: TenantRow, at_us: int) -> TenantRow:
    """Returns the row with a re-check requested as of `at_us`, unless a later observation or request is known."""
    # Whole seconds, because an observation's time is an HTTP date: with microseconds, a read in the second of the
    # request would never answer the request (docs/decisions/0007).
    asked_us = max(at_us - at_us % 1_000_000, row.recheck_at_us or 0)
    if asked_us <= row.seen.installed or asked_us == row.recheck_at_us:
        return row
    return replace(row, recheck_at_us=asked_us)


def age(row: TenantRow, offset: int, log_time_us: int, settled: int) -> tuple[TenantRow, tuple[Entry, ...]]:
    """Freezes and folds old entries, before a record is added.

    Args:
        row: The row, with all entries judged.
        offset: Offset of the record to be added.
        log_time_us: Log time of the record, microseconds UTC.
        settled: The greatest committed offset.

    Returns:
        The row, and the entries removed from the journal.
    """
    frozen = _freeze(row, log_time_us - FREEZE_US)
    old = {entry.uid for entry in frozen.entries if entry.at_us < log_time_us - MEMORY_US}
    return _fold(_drop_settled(frozen, settled), old, offset, settled)


def fold_excess(row: TenantRow, offset: int, log_time_us: int, settled: int) -> tuple[TenantRow, tuple[Entry, ...]]:
    """Folds the oldest entries of an overfull journal, after a record was added; flags the key and requests a re-check.

    Args:
        row: The row, with all entries judged.
        offset: Offset of the added record.
        log_time_us: Log time of the record, microseconds UTC.
        settled: The greatest committed offset.

    Returns:
        The row, and the entries removed from the journal.
    """
    old = _excess(row)
    if not old:
        return row, ()
    last_us = max(entry.at_us for entry in row.entries if entry.uid in old)
    # Entries within the retry span above a folded entry freeze as well: judged again without the folded entry, an
    # absorbed retry would become a new event. `offset + 1`, because this record met the folded entries in the journal.
    bounded, leaving = _fold(_freeze(row, last_us + merge.RETRY_SPAN_US + 1), old, offset + 1, settled)
    storm = Mark(Flag.STORM, Aspect.INSTALLED, log_time_us)
    return request_recheck(replace(bounded, marks=_newest((*bounded.marks, storm))), log_time_us), leaving


def recompute(row: TenantRow) -> TenantRow:
    """Returns the row with all fields derived from the journal: present registers, flags, and the texts in use."""
    now = merge.fold(row.entries, row.base)
    marks = (*row.marks, *merge.flag_marks(row.entries, now))
    needed = _references((*row.entries, *(parted.entry for parted in row.parted)), row.base, now)
    texts = {digest: text for digest, text in (row.texts or {}).items() if digest in needed}
    return replace(row, now=now, flags=merge.standing_flags(marks, row.seen), texts=texts)


def too_large(row: TenantRow) -> bool:
    """True if the packed row would exceed the changelog's record size."""
    # Packing a row is slow, so a rough upper bound comes first.
    kept = (*row.entries, *(parted.entry for parted in row.parted))
    texts = sum(map(_bytes, (row.texts or {}).values()))
    variants = sum(len(entry.variants) for entry in kept)
    most = texts + (len(kept) + 32) * _ENTRY_MAX_BYTES + variants * _VARIANT_MAX_BYTES
    return most > ROW_MAX_BYTES and len(pack(row)) > ROW_MAX_BYTES


def _freeze(row: TenantRow, before_us: int) -> TenantRow:
    """Returns the row with every entry older than `before_us` frozen."""
    due = [entry for entry in row.entries if entry.at_us < before_us and not entry.frozen]
    if not due:
        return row
    entries = tuple(entry._replace(frozen=True) if entry.at_us < before_us else entry for entry in row.entries)
    return replace(row, entries=entries)


def _drop_settled(row: TenantRow, settled: int) -> TenantRow:
    """Drops each entry kept aside, if all records that met the entry in the journal are committed."""
    # `Parted.offset` is the first offset after these records, hence the `+ 1`.
    gone = [parted.entry.offset for parted in row.parted if parted.offset <= settled + 1]
    if not gone:
        return row
    parted = tuple(parted for parted in row.parted if parted.offset > settled + 1)
    return replace(row, parted=parted, folded_offset=max(row.folded_offset, *gone))


def _fold(row: TenantRow, old: set[str], offset: int, settled: int) -> tuple[TenantRow, tuple[Entry, ...]]:
    """Folds entries into the registers, moves the entries' flags to the row, and keeps the entries aside."""
    if not old:
        return row, ()
    leaving = tuple(entry for entry in row.entries if entry.uid in old)
    base = merge.fold(leaving, row.base)
    staying = tuple(entry for entry in row.entries if entry.uid not in old)
    now = merge.fold(staying, base)
    # Only registers which no staying entry overwrites: a tie below a newer value is settled and raises no flag.
    held = Registers(*(was if was == still else None for was, still in zip(base, now, strict=True)))
    marks = (mark for mark in merge.flag_marks(leaving, held) if mark.at_us > getattr(row.seen, mark.aspect))
    last_us = leaving[-1].at_us
    folded = replace(
        row,
        base=base,
        entries=staying,
        parted=(*row.parted, *(Parted(offset, entry) for entry in leaving)),
        folded_to=last_us if row.folded_to is None else max(row.folded_to, last_us),
        marks=_newest((*row.marks, *marks)),
    )
    return _drop_settled(folded, settled), leaving


def _newest(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """Returns the newest mark of each flag and aspect: an observation that clears the newest clears the older ones."""
    return tuple({(mark.flag, mark.aspect): mark for mark in sorted(marks)}.values())


def _references(entries: Iterable[Entry], *registers: Registers) -> Counter[str]:
    """Returns the number of references to each configuration, by digest."""
    found: Counter[str] = Counter()
    for entry in entries:
        if entry.digest is not None:
            found[entry.digest] += 1
        if entry.first_published is not None and entry.first_published.digest is not None:
            found[entry.first_published.digest] += 1
    for held in registers:
        if held.configuration is not None:
            found[held.configuration.value] += 1
    return found


def _excess(row: TenantRow) -> set[str]:
    """Returns the uids of the oldest entries above the limits of the journal."""
    texts = row.texts or {}
    references = _references(row.entries, row.base, row.now)
    count, size = len(row.entries), sum(_bytes(texts[digest]) for digest in references)
    old: set[str] = set()
    for entry in row.entries:
        if count <= ENTRIES_MAX and size <= TEXTS_MAX_BYTES:
            break
        old.add(entry.uid)
        count -= 1
        # A configuration frees space only with the last reference to the text.
        freed = _references((entry,))
        references -= freed
        size -= sum(_bytes(texts[digest]) for digest in freed if not references[digest])
    return old


def _bytes(text: str) -> int:
    """Returns the size in bytes of canonical JSON, quoted as a string within JSON."""
    # Quoting adds a backslash per quote and backslash. Control characters are already escaped in canonical JSON.
    plain = len(text) if text.isascii() else len(text.encode())
    return plain + text.count('"') + text.count("\\")
