"""The state of the simulated Genesys Cloud: organisations, integrations and API credentials.

Rule: only the control API (`genesys_control`) changes the state, except for registered webhooks, which a client puts.
Every change of an integration leaves an audit. Sending a webhook changes nothing, so state and webhooks may differ, as
after a webhook lost on the way. Every organisation also has an integration of a foreign vendor, so a reader of the
listing has to filter by type. A removed integration is kept aside, and may be restored.

The credentials of each organisation are written to `{ORGS_DIR}/{orgId}.json`, for the reconciler.
"""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid5

from services.simulator.faults import FaultKind
from services.simulator.genesys_audits import AuditLog
from services.simulator.memory import Memory

OUR_TYPE: Final = "lifecycle-premium-app"
OTHER_TYPE: Final = "purecloud-data-actions"
UNKNOWN_STATE: Final = "HIBERNATED"
TENANT_PROPERTY: Final = "tenantId"
_OTHER_VENDOR_NAMESPACE: Final = UUID("c0b5f9a0-77a4-5d06-8f0c-3ba1f1d0f6aa")


@dataclass(frozen=True, slots=True)
class IntegrationChange:
    """The requested change of an integration; None leaves a field unchanged."""

    tenant_id: str | None = None
    enabled: bool | None = None
    configuration: dict[str, Any] | None = None


