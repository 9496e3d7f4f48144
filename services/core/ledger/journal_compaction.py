"""How a journal grows old: entries freeze after 8 hours, fold after 24, and earlier when there are too many.

Rule: ages are counted in log time, so a worker that was down judges as one that was not, and what folds is a function
of row and record alone. Whether an entry is committed or not, it folds; it is kept aside until every record that found
it in the journal is, since a replay must find it again; nothing but a commit lets it go. Folding changes no register
that shows, and a flag outlives its entry. Ties are sought at times that a register holds with the whole journal on top,
so that growing old alone raises no flag.
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

HOUR_US: Final = 3_600 * 1_000_000
FREEZE_US: Final = 8 * HOUR_US
"""More than the 25 minutes that ingress looks back and the 6 hours that a spool may hold a delivery."""
MEMORY_US: Final = 24 * HOUR_US
"""The guide's lifetime of an idempotency key."""
ENTRIES_MAX: Final = 512
"""Beyond it the oldest entries fold early."""
TEXTS_MAX_BYTES: Final = 1024 * 1024
"""The same for the configurations that the journal refers to, as a packed row carries them."""
_ENTRY_MAX_BYTES: Final = 2_048
"""No packed entry with one variant is larger: its uid has at most 128 characters of 4 bytes, each told once."""
_VARIANT_MAX_BYTES: Final = 160


def ask(row: TenantRow, at_us: int) -> TenantRow:
    """Note that Genesys should be asked, unless it was since.

    The time is cut to the whole second, since the time of the answer is an HTTP date.
    """
    asked_us = max(at_us - at_us % 1_000_000, row.recheck_at_us or 0)
    if asked_us <= row.seen.installed or asked_us == row.recheck_at_us:
        return row
    return replace(row, recheck_at_us=asked_us)


def sweep(row: TenantRow, offset: int, log_time_us: int, settled: int) -> tuple[TenantRow, tuple[Entry, ...]]:
    """Freeze and fold what is old.

    Args:
        row: With its entries judged.
        offset: Of the record that comes next.
        log_time_us: Of that record.
        settled: The greatest committed offset.

    Returns:
        The row, and the entries that left its journal.
    """
    frozen = _frozen(row, log_time_us - FREEZE_US)
    old = {entry.uid for entry in frozen.entries if entry.at_us < log_time_us - MEMORY_US}
    return _fold(_settled(frozen, settled), old, offset, settled)


def relieve(row: TenantRow, offset: int, log_time_us: int, settled: int) -> tuple[TenantRow, tuple[Entry, ...]]:
    """Fold the oldest entries of an overfull journal, flag the key and ask about it.

    What stands within the retry span above a folded entry freezes with it: its verdict leaned on that entry.
    """
    old = _excess(row)
    if not old:
        return row, ()
    last_us = max(entry.at_us for entry in row.entries if entry.uid in old)
    relieved, leaving = _fold(_frozen(row, last_us + merge.RETRY_SPAN_US + 1), old, offset + 1, settled)
    storm = Mark(Flag.STORM, Aspect.INSTALLED, log_time_us)
    return ask(replace(relieved, marks=_newest((*relieved.marks, storm))), log_time_us), leaving


def summed(row: TenantRow) -> TenantRow:
    """The row with what follows from its journal: the registers of now, the flags, and only the texts it needs."""
    now = merge.fold(row.entries, row.base)
    marks = (*row.marks, *merge.marks(row.entries, now))
    needed = _references((*row.entries, *(parted.entry for parted in row.parted)), row.base, now)
    texts = {digest: text for digest, text in (row.texts or {}).items() if digest in needed}
    return replace(row, now=now, flags=merge.standing(marks, row.seen), texts=texts)


def too_large(row: TenantRow) -> bool:
    """Whether a changelog would refuse the row; it is packed only where a rough bound does not say no."""
    kept = (*row.entries, *(parted.entry for parted in row.parted))
    texts = sum(map(_bytes, (row.texts or {}).values()))
    variants = sum(len(entry.variants) for entry in kept)
    most = texts + (len(kept) + 32) * _ENTRY_MAX_BYTES + variants * _VARIANT_MAX_BYTES
    return most > ROW_MAX_BYTES and len(pack(row)) > ROW_MAX_BYTES


def _frozen(row: TenantRow, before_us: int) -> TenantRow:
    due = [entry for entry in row.entries if entry.at_us < before_us and not entry.frozen]
    if not due:
        return row
    entries = tuple(entry._replace(frozen=True) if entry.at_us < before_us else entry for entry in row.entries)
    return replace(row, entries=entries)


def _settled(row: TenantRow, settled: int) -> TenantRow:
    """Let go of entries kept aside once no record that found them in the journal can come again."""
    gone = [parted.entry.offset for parted in row.parted if parted.offset <= settled + 1]
    if not gone:
        return row
    parted = tuple(parted for parted in row.parted if parted.offset > settled + 1)
    return replace(row, parted=parted, folded_offset=max(row.folded_offset, *gone))


def _fold(row: TenantRow, old: set[str], offset: int, settled: int) -> tuple[TenantRow, tuple[Entry, ...]]:
    """Move entries into the registers, with their verdicts, and their flags into the row."""
    if not old:
        return row, ()
    leaving = tuple(entry for entry in row.entries if entry.uid in old)
    base = merge.fold(leaving, row.base)
    staying = tuple(entry for entry in row.entries if entry.uid not in old)
    now = merge.fold(staying, base)
    held = Registers(*(was if was == still else None for was, still in zip(base, now, strict=True)))
    marks = (mark for mark in merge.marks(leaving, held) if mark.at_us > getattr(row.seen, mark.aspect))
    last_us = leaving[-1].at_us
    folded = replace(
        row,
        base=base,
        entries=staying,
        parted=(*row.parted, *(Parted(offset, entry) for entry in leaving)),
        folded_to=last_us if row.folded_to is None else max(row.folded_to, last_us),
        marks=_newest((*row.marks, *marks)),
    )
    return _settled(folded, settled), leaving


def _newest(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """One mark a flag and aspect: whatever ends the newest ends them all."""
    return tuple({(mark.flag, mark.aspect): mark for mark in sorted(marks)}.values())


def _references(entries: Iterable[Entry], *registers: Registers) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in entries:
        if entry.digest is not None:
            found[entry.digest] += 1
        if entry.told is not None and entry.told.digest is not None:
            found[entry.told.digest] += 1
    for held in registers:
        if held.configuration is not None:
            found[held.configuration.value] += 1
    return found


def _excess(row: TenantRow) -> set[str]:
    """The uids of the oldest entries that must go so that the journal is within bounds."""
    texts = row.texts or {}
    references = _references(row.entries, row.base, row.now)
    count, size = len(row.entries), sum(_bytes(texts[digest]) for digest in references)
    old: set[str] = set()
    for entry in row.entries:
        if count <= ENTRIES_MAX and size <= TEXTS_MAX_BYTES:
            break
        old.add(entry.uid)
        count -= 1
        freed = _references((entry,))
        references -= freed
        size -= sum(_bytes(texts[digest]) for digest in freed if not references[digest])
    return old


def _bytes(text: str) -> int:
    """The size of canonical JSON as text within JSON: its control characters are escaped already."""
    plain = len(text) if text.isascii() else len(text.encode())
    return plain + text.count('"') + text.count("\\")
