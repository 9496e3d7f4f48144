"""Observed state of one key: extracted from a reading, compared with the view, and turned into an observation.

Rule: None means "no information", never "no". An unknown `intendedState`, an absence reported to credentials without an
earlier sight of the integration, and an unread configuration all give None, and no observation follows from None.
Source of the states: the API's `intendedState`; the meaning of RESTORED for enablement is not documented.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
"""The claim that the integration is gone; the second sight of this claim removes a tenant."""

_LATE: Final = "it came into the view while Genesys was read: the next run asks"

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
    """State of one key according to one reading.

    Attributes:
        key: `orgId:integrationId`.
        read_at_us: Genesys' clock at the first answer of the reading, microseconds UTC.
        installed: True or False as read; None for no information.
        enabled: True or False as read; None for no information.
        configuration: Configuration as read; None if unread, not comparable, or released.
        mac: MAC of the configuration; None if it is unread or not comparable.
        tenant_id: The recorded tenantId; else the property named by the organisation's file; else None.
        reason: Why the absence counts for nothing, or nothing is known yet; else empty.
        unread: The part without an answer of Genesys, or with an unreadable answer, and why; empty if everything was
            read.
        listed: True if Genesys knows the integration, in any state.
        is_late: True if the key came into the view while Genesys was read: nobody asked for it, so nothing is known.
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
    is_late: bool = False

    @property
    def is_released(self) -> bool:
        """True if the configuration was read, agreed with the view then, and is not held any more."""
        return self.mac is not None and self.configuration is None

    @property
    def claim(self) -> str | None:
        """Returns a text for comparison with a later look, equal for equal states; None for no information.

        "listed" stands for an integration in an unreadable state; it differs from every claim, so the look ends a wait.
        """
        if self.installed is None:
            return "listed" if self.listed else None
        return f"present:{self.enabled}:{self.mac}" if self.installed else ABSENT


def is_told(tenant: Tenant | None) -> bool:
    """True if an event or an outcome of the key is known; False also for a key that only a re-check has named."""
    return tenant is not None and bool(tenant.revision or tenant.flags or tenant.generation)


def look_at(
    key: Key, reading: Reading, organisation: Organisation, tenant: Tenant | None, seen_by: str | None, mac_key: bytes
) -> ObservedKey:
    """Extracts the state of one key from a reading.

    Args:
        key: A key of the reading's organisation.
        reading: A complete reading.
        organisation: The organisation's file; names the property with the tenantId.
        tenant: The view of the key; None if the view has none.
        seen_by: Client id of the last credentials with a sight of the key, this reading included; None without a sight.
        mac_key: `material.configuration`, the key of `configuration_mac`.
    """
    identity = key.partition(":")[2]
    found = reading.integrations.get(identity)
    if not _was_asked(reading, identity):
        return ObservedKey(key, reading.read_at_us, None, reason=_LATE, listed=found is not None, is_late=True)
    if found is None:
        return _absence(key, reading, tenant, seen_by)
    if unread := _unread(found, organisation, tenant):
        return ObservedKey(key, reading.read_at_us, None, unread=unread)
    state = _STATES[found.intended_state or ""]
    properties = reading.configurations.get(identity)
    configuration, mac, fault = _comparable(properties, organisation.tenant_id_from, tenant, mac_key)
    if identity in reading.released:
        mac = reading.released[identity]
    elif properties is None:
        fault = reading.unread[identity]
    # Genesys does not tell the tenantId, so an observation repeats the tenantId of the newest `installed`.
    return ObservedKey(
        key,
        reading.read_at_us,
        installed=state[0],
        enabled=state[1],
        configuration=configuration,
        mac=mac,
        tenant_id=_recorded(tenant) or _named_in(properties, organisation.tenant_id_from),
        unread=f"its configuration: {fault}" if fault and state[0] else "",
    )


def is_installed(found: Integration) -> bool:
    """True if a listed integration exists according to a known `intendedState`."""
    return _STATES.get(found.intended_state or "", (False, None))[0]


