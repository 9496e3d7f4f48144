"""What one complete reading says of one key, how that differs from the view, and the observation that says so.

Rule: a state that this version does not know, an absence that this client could not have noticed and a configuration
that was not read say nothing: their values are None.
Source of the states: the API's `intendedState`; what RESTORED means for enablement is not documented.
"""

from dataclasses import dataclass
from typing import Final

import rfc8785
from pydantic import TypeAdapter, ValidationError

from schemas import webhook
from schemas.event import Observed
from schemas.genesys import Integration, Organisation, Reading
from schemas.tenant import Tenant
from schemas.values import EventType, Json, Key, TenantId
from services.core.ledger.identity import keyed

ABSENT: Final = "absent"
"""The claim that the integration is gone; its second sight removes a tenant."""

_STATES: Final[dict[str, tuple[bool, bool | None]]] = {
    "ENABLED": (True, True),
    "DISABLED": (True, False),
    "RESTORED": (True, None),
    "DELETED": (False, None),
}
"""intendedState to (installed, enabled)."""

_TENANT_ID: Final[TypeAdapter[str]] = TypeAdapter(TenantId)


@dataclass(frozen=True, slots=True)
class ObservedKey:
    """One reading, one key.

    Attributes:
        key: Whom it is about.
        read_at_us: Genesys' clock at the first answer of the reading.
        installed: None when the reading says nothing of this key.
        enabled: None when it does not say.
        configuration: None when it was not read or cannot be compared.
        mac: Of `configuration`.
        tenant_id: The recorded one, else the property named by the organisation's file, else None.
        reason: Why nothing may follow from what it says; empty when something may.
        unread: What Genesys did not tell, or told in a way that cannot be read, and why; empty when all was read.
        listed: True if Genesys knows it, in whatever state.
    """

    key: Key
    read_at_us: int
    installed: bool | None
    enabled: bool | None = None
    configuration: Json | None = None
    mac: str | None = None
    tenant_id: str | None = None
    reason: str = ""
    unread: str = ""
    listed: bool = True

    @property
    def claim(self) -> str | None:
        """Equal for two looks that say the same; None for one that says nothing."""
        if self.installed is None:
            return "listed" if self.listed else None
        return f"present:{self.enabled}:{self.mac}" if self.installed else ABSENT


def look_at(
    key: Key, reading: Reading, organisation: Organisation, tenant: Tenant | None, seen_by: str | None, mac_key: bytes
) -> ObservedKey:
    """Find one key in a reading.

    Args:
        key: Of the reading's organisation.
        reading: A complete one.
        organisation: Names the property that holds the tenant's id.
        tenant: The view of the key.
        seen_by: Client id that last saw the key listed, this reading included.
        mac_key: `material.configuration`, the key of `configuration_mac`.
    """
    identity = key.partition(":")[2]
    found = reading.integrations.get(identity)
    if found is None:
        return _absence(key, reading, tenant, seen_by)
    if unread := _unread(found, organisation, tenant):
        return ObservedKey(key, reading.read_at_us, None, unread=unread)
    state = _STATES[found.intended_state or ""]
    properties = reading.configurations.get(identity)
    configuration, mac, fault = _comparable(properties, organisation.tenant_id_from, tenant, mac_key)
    if properties is None:
        fault = reading.unread.get(identity, "it was not read")
    # An observation says nothing of the tenantId: it repeats the one that the newest `installed` named.
    recorded = (tenant.claimed_tenant_id or tenant.tenant_id) if tenant is not None and tenant.installed else None
    return ObservedKey(
        key,
        reading.read_at_us,
        installed=state[0],
        enabled=state[1],
        configuration=configuration,
        mac=mac,
        tenant_id=recorded or _named_in(properties, organisation.tenant_id_from),
        unread=f"its configuration: {fault}" if fault and state[0] else "",
    )


