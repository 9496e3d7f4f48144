"""The CRM step: credentials are proved first, an endpoint moves or is removed; pause by `enabled` for other kinds."""

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from services.adapters.http_client import HttpClient, resolve
from services.cli.local.wiring import Addresses, Folders, LocalPorts, shared
from services.core.saga.calls import Absent, Done, OperatorRefused, Refused, Unknown, Verb, resource_name
from services.provisioner.kinds.http import HttpKind
from services.provisioner.kinds.oauth import OAuthKind
from services.provisioner.kinds.outbound import Outbound
from services.provisioner.kinds.subscription import SubscriptionKind
from tests.support.simulator_process import ORG, Outside, a_call, outside

ACME = "https://acme.salesforce.com"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside(tmp_path_factory.mktemp("outside")) as running:
        yield running


@pytest.fixture
async def outbound(world: Outside) -> AsyncIterator[Outbound]:
    async with HttpClient(connections=10) as client:
        locations = {"acme.salesforce.com": f"{world.url}/crm", "other.salesforce.com": f"{world.url}/middleware"}
        yield Outbound(client, resolve, allow=("*.salesforce.com",), egress_map=locations)


@pytest.fixture
def key() -> str:
    return f"{ORG}:a1b2c3d4-e5f6-7890-abcd-{secrets.token_hex(6)}"


def settings(url: str | None = ACME, **credentials: str) -> dict[str, Any]:
    """As the shipped plan substitutes them: what is missing is left out."""
    path = {"path": "/services/oauth2/token"}
    return {"path": "/connections", "credentials": path | credentials} | ({} if url is None else {"url": url})


async def test_an_invalid_client_secret_is_refused_before_the_connection_is_made(
    outbound: Outbound, world: Outside, key: str
) -> None:
    wrong = settings(client_id="c", client_secret="invalid-secret")
    answer = await HttpKind(outbound).call(a_call(Verb.CREATE, key=key, settings=wrong))
    assert answer == Refused("credentials: HTTP 401 invalid_client")
    assert world.calls(key) == []


async def test_a_valid_client_secret_opens_a_session(outbound: Outbound, world: Outside, key: str) -> None:
    right = settings(client_id="c", client_secret="right")
    assert isinstance(await HttpKind(outbound).call(a_call(Verb.CREATE, key=key, settings=right)), Done)
    assert len(world.inventory("crm", key)) == 1


async def test_a_client_id_or_secret_alone_is_refused(outbound: Outbound, key: str) -> None:
    half = settings(client_id="c")
    answer = await HttpKind(outbound).call(a_call(Verb.CREATE, key=key, settings=half))
    assert answer == Refused("credentials: client_id and client_secret go together", heard=False)


async def test_a_connection_is_deleted_although_its_credentials_are_invalid_now(
    outbound: Outbound, world: Outside, key: str
) -> None:
    made = await HttpKind(outbound).call(
        a_call(Verb.CREATE, key=key, settings=settings(client_id="c", client_secret="ok"))
    )
    assert isinstance(made, Done)
    dead = settings(client_id="c", client_secret="invalid-now")
    gone = await HttpKind(outbound).call(a_call(Verb.DELETE, key=key, n=2, settings=dead, outputs=made.outputs))
    assert gone == Done()
    assert world.inventory("crm", key) == []


async def test_a_tenant_without_an_endpoint_has_no_connection_and_no_call(
    outbound: Outbound, world: Outside, key: str
) -> None:
    assert await HttpKind(outbound).call(a_call(Verb.CREATE, key=key, settings=settings(None))) == Done()
    assert await HttpKind(outbound).call(a_call(Verb.READ, key=key, settings=settings(None))) == Absent()
    assert await HttpKind(outbound).call(a_call(Verb.DELETE, key=key, settings=settings(None))) == Absent()
    assert world.calls(key) == []


async def test_a_moved_endpoint_leaves_no_connection_at_the_former_location(
    outbound: Outbound, world: Outside, key: str
) -> None:
    made = await HttpKind(outbound).call(a_call(Verb.CREATE, key=key, settings=settings()))
    assert isinstance(made, Done)
    elsewhere = settings("https://other.salesforce.com")
    moved = await HttpKind(outbound).call(a_call(Verb.UPDATE, key=key, n=2, settings=elsewhere, outputs=made.outputs))
    assert isinstance(moved, Done)
    assert world.inventory("crm", key) == []
    assert len(world.inventory("middleware", key)) == 1
    gone = await HttpKind(outbound).call(a_call(Verb.DELETE, key=key, n=3, settings=settings(), outputs=moved.outputs))
    assert isinstance(gone, Done)
    assert world.inventory("middleware", key) == []


async def test_under_the_egress_map_of_up_a_moved_connection_exists_at_the_new_host_only(
    world: Outside, key: str
) -> None:
    ports = LocalPorts(world.port, world.database_port, 1, 2, 3, 4)
    environ = shared({}, Folders(world.folder), ports, Addresses("kafka:1", "postgresql://u@h:1/d"), "secret")
    async with HttpClient(connections=10) as client:
        locations = json.loads(environ["EGRESS_MAP"])
        kind = HttpKind(Outbound(client, resolve, allow=("*.salesforce.com",), egress_map=locations))
        given = settings(client_id="c", client_secret="right")
        made = await kind.call(a_call(Verb.CREATE, key=key, settings=given))
        assert isinstance(made, Done)
        elsewhere = given | {"url": "https://acme2.salesforce.com"}
        moved = await kind.call(a_call(Verb.UPDATE, key=key, n=2, settings=elsewhere, outputs=made.outputs))
        assert isinstance(moved, Done)
        assert [row["generation"] for row in world.inventory("crm", key)] == [1]
        assert world.calls(key) == [("create", "done"), ("update", "done"), ("delete", "done")]
        gone = await kind.call(a_call(Verb.DELETE, key=key, n=3, settings=elsewhere, outputs=moved.outputs))
        assert gone == Done()
    assert world.inventory("crm", key) == []


