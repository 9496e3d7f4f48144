"""Kind `http`: one named resource in a middleware or CRM that speaks our REST contract (docs/rest-contract.md).

Settings: `url` (without it there is nothing to keep), `url_from`, `path`, `body`, and `credentials` (`path`,
`client_id`, `client_secret`) where the system wants an OAuth session: those are proved before anything is made.
Rule: a resource stays where it was put until it is taken away there, whatever the configuration says by then. One that
moves is made at the new place first, and then removed wherever else it may be.
"""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

from services.adapters.http_client import HttpRequest, HttpResponse
from services.core.saga.calls import (
    Absent,
    Answer,
    Call,
    Contradicted,
    Done,
    Refused,
    RefusedUs,
    Retryable,
    Unknown,
    Verb,
    resource_name,
)
from services.provisioner.kinds.answers import difference, meaning, shown
from services.provisioner.kinds.outbound import Origin, Outbound, origin

_ID_MAX: Final = 1_000
Session = dict[str, str]
"""Headers of an OAuth session; empty where none is wanted."""


class HttpKind:
    """Puts, reads and deletes."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound

    async def call(self, call: Call) -> Answer:
        """Carry one call out."""
        given = origin(call)
        if isinstance(given, Refused):
            return given
        if call.verb is Verb.DELETE:
            return await self._delete(call, given)
        if call.verb is Verb.READ:
            return await self._read(call, given)
        if not isinstance(call.settings.get("url"), str | None):
            return Refused("url: not a text", heard=False)
        return await self._put(call, given)

    async def close(self) -> None:
        """End the connections; they are shared, and ended once."""
        await self._outbound.close()

    async def _put(self, call: Call, given: Origin) -> Answer:
        base = call.settings.get("url")
        left = [place for place in _places(call) if place != base]
        outputs: dict[str, Any] = {"url": base}
        if base is not None:
            answer = await self._put_at(call, base, given)
            if left and isinstance(answer, Unknown) and answer.succeeded:
                answer = await self._read_back(call, base, given, answer)
            if not isinstance(answer, Done):
                return answer
            outputs |= answer.outputs
        for answer in [await self._delete_at(_part(call, place), place, given) for place in left]:
            if not isinstance(answer, Done | Absent):
                return _left(answer, moved=base is not None)
        return Done(outputs if base is not None or left else {})

    async def _read_back(self, call: Call, base: str, given: Origin, answer: Unknown) -> Answer:
        """Look at once for what was put at a new place: it may go from the former places only when it is here.

        A later look settles the step without them, so a success is never claimed for what this one does not prove.
        """
        seen = await self._read_at(replace(call, verb=Verb.READ), base, given)
        if isinstance(seen, Done) and seen.differs:
            return Unknown(f"{seen.differs} is not as it was asked")
        if isinstance(seen, Done):
            return seen
        return Unknown(seen.reason if isinstance(seen, Contradicted) else answer.reason)

    async def _put_at(self, call: Call, base: str, given: Origin) -> Answer:
        session = await self._session(call, base, given)
        if not isinstance(session, dict):
            return session
        response = await self._send(call, HttpRequest("PUT", _at(call, base), session, _asked(call)), given)
        if not isinstance(response, HttpResponse):
            return response
        answer = meaning(call, response)
        return _outputs(call, shown(call, response)) if isinstance(answer, Done) else answer

    async def _delete(self, call: Call, given: Origin) -> Answer:
        places = _places(call) or _named(call)
        one = len(places) == 1
        answers = [await self._delete_at(call if one else _part(call, place), place, given) for place in places]
        failed = [answer for answer in answers if not isinstance(answer, Done | Absent)]
        done = [answer for answer in answers if isinstance(answer, Done)]
        return [*_openest(failed), *done, Absent()][0]

    async def _delete_at(self, call: Call, base: str, given: Origin) -> Answer:
        session = await self._session(call, base, given)
        if isinstance(session, Refused):
            session = {}  # credentials that died must not keep alive what they made: the system itself decides
        if not isinstance(session, dict):
            return session
        vouched = call.outputs.get("url") == base  # for this place alone: another one was never shown to be ours
        if not vouched and (known := await self._not_ours(call, base, session, given)) is not None:
            return known
        response = await self._send(call, HttpRequest("DELETE", _at(call, base), session), given)
        return meaning(call, response) if isinstance(response, HttpResponse) else response

    async def _not_ours(self, call: Call, base: str, session: Session, given: Origin) -> Answer | None:
        """Before what was never shown to be ours is removed: what keeps it from that, or None."""
        looking = replace(call, verb=Verb.READ)
        response = await self._send(looking, HttpRequest("GET", _at(call, base), session), given)
        if not isinstance(response, HttpResponse):
            return response
        seen = meaning(looking, response)
        if not isinstance(seen, Done):
            # A system that shows nothing to this caller may still let the caller remove it.
            return seen if isinstance(seen, Retryable | RefusedUs) else None
        found = shown(looking, response)
        return found if isinstance(found, Contradicted) and found.anothers else None

    async def _read(self, call: Call, given: Origin) -> Answer:
        failed: list[Answer] = []
        for base in dict.fromkeys((*_named(call), *_places(call))):
            found = await self._read_at(call, base, given)
            if isinstance(found, Done):
                return replace(found, outputs={**found.outputs, "url": base})
            failed += [] if isinstance(found, Absent) else [found]
        return [*_openest(failed), Absent()][0]

    async def _read_at(self, call: Call, base: str, given: Origin) -> Answer:
        session = await self._session(call, base, given)
        if not isinstance(session, dict):
            return session
        response = await self._send(call, HttpRequest("GET", _at(call, base), session), given)
        if not isinstance(response, HttpResponse):
            return response
        answer = meaning(call, response)
        if not isinstance(answer, Done):
            return answer
        found = _outputs(call, shown(call, response))
        return replace(found, differs=difference(_asked(call), response.body)) if isinstance(found, Done) else found

    async def _session(self, call: Call, base: str, given: Origin) -> Session | Answer:
        """Prove the client credentials, where the step has any, and open a session (RFC 6749 section 4.4)."""
        wanted = call.settings.get("credentials", {})
        client_id, secret = wanted.get("client_id"), wanted.get("client_secret")
        if client_id is None and secret is None:
            return {}
        if client_id is None or secret is None:
            return Refused("credentials: client_id and client_secret go together", heard=False)
        form = {"grant_type": "client_credentials", "client_id": str(client_id), "client_secret": str(secret)}
        # Nothing is made here: a silence leaves nothing in doubt.
        looking = replace(call, verb=Verb.READ)
        request = HttpRequest("POST", base.rstrip("/") + wanted.get("path", "/oauth/token"), form=form)
        response = await self._send(looking, request, given)
        if not isinstance(response, HttpResponse):
            return response
        answer = meaning(replace(call, verb=Verb.CREATE), response)
        token = response.body.get("access_token") if isinstance(response.body, dict) else None
        if isinstance(answer, Done | Absent):
            if isinstance(token, str):
                return {"Authorization": f"Bearer {token}"}
            return Contradicted("credentials: access_token is not shown")
        reason = f"credentials: {answer.reason}"
        # Nothing was made, so nothing is in doubt.
        return Retryable(reason) if isinstance(answer, Unknown) else replace(answer, reason=reason)

    async def _send(self, call: Call, request: HttpRequest, given: Origin) -> HttpResponse | Answer:
        return await self._outbound.send(call, request, given)


def _asked(call: Call) -> dict[str, Any]:
    """The resource as it is to be."""
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
    # It is kept in the journal, and it is a stranger's: anything but a short text could make that unreadable for ever.
    is_a_name = found and len(found) <= _ID_MAX and found.isprintable()
    return Done({"id": found if is_a_name else resource_name(call.key, call.generation)})


def _left(answer: Answer, *, moved: bool) -> Answer:
    """Returns what it means that a former place did not let go; `moved` if the resource is at its new place by now.

    A look that finds the resource at either place must not settle that, so it never counts as a success.
    """
    assert not isinstance(answer, Done | Absent)
    if not moved:
        return replace(answer, succeeded=False) if isinstance(answer, Unknown) else answer
    # What was put is there, so nothing is as it was: `Retryable` would not be true.
    reason = f"left at a former place: {answer.reason}"
    return Refused(reason, partly=True) if isinstance(answer, Refused) else Unknown(reason)


def _openest(failed: Sequence[Answer]) -> list[Answer]:
    """Returns the answers of several places, those first that leave most open: the others may settle the step."""
    return sorted(failed, key=_may_settle)


def _may_settle(answer: Answer) -> bool:
    """True if an answer counts as absent for a step whose resource was never made."""
    return isinstance(answer, Refused) or (isinstance(answer, Contradicted) and answer.anothers)


def _places(call: Call) -> list[str]:
    """Where the resource may be already."""
    told = (*call.places, call.outputs.get("url"))
    return [place for place in dict.fromkeys(told) if isinstance(place, str)]


def _named(call: Call) -> list[str]:
    """Where it is to be, if anywhere."""
    return [call.settings["url"]] if isinstance(call.settings.get("url"), str) else []


def _part(call: Call, place: str) -> Call:
    """One of several removals of an intent: its key is derived, so that a repeat repeats each."""
    key = f"{call.idempotency_key}-{sha256(place.encode()).hexdigest()[:12]}"
    return replace(call, verb=Verb.DELETE, idempotency_key=key)


def _at(call: Call, base: str) -> str:
    name = quote(resource_name(call.key, call.generation), safe="")
    return f"{base.rstrip('/')}{call.settings.get('path', '')}/{name}"
