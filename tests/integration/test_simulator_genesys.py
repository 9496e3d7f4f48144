"""The simulated Genesys: its API as documented, its lies on request, and its webhooks as in the guide."""

import asyncio
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from schemas import genesys, webhook
from schemas.genesys import Organisation
from schemas.genesys_audits import GenesysAudit
from schemas.webhook_definition import WebhookDefinition
from services.adapters.genesys import webhooks
from services.adapters.genesys.answers import NoInformation, NotPermitted
from services.adapters.genesys.audit_queries import read_audits
from services.adapters.genesys.client import GenesysClient, Hosts, connections
from services.adapters.process.clock import now_us
from services.core.delivery.signature import Secrets, parse_claim, verify
from tests.support.eventually import eventually
from tests.support.simulator_process import Outside, outside

SECRET = "a-secret-of-more-than-thirty-two-bytes"
IDS = [f"a1b2c3d4-e5f6-7890-abcd-{number:012d}" for number in range(30)]


@dataclass
class Receiver:
    """Takes webhooks; answers an organisation as told, then 200."""

    answers: dict[str, list[int]] = field(default_factory=dict)
    all: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def took(self, org: str) -> list[tuple[dict[str, str], bytes]]:
        return [(headers, body) for headers, body in self.all if json.loads(body)["orgId"] == org]

    def bodies(self, org: str) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.took(org)]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.all.append(({name.lower(): text for name, text in self.headers.items()}, body))
            wanted = found.answers.get(json.loads(body)["orgId"])
            self.send_response(wanted.pop(0) if wanted else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/v1/genesys/lifecycle"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Outside]:
    """One Genesys; the tests have organisations apart."""
    folder = tmp_path_factory.mktemp("outside")
    keyring = folder / "keyring.json"
    keyring.write_text(json.dumps({"endpoints": {"default": {"current": {"secret": SECRET}}}}))
    with outside(folder, simulator_webhook_url=receiver.url, keyring_file=str(keyring)) as running:
        yield running


@pytest.fixture(autouse=True)
def healed(world: Outside) -> Iterator[None]:
    yield
    world.heal()


@pytest.fixture
def org() -> str:
    """An organisation no other test knows."""
    return f"98765432-1234-5678-9abc-{secrets.token_hex(6)}"


def control(world: Outside, org: str, integration: str, **body: Any) -> dict[str, Any]:
    """Tell Genesys of an integration."""
    url = f"{world.url}/genesys/control/orgs/{org}/integrations/{integration}"
    answer: dict[str, Any] = httpx2.put(url, json=body).raise_for_status().json()
    return answer


def remove(world: Outside, org: str, integration: str, webhook: str = "false") -> int:
    url = f"{world.url}/genesys/control/orgs/{org}/integrations/{integration}"
    return httpx2.delete(url, params={"webhook": webhook}).status_code


def organisation(world: Outside, org: str) -> Organisation:
    return Organisation.model_validate_json((world.orgs / f"{org}.json").read_bytes())


@asynccontextmanager
async def client(world: Outside, org: str) -> AsyncIterator[GenesysClient]:
    """The reconciler's own client: the two must understand each other."""
    hosts = Hosts(f"{world.url}/genesys/login", f"{world.url}/genesys")
    async with connections(timeout_s=5) as http:
        yield GenesysClient(organisation(world, org), hosts, http, now_us=now_us)


async def audits(asked: GenesysClient, days: int = 1) -> Sequence[GenesysAudit]:
    begin_us = now_us() - days * 86_400_000_000
    return (await read_audits(asked.session, begin_us, now_us(), now_us)).audits


def token(world: Outside, org: str) -> str:
    of = organisation(world, org)
    answer = httpx2.post(
        f"{world.url}/genesys/login/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(of.client_id, of.client_secret.get_secret_value()),
    )
    text: str = answer.raise_for_status().json()["access_token"]
    return text


def get(world: Outside, path: str, bearer: str, **query: int) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {bearer}"}
    return httpx2.get(f"{world.url}/genesys/api/v2/{path}", headers=headers, params=query)


async def test_the_genesys_client_reads_the_integrations_set_by_the_control_api(world: Outside, org: str) -> None:
    for identity in IDS:
        control(
            world,
            org,
            identity,
            tenantId="acme",
            enabled=identity != IDS[3],
            configuration={"crmEndpoint": "https://x"},
        )
    async with client(world, org) as asked:
        reading = await asked.listing()
        ours = {i: e for i, e in reading.integrations.items() if e.type_id == organisation(world, org).integration_type}
        assert set(ours) == set(IDS)
        assert {i for i, e in ours.items() if e.intended_state == "DISABLED"} == {IDS[3]}
        assert await asked.configuration(IDS[0]) == {"crmEndpoint": "https://x", "tenantId": "acme"}
        assert remove(world, org, IDS[0]) == 200
        assert await asked.integration(IDS[0]) is None


def test_the_event_of_a_change_depends_on_the_former_state(world: Outside, org: str) -> None:
    assert control(world, org, IDS[0], tenantId="acme")["events"] == ["installed"]
    assert control(world, org, IDS[0])["events"] == []
    assert control(world, org, IDS[0], enabled=False)["events"] == ["disabled"]
    assert control(world, org, IDS[0], enabled=True, configuration={"a": 1})["events"] == [
        "configuration_updated",
        "enabled",
    ]
    assert control(world, org, IDS[0], configuration={"a": 1})["events"] == []
    assert remove(world, org, IDS[0]) == 200
    assert remove(world, org, IDS[0]) == 404
    assert control(world, org, IDS[0])["events"] == ["installed"]


def test_pages_are_as_the_api_documents_them(world: Outside, org: str) -> None:
    for identity in IDS:
        control(world, org, identity)
    bearer, seen = token(world, org), []
    for number in range(1, 5):
        body = get(world, "integrations", bearer, pageSize=10, pageNumber=number).json()
        assert (body["pageSize"], body["pageNumber"], body["total"], body["pageCount"]) == (10, number, 31, 4)
        assert ("nextUri" in body) == (number < 4)
        seen += [genesys.integration(entity).id for entity in body["entities"]]
    assert len(set(seen)) == 31
    assert get(world, "integrations", bearer, pageSize=10, pageNumber=5).json()["entities"] == []
    assert get(world, "integrations", bearer).json()["pageSize"] == 25


def test_no_answer_is_dated_before_its_request(world: Outside) -> None:
    """An answer in this second has this second's date: a re-check ends by it."""
    with httpx2.Client(trust_env=False) as client:
        end = time.monotonic() + 1.5  # over the turn of a second
        while time.monotonic() < end:
            asked_s = now_us() // 1_000_000
            date = client.get(f"{world.url}/livez").headers["date"]
            assert parsedate_to_datetime(date).timestamp() >= asked_s


def test_organisations_do_not_see_each_others_integrations(world: Outside, org: str) -> None:
    other = "11111111-2222-3333-4444-555555555555"
    control(world, org, IDS[0])
    httpx2.put(f"{world.url}/genesys/control/orgs/{other}/integrations/{IDS[1]}", json={}).raise_for_status()
    bearer = token(world, org)
    assert get(world, "organizations/me", bearer).json()["id"] == org
    assert get(world, f"integrations/{IDS[0]}", bearer).status_code == 200
    assert get(world, f"integrations/{IDS[1]}", bearer).status_code == 404
    assert {org, other} <= set(httpx2.get(f"{world.url}/genesys/control/orgs").json())


def test_credentials_are_private_survive_a_restart_and_are_required(world: Outside, org: str) -> None:
    control(world, org, IDS[0])
    path = world.orgs / f"{org}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    path.unlink()
    world.kill()
    world.start()
    assert path.read_text() == before
    assert get(world, "organizations/me", "nobody's").status_code == 401
    wrong = httpx2.post(
        f"{world.url}/genesys/login/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(organisation(world, org).client_id, "wrong"),
    )
    assert wrong.status_code == 401


@pytest.mark.parametrize("fault", ["refuse", "error", "unauthorized", "rate_limited", "down", "empty", "missing_page"])
async def test_a_lying_or_failing_genesys_is_no_information(world: Outside, org: str, fault: str) -> None:
    control(world, org, IDS[0])
    async with client(world, org) as asked:
        await asked.listing()
        world.fault("genesys", fault, key=f"{org}:{IDS[0]}")
        with pytest.raises(NoInformation):
            await asked.listing()
        world.heal()
        assert IDS[0] in (await asked.listing()).integrations


async def test_a_stale_genesys_shows_the_state_before(world: Outside, org: str) -> None:
    control(world, org, IDS[0], enabled=True)
    control(world, org, IDS[0], enabled=False)
    world.fault("genesys", "stale")
    async with client(world, org) as asked:
        assert (await asked.listing()).integrations[IDS[0]].intended_state == "ENABLED"
        world.heal()
        assert (await asked.listing()).integrations[IDS[0]].intended_state == "DISABLED"


async def test_a_stale_genesys_hides_a_new_integration_and_shows_a_removed_one(world: Outside, org: str) -> None:
    control(world, org, IDS[0])
    control(world, org, IDS[1])
    assert remove(world, org, IDS[1]) == 200
    world.fault("genesys", "stale")
    async with client(world, org) as asked:
        assert await asked.integration(IDS[0]) is None
        assert await asked.integration(IDS[1]) is not None
        assert [audit.action for audit in await audits(asked)] == ["Create"]
        world.heal()
        assert await asked.integration(IDS[0]) is not None
        assert await asked.integration(IDS[1]) is None


@pytest.mark.parametrize(
    "fault", ["shifted_page", "wrong_total", "blank", pytest.param("silent", marks=pytest.mark.long), "clock_skew"]
)
async def test_a_hostile_listing_is_no_information(world: Outside, org: str, fault: str) -> None:
    for identity in IDS[:3]:
        control(world, org, identity)
    async with client(world, org) as asked:
        world.fault("genesys", fault, key=org)
        if fault == "shifted_page":
            # A page of the client has room for all, so the shift shows in the page after the last alone.
            assert len((await asked.listing()).integrations) == 4
            bearer = token(world, org)
            pages = [get(world, "integrations", bearer, pageSize=2, pageNumber=number).json() for number in (1, 2)]
            assert [(page["total"], len(page["entities"])) for page in pages] == [(4, 2), (3, 1)]
            return
        with pytest.raises(NoInformation):
            await asked.listing()


async def test_words_of_a_later_release_harm_nobody(world: Outside, org: str) -> None:
    control(world, org, IDS[0])
    world.fault("genesys", "unknown_values")
    async with client(world, org) as asked:
        assert (await asked.listing()).integrations[IDS[0]].intended_state == "HIBERNATED"
        assert [(audit.action, audit.entity_id) for audit in await audits(asked)] == [("Hibernate", IDS[0])]


async def test_a_flap_is_an_absence_for_a_moment(world: Outside, org: str) -> None:
    control(world, org, IDS[0])
    world.fault("genesys", "flapping", times=1)
    async with client(world, org) as asked:
        assert await asked.integration(IDS[0]) is None
        assert await asked.integration(IDS[0]) is not None


async def test_every_change_leaves_an_audit_of_its_own(world: Outside, org: str) -> None:
    control(world, org, IDS[0], enabled=False)
    control(world, org, IDS[0], enabled=True, configuration={"a": 1})
    control(world, org, IDS[0], configuration={"a": 1})
    assert remove(world, org, IDS[0]) == 200
    url = f"{world.url}/genesys/control/orgs/{org}/integrations/{IDS[0]}/restore"
    assert httpx2.post(url).raise_for_status().json()["events"] == ["installed"]
    assert httpx2.post(url).status_code == 404
    expected = ["Create", "Disable", "Update", "Enable", "Update", "Delete", "Restore"]
    async with client(world, org) as asked:
        found = await audits(asked)
        assert [audit.action for audit in found] == expected
        assert {audit.entity_id for audit in found} == {IDS[0]}
        assert [audit.action for audit in await audits(asked, days=20)] == expected, "by a transaction"
        assert (await asked.listing()).integrations[IDS[0]].intended_state == "RESTORED"
    world.kill()
    world.start()
    async with client(world, org) as asked:
        assert [audit.action for audit in await audits(asked)] == expected, "a restart forgets none"
        control(world, org, IDS[0], enabled=False)
        assert (await asked.listing()).integrations[IDS[0]].intended_state == "DISABLED"


async def test_audits_are_paged_and_of_one_organisation(world: Outside, org: str) -> None:
    control(world, org, IDS[0])
    for number in range(110):
        control(world, org, IDS[0], configuration={"n": number})
    async with client(world, org) as asked:
        assert len(await audits(asked)) == 111
        assert len(await audits(asked, days=20)) == 111
        world.fault("genesys", "shifted_page", path="/audits")
        with pytest.raises(NoInformation, match="they changed while they were read"):
            await audits(asked)
        world.heal()
        world.fault("genesys", "refuse", path="/audits")
        with pytest.raises(NotPermitted):
            await audits(asked)
        assert IDS[0] in (await asked.listing()).integrations


async def test_a_hundred_parallel_calls_are_counted_within_the_budget(tmp_path: Path, org: str) -> None:
    with outside(tmp_path, simulator_rate_per_minute="120") as world:
        control(world, org, IDS[0])
        async with client(world, org) as asked:
            await asyncio.gather(*(asked.integration(IDS[0]) for _ in range(100)))
        counts = httpx2.get(f"{world.url}/genesys/control/budgets").json()[org]
        assert counts == {"requests": 100, "requests_refused": 0, "mints": 1, "mints_refused": 0}
        figures = get(world, "organizations/me", token(world, org)).headers
        assert [figures[f"inin-ratelimit-{name}"] for name in ("count", "allowed")] == ["1", "120"]
        assert 58 <= int(figures["inin-ratelimit-reset"]) <= 60


async def test_over_minting_passes(world: Outside, org: str) -> None:
    control(world, org, IDS[0])
    world.fault("genesys", "over_minted", times=1)
    async with client(world, org) as asked:
        assert IDS[0] in (await asked.listing()).integrations


@pytest.mark.long
def test_equal_seeds_meet_equal_faults(tmp_path: Path, org: str) -> None:
    drawn = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        with outside(folder, simulator_seed="7") as world:
            control(world, org, IDS[0])
            bearer = token(world, org)
            world.fault("genesys", "error", share=0.5)
            drawn.append([get(world, "organizations/me", bearer).status_code for _ in range(30)])
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {200, 503}


def test_a_fault_of_genesys_alone_is_refused_for_another_system(world: Outside) -> None:
    for body in ({"system": "crm", "fault": "empty"}, {"system": "crm", "fault": "down", "path": "/x"}):
        assert httpx2.post(f"{world.url}/faults", json=body).status_code == 400


def test_errors_are_shaped_as_the_platform_shapes_them(world: Outside, org: str) -> None:
    control(world, org, IDS[0])
    bearer = token(world, org)
    world.fault("genesys", "rate_limited", times=1)
    limited = get(world, "organizations/me", bearer)
    assert limited.status_code == 429
    assert limited.headers["retry-after"].isdigit()
    assert limited.json()["code"] == "too.many.requests.retry.after"
    missing = get(world, f"integrations/{IDS[1]}", bearer)
    assert {"message", "code", "status", "contextId", "details", "errors"} <= missing.json().keys()


@pytest.mark.long
def test_tokens_and_their_issue_are_rate_limited(tmp_path: Path, org: str) -> None:
    with outside(tmp_path, simulator_rate_per_minute="5") as world:
        control(world, org, IDS[0])
        bearer = token(world, org)
        statuses = [get(world, "organizations/me", bearer).status_code for _ in range(6)]
        assert statuses == [200] * 5 + [429]
        of = organisation(world, org)
        url, auth = f"{world.url}/genesys/login/oauth/token", (of.client_id, of.client_secret.get_secret_value())
        answers = [httpx2.post(url, data={"grant_type": "client_credentials"}, auth=auth) for _ in range(61)]
        assert answers[-1].status_code == 400
        assert "rate limit exceeded" in answers[-1].json()["description"]


@pytest.mark.parametrize("body", [{"enabled": "yes"}, {"tenantId": "../x"}, {"typo": 1}, [], {"configuration": []}])
def test_an_invalid_change_is_refused(world: Outside, org: str, body: Any) -> None:
    url = f"{world.url}/genesys/control/orgs/{org}/integrations/{IDS[0]}"
    assert httpx2.put(url, json=body).status_code == 400
    assert httpx2.put(url.replace(org, "not-an-org"), json={}).status_code == 400


def test_a_webhook_is_signed_over_its_bytes_and_parsed_by_the_ingress(
    world: Outside, receiver: Receiver, org: str
) -> None:
    control(world, org, IDS[0], tenantId="acme", configuration={"a": 1}, webhook=True, metadata={"eventId": "e1"})
    headers, body = eventually(lambda: receiver.took(org)[0] if receiver.took(org) else None) or ({}, b"")
    claim = parse_claim(headers["x-genesys-signature"].encode())
    assert claim is not None
    assert verify(Secrets(SECRET.encode()), claim, body, 0)
    delivery = webhook.parse(body)
    assert (delivery.event, delivery.tenant_id, delivery.configuration) == ("installed", "acme", {"a": 1})
    assert (delivery.event_id, delivery.marked) == ("e1", False)


def test_a_failed_webhook_is_retried_with_marks_and_the_same_time(world: Outside, receiver: Receiver, org: str) -> None:
    receiver.answers[org] = [502, 500]
    control(world, org, IDS[0], tenantId="acme", webhook=True)
    eventually(lambda: len(receiver.took(org)) == 3)
    assert [body["metadata"].get("retryCount") for body in receiver.bodies(org)] == [None, 1, 2]
    assert len({body["eventTimestamp"] for body in receiver.bodies(org)}) == 1
    assert webhook.parse(receiver.took(org)[1][1]).marked


def test_a_restamping_sender_gives_every_attempt_its_own_time(world: Outside, receiver: Receiver, org: str) -> None:
    receiver.answers[org] = [502]
    control(world, org, IDS[0], tenantId="acme", webhook=True, restamp=True)
    eventually(lambda: len(receiver.took(org)) == 2)
    assert len({body["eventTimestamp"] for body in receiver.bodies(org)}) == 2


def test_every_change_and_removal_can_send_a_webhook(world: Outside, receiver: Receiver, org: str) -> None:
    control(world, org, IDS[0], tenantId="acme", enabled=False, webhook=True)
    eventually(lambda: len(receiver.took(org)) == 2)
    control(world, org, IDS[0], configuration={"a": 2})
    assert remove(world, org, IDS[0], webhook="true") == 200
    eventually(lambda: len(receiver.took(org)) == 3)
    assert [body["event"] for body in receiver.bodies(org)] == ["installed", "disabled", "uninstalled"]
    assert receiver.bodies(org)[-1]["configuration"] == {"a": 2}


def test_a_webhook_requested_without_a_url_is_answered_409(tmp_path: Path, org: str) -> None:
    with outside(tmp_path) as mute:
        url = f"{mute.url}/genesys/control/orgs/{org}/integrations/{IDS[0]}"
        assert httpx2.put(url, json={"webhook": True}).status_code == 409


def registered(receiver: Receiver, **changes: Any) -> WebhookDefinition:
    return WebhookDefinition(receiver.url, secret=SecretStr("another-secret-of-more-than-32-bytes"), **changes)


async def test_a_registered_webhook_governs_url_secret_events_and_retries(
    world: Outside, receiver: Receiver, org: str
) -> None:
    control(world, org, IDS[0], tenantId="acme")
    wanted = registered(
        receiver,
        events=frozenset({"enabled", "disabled"}),
        max_retries=2,
        initial_delay_ms=20,
    )
    async with client(world, org) as asked:
        assert await webhooks.held(asked, IDS[0]) is None
        assert await webhooks.register(asked, IDS[0], wanted) == wanted
        assert await webhooks.held(asked, IDS[0]) == wanted
        with pytest.raises(webhooks.NoSuchIntegration):
            await webhooks.held(asked, IDS[1])
        with pytest.raises(NoInformation, match="HTTP 404"):
            await webhooks.register(asked, IDS[1], wanted)
        with pytest.raises(NoInformation, match="HTTP 400"):
            await webhooks.register(asked, IDS[0], registered(receiver, events=frozenset({"upgraded"})))
    receiver.answers[org] = [503, 503, 503]
    control(world, org, IDS[0], enabled=False, configuration={"a": 1}, webhook=True)
    eventually(lambda: len(receiver.took(org)) == 3)
    assert {body["event"] for body in receiver.bodies(org)} == {"disabled"}, "the other event is not subscribed to"
    for headers, body in receiver.took(org):
        claim = parse_claim(headers["x-genesys-signature"].encode())
        assert claim is not None
        assert verify(Secrets(b"another-secret-of-more-than-32-bytes"), claim, body, now_us())
    control(world, org, IDS[0], enabled=True, webhook=True)
    eventually(lambda: receiver.bodies(org)[-1]["event"] == "enabled")
    assert len(receiver.took(org)) == 4, "two retries, and no more"


async def test_a_registration_without_an_answer_has_taken_effect_and_is_repeated(
    world: Outside, receiver: Receiver, org: str
) -> None:
    control(world, org, IDS[0], tenantId="acme")
    world.fault("genesys", "lost_answer", verb="update", times=1)
    async with client(world, org) as asked:
        assert await webhooks.register(asked, IDS[0], registered(receiver)) == registered(receiver)
        world.fault("genesys", "lost_answer", verb="update")
        with pytest.raises(NoInformation, match="no answer"):
            await webhooks.register(asked, IDS[0], registered(receiver, timeout_ms=500))
        world.heal()
        assert await webhooks.held(asked, IDS[0]) == registered(receiver, timeout_ms=500)


async def test_registered_webhooks_survive_a_restart(tmp_path: Path, receiver: Receiver, org: str) -> None:
    with outside(tmp_path) as running:
        control(running, org, IDS[0])
        async with client(running, org) as asked:
            await webhooks.register(asked, IDS[0], registered(receiver))
        running.kill()
        running.start()
        async with client(running, org) as asked:
            assert await webhooks.held(asked, IDS[0]) == registered(receiver)
        control(running, org, IDS[0], enabled=False, webhook=True)
        eventually(lambda: receiver.bodies(org))
