"""Kind `http`: one named resource in a middleware or CRM that keeps our REST contract (docs/rest-contract.md).

Settings: `url` (without a URL no resource is kept), `url_from`, `path`, `body`, and `credentials` (`path`, `client_id`,
`client_secret`) for a system with OAuth. Credentials are proved by a token request before a resource is made.

Problem: the URL may come from the tenant's configuration and may change during a life, also while the answer of an
earlier PUT is lost. A resource may therefore exist at several *locations* (base URLs): the URL in the settings, the URL
in the outputs of the last success, and every URL in `Call.locations`.

Rules:

- A move makes the resource at the new location first. Only after the new location has shown the resource is DELETE sent
  to every former location.
- DELETE goes to every known location, whatever the configuration says by then.
- Before a DELETE at a location where the resource was never shown as ours, a GET looks for a foreign resource.
- Among the answers of several locations the most uncertain one counts, so that no step is settled while a resource may
  remain somewhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, ClassVar, Final, Self
from urllib.parse import quote

from services.adapters.http_client import HttpRequest, HttpResponse
from services.adapters.process.settings import ProvisionerSettings
from services.core.saga.calls import (
    Absent,
    Answer,
    Call,
    Contradicted,
    Done,
    OperatorRefused,
    Refused,
    Retryable,
    Unknown,
    Verb,
    resource_name,
)
from services.core.saga.json_values import difference
from services.core.saga.kind_traits import KindTraits, SystemBy
from services.core.saga.plan_forms import Form, PlanKey
from services.provisioner.kinds.answers import meaning, shown
from services.provisioner.kinds.outbound import Origin, Outbound, origin
from services.provisioner.kinds.shared_keys import CREDENTIALS, PATH, URL_FROM
from services.provisioner.kinds.step_kind import PlannedRequest, Shared

_ID_MAX: Final = 1_000
AuthHeaders = dict[str, str]
"""Headers with the bearer token of an OAuth session; empty without credentials in the step."""


class HttpKind:
    """Puts, reads and deletes the resource."""

    traits: ClassVar = KindTraits(
        name="http",
        meaning="Keeps one named resource in a system that speaks [our REST contract](rest-contract.md).",
        keys=(
            PlanKey("url", Form.BASE_URL, "Base URL of the system. Where it is missing there is nothing to keep."),
            URL_FROM,
            PATH,
            PlanKey(
                "body",
                Form.TABLE,
                "Further fields of the resource. The fields of the contract are ours to fill.",
                reserved=frozenset({"name", "key", "tenant_id", "generation", "enabled"}),
            ),
            CREDENTIALS,
        ),
        outputs=("id", "url"),
        secret_outputs=frozenset(),
        credentials=frozenset({"credentials"}),
        system=SystemBy.URL,
        silent_verbs=frozenset(),
        reissued=False,
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
        """Returns the requests of a call: to each location a token first, and removals from former locations last."""
        wanted = _wanted_location(call)
        if call.verb is Verb.DELETE:
            return tuple(one for base in _known_locations(call) or wanted for one in _planned(call, "DELETE", base))
        if call.verb is Verb.READ:
            return tuple(one for base in wanted for one in _planned(call, "GET", base))
        former = [location for location in _known_locations(call) if location not in wanted]
        return (
            *(one for base in wanted for one in _planned(call, "PUT", base, _wanted_resource(call))),
            *(one for base in former for one in _planned(call, "DELETE", base)),
        )

    async def call(self, call: Call) -> Answer:
        """Carries out one call."""
        url_origin = origin(call)
        if isinstance(url_origin, Refused):
            return url_origin
        if call.verb is Verb.DELETE:
            return await self._delete(call, url_origin)
        if call.verb is Verb.READ:
            return await self._read(call, url_origin)
        if not isinstance(call.settings.get("url"), str | None):
            return Refused("url: not a text", heard=False)
        return await self._put(call, url_origin)

    async def close(self) -> None:
        """Closes the HTTP client shared by the kinds; a repeated close is harmless."""
        await self._outbound.close()

    async def _put(self, call: Call, url_origin: Origin) -> Answer:
        """Creates or updates the resource at the wanted location, then removes it from every former location."""
        base = call.settings.get("url")
        former = [location for location in _known_locations(call) if location != base]
        outputs: dict[str, Any] = {"url": base}
        if base is not None:
            answer = await self._put_at(call, base, url_origin)
            if former and isinstance(answer, Unknown) and answer.succeeded:
                answer = await self._read_back(call, base, url_origin, answer)
            # Former locations stay untouched until the new location has the resource.
            if not isinstance(answer, Done):
                return answer
            outputs |= answer.outputs
        # All former locations are asked before the first failure counts.
        for answer in [
            await self._delete_at(_delete_call(call, location), location, url_origin) for location in former
        ]:
            if not isinstance(answer, Done | Absent):
                return _former_location_failed(answer, moved=base is not None)
        return Done(outputs if base is not None or former else {})

    async def _read_back(self, call: Call, base: str, url_origin: Origin, answer: Unknown) -> Answer:
        """Reads the resource at its new location at once, after a PUT answered with success but without the resource.

        The result is never `Unknown(succeeded=True)`: the look-up that follows in the journal would settle the step
        from the new location alone, and the former locations would keep their resources.
        """
        seen = await self._read_at(replace(call, verb=Verb.READ), base, url_origin)
        if isinstance(seen, Done) and seen.differs:
            return Unknown(f"{seen.differs} is not as it was asked")
        if isinstance(seen, Done):
            return seen
        return Unknown(seen.reason if isinstance(seen, Contradicted) else answer.reason)

    async def _put_at(self, call: Call, base: str, url_origin: Origin) -> Answer:
        session = await self._session(call, base, url_origin)
        if not isinstance(session, dict):
            return session
        response = await self._send(
            call, HttpRequest("PUT", _resource_url(call, base), session, _wanted_resource(call)), url_origin
        )
        if not isinstance(response, HttpResponse):
            return response
        answer = meaning(call, response)
        return _outputs(call, shown(call, response)) if isinstance(answer, Done) else answer

    async def _delete(self, call: Call, url_origin: Origin) -> Answer:
        """Removes the resource from every known location, or from the wanted location if no location is known."""
        locations = _known_locations(call) or _wanted_location(call)
        # With one location the intent's own idempotency key is used; several requests need a key each.
        is_single = len(locations) == 1
        answers = [
            await self._delete_at(call if is_single else _delete_call(call, location), location, url_origin)
            for location in locations
        ]
        failed = [answer for answer in answers if not isinstance(answer, Done | Absent)]
        done = [answer for answer in answers if isinstance(answer, Done)]
        return [*_most_uncertain_first(failed), *done, Absent()][0]

    async def _delete_at(self, call: Call, base: str, url_origin: Origin) -> Answer:
        session = await self._session(call, base, url_origin)
        if isinstance(session, Refused):
            # Expired credentials must not keep their resource alive: DELETE goes out without a token, and the system
            # decides.
            session = {}
        if not isinstance(session, dict):
            return session
        # The outputs prove ownership at their own location only.
        proved_ours = call.outputs.get("url") == base
        if not proved_ours and (obstacle := await self._delete_obstacle(call, base, session, url_origin)) is not None:
            return obstacle
        response = await self._send(call, HttpRequest("DELETE", _resource_url(call, base), session), url_origin)
        return meaning(call, response) if isinstance(response, HttpResponse) else response

    async def _delete_obstacle(self, call: Call, base: str, session: AuthHeaders, url_origin: Origin) -> Answer | None:
        """Looks at a location that never showed the resource as ours; returns the answer that forbids DELETE, or None.

        A foreign resource, an outage or a refusal of the operator forbids DELETE.
        """
        read_call = replace(call, verb=Verb.READ)
        response = await self._send(read_call, HttpRequest("GET", _resource_url(call, base), session), url_origin)
        if not isinstance(response, HttpResponse):
            return response
        seen = meaning(read_call, response)
        if not isinstance(seen, Done):
            # Absent or refused: a system that hides a resource from this caller may still let the caller delete it.
            return seen if isinstance(seen, Retryable | OperatorRefused) else None
        found = shown(read_call, response)
        return found if isinstance(found, Contradicted) and found.anothers else None

    async def _read(self, call: Call, url_origin: Origin) -> Answer:
        """Looks for the resource at the wanted location, then at every known location; the first success counts."""
        failed: list[Answer] = []
        for base in dict.fromkeys((*_wanted_location(call), *_known_locations(call))):
            found = await self._read_at(call, base, url_origin)
            if isinstance(found, Done):
                return replace(found, outputs={**found.outputs, "url": base})
            failed += [] if isinstance(found, Absent) else [found]
        return [*_most_uncertain_first(failed), Absent()][0]

    async def _read_at(self, call: Call, base: str, url_origin: Origin) -> Answer:
        session = await self._session(call, base, url_origin)
        if not isinstance(session, dict):
            return session
        response = await self._send(call, HttpRequest("GET", _resource_url(call, base), session), url_origin)
        if not isinstance(response, HttpResponse):
            return response
        answer = meaning(call, response)
        if not isinstance(answer, Done):
            return answer
        found = _outputs(call, shown(call, response))
        return (
            replace(found, differs=difference(_wanted_resource(call), response.body))
            if isinstance(found, Done)
            else found
        )

    async def _session(self, call: Call, base: str, url_origin: Origin) -> AuthHeaders | Answer:
        """Opens an OAuth session with the step's client credentials (RFC 6749 section 4.4).

        Returns:
            Headers with the token, empty without credentials in the step; or the answer if no session was opened.
        """
        wanted = call.settings.get("credentials", {})
        client_id, secret = wanted.get("client_id"), wanted.get("client_secret")
        if client_id is None and secret is None:
            return {}
        if client_id is None or secret is None:
            return Refused("credentials: client_id and client_secret go together", heard=False)
        form = {"grant_type": "client_credentials", "client_id": str(client_id), "client_secret": str(secret)}
        # As READ, since no resource is made: a lost answer leaves nothing in doubt and is an outage.
        read_call = replace(call, verb=Verb.READ)
        request = HttpRequest("POST", base.rstrip("/") + wanted.get("path", "/oauth/token"), form=form)
        response = await self._send(read_call, request, url_origin)
        if not isinstance(response, HttpResponse):
            return response
        # As CREATE, since a 404 of a token endpoint is an outage and never an absent resource.
        answer = meaning(replace(call, verb=Verb.CREATE), response)
        token = response.body.get("access_token") if isinstance(response.body, dict) else None
        if isinstance(answer, Done | Absent):
            if isinstance(token, str):
                return {"Authorization": f"Bearer {token}"}
            return Contradicted("credentials: access_token is not shown")
        reason = f"credentials: {answer.reason}"
        # Nothing was made, so nothing is in doubt.
        return Retryable(reason) if isinstance(answer, Unknown) else replace(answer, reason=reason)

    async def _send(self, call: Call, request: HttpRequest, url_origin: Origin) -> HttpResponse | Answer:
        return await self._outbound.send(call, request, url_origin)


def _planned(call: Call, method: str, base: str, body: Any = None) -> Iterator[PlannedRequest]:
    """Yields the requests at a location before any of them is sent."""
    wanted = call.settings.get("credentials", {})
    client = {name: value for name, value in wanted.items() if name != "path"}
    if client:
        form = {"grant_type": "client_credentials", **client}
        yield PlannedRequest(f"POST {base.rstrip('/')}{wanted.get('path', '/oauth/token')}", form)
    if method == "DELETE" and call.outputs.get("url") != base:
        yield PlannedRequest(f"GET {_resource_url(call, base)}")
    yield PlannedRequest(f"{method} {_resource_url(call, base)}", body)


def _wanted_resource(call: Call) -> dict[str, Any]:
    """Returns the body of PUT; the plan may not replace fields of the contract (`reserved` in the traits)."""
    return {
        "name": resource_name(call.key, call.generation),
        "key": call.key,
        "tenant_id": call.tenant_id,
        "generation": call.generation,
        "enabled": call.enabled,
        **call.settings.get("body", {}),
    }


def _outputs(call: Call, found: str | Answer) -> Answer:
    if not isinstance(found, str):
        return found
    # The id comes from a foreign system and is stored in the journal: an overlong or unprintable text could make the
    # journal unreadable for ever.
    is_safe_id = found and len(found) <= _ID_MAX and found.isprintable()
    return Done({"id": found if is_safe_id else resource_name(call.key, call.generation)})


def _former_location_failed(answer: Answer, *, moved: bool) -> Answer:
    """Returns the answer of a PUT after a former location did not remove the resource.

    The result is never `Unknown(succeeded=True)`: a look-up that finds the resource at one location would settle the
    step while a former location still has a resource.

    Args:
        answer: Answer of the former location; neither `Done` nor `Absent`.
        moved: True if the resource is at its new location by now.
    """
    assert not isinstance(answer, Done | Absent)
    if not moved:
        return replace(answer, succeeded=False) if isinstance(answer, Unknown) else answer
    # PUT took effect at the new location. `Retryable` would claim that nothing was done.
    reason = f"left at a former place: {answer.reason}"
    return Refused(reason, partly=True) if isinstance(answer, Refused) else Unknown(reason)


def _most_uncertain_first(failed: Sequence[Answer]) -> list[Answer]:
    """Returns the failed answers of several locations; answers that may settle the step come last."""
    return sorted(failed, key=_may_settle)


def _may_settle(answer: Answer) -> bool:
    """True if an answer counts as absent for a step whose resource was never made."""
    return isinstance(answer, Refused) or (isinstance(answer, Contradicted) and answer.anothers)


def _known_locations(call: Call) -> list[str]:
    """Returns the base URLs at which the resource may exist already."""
    known = (*call.locations, call.outputs.get("url"))
    return [location for location in dict.fromkeys(known) if isinstance(location, str)]


def _wanted_location(call: Call) -> list[str]:
    """Returns the base URL in the settings; empty without a URL."""
    return [call.settings["url"]] if isinstance(call.settings.get("url"), str) else []


def _delete_call(call: Call, location: str) -> Call:
    """Returns the call that removes the resource from one of several locations.

    The idempotency key is derived from intent and location, so a repeat of the intent repeats each removal.
    """
    key = f"{call.idempotency_key}-{sha256(location.encode()).hexdigest()[:12]}"
    return replace(call, verb=Verb.DELETE, idempotency_key=key)


def _resource_url(call: Call, base: str) -> str:
    name = quote(resource_name(call.key, call.generation), safe="")
    return f"{base.rstrip('/')}{call.settings.get('path', '')}/{name}"