def released(reading: Reading, organisation: Organisation, tenants: Mapping[Key, Tenant], mac_key: bytes) -> Reading:
    """Returns the reading without the configurations that agree with the view; of each the MAC is kept.

    A plan needs all readings of a run at once, for the brake; and of a configuration that agrees it needs no content.
    So a run holds the configurations of the differing keys alone, and not those of 50,000 integrations.

    Args:
        reading: A complete reading.
        organisation: The organisation's file.
        tenants: The view, or the tenants of this organisation.
        mac_key: `material.configuration`, the key of `configuration_mac`.
    """
    kept, macs = dict(reading.configurations), dict(reading.released)
    # By the ids of the listing, so that no further text of an id is held.
    for identity in reading.integrations.keys() & kept.keys():
        key = f"{reading.org_id}:{identity}"
        tenant = tenants.get(key)
        # An owed re-check is answered with the configuration, and a tenant without an id with the one it names.
        if tenant is None or awaits_recheck(tenant) or not _recorded(tenant):
            continue
        look = look_at(key, reading, organisation, tenant, None, mac_key)
        if look.installed and look.mac is not None and not differences(look, tenant):
            # The view's own text, for the same reason.
            macs[identity] = tenant.configuration_mac or ""
            del kept[identity]
    return replace(reading, configurations=kept, released=macs)


def awaits_recheck(tenant: Tenant | None) -> bool:
    """True if a re-check of the key is owed: the observation is then published even if Genesys and the view agree."""
    return tenant is not None and (bool(tenant.flags) or tenant.recheck_at is not None)


def differences(look: ObservedKey, tenant: Tenant | None) -> tuple[EventType, ...]:
    """Returns the events lost on the way to the view; empty if reading and view agree.

    Args:
        look: State of the key as read, with `installed` known.
        tenant: The view of the key; None if the view has none.
    """
    here = tenant is not None and tenant.installed is True
    if tenant is None or not here or not look.installed:
        if here == look.installed:
            return ()
        return (EventType.INSTALLED,) if look.installed else (EventType.UNINSTALLED,)
    found = []
    # A view without enablement means enabled: that is the state of an integration after its install.
    if look.enabled is not None and look.enabled != (tenant.enabled is not False):
        found.append(EventType.ENABLED if look.enabled else EventType.DISABLED)
    if look.mac is not None and look.mac != tenant.configuration_mac:
        found.append(EventType.CONFIGURATION_UPDATED)
    return tuple(found)


def observed(look: ObservedKey, tenant: Tenant | None, differing: tuple[EventType, ...], *, asked: bool) -> Observed:
    """Returns the observation to publish: the differing aspects, or every known aspect of a new or re-checked key.

    Args:
        look: State of the key as read.
        tenant: The view of the key; None if the view has none.
        differing: The result of `differences`.
        asked: True if a re-check of the key is owed.
    """
    # An aspect that agrees stays null: a value would move its register to the time of the read, and could outrank an
    # event that is still on the way. A re-check needs every aspect, because a flag ends only with an observation of it.
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


def _recorded(tenant: Tenant | None) -> str | None:
    """Returns the tenantId of the newest `installed` of an installed key; None without one."""
    return (tenant.claimed_tenant_id or tenant.tenant_id) if tenant is not None and tenant.installed else None


def _unread(found: Integration, organisation: Organisation, tenant: Tenant | None) -> str:
    """Returns why the state of a listed integration is unreadable; empty for a readable state."""
    if found.type_id is None and organisation.types and not is_told(tenant):
        return "its integrationType: no id that is text, so whether it is ours is not known"
    if found.intended_state is None:
        return "its intendedState: must be text, and is null, missing or of another type"
    return "" if found.intended_state in _STATES else "its intendedState: not one that this version knows"


def _was_asked(reading: Reading, identity: str) -> bool:
    """True if the reading asked for the integration by id, or for its configuration: every question has left a trace.

    The reader asks for the keys of the view from before the reading, which may take many minutes. A key that came later
    is not unread: else no long run of a busy installation would be whole.
    """
    return any(identity in ids for ids in (reading.absent, reading.configurations, reading.released, reading.unread))


def _absence(key: Key, reading: Reading, tenant: Tenant | None, seen_by: str | None) -> ObservedKey:
    """Returns the state of a key missing from the reading: absent, or no information with the reason."""
    reason = unread = ""
    identity = key.partition(":")[2]
    # A listing alone proves no absence: a request by id must have answered 404 as well.
    if identity not in reading.absent:
        unread = f"it is not listed, and {reading.unread[identity]}"
    elif seen_by != reading.client_id:
        # These credentials may lack the right to see the integration (docs/decisions/0001).
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
    """Returns the configuration in the form to compare, the MAC of this form, and the fault without them.

    The property with the tenantId is identity as much as configuration, and a sender may leave the property out of a
    webhook. The form without the property counts if the view has the same form.
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
