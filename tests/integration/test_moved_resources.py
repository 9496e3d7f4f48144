"""A resource moved between two systems that prove little, and a token whose revocation proves nothing.

Each system is a real server; the saga is driven through caller and kind, and waits are jumped.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest
from pydantic import SecretStr

from services.adapters.http_client import HttpClient, resolve
from services.adapters.process import logs
from services.adapters.secrets.sealing import Sealer
from services.core.saga.calls import Absent, Refused, Retryable, Unknown, Verb
from services.provisioner.caller import Caller
from services.provisioner.kinds import TRAITS
from services.provisioner.kinds.http import HttpKind
from services.provisioner.kinds.oauth import OAuthKind
from services.provisioner.kinds.outbound import Outbound
from tests.support.http_thread import Written
from tests.support.saga_driver import Saga, plans
from tests.support.scripted_system import HTML, PAGE, Says, System, answering, shows
from tests.support.simulator_process import a_call

KEY: Final = "11111111-1111-4111-8111-111111111111:22222222-2222-4222-8222-222222222222"
STRANGERS: Final = {"id": "x", "key": "another", "generation": 1, "enabled": True}
NAME: Final = f"/{KEY.replace(':', '.')}.g1"
A: Final = "https://a.salesforce.com"
B: Final = "https://b.salesforce.com"
PLAN: Final = '[[step]]\nname = "crm"\nkind = "http"\nundo = "reverse"\nurl = "{configuration.crmEndpoint?}"\n'
PROOFS: Final[dict[str, Says]] = {
    "204": lambda _: (204, {}, b""),
    "202": lambda _: shows({"job": 7}, 202),
    "an id alone": lambda _: shows({"id": "7"}),
}


@pytest.fixture
def former() -> Iterator[System]:
    with answering() as running:
        yield running


@pytest.fixture
def newer() -> Iterator[System]:
    with answering() as running:
        yield running


@pytest.fixture
async def saga(former: System, newer: System) -> AsyncIterator[Saga]:
    locations = {"a.salesforce.com": former.url, "b.salesforce.com": newer.url}
    async with HttpClient(connections=4) as client:
        kind = HttpKind(Outbound(client, resolve, allow=("*.salesforce.com",), egress_map=locations))
        caller = Caller(
            {"http": kind}, TRAITS, Sealer([SecretStr("x" * 40)]), b"k" * 32, logs.configure("t", "critical")
        )
        yield Saga(KEY, caller, plans(PLAN))


async def _goes_on(saga: Saga, *systems: System) -> None:
    for system in systems:
        system.says.clear()
        system.deaf.clear()
    saga.until_us = saga.now_us + 1_000 * 10**6
    await saga.go_on()


@pytest.mark.parametrize("proof", PROOFS, ids=str)
async def test_a_move_answered_without_proof_is_read_back_and_leaves_no_resource_behind(
    saga: Saga, former: System, newer: System, proof: str
) -> None:
    await saga.installed(A)
    newer.says["PUT"] = PROOFS[proof]
    await saga.installed(B)
    assert saga.said == ("up", "done", None)
    assert (len(former.there), len(newer.there)) == (0, 1)
    assert newer.calls == ["PUT", "GET"], "the look is part of the move"


@pytest.mark.parametrize("status", [202, 204])
async def test_an_unproved_move_settles_only_after_the_removal_at_the_former_location(
    saga: Saga, former: System, newer: System, status: int
) -> None:
    await saga.installed(A)
    newer.says = {"PUT": lambda _: (status, {}, b""), "GET": lambda _: (503, {}, b"")}
    newer.deaf = {"PUT"}
    await saga.installed(B, lambda answer: isinstance(answer, Unknown))
    newer.says = {"PUT": newer.says["PUT"]}
    newer.deaf.clear()
    await saga.go_on()
    assert saga.said == ("up", "done", None)
    assert (len(former.there), len(newer.there)) == (0, 1)


async def test_a_contradicted_move_keeps_the_former_location_until_it_succeeds(
    saga: Saga, former: System, newer: System
) -> None:
    await saga.installed(A)
    newer.says = {"PUT": lambda _: (204, {}, b""), "GET": lambda row: shows((row or {}) | {"enabled": False})}
    saga.until_us = saga.now_us + 1_000 * 10**6
    await saga.installed(B)
    assert saga.said[1:] == ("working", "waiting_for:crm")
    assert saga.journal.life is not None
    assert saga.journal.life.steps["crm"].reason == "enabled is not as it was asked"
    assert (len(former.there), len(newer.there)) == (1, 1)
    await _goes_on(saga, newer)
    assert saga.said[1:] == ("done", None)
    assert (len(former.there), len(newer.there)) == (0, 1)


@pytest.mark.parametrize("target", [B, None])
async def test_a_removal_accepted_with_202_is_complete_when_the_resource_is_gone(
    saga: Saga, former: System, newer: System, target: str | None
) -> None:
    await saga.installed(A)
    former.says["DELETE"], former.deaf = lambda _: (202, {}, b""), {"DELETE"}
    saga.until_us = saga.now_us + 1_000 * 10**6
    await saga.installed(target)
    assert saga.said[1:] == ("working", "waiting_for:crm")
    await _goes_on(saga, former)
    assert saga.said[1:] == ("done", None)
    assert (len(former.there), len(newer.there)) == (0, 1 if target else 0)


async def _lost_at_a(saga: Saga, former: System) -> None:
    """The tenant is at B; a move to A is sent, nobody knows with what effect, and a stranger has the name there."""
    await saga.installed(B)
    former.says["PUT"], former.deaf = lambda _: (200, HTML, PAGE), {"PUT"}
    await saga.installed(A, lambda answer: isinstance(answer, Unknown))
    former.there[NAME] = dict(STRANGERS)
    saga.until_us = saga.now_us + 1_000 * 10**6


async def test_a_strangers_resource_at_a_former_location_is_kept_and_the_tenant_waits(
    saga: Saga, former: System, newer: System
) -> None:
    await _lost_at_a(saga, former)
    await saga.installed(B)
    assert saga.said[1:] == ("working", "waiting_for:crm")
    assert saga.journal.life is not None
    assert saga.journal.life.steps["crm"].reason == "left at a former place: key is not ours"
    assert former.there == {NAME: STRANGERS}
    former.there.clear()
    await _goes_on(saga, former)
    assert saga.said[1:] == ("done", None)
    assert (len(former.there), len(newer.there)) == (0, 1)


async def test_a_strangers_resource_at_an_unproved_location_survives_the_teardown(
    saga: Saga, former: System, newer: System
) -> None:
    await _lost_at_a(saga, former)
    await saga.uninstalled()
    assert former.there == {NAME: STRANGERS}
    assert "DELETE" not in former.calls
    assert newer.there == {}
    assert saga.said[1:] == ("failed", "crm_contradicted")
    former.there.clear()
    await _goes_on(saga, former)
    assert [saga.said[1], former.there, newer.there] == ["done", {}, {}]


@pytest.mark.parametrize("verb", [Verb.READ, Verb.DELETE])
async def test_of_several_locations_the_least_certain_answer_decides(former: System, newer: System, verb: Verb) -> None:
    """A refusal may settle a step whose resource was never made, and another location may have it all the same."""
    former.says = dict.fromkeys(("GET", "DELETE"), lambda _: (403, {}, b""))
    newer.says = dict.fromkeys(("GET", "DELETE"), lambda _: (503, {}, b""))
    locations = {"a.salesforce.com": former.url, "b.salesforce.com": newer.url}
    async with HttpClient(connections=1) as client:
        kind = HttpKind(Outbound(client, resolve, allow=("*.salesforce.com",), egress_map=locations))
        assert await kind.call(a_call(verb, key=KEY, settings={}, locations=(A, B))) == Retryable("HTTP 503")


@pytest.mark.parametrize("status", [400, 404, 410])
@pytest.mark.parametrize("is_revoked", [True, False])
async def test_a_token_counts_as_revoked_if_its_grant_is_gone_and_not_on_any_404(
    former: System, status: int, *, is_revoked: bool
) -> None:
    """By RFC 7009 section 2.2 a token that nobody knows is answered 200; some servers and all proxies do otherwise."""
    grant = f"/grants{NAME}"
    former.there[grant] = {"access_token": "t"}

    def revoke(_: object) -> Written:
        if is_revoked:
            former.there.clear()
        return shows({"error": "not_found"}, status)

    former.says["POST"] = revoke
    async with HttpClient(connections=1) as client:
        kind = OAuthKind(Outbound(client, resolve, allow=(), egress_map={}))
        given = {"url": former.url, "url_from": "operator", "client_id": "c", "client_secret": "s"}
        answer = await kind.call(a_call(Verb.DELETE, key=KEY, settings=given))
    if is_revoked:
        assert answer == Absent()
    else:
        assert isinstance(answer, Refused if status == 400 else Retryable)


async def test_a_404_followed_by_an_unreadable_grant_is_unknown(former: System) -> None:
    former.there[f"/grants{NAME}"] = {"access_token": "t"}

    def revoke(_: object) -> Written:
        former.says["GET"] = lambda _: (503, {}, b"")
        return shows({"detail": "Not Found"}, 404)

    former.says["POST"] = revoke
    async with HttpClient(connections=1) as client:
        kind = OAuthKind(Outbound(client, resolve, allow=(), egress_map={}))
        given = {"url": former.url, "url_from": "operator", "client_id": "c", "client_secret": "s"}
        assert await kind.call(a_call(Verb.DELETE, key=KEY, settings=given)) == Retryable("HTTP 503")