async def test_a_move_that_fails_halfway_is_finished_by_its_repeat(
    outbound: Outbound, world: Outside, key: str
) -> None:
    made = await HttpKind(outbound).call(a_call(Verb.CREATE, key=key, settings=settings()))
    assert isinstance(made, Done)
    world.fault("crm", "error", verb="delete", key=key, times=1)
    move = a_call(Verb.UPDATE, key=key, n=2, settings=settings("https://other.salesforce.com"), outputs=made.outputs)
    assert isinstance(await HttpKind(outbound).call(move), Unknown)
    assert isinstance(await HttpKind(outbound).call(move), Done)
    assert world.inventory("crm", key) == []
    assert len(world.inventory("middleware", key)) == 1


async def test_an_endpoint_removed_from_the_configuration_removes_its_connection(
    outbound: Outbound, world: Outside, key: str
) -> None:
    made = await HttpKind(outbound).call(a_call(Verb.CREATE, key=key, settings=settings()))
    assert isinstance(made, Done)
    left = await HttpKind(outbound).call(
        a_call(Verb.UPDATE, key=key, n=2, settings=settings(None), outputs=made.outputs)
    )
    assert isinstance(left, Done)
    assert world.inventory("crm", key) == []


async def test_a_connection_possibly_made_at_two_locations_is_deleted_at_both(
    outbound: Outbound, world: Outside, key: str
) -> None:
    made = await HttpKind(outbound).call(a_call(Verb.CREATE, key=key, settings=settings()))
    assert isinstance(made, Done)
    elsewhere = settings("https://other.salesforce.com")
    world.fault("middleware", "lost_answer", verb="create", key=key, times=1)
    moving = a_call(Verb.UPDATE, key=key, n=2, settings=elsewhere, outputs=made.outputs)
    assert isinstance(await HttpKind(outbound).call(moving), Unknown)
    gone = await HttpKind(outbound).call(
        a_call(Verb.DELETE, key=key, n=3, settings=elsewhere, locations=(ACME, elsewhere["url"]))
    )
    assert isinstance(gone, Done)
    assert world.inventory("crm", key) == []
    assert world.inventory("middleware", key) == []


async def test_a_disabled_tenant_has_a_paused_subscription(outbound: Outbound, world: Outside, key: str) -> None:
    kind = SubscriptionKind(outbound)
    given = {"url": f"{world.url}/subscriptions", "url_from": "operator", "topics": ["presence"]}
    await kind.call(a_call(Verb.CREATE, key=key, settings=given))
    assert _desired(world, "subscriptions", key)["state"] == "active"
    await kind.call(a_call(Verb.UPDATE, key=key, n=2, settings=given, enabled=False))
    assert _desired(world, "subscriptions", key) | {"topics": ["presence"], "state": "paused", "enabled": False} == (
        _desired(world, "subscriptions", key)
    )
    await kind.call(a_call(Verb.UPDATE, key=key, n=3, settings=given))
    assert _desired(world, "subscriptions", key)["state"] == "active"
    assert len(world.inventory("subscriptions", key)) == 1


async def test_an_update_of_a_token_keeps_it_without_a_call(outbound: Outbound, world: Outside, key: str) -> None:
    kind = OAuthKind(outbound)
    given = {"url": f"{world.url}/oauth", "url_from": "operator", "client_id": "a:b c", "client_secret": "p%/ü"}
    made = await kind.call(a_call(Verb.CREATE, key=key, settings=given))
    assert isinstance(made, Done)
    assert await kind.call(a_call(Verb.UPDATE, key=key, n=2, settings=given, outputs=made.outputs)) == made
    assert world.calls(key) == [("create", "done")]


async def test_a_token_issued_by_a_lost_answer_is_revoked(outbound: Outbound, world: Outside, key: str) -> None:
    kind = OAuthKind(outbound)
    given = {"url": f"{world.url}/oauth", "url_from": "operator", "client_id": "c", "client_secret": "s"}
    made = await kind.call(a_call(Verb.CREATE, key=key, settings=given))
    assert isinstance(made, Done)
    world.fault("tokens", "lost_answer", verb="create", key=key, times=1)
    assert isinstance(await kind.call(a_call(Verb.CREATE, key=key, n=2, settings=given)), Unknown)
    gone = await kind.call(a_call(Verb.DELETE, key=key, n=3, settings=given, outputs=made.outputs))
    assert gone == Done()
    assert world.inventory("tokens", key) == []


async def test_the_oauth_server_refuses_a_wrong_client(outbound: Outbound, world: Outside, key: str) -> None:
    given = {"url": f"{world.url}/oauth", "url_from": "operator", "client_id": "l", "client_secret": "invalid"}
    for verb in (Verb.CREATE, Verb.READ, Verb.DELETE):
        answer = await OAuthKind(outbound).call(a_call(verb, key=key, settings=given))
        assert answer == OperatorRefused(
            "HTTP 401 invalid_client", "give this step credentials that its system accepts"
        )


def _desired(world: Outside, system: str, key: str) -> dict[str, Any]:
    headers = {"Lifecycle-Key": key}
    found: dict[str, Any] = httpx2.get(f"{world.url}/{system}/{resource_name(key, 1)}", headers=headers).json()
    return dict(found["desired"])
