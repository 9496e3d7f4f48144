"""Kind `oauth`: the tenant's access token, issued by RFC 6749 section 4.4 and revoked by RFC 7009.

Settings: `url` (of `/token`, `/revoke` and `/grants/{name}`), `url_from`, `client_id`, `client_secret`.
Rule: one grant a name. The name is in the scope, so issuing again replaces the token and never adds one; and since an
answer may be lost with the token in it, the grant can be read back by its own client.
"""

from dataclasses import replace
from typing import Any
from urllib.parse import quote

from services.adapters.http_client import HttpRequest, HttpResponse
from services.core.saga.calls import (
    Absent,
    Answer,
    Call,
    Contradicted,
    Done,
    Refused,
    Retryable,
    Unknown,
    Verb,
    resource_name,
)
from services.provisioner.kinds.answers import meaning
from services.provisioner.kinds.outbound import Origin, Outbound, origin


class OAuthKind:
    """Issues, revokes and reads back."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    async def call(self, call: Call) -> Answer:
        """Carry one call out."""
        given = origin(call)
        if isinstance(given, Refused):
            return given
        if call.verb is Verb.DELETE:
            return await self._revoke(call, given)
        if call.verb is Verb.READ:
            return await self._read(call, given)
        return await self._issue(call, given)

    async def close(self) -> None:
        """End the connections; they are shared, and ended once."""
        await self._outbound.close()

    async def _issue(self, call: Call, given: Origin) -> Answer:
        if call.verb is Verb.UPDATE and call.outputs.get("access_token"):
            return Done(call.outputs)  # nothing of a configuration is in a token
        scope = f"tenant:{resource_name(call.key, call.generation)}"
        form = {"grant_type": "client_credentials", "scope": scope}
        answer = await self._send(call, "POST", "/token", form, given)
        if isinstance(answer, Answer):
            return answer
        return _granted(answer.body) or Unknown("the answer shows no access_token", succeeded=True)

    async def _revoke(self, call: Call, given: Origin) -> Answer:
        """Revoke the token there is now: the one we were told of last may have been replaced by a lost answer's."""
        found = await self._read(replace(call, verb=Verb.READ), given)
        if not isinstance(found, Done):
            return found
        form = {"token": found.outputs["access_token"], "token_type_hint": "access_token"}
        answer = await self._send(call, "POST", "/revoke", form, given)
        if isinstance(answer, Refused | Absent):
            # Some servers refuse to revoke a token that is dead (against RFC 7009 section 2.2): what is gone is done.
            # A 404 may be of a proxy without that path, and says nothing of the token.
            seen = await self._read(replace(call, verb=Verb.READ), given)
            if isinstance(seen, Absent) or (isinstance(answer, Absent) and not isinstance(seen, Done)):
                return seen
            return Retryable("no /revoke there, and the token lives on") if isinstance(answer, Absent) else answer
        return answer if isinstance(answer, Answer) else Done()

    async def _read(self, call: Call, given: Origin) -> Answer:
        name = quote(resource_name(call.key, call.generation), safe="")
        answer = await self._send(call, "GET", f"/grants/{name}", None, given)
        if isinstance(answer, Answer):
            return answer
        return _granted(answer.body) or Contradicted("access_token is not shown")

    async def _send(
        self, call: Call, method: str, path: str, form: dict[str, str] | None, given: Origin
    ) -> HttpResponse | Answer:
        """The successful response, or what any other means."""
        settings = call.settings
        # RFC 6749 section 2.3.1: form-encoded before they become a Basic header.
        client = (
            quote(str(settings.get("client_id", "")), safe=""),
            quote(str(settings.get("client_secret", "")), safe=""),
        )
        url = str(settings.get("url", "")).rstrip("/") + path
        response = await self._outbound.send(call, HttpRequest(method, url, form=form, basic=client), given)
        if not isinstance(response, HttpResponse):
            return response
        answer = meaning(call, response)
        return response if isinstance(answer, Done) else answer


def _granted(body: Any) -> Done | None:
    if not isinstance(body, dict) or not isinstance(body.get("access_token"), str):
        return None
    return Done({"access_token": body["access_token"], "scope": body.get("scope")})
