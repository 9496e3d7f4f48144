"""The Genesys client against a real HTTP server: a complete reading, or no information."""

import asyncio
from collections.abc import AsyncIterator
from email.utils import formatdate

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from schemas.genesys import Organisation
from services.adapters.genesys.answers import NoInformation
from services.adapters.genesys.client import GenesysClient, Hosts, connections, hosts_for
from services.adapters.process.clock import now_us
from tests.support.genesys_server import Answer, FakeGenesys, serving

ORG = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"


def identity(number: int) -> str:
    return f"aaaaaaaa-0000-4000-8000-{number:012d}"


def organisation(**changes: object) -> Organisation:
    return Organisation.model_validate({"org_id": ORG, "client_id": "client", "client_secret": "s", **changes})


@pytest.fixture
async def genesys() -> AsyncIterator[FakeGenesys]:
    world = FakeGenesys(ORG)
    for number in range(5):
        world.add(identity(number), plan="gold")
    async with serving(world) as served:
        yield served


@pytest.fixture
async def client(genesys: FakeGenesys) -> AsyncIterator[GenesysClient]:
    async with connections(timeout_s=5.0) as http:
        yield GenesysClient(organisation(), Hosts(f"{genesys.url}/login", genesys.url), http, now_us=now_us)


def at(path: str, respond: Response | Answer) -> Answer:
    """Answer a path this way, everything else truly."""
    return lambda request: (
        None if request.url.path != path else respond if isinstance(respond, Response) else respond(request)
    )


async def test_a_listing_of_several_pages_is_read_whole(genesys: FakeGenesys, client: GenesysClient) -> None:
    genesys.page_size = 2
    reading = await client.listing()
    assert list(reading.integrations) == [identity(number) for number in range(5)]
    assert (reading.org_id, reading.client_id) == (ORG, "client")
    assert abs(reading.read_at_us - now_us()) < 5_000_000
    assert reading.read_at_us % 1_000_000 == 0


async def test_one_integration_and_its_configuration_are_read_by_id(
    genesys: FakeGenesys, client: GenesysClient
) -> None:
    found = await client.integration(identity(1))
    assert found is not None
    assert found.intended_state == "ENABLED"
    assert await client.configuration(identity(1)) == {"plan": "gold"}


async def test_only_a_404_by_id_is_absence(genesys: FakeGenesys, client: GenesysClient) -> None:
    assert await client.integration(identity(99)) is None
    genesys.lie = at(f"/api/v2/integrations/{identity(99)}", JSONResponse({"status": 403}, 403))
    with pytest.raises(NoInformation, match="HTTP 403"):
        await client.integration(identity(99))


def shifted(request: Request) -> Response:
    """The second page begins one too late, as after a removal while paging; the total does not tell."""
    number = int(request.query_params["pageNumber"])
    ids = [identity(n) for n in ((0, 1), (3, 4))[number - 1]]
    return JSONResponse(
        {
            "entities": [{"id": i, "intendedState": "ENABLED"} for i in ids],
            "pageNumber": number,
            "total": 5,
            "nextUri": "more" if number == 1 else None,
        }
    )


