"""Speaks as Genesys does: builds a webhook body, signs it, posts it; and tells the simulator's Genesys what is so.

Rule: the body is built and signed here once; the bytes that were signed are the bytes that are sent.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx2

from schemas import webhook_sent
from schemas.values import EventType, Json
from schemas.webhook_sent import Sent
from services.core.delivery.signature import sign

TIMEOUT_S: Final = 3.0
"""The sender gives up after three seconds (the guide)."""


@dataclass(frozen=True, slots=True)
class InstalledIntegration:
    """One installation of the integration at one organisation."""

    org: str
    id: str
    tenant: str
    configuration: Json = field(default_factory=dict)

    @property
    def key(self) -> str:
        """`orgId:integrationId`."""
        return f"{self.org}:{self.id}"


@dataclass(frozen=True, slots=True)
class IngressReply:
    """What the ingress said."""

    status: int
    body: Json

    @property
    def accepted(self) -> bool:
        """Whether the delivery is durable."""
        return self.status == httpx2.codes.OK


def body(
    event: EventType,
    of: InstalledIntegration,
    at_us: int,
    *,
    event_id: str | None = None,
    retry: int = 0,
    source: str = "marketplace",
    installed_by: str = "admin@acme.com",
) -> bytes:
    """The raw body of one delivery attempt.

    Args:
        event: What happened.
        of: To which integration; the configuration rides along with every event.
        at_us: `eventTimestamp`.
        event_id: The sender's id of the event, where it gives one.
        retry: How many attempts went before; from 1 on the metadata say so.
        source: `metadata.source`.
        installed_by: `metadata.installedBy`.
    """
    metadata: Json = {"installedBy": installed_by, "source": source}
    if event_id is not None:
        metadata["eventId"] = event_id
    return webhook_sent.body(Sent(event, of.org, of.id, of.tenant, of.configuration, at_us, metadata), retry)


def headers(secret: bytes, raw: bytes, now_us: int) -> dict[str, str]:
    """The headers of one delivery attempt."""
    return webhook_sent.headers(sign(secret, raw), now_us)


def curl(url: str, raw: bytes, fields: Mapping[str, str]) -> str:
    """Returns the shell line that sends one delivery attempt by curl: these bytes, and what proves them.

    Args:
        url: The webhook's URL.
        raw: The body that was signed.
        fields: Its headers.
    """
    given = [word for name, value in fields.items() for word in ("--header", f"{name}: {value}")]
    options = ["--silent", "--show-error", "--fail-with-body", "--globoff", "--max-time", f"{TIMEOUT_S:.0f}"]
    return shlex.join(["curl", *options, *given, "--data-binary", raw.decode(), url])


def read(response: httpx2.Response) -> IngressReply:
    """The answer of the ingress; a body that is no JSON object is shown as text."""
    try:
        found = response.json()
    except ValueError:
        found = {"text": response.text}
    return IngressReply(response.status_code, found if isinstance(found, dict) else {"text": response.text})


def genesys_path(of: InstalledIntegration) -> str:
    """Where the simulator's Genesys is told of an integration."""
    return f"/genesys/control/orgs/{of.org}/integrations/{of.id}"


def tell_genesys(client: httpx2.Client, simulator: str, event: EventType, of: InstalledIntegration) -> None:
    """Make the simulator's Genesys agree with an event that it did not send itself.

    Raises:
        httpx2.HTTPError: it does not answer, or refuses.
    """
    url = simulator + genesys_path(of)
    if event is EventType.UNINSTALLED:
        response = client.delete(url, params={"webhook": "false"})
        if response.status_code == httpx2.codes.NOT_FOUND:
            return
    else:
        told = {"tenantId": of.tenant, "configuration": of.configuration, "webhook": False}
        if event is not EventType.CONFIGURATION_UPDATED:
            told["enabled"] = event is not EventType.DISABLED
        response = client.put(url, json=told)
    response.raise_for_status()