class SimulatedGenesys:
    """Organisations and integrations, kept in the simulator's memory. For one event loop."""

    def __init__(self, memory: Memory, orgs_dir: Path, audits: AuditLog) -> None:
        self._memory = memory
        self._audits = audits
        self._orgs_dir = orgs_dir
        # A listing must not go through the integrations of all organisations.
        self._of_org: dict[str, dict[str, dict[str, Any]]] = {}
        for row in memory.table("integrations").values():
            self._of_org.setdefault(row["org"], {})[row["id"]] = row
        # The memory outlives a restart, and the folder of credentials may be a new one.
        for org in self.orgs():
            self._write_credentials(org)

    def orgs(self) -> dict[str, dict[str, Any]]:
        """Returns all organisations by id, with client id and client secret. Not to be changed by the caller."""
        return self._memory.table("orgs")

    def change(self, org: str, integration: str, change: IntegrationChange) -> list[str]:
        """Creates or changes an integration; creates an unknown organisation first.

        Returns:
            The names of the lifecycle events of the change, in order; empty if the change has no event.
        """
        self._add_org_once(org)
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
            if change.configuration is not None and change.configuration != before["configuration"]:
                events.append("configuration_updated")
        # "before" is the row before this change, for the fault `stale`; without the older "before", to end the chain.
        row = {name: value for name, value in before.items() if name != "before"}
        row["before"] = None if events[:1] == ["installed"] else dict(row)
        if change.tenant_id is not None:
            row["tenant_id"] = change.tenant_id
        if change.configuration is not None:
            row["configuration"] = change.configuration
        if change.enabled is not None and change.enabled != before["enabled"]:
            row["enabled"] = change.enabled
            events.append("enabled" if change.enabled else "disabled")
            row.pop("state", None)  # a restored integration is an ordinary one after the next change of its state
        row["version"] += 1
        self._put(org, integration, row)
        self._memory.put("removed", f"{org}:{integration}", None)
        former = None if events[:1] == ["installed"] else state_of(before)
        for event in events or ["configuration_updated"]:
            self._audits.add(org, integration, event, former, state_of(row))
        return events

    def remove(self, org: str, integration: str) -> dict[str, Any] | None:
        """Removes an integration; returns the removed row, or None if the integration does not exist."""
        row = self.integration(org, integration)
        if row is not None:
            self._put(org, integration, None)
            self._memory.put("removed", f"{org}:{integration}", row)
            self._audits.add(org, integration, "uninstalled", state_of(row), None)
        return row

    def restore(self, org: str, integration: str) -> dict[str, Any] | None:
        """Restores a removed integration in the state RESTORED; returns the row, or None if none was removed."""
        removed = self._memory.table("removed").get(f"{org}:{integration}")
        if removed is None:
            return None
        row = {**removed, "state": "RESTORED", "version": removed["version"] + 1, "before": None}
        self._memory.put("removed", f"{org}:{integration}", None)
        self._put(org, integration, row)
        self._audits.add(org, integration, "restored", "DELETED", "RESTORED")
        return row

    def integration(self, org: str, integration: str) -> dict[str, Any] | None:
        """Returns the row of an integration, or None if the integration does not exist."""
        row: dict[str, Any] | None = self._memory.table("integrations").get(f"{org}:{integration}")
        return row

    def webhook(self, org: str, integration: str) -> dict[str, Any] | None:
        """Returns the registered webhook of an integration, as it was put; None without one.

        The webhook of a removed integration stays: its last delivery is still to be sent.
        """
        found: dict[str, Any] | None = self._memory.table("webhooks").get(f"{org}:{integration}")
        return found

    def register(self, org: str, integration: str, webhook: dict[str, Any]) -> None:
        """Replaces the webhook of an integration; it governs every event that is sent from now on."""
        self._memory.put("webhooks", f"{org}:{integration}", webhook)

    def listing(self, org: str, fault: FaultKind | None = None) -> list[dict[str, Any]]:
        """Returns the integrations of an organisation; the first is always the foreign vendor's.

        Args:
            org: Id of the organisation.
            fault: `stale` gives each integration as before its last change, `unknown_values` gives unknown states.
        """
        ours = list(self._of_org.get(org, {}).values())
        if fault is FaultKind.STALE:
            removed = [row for row in self._memory.table("removed").values() if row["org"] == org]
            ours = [row["before"] for row in ours if row["before"] is not None] + removed
        if fault is FaultKind.UNKNOWN_VALUES:
            ours = [{**row, "state": UNKNOWN_STATE} for row in ours]
        return [_other_vendors_integration(org), *ours]

    def _put(self, org: str, integration: str, row: dict[str, Any] | None) -> None:
        """Writes the row of an integration; None removes the row."""
        self._memory.put("integrations", f"{org}:{integration}", row)
        rows = self._of_org.setdefault(org, {})
        if row is None:
            rows.pop(integration, None)
        else:
            rows[integration] = row

    def _add_org_once(self, org: str) -> None:
        """Creates an unknown organisation with random credentials."""
        if org not in self.orgs():
            row = {"id": org, "client_id": secrets.token_hex(16), "client_secret": secrets.token_urlsafe(32)}
            self._memory.put("orgs", org, row)
            self._write_credentials(org)

    def _write_credentials(self, org: str) -> None:
        """Writes the credentials file of an organisation, by rename, so that a reader never sees half a file."""
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


def state_of(row: dict[str, Any]) -> str:
    """Returns the `intendedState` of an integration."""
    state: str = row.get("state") or ("ENABLED" if row["enabled"] else "DISABLED")
    return state


def integration_body(row: dict[str, Any]) -> dict[str, Any]:
    """Returns an integration in the form of the platform API."""
    state = state_of(row)
    code = "DORMANT" if state == UNKNOWN_STATE else "ACTIVE" if row["enabled"] else "INACTIVE"
    return {
        "id": row["id"],
        "name": f"Lifecycle {row['id'][:8]}",
        "integrationType": {"id": row.get("type", OUR_TYPE)},
        "intendedState": state,
        "reportedState": {"code": code, "effective": state.capitalize()},
        "selfUri": f"/api/v2/integrations/{row['id']}",
    }


def configuration_body(row: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration of an integration in the form of the platform API; `tenantId` is a property."""
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


def _other_vendors_integration(org: str) -> dict[str, Any]:
    """Returns the row of the foreign vendor's integration; the id is derived, and so equal in every listing."""
    return {
        "org": org,
        "id": str(uuid5(_OTHER_VENDOR_NAMESPACE, org)),
        "type": OTHER_TYPE,
        "tenant_id": None,
        "enabled": True,
        "configuration": {},
        "version": 1,
    }