def differences(look: ObservedKey, tenant: Tenant | None) -> tuple[EventType, ...]:
    """The events that Genesys should have told and the view does not show; empty when they agree."""
    here = tenant is not None and tenant.installed is True
    if tenant is None or not here or not look.installed:
        if here == look.installed:
            return ()
        return (EventType.INSTALLED,) if look.installed else (EventType.UNINSTALLED,)
    found = []
    # Enabled is what an integration is until it is told otherwise.
    if look.enabled is not None and look.enabled != (tenant.enabled is not False):
        found.append(EventType.ENABLED if look.enabled else EventType.DISABLED)
    if look.mac is not None and look.mac != tenant.configuration_mac:
        found.append(EventType.CONFIGURATION_UPDATED)
    return tuple(found)


def observed(look: ObservedKey, tenant: Tenant | None, differing: tuple[EventType, ...], *, asked: bool) -> Observed:
    """The observation: what differs, or everything known when a re-check is owed or the key is new."""
    whole = asked or EventType.INSTALLED in differing
    flag = whole or not {EventType.ENABLED, EventType.DISABLED}.isdisjoint(differing)
    settings = whole or EventType.CONFIGURATION_UPDATED in differing
    org_id, _, integration_id = look.key.partition(":")
    return Observed(
        orgId=org_id,
        integrationId=integration_id,
        tenant_id=look.tenant_id if look.installed else (tenant.tenant_id if tenant else None),
        read_at=look.read_at_us,
        installed=bool(look.installed),
        enabled=look.enabled if look.installed and flag else None,
        configuration=look.configuration if look.installed and settings else None,
        cause="recheck" if asked else "drift",
    )


def _unread(found: Integration, organisation: Organisation, tenant: Tenant | None) -> str:
    """Returns why an entity says nothing of its key; empty when it says something."""
    if found.type_id is None and organisation.integration_type is not None and tenant is None:
        return "its integrationType: no id that is text, so whether it is ours is not known"
    if found.intended_state is None:
        return "its intendedState: must be text, and is null, missing or of another type"
    return "" if found.intended_state in _STATES else "its intendedState: not one that this version knows"


def _absence(key: Key, reading: Reading, tenant: Tenant | None, seen_by: str | None) -> ObservedKey:
    reason = unread = ""
    identity = key.partition(":")[2]
    if identity not in reading.absent:
        unread = f"it is not listed, and {reading.unread.get(identity, 'asked by id Genesys gave no answer')}"
    elif seen_by != reading.client_id:
        reason = "it is absent, but these credentials never saw it present"
    return ObservedKey(
        key,
        reading.read_at_us,
        None if reason or unread else False,
        tenant_id=tenant.tenant_id if tenant else None,
        reason=reason,
        unread=unread,
        listed=False,
    )


def _comparable(
    properties: Json | None, tenant_id_from: str | None, tenant: Tenant | None, mac_key: bytes
) -> tuple[Json | None, str | None, str]:
    """The configuration, its MAC, and why it has none.

    The property that holds the tenant's id is identity as much as configuration, and a sender may leave it out of the
    webhook: the form without it counts where it is the one the view has.
    """
    if properties is None:
        return None, None, ""
    try:
        webhook.bounded(properties)
        bare = {name: value for name, value in properties.items() if name != tenant_id_from}
        bare_mac = keyed(mac_key, rfc8785.dumps(bare))
        if tenant is not None and tenant.configuration_mac == bare_mac:
            return bare, bare_mac, ""
        return properties, keyed(mac_key, rfc8785.dumps(properties)), ""
    except webhook.Malformed as malformed:
        return None, None, f"properties: {malformed.rule}"
    except ValueError:
        return None, None, "properties: text that is not Unicode"


def _named_in(properties: Json | None, tenant_id_from: str | None) -> str | None:
    if properties is None or tenant_id_from is None:
        return None
    try:
        return _TENANT_ID.validate_python(properties.get(tenant_id_from), strict=True)
    except ValidationError:
        return None
