"""Added and changed organisation files that wait for an early run over their organisations.

Rule: a file waits until its edits have settled, and causes one early run. A new file of an organisation with tenants
causes none: the tenants' first sight proves the credentials, and the hourly run compares.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from services.adapters.genesys.organisations_watch import OrganisationChanges
from services.core.reconcile.reconcile import Tenants

FILE_SETTLE_S: Final = 15.0
"""Seconds from a changed organisation file to the run over this organisation: further edits, and webhooks of
integrations installed together with the file, come first."""


@dataclass(frozen=True, slots=True)
class _FreshFile:
    """An added or changed organisation file without a run since.

    Attributes:
        due_s: Monotonic time of the early run, seconds.
        is_new: True for an organisation without a file before.
    """

    due_s: float
    is_new: bool


class FreshFiles:
    """The waiting files. For one thread."""

    def __init__(self) -> None:
        """Begins without a file."""
        self._files: dict[str, _FreshFile] = {}

    def note(self, changes: OrganisationChanges, now_s: float) -> None:
        """Adds the added and changed files of a look, and drops removed files.

        Args:
            changes: The result of the newest look at the folder.
            now_s: Monotonic time, seconds.
        """
        due_s = now_s + FILE_SETTLE_S
        self._files |= {org_id: _FreshFile(due_s, is_new=True) for org_id in changes.added}
        self._files |= {org_id: _FreshFile(due_s, is_new=False) for org_id in changes.changed}
        self.drop(changes.removed)

    def due(self, tenants: Tenants, now_s: float) -> frozenset[str]:
        """Returns the organisations that are due for an early run; each is due again later unless `drop` follows.

        A file that needs no early run is dropped.

        Args:
            tenants: The view.
            now_s: Monotonic time, seconds.
        """
        due = {org_id: file for org_id, file in self._files.items() if now_s >= file.due_s}
        if not due:
            return frozenset()
        with_tenants = {key.partition(":")[0] for key, tenant in tenants.items() if tenant.installed}
        idle = frozenset(org_id for org_id, file in due.items() if file.is_new and org_id in with_tenants)
        self.drop(idle)
        # A run that fails must neither be repeated every second nor be forgotten.
        later_s = now_s + FILE_SETTLE_S
        self._files |= {org_id: replace(file, due_s=later_s) for org_id, file in due.items() if org_id not in idle}
        return frozenset(due) - idle

    def drop(self, org_ids: Collection[str]) -> None:
        """Drops the files of these organisations, after their early run."""
        for org_id in org_ids:
            self._files.pop(org_id, None)

    def clear(self) -> None:
        """Drops all files, after a run over all organisations."""
        self._files.clear()
