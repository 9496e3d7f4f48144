"""Kind `http`: one named resource in a middleware or CRM that speaks our REST contract (docs/rest-contract.md).

Settings: `url` (without it there is nothing to keep), `url_from`, `path`, `body`, and `credentials` (`path`,
`client_id`, `client_secret`) where the system wants an OAuth session: those are proved before anything is made.
Rule: a resource stays where it was put until it is taken away there, whatever the configuration says by then.
"""

from dataclasses import replace
from typing import Any
from urllib.parse import quote

from services.adapters.http import Request, Response
from services.core.calls import Absent, Answer, Call, Done, Refused, Unknown, Verb, resource_name
from services.provisioner.kinds.answers import meaning
from services.provisioner.kinds.outbound import Origin, Outbound, origin

Session = dict[str, str]
"""Headers of an OAuth session; empty where none is wanted."""


class Http:
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
        return await self._put(call, given)

    async def close(self) -> None:
        """End the connections; they are shared, and ended once."""
        await self._outbound.close()

    async def _put(self, call: Call, given: Origin) -> Answer:
        base, former = call.settings.get("url"), call.outputs.get("url")
        outputs: dict[str, Any] = {}
        if base is not None:
            answer = await self._put_at(call, base, given)
            if not isinstance(answer, Done):
                return answer
            outputs = {**answer.outputs, "url": base}
        if former is not None and former != base:
            # A second effect of one intent: its key is derived, so that a repeat repeats both.
            leaving = replace(call, verb=Verb.DELETE, idempotency_key=f"{call.idempotency_key}-former")
            left = await self._delete_at(leaving, former, given)
            if not isinstance(left, Done | Absent):
                return left
            outputs.setdefault("url", None)
        return Done(outputs)

    async def _put_at(self, call: Call, base: str, given: Origin) -> Answer:
        session = await self._session(call, base, given)
        if not isinstance(session, dict):
            return session
        body = {
            "name": resource_name(call.key, call.generation),
            "key": call.key,
            "tenant_id": call.tenant_id,
            "generation": call.generation,
            "enabled": call.enabled,
            **call.settings.get("body", {}),
        }
        response = await self._send(call, Request("PUT", _at(call, base), session, body), given)
        if not isinstance(response, Response):
            return response
        answer = meaning(call, response)
        if isinstance(answer, Done):
            return shown(call, response)
        return answer

    async def _delete(self, call: Call, given: Origin) -> Answer:
        places = dict.fromkeys(base for base in (call.outputs.get("url"), call.settings.get("url")) if base)
        answers: list[Answer] = []
        for number, base in enumerate(places):
            one = replace(call, idempotency_key=f"{call.idempotency_key}-{number}") if number else call
            answers.append(await self._delete_at(one, base, given))
        failed = [answer for answer in answers if not isinstance(answer, Done | Absent)]
        done = [answer for answer in answers if isinstance(answer, Done)]
        return [*failed, *done, Absent()][0]

    async def _delete_at(self, call: Call, base: str, given: Origin) -> Answer:
        session = await self._session(call, base, given)
        if isinstance(session, Refused):
            session = {}  # credentials that died must not keep alive what they made: the system itself decides
        if not isinstance(session, dict):
            return session
        response = await self._send(call, Request("DELETE", _at(call, base), session), given)
        return meaning(call, response) if isinstance(response, Response) else response

    async def _read(self, call: Call, given: Origin) -> Answer:
        base = call.settings.get("url") or call.outputs.get("url")
        if base is None:
            return Absent()
        session = await self._session(call, base, given)
        if not isinstance(session, dict):
            return session
        response = await self._send(call, Request("GET", _at(call, base), session), given)
        if not isinstance(response, Response):
            return response
        answer = meaning(call, response)
        found = shown(call, response) if isinstance(answer, Done) else answer
        return Done({**found.outputs, "url": base}) if isinstance(found, Done) else found

    async def _session(self, call: Call, base: str, given: Origin) -> Session | Answer:
        """Prove the client credentials, where the step has any, and open a session (RFC 6749 section 4.4)."""
        wanted = call.settings.get("credentials", {})
        client_id, secret = wanted.get("client_id"), wanted.get("client_secret")
        if client_id is None and secret is None:
            return {}
        if client_id is None or secret is None:
            return Refused("credentials: client_id and client_secret go together")
        form = {"grant_type": "client_credentials", "client_id": str(client_id), "client_secret": str(secret)}
        # Nothing is made here: a silence leaves nothing in doubt.
        looking = replace(call, verb=Verb.READ)
        request = Request("POST", base.rstrip("/") + wanted.get("path", "/oauth/token"), form=form)
        response = await self._send(looking, request, given)
        if not isinstance(response, Response):
            return response
        answer = meaning(call, response)
        token = response.body.get("access_token") if isinstance(response.body, dict) else None
        if isinstance(answer, Done) and isinstance(token, str):
            return {"Authorization": f"Bearer {token}"}
        if isinstance(answer, Done | Absent):
            return Refused("credentials: no token in the answer")
        return replace(answer, reason=f"credentials: {answer.reason}")

    async def _send(self, call: Call, request: Request, given: Origin) -> Response | Answer:
        return await self._outbound.send(call, request, given)


def shown(call: Call, response: Response) -> Answer:
    """The outputs of a resource that an answer shows; an answer that shows none proves nothing."""
    if isinstance(response.body, dict):
        return Done({"id": response.body.get("id", resource_name(call.key, call.generation))})
    return Unknown("the answer shows no resource")


def _at(call: Call, base: str) -> str:
    name = quote(resource_name(call.key, call.generation), safe="")
    return f"{base.rstrip('/')}{call.settings.get('path', '')}/{name}"
