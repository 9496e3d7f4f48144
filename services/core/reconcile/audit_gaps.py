"""Decisions about the audits of Genesys: the time span to ask for, and the keys to read again because of an audit.

Problem: a webhook may never come, and the listing is read hourly. Genesys keeps a record of all changes (audits, 14
days at hand), so a lost webhook need not wait for the hour. But audits arrive late, in any order, and their actions are
not documented for integrations.

Approach: an audit is a hint and never a change. Its key is read by the road of every re-check, and the locks of
`reconcile` judge what was read. A cursor per organisation says up to when audits were taken on.

Rules:
- A span begins `OVERLAP_US` before the cursor, for audits that arrive late; an audit is known by its id, and asks once.
- A cursor moves together with the keys that its audits ask for, in one value: what stores the cursor stores the keys.
- A key waits until a read that began after its newest audit had settled. Until then a read may show the former state.
- A lost cursor, and the cursor of former credentials, begins 14 days back: a read too much harms nobody.
- An older cursor goes on from the last whole listing, at most up to 14 days back.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from schemas.genesys_audits import GenesysAudit
from schemas.values import Key
from services.core.reconcile.recheck_schedule import RECHECK_EVERY_US
from services.core.reconcile.reconcile import Action, AuditedRemoval, PlanLine, Removals

OVERLAP_US: Final = 900_000_000
"""Microseconds before the cursor that are asked for again: 15 minutes. How late an audit may be is not documented; the
90 s that clocks may differ are within."""
REACH_US: Final = 14 * 86_400_000_000 - 2 * OVERLAP_US
"""Microseconds from a new cursor to the present; with the overlap a little less than the realtime query reaches."""
PATIENCE: Final = 4
"""Times to settle after which a key is read although audits go on: an install is several changes within a minute."""
SETTLE_MOST_US: Final = 30_000_000
"""Longest time from an audit to the read of its key: Genesys may answer reads with the former state for 30 s."""


class AuditSort(StrEnum):
    """Sorts of audits by the change that their action names."""

    CREATED = "created"
    RESTORED = "restored"
    SWITCHED = "switched"
    CHANGED = "changed"
    REMOVED = "removed"
    READ = "read"
    """Somebody read: nothing changed, so nothing is asked."""
    UNKNOWN = "unknown"
    """An action that this version does not know may be any change."""
    OTHER = "other"
    """About an entity that is no integration, like a data action or a credential."""


ACTIONS: Final[Mapping[str, AuditSort]] = {
    "create": AuditSort.CREATED,
    "restore": AuditSort.RESTORED,
    "restoredeleted": AuditSort.RESTORED,
    "enable": AuditSort.SWITCHED,
    "disable": AuditSort.SWITCHED,
    "activate": AuditSort.SWITCHED,
    "deactivate": AuditSort.SWITCHED,
    "update": AuditSort.CHANGED,
    "delete": AuditSort.REMOVED,
    "softdelete": AuditSort.REMOVED,
    "harddelete": AuditSort.REMOVED,
    "view": AuditSort.READ,
    "read": AuditSort.READ,
    "readall": AuditSort.READ,
    "download": AuditSort.READ,
}
"""Action of an audit, in lower case, to its sort. Which of them the service Integrations writes is not documented."""
_ENTITY_TYPE: Final = "integration"
"""Begin of the types of our entities, in lower case. An audit without a type counts as ours."""
ASKS: Final = frozenset(AuditSort) - {AuditSort.READ, AuditSort.OTHER}
"""Sorts that ask for a read of the key."""


@dataclass(frozen=True, slots=True)
class AuditedKey:
    """A key that waits for a read because of audits.

    Attributes:
        since_us: Our clock when the first of the audits was taken on, microseconds UTC; of an audit older than
            `OVERLAP_US` its own time, since any read of now shows that change.
        newest_us: The same of the newest.
        told_us: Time of the newest audit by Genesys' clock, microseconds UTC; 0 without a readable one.
        is_removed: True if this newest audit says that the integration was removed.
    """

    since_us: int
    newest_us: int
    told_us: int = 0
    is_removed: bool = False


@dataclass(frozen=True, slots=True)
class AuditCursor:
    """State of an organisation's audits.

    Attributes:
        client_id: Client id of the credentials that read the audits.
        until_us: Audits before this time were taken on, microseconds UTC by the earlier clock of Genesys' and ours.
        taken: Id to time of the audits taken on, for the span that will be asked for again.
        waiting: Keys that wait for a read.
        listed_us: Begin of the last whole reading of the organisation's listing, our clock; 0 before the first.
        since_us: Our clock when the organisation was first seen, or the sync time under former credentials: no change
            from before counts as missed, so a new organisation is not 14 days behind.
    """

    client_id: str
    until_us: int
    taken: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[Key, AuditedKey] = field(default_factory=dict)
    listed_us: int = 0
    since_us: int = 0

    @property
    def synced_us(self) -> int:
        """Returns the time up to which every change of the organisation has been read, as far as audits tell."""
        audited_us = min([self.until_us, *(key.since_us for key in self.waiting.values())])
        return max(audited_us, self.listed_us, self.since_us)

    @property
    def is_synced(self) -> bool:
        """True after the first reading of the audits up to the present, or of the whole listing."""
        return self.listed_us > 0 or self.until_us >= self.since_us


def cursor_for(held: AuditCursor | None, client_id: str, now_us: int) -> AuditCursor:
    """Returns the cursor to go on with: the held one, or one from 14 days back for new credentials or a lost cursor.

    A held cursor from before the last 14 days moves to the last whole listing, at most up to 14 days back.

    Args:
        held: The stored cursor, or None.
        client_id: Client id of the present credentials; a client with other rights may see further audits.
        now_us: Our clock, microseconds UTC.
    """
    if held is None:
        return AuditCursor(client_id, now_us - REACH_US, since_us=now_us)
    if held.client_id != client_id:
        # What the former credentials were told proves nothing of these, which read the audits again.
        waiting = {key: replace(wait, told_us=0, is_removed=False) for key, wait in held.waiting.items()}
        begin_us, since_us = min(held.until_us, now_us - REACH_US), held.synced_us
        return replace(held, client_id=client_id, until_us=begin_us, taken={}, waiting=waiting, since_us=since_us)
    # The API may refuse a span of weeks, and a whole listing has shown every change before it.
    return replace(held, until_us=max(held.until_us, min(held.listed_us, now_us - REACH_US)))


def span_of(cursor: AuditCursor, now_us: int, most_us: int) -> tuple[int, int]:
    """Returns begin and end of the span to ask for, microseconds UTC.

    Args:
        cursor: The cursor.
        now_us: Our clock, microseconds UTC.
        most_us: Longest span beyond the overlap.
    """
    # A clock that was set back must not make a span that ends before its begin.
    from_us = min(cursor.until_us, now_us)
    return from_us - OVERLAP_US, min(now_us, from_us + most_us)


def take_on(
    cursor: AuditCursor, org_id: str, audits: Iterable[GenesysAudit], until_us: int, now_us: int
) -> tuple[AuditCursor, Counter[AuditSort]]:
    """Returns the cursor after the audits of a span, with the keys that the new audits ask for; and the new audits.

    Args:
        cursor: The cursor before.
        org_id: Id of the organisation.
        audits: All audits of the span.
        until_us: End of the span, or Genesys' clock at the read if that is earlier.
        now_us: Our clock, microseconds UTC.
    """
    waiting, taken, sorts = dict(cursor.waiting), dict(cursor.taken), Counter[AuditSort]()
    for audit in audits:
        if audit.id in taken:
            continue
        # An unreadable time must not let the id be forgotten while the audit is still in the overlap, and a time in the
        # future must not keep the id for ever.
        taken[audit.id] = until_us if audit.at_us is None else min(audit.at_us, until_us)
        sort = sort_of(audit)
        sorts[sort] += 1
        if sort in ASKS:
            key = f"{org_id}:{audit.entity_id}"
            at_us = now_us if audit.at_us is None or audit.at_us >= now_us - OVERLAP_US else audit.at_us
            held = waiting.get(key, AuditedKey(at_us, at_us))
            held = replace(held, since_us=min(held.since_us, at_us), newest_us=max(held.newest_us, at_us))
            # Audits come in any order: the newest by Genesys' clock tells if the integration is gone.
            if audit.at_us is not None and audit.at_us >= held.told_us:
                held = replace(held, told_us=audit.at_us, is_removed=_is_removal(audit))
            waiting[key] = held
    until_us = max(cursor.until_us, until_us)
    kept = {identity: at_us for identity, at_us in taken.items() if at_us >= until_us - OVERLAP_US}
    return replace(cursor, until_us=until_us, taken=kept, waiting=waiting), sorts


def sort_of(audit: GenesysAudit) -> AuditSort:
    """Returns the sort of an audit."""
    if audit.entity_type and not audit.entity_type.lower().startswith(_ENTITY_TYPE):
        return AuditSort.OTHER
    return ACTIONS.get(audit.action.lower(), AuditSort.UNKNOWN)


def _is_removal(audit: GenesysAudit) -> bool:
    # Not of a part of an integration (like its credentials), nor without a type: a removal is evidence.
    return sort_of(audit) is AuditSort.REMOVED and audit.entity_type.lower() == _ENTITY_TYPE


def removals(cursors: Iterable[AuditCursor]) -> Removals:
    """Returns the audit of each waiting key whose newest audit is of a removal.

    Args:
        cursors: The cursors of all organisations.
    """
    return {
        key: AuditedRemoval(cursor.client_id, wait.told_us)
        for cursor in cursors
        for key, wait in cursor.waiting.items()
        if wait.is_removed
    }


def audited(cursors: Iterable[AuditCursor], looked: Mapping[Key, int], now_us: int, settle_us: int) -> frozenset[Key]:
    """Returns the keys to read now because of audits, each at most once in `RECHECK_EVERY_US`.

    A key is read when its newest audit has settled; after `PATIENCE` times to settle whatever goes on.

    Args:
        cursors: The cursors of all organisations.
        looked: Key to the time of this process' last look at the key, microseconds UTC.
        now_us: Our clock, microseconds UTC.
        settle_us: Microseconds from an audit to the read of its key.
    """
    return frozenset(
        key
        for cursor in cursors
        for key, wait in cursor.waiting.items()
        if now_us >= min(wait.newest_us + settle_us, wait.since_us + PATIENCE * settle_us)
        and now_us - looked.get(key, 0) >= RECHECK_EVERY_US
    )


def unsettled(lines: Iterable[PlanLine]) -> frozenset[Key]:
    """Returns the keys of a plan that a further read has to look at: not read whole, or waiting for a second look."""
    return frozenset(line.key for line in lines if line.action in {Action.WAIT, Action.UNREAD})


def settle(
    cursor: AuditCursor, read: Collection[Key] | None, open_keys: Collection[Key], began_us: int, settle_us: int
) -> AuditCursor:
    """Returns the cursor after a reading of the organisation: keys that were read wait no more.

    Args:
        cursor: The cursor before.
        read: Keys of the reading; None for all.
        open_keys: Keys of the reading that have to be read again.
        began_us: Our clock before the first read, microseconds UTC.
        settle_us: Microseconds from an audit to the read of its key.
    """
    waiting = dict(cursor.waiting)
    for key, wait in cursor.waiting.items():
        if (read is not None and key not in read) or key in open_keys:
            continue
        if began_us >= wait.newest_us + settle_us:
            del waiting[key]
        elif began_us >= wait.since_us + settle_us:
            # The former audits are settled; the newest may not show in what was read.
            waiting[key] = replace(wait, since_us=wait.newest_us)
    return replace(cursor, waiting=waiting)
