"""Follows the audits of all organisations beside the runs: reads them at an interval, and keeps the keys they name.

Order for an organisation: read the audits of a span; make the new cursor with the keys to read; save both; only then
go on. The loop of the process reads the keys, and tells which of them need no further read.

Saving: cursors of all organisations are one value in one file, and a save writes all changes up to its begin. Whoever
waits for a running save is mostly served by the next one, so 1,000 organisations cost some dozen writes, in a thread.
The cursors in memory may be ahead of the file: after a crash the former cursors ask for the same audits again.

Rules:
- Trouble of the audits is no trouble of the listing: it is logged once per organisation, and asked for less often.
- A missing permission is trouble like any other. The hourly listing of the organisation goes on.
- Each organisation has a task of its own: a slow one holds up nobody.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from schemas.genesys import Organisation
from schemas.values import Key
from services.adapters.genesys import organisations
from services.adapters.genesys.answers import NoInformation, NotPermitted
from services.adapters.genesys.audit_queries import TooMany
from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.adapters.process.settings import ReconcilerSettings
from services.core.reconcile.audit_gaps import (
    OVERLAP_US,
    SETTLE_MOST_US,
    AuditCursor,
    audited,
    cursor_for,
    removals,
    settle,
    span_of,
    take_on,
    unsettled,
)
from services.core.reconcile.reconcile import Removals
from services.reconciler.audit_memory import AuditMemory
from services.reconciler.reading import Readers
from services.reconciler.report import RunReport

_PAUSES_MOST: Final = 10
"""Most intervals from a reading without success to the next."""
_DAY_US: Final = 86_400_000_000


@dataclass(slots=True)
class _Trouble:
    """Readings without success, in a row.

    Attributes:
        pauses: Intervals from the last reading to the next.
        left: Intervals that are left of them.
    """

    pauses: int = 1
    left: int = 1


class AuditFollower:
    """The audits of all organisations, for one event loop."""

    def __init__(self, settings: ReconcilerSettings, readers: Readers, now_us: Callable[[], int], log: Logger) -> None:
        """Prepares; nothing is read yet.

        Args:
            settings: The environment: interval, ORGS_DIR, state folder.
            readers: The API clients of the organisations.
            now_us: Our clock, microseconds UTC.
            log: The log.
        """
        self._settings = settings
        self._readers = readers
        self._now_us = now_us
        self._log = log
        self._memory = AuditMemory(settings.state_dir)
        self._interval_s = settings.reconcile_audit_interval_s
        # Where an operator believes a second look sooner, Genesys' answers settle sooner as well (the demo, tests).
        self._settle_us = min(SETTLE_MOST_US, int(settings.reconcile_second_look_s * 1_000_000))
        self._cursors: dict[str, AuditCursor] = {}
        self._saving = asyncio.Lock()
        self._changes = self._saved = 0
        self._known: Mapping[str, Organisation] = {}
        self._busy: set[str] = set()
        self._troubles: dict[str, _Trouble] = {}

    async def run(self) -> None:
        """Reads the audits of every organisation at the interval, until cancelled."""
        is_loaded = False
        async with asyncio.TaskGroup() as tasks:
            while True:
                is_loaded = is_loaded or await self._has_loaded()
                # In a thread: thousands of files would hold up the loop.
                self._known = (await asyncio.to_thread(organisations.load, self._settings.orgs_dir)).known
                for org_id, organisation in self._known.items() if is_loaded else ():
                    if org_id not in self._busy and self._is_time(org_id):
                        self._busy.add(org_id)
                        tasks.create_task(self._follow(organisation), name=f"audits {org_id}")
                await asyncio.sleep(self._interval_s)

    def due(self, looked: Mapping[Key, int]) -> frozenset[Key]:
        """Returns the keys to read now because of audits.

        Args:
            looked: Key to the time of this process' last look at the key, microseconds UTC.
        """
        # An organisation whose file is away cannot be read: its keys wait for the file.
        cursors = [cursor for org_id, cursor in self._cursors.items() if org_id in self._known]
        now_us = self._now_us()
        oldest_us = min((cursor.synced_us for cursor in cursors), default=now_us)
        metrics.RECONCILER_AUDITED_KEYS.set(sum(len(cursor.waiting) for cursor in cursors))
        metrics.RECONCILER_OLDEST_SYNC_S.set(max(0, now_us - oldest_us) / 1_000_000)
        return audited(cursors, looked, now_us, self._settle_us)

    def removals(self) -> Removals:
        """Returns the audit of each waiting key that its newest audit calls removed."""
        return removals(self._cursors.values())

    async def was_read(self, report: RunReport, keys: Collection[Key] | None, began_us: int) -> None:
        """Takes note of a run: keys that were read wait no more.

        Args:
            report: Result of the run.
            keys: Keys of the run; None for all.
            began_us: Our clock before the run, microseconds UTC.

        Raises:
            OSError: a cursor cannot be saved. Its keys are then read again after a restart.
        """
        # A braked run publishes nothing, so none of its differences is settled.
        if report.stopped is not None:
            return
        still_open = unsettled(report.lines) | {refusal.scope for refusal in report.refusals}
        # Nor is anything of an organisation that waits to be let in.
        held = {one.org_id for one in report.held}
        for org_id in set(report.read) - held:
            before = self._cursors.get(org_id)
            if before is None:
                continue
            after = settle(before, keys, still_open, began_us, self._settle_us)
            if keys is None:
                after = replace(after, listed_us=began_us)
            self._keep(org_id, after)
        await self._save()

    async def _has_loaded(self) -> bool:
        """Takes the cursors of the file; False, with a line in the log, while the file cannot be read."""
        try:
            stored = await asyncio.to_thread(self._memory.load)
        except OSError as error:
            self._log.warning("audits not read", why=str(error))
            return False
        # A run that ended before may have no cursor to settle: nothing is overwritten.
        self._cursors = stored
        return True

    def _keep(self, org_id: str, cursor: AuditCursor) -> None:
        """Takes a cursor for the next save, if the cursor differs."""
        if cursor != self._cursors.get(org_id):
            self._cursors[org_id] = cursor
            self._changes += 1

    async def _save(self) -> None:
        """Returns after all changes so far are on disk.

        Raises:
            OSError: the file cannot be written.
        """
        wanted = self._changes
        async with self._saving:
            if self._saved >= wanted:
                return
            changes, cursors = self._changes, dict(self._cursors)
            await asyncio.to_thread(self._memory.save, cursors)
            self._saved = changes

    def _is_time(self, org_id: str) -> bool:
        trouble = self._troubles.get(org_id)
        if trouble is None:
            return True
        trouble.left -= 1
        return trouble.left <= 0

    async def _follow(self, organisation: Organisation) -> None:
        """Reads the audits of an organisation up to the present; keeps trouble to itself."""
        try:
            await self._read(organisation)
        except NotPermitted as missing:
            self._failed(organisation.org_id, "not_permitted", missing.reason)
        except NoInformation as none:
            self._failed(organisation.org_id, "no_information", none.reason)
        except OSError as error:
            self._failed(organisation.org_id, "no_information", str(error))
        else:
            if self._troubles.pop(organisation.org_id, None) is not None:
                self._log.info("audits are read again", org=organisation.org_id)
        finally:
            self._busy.discard(organisation.org_id)

    async def _read(self, organisation: Organisation) -> None:
        """Reads span after span up to the present.

        Raises:
            NoInformation: a span was not read; the cursor stands before the span.
            OSError: the cursors cannot be saved.
        """
        org_id, most_us = organisation.org_id, 365 * _DAY_US
        while True:
            held, asked_us = self._cursors.get(org_id), self._now_us()
            self._keep(org_id, cursor_for(held, organisation.client_id, asked_us))
            if held is None:
                # Saved at once: the age of an organisation that is never read counts on after a restart.
                await self._save()
            span = span_of(self._cursors[org_id], asked_us, most_us)
            try:
                reading = await self._readers.audits(organisation, span)
            except TooMany:
                # The overlap cannot be shortened: with it in the half, the spans would stay longer than that for ever.
                most_us = (span[1] - span[0] - OVERLAP_US) // 2
                continue
            metrics.RECONCILER_AUDIT_READS.labels(result="read").inc()
            until_us = min(span[1], reading.read_at_us)
            # The cursor of now: a run may have settled keys meanwhile.
            cursor, sorts = take_on(self._cursors[org_id], org_id, reading.audits, until_us, self._now_us())
            self._keep(org_id, cursor)
            await self._save()
            for sort, number in sorts.items():
                metrics.RECONCILER_AUDITS.labels(kind=sort.value).inc(number)
            if span[1] >= asked_us:
                return

    def _failed(self, org_id: str, result: str, why: str) -> None:
        metrics.RECONCILER_AUDIT_READS.labels(result=result).inc()
        trouble = self._troubles.get(org_id)
        if trouble is None:
            self._troubles[org_id] = _Trouble()
            self._log.warning("audits not read", org=org_id, why=why)
            return
        trouble.pauses = trouble.left = min(2 * trouble.pauses, _PAUSES_MOST)
