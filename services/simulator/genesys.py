"""A Genesys Cloud that keeps organisations and their integrations, and writes down how to ask it about each.

Rule: it believes only what its control API was told, and it is never asked by webhooks: what it sends and what it
knows are two things, as in life. Every organisation also has an integration of another vendor, as in life.
"""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid5

from services.simulator.memory import Memory

OUR_TYPE: Final = "lifecycle-premium-app"
OTHER_TYPE: Final = "purecloud-data-actions"
TENANT_PROPERTY: Final = "tenantId"
_STRANGERS: Final = UUID("c0b5f9a0-77a4-5d06-8f0c-3ba1f1d0f6aa")


@dataclass(frozen=True, slots=True)
class IntegrationChange:
    """What the control API was told; None leaves it as it is."""

    tenant_id: str | None = None
    enabled: bool | None = None
    configuration: dict[str, Any] | None = None


class SimulatedGenesys:
    """Organisations and integrations."""

    def __init__(self, memory: Memory, orgs_dir: Path) -> None:
        self._memory = memory
        self._orgs_dir = orgs_dir
        for org in self.orgs():
            self._write_credentials(org)

    def orgs(self) -> dict[str, dict[str, Any]]:
        """Organisations by id, with their credentials."""
        return self._memory.table("orgs")

    def change(self, org: str, integration: str, told: IntegrationChange) -> list[str]:
        """Create or change an integration; the lifecycle events that this is, in order."""
        self._meet(org)
        before = self.integration(org, integration)
        if before is None:
            before = {
                "org": org,
                "id": integration,
                "tenant_id": None,
                "enabled": True,
                "configuration": {},
                "version": 0,
            }
            events = ["installed"]
        else:
            events = []
            if told.configuration is not None and told.configuration != before["configuration"]:
                events.append("configuration_updated")
        row = {name: value for name, value in before.items() if name != "before"}
        row["before"] = None if events[:1] == ["installed"] else dict(row)
        if told.tenant_id is not None:
            row["tenant_id"] = told.tenant_id
        if told.configuration is not None:
            row["configuration"] = told.configuration
        if told.enabled is not None and told.enabled != before["enabled"]:
            row["enabled"] = told.enabled
            events.append("enabled" if told.enabled else "disabled")
        row["version"] += 1
        self._memory.put("integrations", f"{org}:{integration}", row)
        return events

    def remove(self, org: str, integration: str) -> dict[str, Any] | None:
        """Remove an integration; what it was, or None."""
        row = self.integration(org, integration)
        if row is not None:
            self._memory.put("integrations", f"{org}:{integration}", None)
        return row

    def integration(self, org: str, integration: str) -> dict[str, Any] | None:
        """One integration as it is."""
        row: dict[str, Any] | None = self._memory.table("integrations").get(f"{org}:{integration}")
        return row

    def listing(self, org: str) -> list[dict[str, Any]]:
        """The integrations of one organisation, another vendor's included."""
        ours = [row for row in self._memory.table("integrations").values() if row["org"] == org]
        return [_stranger(org), *ours]

    def _meet(self, org: str) -> None:
        if org not in self.orgs():
            row = {"id": org, "client_id": secrets.token_hex(16), "client_secret": secrets.token_urlsafe(32)}
            self._memory.put("orgs", org, row)
            self._write_credentials(org)

    def _write_credentials(self, org: str) -> None:
        """Write the organisation's file, whole or not at all."""
        row = self.orgs()[org]
        text = json.dumps(
            {
                "org_id": org,
                "client_id": row["client_id"],
                "client_secret": row["client_secret"],
                "tenant_id_from": TENANT_PROPERTY,
                "integration_type": OUR_TYPE,
            }
        )
        self._orgs_dir.mkdir(parents=True, exist_ok=True)
        fresh = self._orgs_dir / f".{org}.new"
        fresh.touch(mode=0o600)
        fresh.write_text(text)
        fresh.replace(self._orgs_dir / f"{org}.json")


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """An integration as the API shows it."""
    state = "ENABLED" if row["enabled"] else "DISABLED"
    return {
        "id": row["id"],
        "name": f"Lifecycle {row['id'][:8]}",
        "integrationType": {"id": row.get("type", OUR_TYPE)},
        "intendedState": state,
        "reportedState": {"code": "ACTIVE" if row["enabled"] else "INACTIVE", "effective": state.capitalize()},
        "selfUri": f"/api/v2/integrations/{row['id']}",
    }


def configuration(row: dict[str, Any]) -> dict[str, Any]:
    """Its configuration as the API shows it; the tenant's id is one of the properties."""
    tenant = {} if row["tenant_id"] is None else {TENANT_PROPERTY: row["tenant_id"]}
    return {
        "id": row["id"],
        "name": f"Lifecycle {row['id'][:8]}",
        "version": row["version"],
        "properties": {**row["configuration"], **tenant},
        "advanced": {},
        "notes": "",
        "credentials": {},
        "selfUri": f"/api/v2/integrations/{row['id']}/config/current",
    }


def _stranger(org: str) -> dict[str, Any]:
    return {
        "org": org,
        "id": str(uuid5(_STRANGERS, org)),
        "type": OTHER_TYPE,
        "tenant_id": None,
        "enabled": True,
        "configuration": {},
        "version": 1,
    }
