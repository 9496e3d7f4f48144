"""Memory of the audits between runs: a JSON file with the cursors of all organisations, in the state folder.

Rule: the file has each cursor together with the keys that still wait for a read, and is replaced as a whole. So a crash
neither skips an audit nor forgets a key: the former cursor asks for the same audits again. A lost file costs a reading
of the last 14 days. A single file needs a single fsync for all organisations that were read meanwhile.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from services.core.reconcile.audit_gaps import AuditCursor, AuditedKey
from services.reconciler.memory import replace_json, stored_us

_FILE: Final = Path("reconciler") / "audits.json"


class AuditMemory:
    """The file of one state folder. Only the service writes; any process may read. Both methods block."""

    def __init__(self, state_dir: Path) -> None:
        """Names the file; creates nothing.

        Args:
            state_dir: State folder of the installation.
        """
        self._file = state_dir / _FILE

    def load(self) -> dict[str, AuditCursor]:
        """Returns the cursors by organisation id; empty if the file is missing or is not a memory.

        Raises:
            OSError: the file exists and cannot be read.
        """
        try:
            content = json.loads(self._file.read_bytes())
            return {org_id: _cursor(stored) for org_id, stored in content.items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def save(self, cursors: Mapping[str, AuditCursor]) -> None:
        """Replaces the cursors, as a whole or not at all.

        Raises:
            OSError: the file cannot be written; the former file stays.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        replace_json(self._file, {org_id: asdict(cursor) for org_id, cursor in cursors.items()})


def sync_times(state_dir: Path) -> Mapping[str, AuditCursor]:
    """Returns the cursor of each organisation, by id; the sync age is now less `synced_us`.

    Args:
        state_dir: State folder of the reconciler.

    Raises:
        OSError: the file exists and cannot be read.
    """
    return AuditMemory(state_dir).load()


def _cursor(stored: Mapping[str, Any]) -> AuditCursor:
    return AuditCursor(
        client_id=str(stored["client_id"]),
        # A span begins before the cursor, and must begin within the years that can be written.
        until_us=max(0, stored_us(stored["until_us"])),
        taken={str(identity): stored_us(at_us) for identity, at_us in stored["taken"].items()},
        waiting={
            str(key): AuditedKey(
                stored_us(wait["since_us"]),
                stored_us(wait["newest_us"]),
                # Files of before these fields have neither.
                told_us=stored_us(wait.get("told_us", 0)),
                is_removed=bool(wait.get("is_removed", False)),
            )
            for key, wait in stored["waiting"].items()
        },
        listed_us=stored_us(stored["listed_us"]),
        since_us=stored_us(stored["since_us"]),
    )
