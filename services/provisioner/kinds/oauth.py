"""Kind `oauth`: the tenant's access token, issued by RFC 6749 section 4.4 and revoked by RFC 7009.

Settings: `url` (base of `/token`, `/revoke` and `/grants/{name}`), `url_from`, `client_id`, `client_secret`.

Problem: an answer may be lost together with the token inside. Approach: the server keeps one grant per name, and the
resource's name is in the scope. Issuing again replaces the token and never adds a second one, and the client that owns
a grant can read the grant back by name (docs/decisions/0013).
"""

from dataclasses import replace
from typing import Any, ClassVar, Self
from urllib.parse import quote

from services.adapters.http_client import HttpRequest, HttpResponse
from services.adapters.process.settings import ProvisionerSettings
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
from services.core.saga.kind_traits import KindTraits, SystemBy
from services.core.saga.plan_forms import Form, PlanKey
from services.provisioner.kinds.answers import meaning
from services.provisioner.kinds.outbound import Origin, Outbound, origin
from services.provisioner.kinds.shared_keys import URL_FROM
from services.provisioner.kinds.step_kind import PlannedRequest, Shared


class OAuthKind:
    """Issues, revokes and reads back the token."""

    traits: ClassVar = KindTraits(
        name="oauth",
        meaning="Issues and revokes the tenant's access token.",
        keys=(
            PlanKey(
                "url",
                Form.BASE_URL,
                "Of the server: `/token`, `/revoke` and `/grants/{name}` are below it.",
                required=True,
            ),
            URL_FROM,
            PlanKey("client_id", Form.TEXT, "Our client at that server.", required=True),
            PlanKey("client_secret", Form.TEXT, "Its secret.", required=True),
        ),
        outputs=("access_token", "scope"),
        secret_outputs=frozenset({"access_token"}),
        credentials=frozenset({"client_id", "client_secret"}),
        system=SystemBy.STEP,
        # An update makes a request only if no token is known.
        silent_verbs=frozenset({Verb.UPDATE}),
        # A token from before an uninstall must not live on.
        reissued=True,
        left_behind=False,
    )

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    @classmethod
    def build(cls, _: ProvisionerSettings, shared: Shared) -> Self:
        """Returns the kind; no setting of the process is used."""
        return cls(shared.outbound)

    @staticmethod
    def requests_of(call: Call) -> tuple[PlannedRequest, ...]:
        """Returns the requests of a call; the token to revoke is read from the grant first."""
        base, name = str(call.settings.get("url", "")).rstrip("/"), resource_name(call.key, call.generation)
        grant = PlannedRequest(f"GET {base}/grants/{quote(name, safe='')}")
        if call.verb is Verb.READ:
            return (grant,)
        if call.verb is Verb.DELETE:
            return grant, PlannedRequest(f"POST {base}/revoke", {"token_type_hint": "access_token"})
        if call.verb is Verb.UPDATE and call.outputs.get("access_token"):
            return ()
        form = {"grant_type": "client_credentials", "scope": f"tenant:{name}"}
        return (PlannedRequest(f"POST {base}/token", form),)

    async def call(self, call: Call) -> Answer:
        """Carries out one call."""
        url_origin = origin(call)
        if isinstance(url_origin, Refused):
            return url_origin
        if call.verb is Verb.DELETE:
            return await self._revoke(call, url_origin)
        if call.verb is Verb.READ:
            return await self._read(call, url_origin)
        return await self._issue(call, url_origin)

    async def close(self) -> None:
        """Closes the HTTP client shared by the kinds; a repeated close is harmless."""
        await self._outbound.close()

    async def _issue(self, call: Call, url_origin: Origin) -> Answer:
        if call.verb is Verb.UPDATE and call.outputs.get("access_token"):
            return Done(call.outputs)  # a token does not depend on the configuration
        scope = f"tenant:{resource_name(call.key, call.generation)}"
        form = {"grant_type": "client_credentials", "scope": scope}
        answer = await self._send(call, "POST", "/token", form, url_origin)
        if isinstance(answer, Answer):
            return answer
        return _granted(answer.body) or Unknown("the answer shows no access_token", succeeded=True)

    async def _revoke(self, call: Call, url_origin: Origin) -> Answer:
        """Revokes the live token, read from the grant: the token in the outputs may be outdated after a lost answer."""
        found = await self._read(replace(call, verb=Verb.READ), url_origin)
        if not isinstance(found, Done):
            return found
        form = {"token": found.outputs["access_token"], "token_type_hint": "access_token"}
        answer = await self._send(call, "POST", "/revoke", form, url_origin)
        if isinstance(answer, Refused | Absent):
            # Some servers refuse to revoke a dead token, against RFC 7009 section 2.2. A 404 may come from a proxy
            # without this path. In both cases only the grant shows the state of the token.
            seen = await self._read(replace(call, verb=Verb.READ), url_origin)
            if isinstance(seen, Absent) or (isinstance(answer, Absent) and not isinstance(seen, Done)):
                return seen
            return Retryable("no /revoke there, and the token lives on") if isinstance(answer, Absent) else answer
        return answer if isinstance(answer, Answer) else Done()

    async def _read(self, call: Call, url_origin: Origin) -> Answer:
        name = quote(resource_name(call.key, call.generation), safe="")
        answer = await self._send(call, "GET", f"/grants/{name}", None, url_origin)
        if isinstance(answer, Answer):
            return answer
        return _granted(answer.body) or Contradicted("access_token is not shown")

    async def _send(
        self, call: Call, method: str, path: str, form: dict[str, str] | None, url_origin: Origin
    ) -> HttpResponse | Answer:
        """Sends a request with the client's credentials; returns a successful response, else the answer of the step."""
        settings = call.settings
        # RFC 6749 section 2.3.1: id and secret are form-encoded before they become a Basic header.
        client = (
            quote(str(settings.get("client_id", "")), safe=""),
            quote(str(settings.get("client_secret", "")), safe=""),
        )
        url = str(settings.get("url", "")).rstrip("/") + path
        response = await self._outbound.send(call, HttpRequest(method, url, form=form, basic=client), url_origin)
        if not isinstance(response, HttpResponse):
            return response
        answer = meaning(call, response)
        return response if isinstance(answer, Done) else answer


def _granted(body: Any) -> Done | None:
    """Returns the token in a body as outputs; None if the body has no token."""
    if not isinstance(body, dict) or not isinstance(body.get("access_token"), str):
        return None
    return Done({"access_token": body["access_token"], "scope": body.get("scope")})
