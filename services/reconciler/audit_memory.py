"""Memory of the audits between runs: one small JSON file per organisation, in the state folder of the reconciler.

Rule: a file has the cursor together with the keys that still wait for a read, and is replaced as a whole. So a crash
neither skips an audit nor forgets a key: the former cursor asks for the same audits again. A lost file costs a reading
of the last 14 days.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from services.core.reconcile.audit_gaps import AuditCursor, AuditedKey
from services.reconciler.memory import replace_json

_FOLDER: Final = Path("reconciler") / "audits"


class AuditMemory:
    """The files of one state folder. Only the service writes; any process may read."""

    def __init__(self, state_dir: Path) -> None:
        """Names the folder; creates nothing.

        Args:
            state_dir: State folder of the installation.
        """
        self._folder = state_dir / _FOLDER

    def load(self, org_id: str) -> AuditCursor | None:
        """Returns the cursor of an organisation; None if the file is missing or is no cursor.

        Raises:
            OSError: the file exists and cannot be read.
        """
        try:
            return _cursor(json.loads((self._folder / f"{org_id}.json").read_bytes()))
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, org_id: str, cursor: AuditCursor) -> None:
        """Replaces the cursor of an organisation, as a whole or not at all.

        Raises:
            OSError: the file cannot be written; the former file stays.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_json(self._folder / f"{org_id}.json", asdict(cursor))


def sync_times(state_dir: Path) -> Mapping[str, AuditCursor]:
    """Returns the cursor of each organisation with a file, by id; the sync age is now less `synced_us`.

    Args:
        state_dir: State folder of the reconciler.

    Raises:
        OSError: a file exists and cannot be read.
    """
    memory = AuditMemory(state_dir)
    found = {path.stem: memory.load(path.stem) for path in (state_dir / _FOLDER).glob("*.json")}
    return {org_id: cursor for org_id, cursor in found.items() if cursor is not None}


def _cursor(stored: Mapping[str, Any]) -> AuditCursor:
    return AuditCursor(
        client_id=str(stored["client_id"]),
        until_us=int(stored["until_us"]),
        taken={str(identity): int(at_us) for identity, at_us in stored["taken"].items()},
        waiting={
            str(key): AuditedKey(int(wait["since_us"]), int(wait["newest_us"]))
            for key, wait in stored["waiting"].items()
        },
        listed_us=int(stored["listed_us"]),
        since_us=int(stored["since_us"]),
    )
