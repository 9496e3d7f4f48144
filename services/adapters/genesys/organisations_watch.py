"""Polls the folder of organisation files and reports added, changed, removed and broken files.

Rule: a broken file costs its own organisation, and the last good version is not used on. A wrong file may have been
meant to stop something, a reading of foreign integrations above all, and a pause removes and creates nobody; so the
running service says what a restarted service and `lifecycle reconcile` say (docs/decisions/0037).

Approach: `stat` of every file at each look; the folder is read again after a change, while the change settles, and
while a file is broken.
"""

from dataclasses import dataclass
from pathlib import Path

from services.adapters.genesys.organisations import Organisations, load, paths_in
from services.adapters.process import metrics
from services.adapters.process.file_identity import SETTLED_S, file_identity
from services.adapters.process.logs import Logger


@dataclass(frozen=True, slots=True)
class OrganisationChanges:
    """Organisations with another file than at the look before.

    Attributes:
        added: Ids with a usable file, and no file before.
        changed: Ids with another content, or with a usable file after a broken one.
        removed: Ids without a file.
    """

    added: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()


class OrganisationsWatch:
    """The organisation files of a folder. For one thread at a time."""

    def __init__(self, folder: Path, log: Logger) -> None:
        """Reads the folder for the first time.

        Args:
            folder: ORGS_DIR.
            log: Logger for changes, and for each fault once until the fault changes.
        """
        self._folder, self._log = folder, log
        self._found = Organisations()
        # Equal to no state of a folder: files may have changed since `load`, so the first look reads again.
        self._identities: dict[Path, tuple[int, ...] | None] | None = None
        self._changed_at_s = 0.0
        self._take(load(folder))

    @property
    def known(self) -> frozenset[str]:
        """Returns the ids of the organisations with a usable file."""
        return frozenset(self._found.known)

    def look(self, now_s: float) -> OrganisationChanges:
        """Looks once, and logs what changed.

        Args:
            now_s: Monotonic time, seconds.
        """
        # Identities before the content: a change during the read shows at the next look.
        identities = _identities(self._folder)
        if identities != self._identities:
            self._identities, self._changed_at_s = identities, now_s
        elif not self._found.faults and now_s - self._changed_at_s > SETTLED_S:
            return OrganisationChanges()
        before, found = self._found, load(self._folder)
        if str(self._folder) in found.faults:
            # An unreadable folder says nothing of its files: none counts as removed.
            found = Organisations(before.known, {**before.faults, **found.faults})
        self._take(found)
        changes = _changes(before, found, str(self._folder))
        if changes != OrganisationChanges():
            self._log.info(
                "organisation files changed",
                added=sorted(changes.added),
                edited=sorted(changes.changed),
                removed=sorted(changes.removed),
            )
        return changes

    def _take(self, found: Organisations) -> None:
        for name, why in found.faults.items():
            if self._found.faults.get(name) != why:
                self._log.error("organisation file broken", org=name, why=why)
        self._found = found
        metrics.RECONCILER_FILES.labels(state="usable").set(len(found.known))
        metrics.RECONCILER_FILES.labels(state="broken").set(len(found.faults))


def _changes(before: Organisations, found: Organisations, folder: str) -> OrganisationChanges:
    # A fault of the folder itself stands under the folder's path, and is no organisation.
    former = (before.known.keys() | before.faults.keys()) - {folder}
    return OrganisationChanges(
        added=frozenset(found.known.keys() - former),
        changed=frozenset(i for i in found.known.keys() & former if before.known.get(i) != found.known[i]),
        removed=frozenset(former - found.known.keys() - found.faults.keys()),
    )


def _identities(folder: Path) -> dict[Path, tuple[int, ...] | None] | None:
    """Returns the identity of each file; None for a folder that cannot be read."""
    try:
        return {path: file_identity(path) for path in paths_in(folder)}
    except OSError:
        return None
