"""Builders for what Genesys says and what the view shows; valid by default."""

from collections.abc import Mapping
from typing import Any

from schemas.genesys import Integration, Organisation, Reading
from schemas.tenant import Flag, Stage, Tenant
from schemas.values import Json, Key
from services.core.ledger.identity import canonical, keyed
from services.core.reconcile.reconcile import ReconcileRules
from services.core.rulings import RefusedRemovals

ORG = "11111111-1111-4111-8111-111111111111"
MAC_KEY = b"k" * 32
CONFIGURATION: Json = {"crmEndpoint": "https://acme.my.salesforce.com", "syncInterval": "PT15M"}
NOW_US = 1_800_000_000_000_000
LOOK_US = 600_000_000
HOUR_US = 3_600_000_000
CLIENT = "client-1"
NOTHING_REFUSED: Mapping[Key, RefusedRemovals] = {}


def configuration_mac(configuration: Json) -> str:
    """As the ledger writes it into the view."""
    return keyed(MAC_KEY, canonical(configuration))


def integration_id(number: int) -> str:
    return f"aaaaaaaa-0000-4000-8000-{number:012d}"


def key_of(number: int, org_id: str = ORG) -> Key:
    return f"{org_id}:{integration_id(number)}"


def organisation(**changes: Any) -> Organisation:
    return Organisation.model_validate(
        {"org_id": ORG, "client_id": CLIENT, "client_secret": "s", "tenant_id_from": "tenantId", **changes}
    )


def rules(
    now_us: int = NOW_US,
    approval: str | None = None,
    look_us: int = LOOK_US,
    began_us: int | None = None,
    refused: Mapping[Key, RefusedRemovals] = NOTHING_REFUSED,
) -> ReconcileRules:
    """Of a run at one instant, unless it began before."""
    return ReconcileRules(
        began_us=now_us if began_us is None else began_us,
        now_us=now_us,
        second_look_us=look_us,
        configuration_key=MAC_KEY,
        approval=approval,
        refused=refused,
    )


def reading(
    states: dict[int, str],
    *,
    absent: tuple[int, ...] = (),
    properties: dict[int, Json] | None = None,
    at_us: int = NOW_US,
    client_id: str = CLIENT,
) -> Reading:
    """A whole reading of ORG; every integration has CONFIGURATION unless `properties` says otherwise:
    what that leaves out was asked for, and not read."""
    told = dict.fromkeys(states, CONFIGURATION) if properties is None else properties
    return Reading(
        org_id=ORG,
        client_id=client_id,
        read_at_us=at_us - at_us % 1_000_000,
        integrations={integration_id(n): Integration(integration_id(n), state, "ours") for n, state in states.items()},
        absent=frozenset(integration_id(n) for n in absent),
        configurations={integration_id(n): given for n, given in told.items()},
        unread={integration_id(n): "it was not read" for n in states.keys() - told.keys()},
    )


def tenant(number: int, **changes: Any) -> Tenant:
    """An active, enabled tenant with CONFIGURATION that nothing has touched for an hour."""
    values: dict[str, Any] = {
        "key": key_of(number),
        "version": 1,
        "tenant_id": f"tenant-{number}",
        "installed": True,
        "enabled": True,
        "configuration": CONFIGURATION,
        "configuration_mac": configuration_mac(CONFIGURATION),
        "stage": Stage.ACTIVE,
        "reason": None,
        "flags": (),
        "revision": 1,
        "generation": 1,
        "recheck_at": None,
        "updated_at": NOW_US - HOUR_US,
    }
    return Tenant.model_validate(values | changes)


def view(*tenants: Tenant) -> dict[Key, Tenant]:
    return {one.key: one for one in tenants}


AMBIGUOUS = (Flag.AMBIGUOUS,)
HINTED: Json = {
    "tenant_id": None, "installed": None, "enabled": None, "configuration": None, "configuration_mac": None,
    "stage": None, "revision": 0, "generation": 0, "recheck_at": NOW_US - 5_000_000,
}  # fmt: skip
"""Changes of a tenant to a key that only a hint has named."""
