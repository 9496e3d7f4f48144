"""The audits of the simulated Genesys: an entry for every change of an integration, and what a query finds.

Rule: an entry is written with the change itself and outlives a restart; only a fault hides an entry. A sender that
loses a webhook therefore leaves its audit behind, as the real platform does.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID, uuid5

from schemas.times import rfc3339
from services.simulator.faults import FaultKind
from services.simulator.memory import Memory

SERVICE: Final = "Integrations"
ENTITY_TYPE: Final = "Integration"
ACTIONS: Final = {
    "installed": "Create",
    "restored": "Restore",
    "enabled": "Enable",
    "disabled": "Disable",
    "configuration_updated": "Update",
    "uninstalled": "Delete",
}
"""Change of an integration to the action of its audit."""
UNKNOWN_ACTION: Final = "Hibernate"
_NAMESPACE: Final = UUID("5f7a0b63-2f0e-5c0e-9d2b-7b1f4a1c9e11")


class AuditLog:
    """The entries, kept in the simulator's memory. For one event loop."""

    def __init__(self, memory: Memory, now_us: Callable[[], int]) -> None:
        self._memory = memory
        self._now_us = now_us

    def add(self, org: str, integration: str, change: str, before: str | None, after: str | None) -> None:
        """Writes the audit of a change.

        Args:
            org: Id of the organisation.
            integration: Id of the integration.
            change: A key of `ACTIONS`.
            before: `intendedState` before the change; None for a new integration.
            after: `intendedState` after the change; None for a removed integration.
        """
        table = self._memory.table("audits")
        identity = str(uuid5(_NAMESPACE, f"{org}:{len(table)}"))
        row = {"org": org, "id": identity, "at_us": self._now_us(), "entity": integration, "action": ACTIONS[change]}
        self._memory.put("audits", identity, {**row, "before": before, "after": after})

    def find(self, org: str, span: tuple[int, int], fault: FaultKind | None) -> list[dict[str, Any]]:
        """Returns the audits of an organisation in a time span, in order of time, in the form of the platform API.

        Args:
            org: Id of the organisation.
            span: Begin and end, microseconds UTC; the end is not in the span.
            fault: `stale` hides the newest audit of each integration, `unknown_values` gives unknown actions.
        """
        rows = [row for row in self._memory.table("audits").values() if row["org"] == org]
        if fault is FaultKind.STALE:
            rows = _without_newest(rows)
        found = [_message(row) for row in rows if span[0] <= row["at_us"] < span[1]]
        return [{**one, "action": UNKNOWN_ACTION} for one in found] if fault is FaultKind.UNKNOWN_VALUES else found


def _without_newest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    left = Counter(row["entity"] for row in rows)
    kept = []
    for row in rows:
        left[row["entity"]] -= 1
        if left[row["entity"]]:
            kept.append(row)
    return kept


def _message(row: dict[str, Any]) -> dict[str, Any]:
    """Returns an audit in the form `AuditLogMessage`."""
    changes = [
        {
            "property": "intendedState",
            "oldValues": [row["before"]] if row["before"] else [],
            "newValues": [row["after"]] if row["after"] else [],
        }
    ]
    return {
        "id": row["id"],
        "userHomeOrgId": row["org"],
        "user": {"id": str(uuid5(_NAMESPACE, row["org"])), "name": "admin@example.com"},
        "remoteIp": ["203.0.113.7"],
        "serviceName": SERVICE,
        "eventDate": f"{rfc3339(row['at_us'])[:23]}Z",
        "message": {"message": f"The integration was changed: {row['action']}"},
        "action": row["action"],
        "entity": {"id": row["entity"], "name": f"Lifecycle {row['entity'][:8]}"},
        "entityType": ENTITY_TYPE,
        "status": "SUCCESS",
        "propertyChanges": changes if row["before"] != row["after"] else [],
        "context": {},
    }