LIES: dict[str, tuple[str, Response | Answer, str]] = {
    "no_token": ("/login/oauth/token", JSONResponse({"error": "invalid_client"}, 401), "token: HTTP 401"),
    "over_minted": ("/login/oauth/token", JSONResponse({"error": "invalid_request"}, 400), "token: HTTP 400"),
    "odd_token": ("/login/oauth/token", JSONResponse({"access_token": ""}), "not a token response"),
    "other_org": ("/api/v2/organizations/me", JSONResponse({"id": OTHER}), "another organisation"),
    "no_org": ("/api/v2/organizations/me", JSONResponse([]), "not a JSON object"),
    "unauthorised": ("/api/v2/integrations", JSONResponse({}, 401), "HTTP 401"),
    "forbidden": ("/api/v2/integrations", JSONResponse({}, 403), "HTTP 403"),
    "gone": ("/api/v2/integrations", JSONResponse({}, 404), "HTTP 404"),
    "broken": ("/api/v2/integrations", JSONResponse({}, 500), "HTTP 500"),
    "away": ("/api/v2/integrations", JSONResponse({}, 503), "HTTP 503"),
    "moved": ("/api/v2/integrations", Response(status_code=302, headers={"location": "/"}), "HTTP 302"),
    "not_json": ("/api/v2/integrations", PlainTextResponse("<html>maintenance</html>"), "not JSON"),
    "empty": (
        "/api/v2/integrations",
        JSONResponse({"entities": [], "pageNumber": 1, "total": 0, "nextUri": None}),
        "empty",
    ),
    "fewer_than_told": (
        "/api/v2/integrations",
        JSONResponse(
            {"entities": [{"id": identity(0), "intendedState": "ENABLED"}], "pageNumber": 1, "total": 5, "nextUri": ""}
        ),
        "incomplete: 1 of 5",
    ),
    "no_total": ("/api/v2/integrations", JSONResponse({"entities": [], "pageNumber": 1}), "whole numbers"),
    "shifted_page": ("/api/v2/integrations", shifted, "incomplete: 4 of 5"),
    "same_page_again": (
        "/api/v2/integrations",
        JSONResponse(
            {"entities": [{"id": identity(0), "intendedState": "ENABLED"}], "pageNumber": 1, "total": 2, "nextUri": "m"}
        ),
        "another page",
    ),
    "wait_too_long": (
        "/api/v2/integrations",
        JSONResponse({"code": "too.many.requests.retry.after"}, 429, headers={"retry-after": "3600"}),
        "HTTP 429",
    ),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_an_incomplete_listing_is_no_information(
    genesys: FakeGenesys, client: GenesysClient, lie: tuple[str, Response | Answer, str]
) -> None:
    genesys.lie = at(lie[0], lie[1])
    with pytest.raises(NoInformation, match=lie[2]):
        await client.listing()


@pytest.mark.parametrize(("repeats", "fault"), [(False, "incomplete: 3 of 2"), (True, "does not end")])
async def test_a_next_page_without_end_costs_a_page_too_much_at_most(
    genesys: FakeGenesys, client: GenesysClient, *, repeats: bool, fault: str
) -> None:
    asked: list[int] = []

    def endless(request: Request) -> Response:
        asked.append(number := int(request.query_params["pageNumber"]))
        entity = {"id": identity(1 if repeats else number), "intendedState": "ENABLED"}
        return JSONResponse({"entities": [entity], "pageNumber": number, "total": 2, "nextUri": "more"})

    genesys.lie = at("/api/v2/integrations", endless)
    with pytest.raises(NoInformation, match=fault):
        await client.listing()
    assert asked == ([1, 2] if repeats else [1, 2, 3])


async def test_an_unreachable_server_is_no_information() -> None:
    async with connections(timeout_s=1.0) as http:
        gone = GenesysClient(organisation(), Hosts("http://127.0.0.1:9", "http://127.0.0.1:9"), http, now_us=now_us)
        with pytest.raises(NoInformation, match="no answer"):
            await gone.listing()


async def test_an_answer_from_a_deviating_clock_is_no_information() -> None:
    world = FakeGenesys(ORG, date=lambda: formatdate(now_us() / 1_000_000 + 86_400, usegmt=True))
    world.add(identity(0))
    async with serving(world) as served, connections() as http:
        client = GenesysClient(organisation(), Hosts(f"{served.url}/login", served.url), http, now_us=now_us)
        with pytest.raises(NoInformation, match="from our clock"):
            await client.listing()


async def test_a_rate_limit_is_waited_for_as_long_as_retry_after_says(
    genesys: FakeGenesys, client: GenesysClient
) -> None:
    refused: list[str] = []

    def limited(request: Request) -> Response | None:
        if request.url.path != "/api/v2/integrations" or refused:
            return None
        refused.append(request.url.path)
        return JSONResponse({"code": "too.many.requests.retry.after"}, 429, headers={"retry-after": "1"})

    genesys.lie = limited
    began = asyncio.get_running_loop().time()
    assert len((await client.listing()).integrations) == 5
    assert asyncio.get_running_loop().time() - began >= 1.0


async def test_many_requests_share_one_token(genesys: FakeGenesys, client: GenesysClient) -> None:
    await asyncio.gather(*(client.integration(identity(n % 5)) for n in range(20)))
    assert genesys.minted == 1


async def test_a_revoked_token_is_replaced_once(genesys: FakeGenesys, client: GenesysClient) -> None:
    await client.listing()
    genesys.minted = 7  # the server knows only the newest token
    assert len((await client.listing()).integrations) == 5
    assert genesys.minted == 8


@pytest.mark.parametrize("region", ["eu-west-1", "mypurecloud.ie"])
def test_a_region_is_accepted_by_aws_name_or_domain(region: str) -> None:
    assert hosts_for(organisation(region=region), None, None) == Hosts(
        "https://login.mypurecloud.ie", "https://api.mypurecloud.ie"
    )


def test_hosts_of_the_environment_override_the_region() -> None:
    assert hosts_for(organisation(region="eu-west-1"), "http://a", "http://b") == Hosts("http://a", "http://b")


@pytest.mark.parametrize("region", [None, "mars-1", "evil.example"])
def test_an_unknown_region_is_no_information(region: str | None) -> None:
    with pytest.raises(NoInformation, match="region"):
        hosts_for(organisation(region=region), None, None)
