"""Who gets which revision: 1, 2, 3 … per key, each belonging for ever to the uid it was published with.

Rule: every event judged new is shown once. When a late arrival shows that a published event was a restamp of an older
one, the older borrows that revision and nothing is published; if something between frees the restamp later, the
restamp has its revision again and the older gets the next. Several at once: in order of (τ, rank, uid).
"""

from schemas.journal import Entry, Verdict
from services.core.ledger.merge import Judged


def give(judged: Judged, revision: int, offset: int) -> tuple[tuple[Entry, ...], int]:
    """Give the next revisions to the new events that show none.

    Args:
        judged: The whole journal.
        revision: The last one given.
        offset: Of the record that is the cause.

    Returns:
        The journal, and the last revision given now.
    """
    lent = _lent(judged)
    entries = []
    for index, entry in enumerate(judged.entries):
        borrowed = 0
        if entry.verdict is Verdict.NEW and not entry.revision:
            # A restamp is never older than its event, so no lender folds before its borrower.
            borrowed = lent.get(index, 0)
            if not borrowed:
                revision += 1
                entries.append(entry._replace(revision=revision, given=offset, borrowed=0))
                continue
        entries.append(entry if entry.borrowed == borrowed else entry._replace(borrowed=borrowed))
    return tuple(entries), revision


def _lent(judged: Judged) -> dict[int, int]:
    """The least published revision among the restamps of each event, by the index of the event."""
    lent: dict[int, int] = {}
    for index, (entry, root) in enumerate(zip(judged.entries, judged.roots, strict=True)):
        if entry.revision and root is not None and root != index:
            lent[root] = min(lent.get(root, entry.revision), entry.revision)
    return lent
