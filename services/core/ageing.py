"""How a journal grows old: entries freeze after 8 hours, fold after 24, and earlier when there are too many.

Rule: ages are counted in log time, so a worker that was down judges as one that was not. An entry folds only when every
offset it came from, or was published at, is committed: a replay must still find it. Folding changes no register that
shows, and a flag outlives its entry.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from schemas.journal import Aspect, Entry, Mark, Registers
from schemas.rows import TenantRow
from schemas.tenant import Flag
from services.core import merge

HOUR_US: Final = 3_600 * 1_000_000
FREEZE_US: Final = 8 * HOUR_US
"""More than the 25 minutes that ingress looks back and the 6 hours that a spool may hold a delivery."""
MEMORY_US: Final = 24 * HOUR_US
"""The guide's lifetime of an idempotency key."""
ENTRIES_MAX: Final = 512
"""Beyond it the oldest entries fold early."""
TEXTS_MAX_BYTES: Final = 640 * 1024
"""The same for the configurations that a row carries: it must fit into one record of 2 MiB, every quote escaped."""
ENTRIES_HARD: Final = 2 * ENTRIES_MAX
TEXTS_HARD_BYTES: Final = 896 * 1024
"""Beyond these two even what is not committed folds: a row that Kafka refuses would stop the partition for good."""


def ask(row: TenantRow, at_us: int) -> TenantRow:
    """Note that Genesys should be asked, unless it was since.

    The time is cut to the whole second, since the time of the answer is an HTTP date.
    """
    asked_us = max(at_us - at_us % 1_000_000, row.recheck_at_us or 0)
    if asked_us <= row.seen.installed or asked_us == row.recheck_at_us:
        return row
    return replace(row, recheck_at_us=asked_us)


def sweep(row: TenantRow, log_time_us: int, settled: int) -> tuple[TenantRow, tuple[Entry, ...]]:
    """Freeze and fold what is old.

    Args:
        row: With its entries judged.
        log_time_us: Of the record that comes next.
        settled: The greatest committed offset.

    Returns:
        The row, and the entries that left it.
    """
    frozen = _frozen(row, log_time_us - FREEZE_US)
    old = set()
    for entry in frozen.entries:
        if entry.at_us >= log_time_us - MEMORY_US:
            break
        if _foldable(entry, settled):
            old.add(entry.uid)
    return _fold(frozen, old)


def relieve(row: TenantRow, log_time_us: int, settled: int) -> tuple[TenantRow, tuple[Entry, ...]]:
    """Fold the oldest entries of an overfull journal, flag the key and ask about it.

    What stands within the retry span above a folded entry freezes with it: its verdict leaned on that entry.
    """
    old = _excess(row, settled)
    if not old:
        return row, ()
    last_us = max(entry.at_us for entry in row.entries if entry.uid in old)
    relieved, leaving = _fold(_frozen(row, last_us + merge.RETRY_SPAN_US + 1), old)
    storm = Mark(Flag.STORM, Aspect.INSTALLED, log_time_us)
    return ask(replace(relieved, marks=_newest((*relieved.marks, storm))), log_time_us), leaving


def summed(row: TenantRow) -> TenantRow:
    """The row with what follows from its journal: the registers of now, the flags, and only the texts it needs."""
    now = merge.fold(row.entries, row.base)
    marks = (*row.marks, *merge.marks(row.entries, now))
    needed = _references(row.entries) | _references((), row.base, now)
    texts = {digest: text for digest, text in (row.texts or {}).items() if digest in needed}
    return replace(row, now=now, flags=merge.standing(marks, row.seen), texts=texts)


def _frozen(row: TenantRow, before_us: int) -> TenantRow:
    due = [entry for entry in row.entries if entry.at_us < before_us and not entry.frozen]
    if not due:
        return row
    entries = tuple(entry._replace(frozen=True) if entry.at_us < before_us else entry for entry in row.entries)
    return replace(row, entries=entries)


def _foldable(entry: Entry, settled: int) -> bool:
    last = max((variant.offset for variant in entry.variants), default=entry.offset)
    return max(last, entry.given) <= settled


def _fold(row: TenantRow, old: set[str]) -> tuple[TenantRow, tuple[Entry, ...]]:
    """Move entries into the registers, with their verdicts, and their flags into the row."""
    if not old:
        return row, ()
    leaving = tuple(entry for entry in row.entries if entry.uid in old)
    base = merge.fold(leaving, row.base)
    marks = (mark for mark in merge.marks(leaving, base) if mark.at_us > getattr(row.seen, mark.aspect))
    last_us = leaving[-1].at_us
    folded = replace(
        row,
        base=base,
        entries=tuple(entry for entry in row.entries if entry.uid not in old),
        folded_to=last_us if row.folded_to is None else max(row.folded_to, last_us),
        folded_offset=max(row.folded_offset, *(entry.offset for entry in leaving)),
        marks=_newest((*row.marks, *marks)),
    )
    return folded, leaving


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


def _excess(row: TenantRow, settled: int) -> set[str]:
    """The uids of the oldest entries that must go so that the row is within bounds."""
    texts = row.texts or {}
    count, size = len(row.entries), sum(map(len, texts.values()))
    if count <= ENTRIES_MAX and size <= TEXTS_MAX_BYTES:
        return set()
    references = _references(row.entries, row.base, row.now)
    old: set[str] = set()
    for most, most_bytes, last in (
        (ENTRIES_MAX, TEXTS_MAX_BYTES, settled),
        (ENTRIES_HARD, TEXTS_HARD_BYTES, None),
    ):
        for entry in row.entries:
            if count <= most and size <= most_bytes:
                break
            if entry.uid in old or not (last is None or _foldable(entry, last)):
                continue
            old.add(entry.uid)
            count -= 1
            freed = _references((entry,))
            references -= freed
            size -= sum(len(texts[digest]) for digest in freed if not references[digest])
    return old
