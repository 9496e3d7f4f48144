"""Revisions of published events: 1, 2, 3 … per key, without gaps.

Rule: every event judged new is published once, and a revision belongs for ever to the uid of its publication. A late
arrival may show a published event to be a restamp of an older event: the older event then borrows the revision, and
nothing is published. If a later arrival frees the restamp, the restamp has the revision back, and the older event gets
the next one. Several events in one step get revisions in order of (τ, rank, uid).
"""

from schemas.journal import Entry, Verdict
from services.core.ledger.merge import Judged

# Example, without ids: B (0:07) arrives first and is published as revision 1. A (0:00) with equal hash arrives late: B
# is a restamp of A. Consumers know the event as revision 1, so A borrows 1 and no record is sent. Then a contradicting
# event between A and B arrives: B is an event of its own and keeps 1, and A is published as the next revision.


def assign(judged: Judged, revision: int, offset: int) -> tuple[tuple[Entry, ...], int]:
    """Gives the next revisions to the new events without a revision of their own or a borrowed revision.

    Args:
        judged: The whole journal.
        revision: The last revision given before.
        offset: Offset of the causing record; stored in each entry, so that a replay publishes the entry again.

    Returns:
        The journal, and the last revision given.
    """
    lent = _lent(judged)
    entries = []
    for index, entry in enumerate(judged.entries):
        borrowed = 0
        if entry.verdict is Verdict.NEW and not entry.revision:
            # A restamp is never older than the restamped event, so no lender folds before the borrower.
            borrowed = lent.get(index, 0)
            if not borrowed:
                revision += 1
                entries.append(entry._replace(revision=revision, revision_offset=offset, borrowed=0))
                continue
        entries.append(entry if entry.borrowed == borrowed else entry._replace(borrowed=borrowed))
    return tuple(entries), revision


def _lent(judged: Judged) -> dict[int, int]:
    """Returns, by the index of each restamped event, the least revision among the event's published restamps."""
    lent: dict[int, int] = {}
    for index, (entry, root) in enumerate(zip(judged.entries, judged.roots, strict=True)):
        if entry.revision and root is not None and root != index:
            lent[root] = min(lent.get(root, entry.revision), entry.revision)
    return lent
