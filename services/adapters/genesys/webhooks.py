"""Reads and registers the webhook of an integration: `GET` and `PUT /api/v2/integrations/{id}/webhooks`.

Rule: the request is the guide's and not part of the public Genesys Cloud API, so this module alone sends it. A PUT
replaces the whole webhook and may be repeated. Success is what a GET shows afterwards, never the PUT's own answer.
"""

from schemas import webhook_definition
from schemas.webhook_definition import WebhookDefinition
from services.adapters.genesys.answers import NoInformation, shaped
from services.adapters.genesys.api_session import ApiRequest
from services.adapters.genesys.client import GenesysClient

_SUBJECT = "webhooks"


class NoSuchIntegration(NoInformation):
    """Genesys itself says that the organisation has no such integration."""


async def held(client: GenesysClient, integration: str) -> WebhookDefinition | None:
    """Read the webhook of an integration; None if none is registered.

    Raises:
        NoSuchIntegration: the organisation has no such integration.
        NoInformation: the request failed, or the answer has not the documented shape.
    """
    answer = await client.session.answer(ApiRequest(_SUBJECT, _path(integration), absent=True))
    if answer.status_code != 404:
        return shaped(webhook_definition.parse, answer, _SUBJECT)
    # A 404 of this path says either: no webhook, or no integration.
    if await client.integration(integration) is None:
        raise NoSuchIntegration("no such integration in this organisation")
    return None


async def register(client: GenesysClient, integration: str, wanted: WebhookDefinition) -> WebhookDefinition | None:
    """Replace the webhook of an integration; return what Genesys holds afterwards.

    Raises:
        NoInformation: the PUT was refused or got no answer, or the result could not be read. After a missing answer the
            webhook may have been replaced.
    """
    await client.session.answer(ApiRequest(_SUBJECT, _path(integration), put=webhook_definition.body(wanted)))
    return await held(client, integration)


def _path(integration: str) -> str:
    return f"/api/v2/integrations/{integration}/webhooks"
