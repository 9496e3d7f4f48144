"""Acts as the sender: builds, signs and posts a webhook body; and updates the simulator's Genesys to match.

Rule: a body is built once, and the signed bytes are the sent bytes.
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
"""Seconds after which the sender gives up on an attempt (the guide)."""


@dataclass(frozen=True, slots=True)
class InstalledIntegration:
    """An installation of the integration in an organisation.

    Attributes:
        org: orgId.
        id: integrationId.
        tenant: tenantId.
        configuration: The configuration of the integration.
    """

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
    """The answer of the ingress.

    Attributes:
        status: HTTP status.
        body: JSON object; `{"text": …}` for an answer of a different type.
    """

    status: int
    body: Json

    @property
    def accepted(self) -> bool:
        """True if the delivery is durable."""
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
    """Returns the raw body of one delivery attempt.

    Args:
        event: The type of the event.
        of: The integration; every event carries the configuration.
        at_us: `eventTimestamp`, in microseconds since 1970.
        event_id: The sender's id of the event; None for no id.
        retry: Number of earlier attempts; a number above 0 is part of the metadata.
        source: `metadata.source`.
        installed_by: `metadata.installedBy`.
    """
    metadata: Json = {"installedBy": installed_by, "source": source}
    if event_id is not None:
        metadata["eventId"] = event_id
    return webhook_sent.body(Sent(event, of.org, of.id, of.tenant, of.configuration, at_us, metadata), retry)


def headers(secret: bytes, raw: bytes, now_us: int) -> dict[str, str]:
    """Returns the headers of one delivery attempt, with the signature of the body."""
    return webhook_sent.headers(sign(secret, raw), now_us)


def curl(url: str, raw: bytes, fields: Mapping[str, str]) -> str:
    """Returns the shell command of a signed delivery attempt by curl.

    Args:
        url: The webhook's URL.
        raw: The signed body.
        fields: The headers of the attempt.
    """
    given = [word for name, value in fields.items() for word in ("--header", f"{name}: {value}")]
    # --globoff: brackets and braces in a URL are literal.
    options = ["--silent", "--show-error", "--fail-with-body", "--globoff", "--max-time", f"{TIMEOUT_S:.0f}"]
    return shlex.join(["curl", *options, *given, "--data-binary", raw.decode(), url])


def read(response: httpx2.Response) -> IngressReply:
    """Parses the answer of the ingress; any body but a JSON object is returned as text."""
    try:
        found = response.json()
    except ValueError:
        found = {"text": response.text}
    return IngressReply(response.status_code, found if isinstance(found, dict) else {"text": response.text})


def genesys_path(of: InstalledIntegration) -> str:
    """Returns the control path of an integration in the simulator's Genesys."""
    return f"/genesys/control/orgs/{of.org}/integrations/{of.id}"


def tell_genesys(client: httpx2.Client, simulator: str, event: EventType, of: InstalledIntegration) -> None:
    """Updates the simulator's Genesys to match an event that was sent by this program instead of the simulator.

    Raises:
        httpx2.HTTPError: the simulator does not answer, or refuses.
    """
    url = simulator + genesys_path(of)
    if event is EventType.UNINSTALLED:
        response = client.delete(url, params={"webhook": "false"})
        # The simulator does not know the integration, which agrees with the event already.
        if response.status_code == httpx2.codes.NOT_FOUND:
            return
    else:
        told = {"tenantId": of.tenant, "configuration": of.configuration, "webhook": False}
        if event is not EventType.CONFIGURATION_UPDATED:
            told["enabled"] = event is not EventType.DISABLED
        response = client.put(url, json=told)
    response.raise_for_status()
