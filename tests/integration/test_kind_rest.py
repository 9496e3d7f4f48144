"""Kind `rest` before an API with ids of its own and no idempotency: each saga through caller and kind, waits jumped."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
from pydantic import SecretStr

from schemas.saga import Phase, StepLog, StepState
from schemas.tenant import Desired
from services.adapters.http_client import HttpClient, resolve
from services.adapters.process import logs
from services.adapters.secrets.sealing import Sealer
from services.core.saga.calls import (
    Absent,
    Answer,
    Call,
    Contradicted,
    Done,
    OperatorRefused,
    Retryable,
    Unknown,
    Verb,
    resource_name,
)
from services.core.saga.intents import decide, retried_journal
from services.core.saga.moves import Run
from services.core.saga.plan_check import check
from services.core.saga.view import _position
from services.provisioner.caller import Caller
from services.provisioner.kinds import TRAITS
from services.provisioner.kinds.outbound import Outbound
from services.provisioner.kinds.rest import RestKind
from services.provisioner.kinds.rest_exchange import RestExchange
from tests.support.saga_driver import Saga, plans
from tests.support.scripted_system import HTML, PAGE
from tests.support.tenants_api import Says, TenantsApi, shows, tenants_api

KEY: Final = "11111111-1111-4111-8111-111111111111:22222222-2222-4222-8222-222222222222"
NAME: Final = resource_name(KEY, 1)
SECRETS: Final = {"api": "hush-hush-hush", "id": "us"}

STEP: Final = """
[[step]]
name = "account"
kind = "rest"
undo = "reverse"
url = "URL/v1"
url_from = "operator"
settles_within = "PT5S"
timeout_s = 5
outputs = { id = "body.id" }
TOP

[step.create]
path = "/tenants"
body = { ref = "{tenant.name}", enabled = "{tenant.enabled}", crm = "{configuration.crmEndpoint?}" }
CREATE

[step.read]
path = "/tenants/{resource.id}"

[step.find]
path = "/tenants"
items = "body.items"
match = { ref = "{tenant.name}" }
page = "page"

[step.update]
path = "/tenants/{resource.id}"
body = { enabled = "{tenant.enabled}", crm = "{configuration.crmEndpoint?}" }

[step.delete]
path = "/tenants/{resource.id}"
"""


@pytest.fixture
def api() -> Iterator[TenantsApi]:
    with tenants_api() as running:
        # Strangers, so that ours is not on the first page.
        running.rows = {f"s{n}": {"id": f"s{n}", "ref": f"stranger-{n}"} for n in range(3)}
        yield running


@pytest.fixture
async def exchange() -> AsyncIterator[RestExchange]:
    async with HttpClient(connections=4) as client:
        yield RestExchange(Outbound(client, resolve, allow=(), egress_map={}), SECRETS)


def _plan(api: TenantsApi, top: str = "", create: str = "", **more: str) -> str:
    text = STEP.replace("TOP", top).replace("CREATE", create).replace("URL", api.url)
    for told, wanted in more.items():
        text = text.replace(told, wanted)
    return text


def _saga(api: TenantsApi, exchange: RestExchange, top: str = "", text: str | None = None) -> Saga:
    text = text or _plan(api, top)
    check(text, kinds=TRAITS, settings={})
    log = logs.configure("test", "critical")
    caller = Caller({"rest": RestKind(exchange)}, TRAITS, Sealer([SecretStr("x" * 40)]), b"k" * 32, log)
    return Saga(KEY, caller, plans(text), until_us=1_000 * 10**6)


def _phase(saga: Saga) -> Phase:
    return saga.journal.phase


def _ours(api: TenantsApi) -> list[dict[str, Any]]:
    return [row for row in api.rows.values() if not row["ref"].startswith("stranger")]


def _log(saga: Saga) -> StepLog:
    assert saga.journal.life is not None
    return saga.journal.life.steps["account"]


async def test_a_life_makes_changes_and_removes_one_resource(api: TenantsApi, exchange: RestExchange) -> None:
    saga = _saga(api, exchange)
    await saga.installed("https://a")
    assert _phase(saga) is Phase.ACTIVE
    assert [row["ref"] for row in _ours(api)] == [NAME]
    assert _log(saga).outputs == {"id": 1, "url": f"{api.url}/v1"}
    await saga.installed("https://b", enabled=False)
    assert [(row["enabled"], row["crm"]) for row in _ours(api)] == [(False, "https://b")]
    await saga.uninstalled()
    assert _phase(saga) is Phase.EMPTY
    assert _ours(api) == []
    assert len(api.rows) == 3
    assert api.made == 1


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_lost_answers_make_no_resource_twice_and_leave_none(
    api: TenantsApi, exchange: RestExchange, times: int
) -> None:
    saga = _saga(api, exchange)
    api.loses["POST"] = times
    await saga.installed("https://a")
    assert (_phase(saga), len(_ours(api)), api.made) == (Phase.ACTIVE, 1, 1)
    api.loses["PATCH"] = times
    await saga.installed("https://b")
    assert [row["crm"] for row in _ours(api)] == ["https://b"]
    api.loses["DELETE"] = times
    await saga.uninstalled()
    assert (_phase(saga), _ours(api)) == (Phase.EMPTY, [])


async def test_a_lost_request_is_repeated_and_looked_at_once_more(api: TenantsApi, exchange: RestExchange) -> None:
    saga = _saga(api, exchange)
    api.deaf, api.loses = {"POST"}, {"POST": 1}
    saga_until: list[Answer] = []

    def until(answer: Answer) -> bool:
        api.deaf = set()
        saga_until.append(answer)
        return False

    await saga.installed("https://a", until)
    assert (_phase(saga), api.made, len(_ours(api))) == (Phase.ACTIVE, 1, 1)
    assert any(isinstance(answer, Unknown) and answer.pending for answer in saga_until), "a second look"


async def test_the_late_effect_of_a_lost_create_is_found_and_one_resource_stays(
    api: TenantsApi, exchange: RestExchange
) -> None:
    """A create that reaches the system when its repeat is done already, as of a worker that was stopped."""
    saga = _saga(api, exchange)
    api.deaf, api.loses = {"POST"}, {"POST": 1}

    def until(answer: Answer) -> bool:
        api.deaf = set()
        if isinstance(answer, Unknown) and answer.pending:
            late = {"ref": NAME, "enabled": True, "crm": "https://a", "id": 0}
            api.rows.setdefault("0", late)
        return False

    await saga.installed("https://a", until)
    assert _phase(saga) is Phase.ACTIVE
    assert [row["id"] for row in _ours(api)] == [0], "the smallest id stays"
    assert _log(saga).outputs["id"] == 0
    await saga.uninstalled()
    assert _ours(api) == []


async def test_a_resource_made_after_the_uninstall_is_removed_by_the_orphan_check(
    api: TenantsApi, exchange: RestExchange
) -> None:
    saga = _saga(api, exchange)
    api.deaf, api.loses = {"POST"}, {"POST": 9}
    await saga.installed("https://a", lambda answer: isinstance(answer, Unknown))
    saga.until_us = saga.now_us + 30 * 10**6
    await saga.uninstalled()
    assert _phase(saga) is Phase.EMPTY
    api.rows["7"] = {"id": 7, "ref": NAME}
    api.rows["8"] = {"id": 8, "ref": NAME}
    saga.until_us = saga.now_us + 1_000 * 10**6
    await saga.go_on()
    assert _ours(api) == []
    assert saga.journal.orphan_checks == ()


async def test_a_worker_whose_lease_ended_sends_no_change(api: TenantsApi, exchange: RestExchange) -> None:
    held = [True]

    def before(method: str, path: str) -> None:
        held[0] = False  # the worker is stopped while `find` is answered

    api.before = before
    kind = RestKind(exchange)
    for verb in (Verb.CREATE, Verb.UPDATE, Verb.DELETE):
        held[0] = True
        answer = await kind.call(_call(api, verb, is_held=lambda: held[0], outputs={"id": 1, "url": f"{api.url}/v1"}))
        assert answer == Retryable("the lease has ended", well=True)
    assert {method for method, _ in api.asks} == {"GET"}


def _call(api: TenantsApi, verb: Verb, top: str = "", **more: Any) -> Call:
    """The first call of a life as the caller builds it, with more."""
    saga = _saga(api, RestExchange.__new__(RestExchange), top)
    desired = Desired.model_validate(
        {"key": KEY, "version": 1, "installed": True, "enabled": True, "tenant_id": "acme", "installed_at": 1,
         "uninstalled_at": None, "configuration": {"crmEndpoint": "https://a"}}
    )  # fmt: skip
    turn = decide(saga.plans, saga.journal, desired, 1)
    assert isinstance(turn.move, Run)
    call = saga.caller.prepare(KEY, 1, turn.journal, turn.move)
    assert isinstance(call, Call)
    return replace(call, verb=verb, **more)


OUTAGES: Final[dict[str, Says]] = {
    "404 of an ingress without pods": lambda _: (404, {"Content-Type": "text/plain"}, b"default backend - 404"),
    "405": lambda _: (405, HTML, PAGE),
    "502 with HTML": lambda _: (502, HTML, PAGE),
    "503": lambda _: (503, {}, b""),
    "200 with a sign-in page": lambda _: (200, HTML, PAGE),
    "423": lambda _: shows({"error": "locked"}, 423),
    "425": lambda _: (425, {}, b""),
    "429": lambda _: (429, {"Retry-After": "7"}, b""),
    "429 until yesterday": lambda _: (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, b""),
    "409 while an equal request is under way": lambda _: shows({"error": "request_in_progress"}, 409),
    "403 for a quota": lambda _: shows([{"errorCode": "REQUEST_LIMIT_EXCEEDED"}], 403),
}


@pytest.mark.parametrize("everywhere", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("outage", OUTAGES, ids=str)
async def test_an_outage_rolls_no_tenant_back_and_makes_no_second_resource(
    api: TenantsApi, exchange: RestExchange, outage: str, *, everywhere: bool
) -> None:
    saga = _saga(api, exchange)
    saga.until_us = 60 * 10**6
    api.deaf = {"POST"}
    api.says = dict.fromkeys(("POST", "GET", "GET /v1/tenants") if everywhere else ("POST",), OUTAGES[outage])
    await saga.installed("https://a")
    assert (_phase(saga), _ours(api)) == (Phase.CREATING, [])
    await _well_again(saga, api)
    assert (_phase(saga), len(_ours(api))) == (Phase.ACTIVE, 1)
    api.says = {"PATCH": OUTAGES[outage], "DELETE": OUTAGES[outage]}
    api.deaf = {"DELETE"}
    saga.until_us = saga.now_us + 60 * 10**6
    await saga.installed("https://b")
    assert _phase(saga) is Phase.UPDATING
    await saga.uninstalled()
    assert len(_ours(api)) == 1
    await _well_again(saga, api)
    assert (_phase(saga), _ours(api)) == (Phase.EMPTY, [])


async def _well_again(saga: Saga, api: TenantsApi) -> None:
    api.says, api.deaf = {}, set()
    saga.until_us = saga.now_us + 1_000 * 10**6
    await saga.go_on()


REFUSALS: Final[dict[str, Says]] = {
    "300 with a list": lambda _: shows(["a", "b"], 300),
    "400": lambda _: shows({"error": "bad"}, 400),
    "422": lambda _: shows({"error": "bad"}, 422),
}


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
async def test_a_refused_create_is_rolled_back(api: TenantsApi, exchange: RestExchange, refusal: str) -> None:
    saga = _saga(api, exchange)
    api.says, api.deaf = {"POST": REFUSALS[refusal]}, {"POST"}
    await saga.installed("https://a")
    assert (_phase(saga), _ours(api)) == (Phase.ROLLED_BACK, [])


@pytest.mark.parametrize("status", [401, 403, 307])
async def test_a_refusal_of_the_operator_rolls_nobody_back(
    api: TenantsApi, exchange: RestExchange, status: int
) -> None:
    api.says, api.deaf = {"POST": lambda _: (status, {"Location": "https://elsewhere/"}, b"")}, {"POST"}
    answer = await RestKind(exchange).call(_call(api, Verb.CREATE))
    assert isinstance(answer, OperatorRefused)


CREATED: Final[dict[str, tuple[str, Says, object]]] = {
    "only Location": (
        "last_segment(headers.location)",
        lambda row: (201, {"Location": f"/v1/tenants/{(row or {})['id']}"}, b""),
        "1",
    ),
    "a bare text": ("body", lambda row: (201, {}, f"T-{(row or {})['id']}".encode()), "T-1"),
    "a number as text": ("body.id", lambda row: shows({"id": str((row or {})["id"])}, 201), "1"),
    "nothing": ("body.id", lambda _: (204, {}, b""), 1),
    "200 with another form": ("body.id", lambda _: shows({"result": "ok"}), 1),
    "a Location elsewhere": ("last_segment(headers.location)||body.id", lambda _: (201, {"Location": "//x/9"}, b""), 1),
}


@pytest.mark.parametrize("created", CREATED, ids=str)
async def test_a_created_resource_is_known_by_its_answer_or_found(
    api: TenantsApi, exchange: RestExchange, created: str
) -> None:
    expression, says, wanted = CREATED[created]
    text = _plan(api).replace('"body.id"', f'"{expression}"')
    saga = _saga(api, exchange, text=text)
    api.says = {"POST": says}
    if wanted == 1:
        api.hidden = 2  # the first listing is asked before the create, the second shows nothing yet
    await saga.installed("https://a")
    assert _phase(saga) is Phase.ACTIVE
    assert _log(saga).outputs["id"] == wanted
    assert api.made == 1


async def test_a_name_that_exists_already_is_taken_over(api: TenantsApi, exchange: RestExchange) -> None:
    """As after a registry that was restored from a backup: the listing shows it, or only the refusal does."""
    api.rows["5"] = {"id": 5, "ref": NAME, "crm": "https://old"}
    saga = _saga(api, exchange)
    api.hidden = 1
    api.says, api.deaf = {"POST": lambda _: shows({"error": "name_taken"}, 409)}, {"POST"}
    await saga.installed("https://a")
    assert _phase(saga) is Phase.ACTIVE
    assert [(row["id"], row["crm"]) for row in _ours(api)] == [(5, "https://a")]


@pytest.mark.parametrize(
    "says",
    [lambda _: shows({"itms": []}), lambda _: shows({"items": "x"}), lambda _: shows({"error": "bad"}, 400)],
)
async def test_a_search_that_shows_no_list_makes_nothing(api: TenantsApi, exchange: RestExchange, says: Says) -> None:
    api.says = {"GET /v1/tenants": says}
    answer = await RestKind(exchange).call(_call(api, Verb.CREATE))
    assert isinstance(answer, Contradicted)
    assert api.methods("GET") == []


async def test_a_resource_that_moves_to_an_earlier_page_is_not_taken_for_absent(
    api: TenantsApi, exchange: RestExchange
) -> None:
    api.rows = {
        "s0": {"id": "s0", "ref": "stranger-x"},
        "s1": {"id": "s1", "ref": "stranger-y"},
        "1": {"id": 1, "ref": NAME},
    }

    def before(method: str, path: str) -> None:
        if "page=2" in path:
            api.rows.pop("s0", None)  # a stranger's is removed between the pages

    api.before = before
    assert isinstance(await RestKind(exchange).call(_call(api, Verb.DELETE)), Done)
    assert _ours(api) == []
    numbers = iter(range(100))

    def busy(method: str, path: str) -> None:
        if "page=2" in path:
            api.rows[f"b{next(numbers)}"] = {"id": f"b{len(api.rows)}", "ref": "stranger-b"}

    api.before = busy
    answer = await RestKind(exchange).call(_call(api, Verb.CREATE))
    assert answer == Retryable("find: the listing changes while it is read", well=True)
    assert "POST" not in api.methods()


JOB: Final = """ready = "body.state == 'done'"
failed = "body.state == 'failed'"
ready_within = "PT10M"
poll_s = 20
[step.job]
path = "/jobs/{resource.job}"
outputs = { id = "body.tenant" }
"""


def _job_plan(api: TenantsApi) -> str:
    return (
        _plan(api)
        .replace("TOP", "")
        .replace('"body.id" }', '"body.id", job = "body.job || body.id" }')
        .replace("[step.create]", JOB + "[step.create]")
    )


async def test_a_job_is_polled_at_a_steady_pace_without_tries_and_over_restarts(
    api: TenantsApi, exchange: RestExchange
) -> None:
    saga = _saga(api, exchange, text=_job_plan(api))
    api.says = {
        "POST": lambda _: shows({"id": 77}, 202),
        "GET /v1/jobs/77": lambda _: shows({"id": 77, "state": "running"}),
    }
    await saga.installed("https://a", lambda answer: isinstance(answer, Unknown))
    assert _log(saga).outputs == {"job": 77, "url": f"{api.url}/v1"}
    saga.until_us = saga.now_us + 199 * 10**6
    # Another process: nothing but the journal is left.
    saga = replace(_saga(api, exchange, text=_job_plan(api)), journal=saga.journal, now_us=saga.now_us,
                   until_us=saga.until_us, desired=saga.desired, version=1)  # fmt: skip
    await saga.go_on()
    assert [path for _, path in api.asks].count("/v1/jobs/77") == 9, "every 20 s"
    assert (_log(saga).tries, saga.journal.phase, api.made) == (0, Phase.CREATING, 1)
    assert _position(saga.journal) == ("account", "waiting for account: the system's work")
    api.says["GET /v1/jobs/77"] = lambda _: shows({"state": "done", "tenant": 1})
    saga.until_us = 10**12
    await saga.go_on()
    assert (_phase(saga), _log(saga).outputs["id"], api.made) == (Phase.ACTIVE, 1, 1)
    api.says = {}
    await saga.uninstalled()
    assert _ours(api) == []


@pytest.mark.parametrize("state", ["failed", "running"])
async def test_work_that_fails_or_takes_too_long_is_rolled_back(
    api: TenantsApi, exchange: RestExchange, state: str
) -> None:
    saga = _saga(api, exchange, text=_job_plan(api))
    api.says = {
        "POST": lambda _: shows({"id": 77}, 202),
        "GET /v1/jobs/77": lambda _: shows({"id": 77, "state": state}),
    }
    saga.until_us = 3_000 * 10**6
    await saga.installed("https://a")
    assert (_phase(saga), _ours(api), api.made) == (Phase.ROLLED_BACK, [], 1)
    assert saga.now_us > 600 * 10**6 or state == "failed"


async def test_a_resource_with_a_state_is_awaited_and_a_slow_removal_too(
    api: TenantsApi, exchange: RestExchange
) -> None:
    saga = _saga(api, exchange, top="ready = \"body.state == 'on'\"\npoll_s = 3")
    reads = 0

    def state(row: Any) -> Any:
        nonlocal reads
        reads += 1
        return shows({**(row or {}), "state": "on" if reads > 3 else "off"}) if row else shows({"error": "none"}, 404)

    api.says = {"GET": state, "POST": lambda row: shows({**(row or {}), "state": "off"}, 202)}
    await saga.installed("https://a")
    assert (_phase(saga), reads, api.made) == (Phase.ACTIVE, 4, 1)
    api.says["DELETE"], api.deaf = lambda _: shows({}, 202), {"DELETE"}
    until_us = saga.now_us + 60 * 10**6

    def until(answer: Answer) -> bool:
        if saga.now_us > until_us:
            api.rows.pop("1", None)
        return False

    await saga.uninstalled(until)
    assert (_phase(saga), _ours(api)) == (Phase.EMPTY, [])


CLIENT: Final = 'token_url = "URL/oauth/token", client_id = "us", client_secret = "{secrets.api}"'


async def test_a_lost_create_whose_resource_is_not_ready_is_awaited_too(
    api: TenantsApi, exchange: RestExchange
) -> None:
    saga = _saga(api, exchange, top="ready = \"body.state == 'on'\"\npoll_s = 3")
    reads = 0

    def state(row: Any) -> Any:
        nonlocal reads
        reads += 1
        return shows({**(row or {}), "state": "on" if reads > 3 else "off"})

    api.says, api.loses = {"GET": state}, {"POST": 1}
    await saga.installed("https://a")
    assert (_phase(saga), reads >= 4, api.made) == (Phase.ACTIVE, True, 1)


async def test_a_lost_answer_to_the_removal_of_a_twin_leaves_no_twin(api: TenantsApi, exchange: RestExchange) -> None:
    saga = _saga(api, exchange)
    await saga.installed("https://a")
    api.rows["9"] = {"id": 9, "ref": NAME}
    deletes = 0

    def before(method: str, path: str) -> None:
        nonlocal deletes
        deletes += method == "DELETE"
        # The second removal has no effect, and its answer is lost.
        api.deaf = {"DELETE"} if method == "DELETE" and deletes == 2 else set()
        api.loses = {"DELETE": 1} if api.deaf else {}

    api.before = before
    saga.until_us = saga.now_us + 30 * 10**6
    await saga.uninstalled()
    assert (_phase(saga), _ours(api)) == (Phase.EMPTY, [])


AUTH: Final = {
    "bearer": ('{ type = "bearer", token = "{secrets.api}" }', "authorization", "Bearer hush-hush-hush"),
    "basic": (
        '{ type = "basic", user = "u", password = "{secrets.api}" }', "authorization", "Basic dTpodXNoLWh1c2gtaHVzaA=="
    ),
    "header": ('{ type = "header", name = "X-Api-Key", value = "{secrets.api}" }', "x-api-key", "hush-hush-hush"),
    "client": (
        f'{{ type = "client_credentials", {CLIENT} }}',
        "authorization",
        "Bearer t1",
    ),
}  # fmt: skip


def _auth(api: TenantsApi, name: str) -> str:
    return f"auth = {AUTH[name][0]}".replace("URL", api.url)


@pytest.mark.parametrize("name", AUTH)
async def test_every_request_is_authenticated(api: TenantsApi, exchange: RestExchange, name: str) -> None:
    assert isinstance(await RestKind(exchange).call(_call(api, Verb.CREATE, _auth(api, name))), Done)
    sent = [headers for headers, (_, path) in zip(api.sent, api.asks, strict=True) if path != "/oauth/token"]
    assert {headers.get(AUTH[name][1]) for headers in sent} == {AUTH[name][2]}
    assert not any(header.startswith(("lifecycle-", "idempotency-")) for headers in sent for header in headers)


@pytest.mark.parametrize("expires_in", ["3600", 3600.5, None, "soon", True, -1])
async def test_many_sagas_share_a_token_whatever_expires_in_says(
    api: TenantsApi, exchange: RestExchange, expires_in: object
) -> None:
    api.expires_in = expires_in
    call = _call(api, Verb.READ, _auth(api, "client"))
    await asyncio.gather(*(RestKind(exchange).call(call) for _ in range(20)))
    assert api.tokens == 1


async def test_a_dead_token_is_renewed_once(api: TenantsApi, exchange: RestExchange) -> None:
    call = _call(api, Verb.CREATE, _auth(api, "client"))
    assert isinstance(await RestKind(exchange).call(call), Done)
    alive = ["Bearer t2"]
    api.rows.popitem()
    for method in ("POST", "GET /v1/tenants"):
        api.says[method] = lambda row: (
            ([shows({"items": []}), shows(row, 201)][row is not None])
            if api.sent[-1]["authorization"] in alive
            else shows([{"errorCode": "INVALID_SESSION_ID"}], 401)
        )
    assert isinstance(await RestKind(exchange).call(call), Done)
    assert api.tokens == 2
    alive.clear()
    answer = await RestKind(exchange).call(call)
    assert answer == OperatorRefused(
        "HTTP 401 INVALID_SESSION_ID", "give this step credentials that its system accepts"
    )
    assert api.tokens == 3, "one renewal a call"


async def test_a_missing_secret_stops_nobody_but_the_operator_and_no_reason_quotes_one(
    api: TenantsApi, exchange: RestExchange
) -> None:
    missing = 'headers = { X-Key = "{secrets.none}" }'
    answer = await RestKind(exchange).call(_call(api, Verb.READ, missing))
    assert isinstance(answer, OperatorRefused)
    assert answer.reason == "missing: secrets.none"
    api.says = {"GET /v1/tenants": lambda _: shows({"error": "bad-hush-hush-hush"}, 403)}
    answer = await RestKind(exchange).call(_call(api, Verb.READ, _auth(api, "bearer")))
    assert isinstance(answer, OperatorRefused)
    assert answer.reason == "HTTP 403"


async def test_headers_of_the_plans_choice_tell_intent_and_epoch(api: TenantsApi, exchange: RestExchange) -> None:
    call = _call(api, Verb.CREATE, 'idempotency_header = "X-Request-Id"\nepoch_header = "X-Fence"')
    assert isinstance(await RestKind(exchange).call(call), Done)
    assert (api.sent[-1]["x-request-id"], api.sent[-1]["x-fence"]) == (call.idempotency_key, "1")


async def test_redirects_are_refused_or_followed_within_the_origin(api: TenantsApi, exchange: RestExchange) -> None:
    moved = {"GET /v1/tenants": lambda _: (307, {"Location": "/v2/tenants"}, b"")}
    api.says = moved | {"GET /v2/tenants": lambda _: shows({"items": []})}
    assert isinstance(await RestKind(exchange).call(_call(api, Verb.READ)), OperatorRefused)
    follows = 'redirects = "same_origin"'
    assert await RestKind(exchange).call(_call(api, Verb.READ, follows)) == Absent()
    api.says["GET /v1/tenants"] = lambda _: (307, {"Location": "http://127.0.0.1:9/v2"}, b"")
    assert isinstance(await RestKind(exchange).call(_call(api, Verb.READ, follows)), OperatorRefused)
    api.says["GET /v1/tenants"] = lambda _: (307, {"Location": "/v1/tenants"}, b"")
    assert await RestKind(exchange).call(_call(api, Verb.READ, follows)) == Retryable("too many redirects")


async def test_requests_keep_to_max_per_second(api: TenantsApi, exchange: RestExchange) -> None:
    call = _call(api, Verb.READ, "max_per_second = 1", timeout_s=0.2)
    first, second = await RestKind(exchange).call(call), await RestKind(exchange).call(call)
    assert isinstance(first, Retryable), "the second page of the listing has no place"
    assert second == Retryable("max_per_second leaves no place within timeout_s", well=True)
    assert len(api.asks) == 1


HOLDS: Final = """
[[step]]
name = "account"
kind = "rest"
undo = "reverse"
url = "URL/v1"
url_from = "operator"
unknown = "hold"
settles_within = "PT5S"
timeout_s = 5
outputs = { id = "body.id" }
create = { path = "/tenants", body = { ref = "{tenant.name}", crm = "{configuration.crmEndpoint?}" } }
delete = { path = "/tenants/{resource.id}" }
"""


async def test_an_api_without_a_search_waits_for_a_person_after_a_lost_answer(
    api: TenantsApi, exchange: RestExchange
) -> None:
    saga = _saga(api, exchange, text=HOLDS.replace("URL", api.url))
    await saga.installed("https://a")
    await saga.uninstalled()
    assert (_phase(saga), _ours(api)) == (Phase.EMPTY, [])
    api.loses["POST"] = 1
    await saga.installed("https://a")
    assert (_phase(saga), api.made) == (Phase.CREATING, 2)
    assert saga.outcomes[-1].reason == "account_contradicted"
    assert _log(saga).state is StepState.PENDING_DENIED
    # A newer version is no answer of a person; a retry is: he has removed what was made.
    await saga.installed("https://b")
    assert (_phase(saga), api.made) == (Phase.CREATING, 2)
    api.rows.pop("2")
    await _retried(saga)
    assert (_phase(saga), api.made, len(_ours(api))) == (Phase.ACTIVE, 3, 1)


async def _retried(saga: Saga) -> None:
    """As `lifecycle sagas retry` does."""
    again = retried_journal(saga.journal)
    assert again is not None
    saga.journal = again
    saga.until_us = saga.now_us + 1_000 * 10**6
    await saga.go_on()


@pytest.mark.parametrize("changed", [False, True])
async def test_an_uninstall_without_a_search_waits_for_a_person_after_a_lost_answer(
    api: TenantsApi, exchange: RestExchange, *, changed: bool
) -> None:
    saga = _saga(api, exchange, text=HOLDS.replace("URL", api.url))
    api.loses["POST"] = 1
    await saga.installed("https://a")
    saga.until_us = saga.now_us + 100 * 10**6
    if changed:
        await saga.installed("https://b")
        assert api.made == 1
    saga.until_us += 100 * 10**6
    await saga.uninstalled()
    assert (_phase(saga), len(_ours(api))) == (Phase.REMOVING, 1)
    assert saga.outcomes[-1].reason == "account_contradicted"
    api.rows.pop("1")
    await _retried(saga)
    assert (_phase(saga), _ours(api)) == (Phase.EMPTY, [])


UPSERT: Final = """
[[step]]
name = "account"
kind = "rest"
undo = "reverse"
url = "URL/v1"
url_from = "operator"
idempotent = "name"
settles_within = "PT5S"
timeout_s = 5
create = { method = "PATCH", path = "/tenants/{tenant.name}", body = { ref = "{tenant.name}", crm = "{tenant.id}" } }
update = { method = "PATCH", path = "/tenants/{tenant.name}", body = { crm = "{configuration.crmEndpoint?}" } }
read = { path = "/tenants/{tenant.name}" }
delete = { path = "/tenants/{tenant.name}" }
"""


async def test_an_upsert_by_name_needs_no_search(api: TenantsApi, exchange: RestExchange) -> None:
    saga = _saga(api, exchange, text=UPSERT.replace("URL", api.url))

    def upsert(method: str, path: str) -> None:
        if method == "PATCH":
            api.rows.setdefault(path.rpartition("/")[2], {"ref": "new"})

    api.before = upsert
    api.says = {"PATCH": lambda _: (204, {}, b"")}
    api.loses = {"PATCH": 2, "DELETE": 1}
    await saga.installed("https://a")
    assert _phase(saga) is Phase.ACTIVE
    assert [row["ref"] for row in _ours(api)] == [NAME]
    await saga.installed("https://b")
    assert [row["crm"] for row in _ours(api)] == ["https://b"]
    await saga.uninstalled()
    assert (_phase(saga), _ours(api)) == (Phase.EMPTY, [])


EVENTS: Final = (
    STEP.replace('url = "URL/v1"\nurl_from = "operator"', 'url = "{configuration.crmEndpoint}/v1"')
    .replace("TOP", "")
    .replace("CREATE", "")
)


async def test_a_url_of_an_event_that_moves_takes_the_resource_with_it(api: TenantsApi) -> None:
    with tenants_api() as other:
        hosts = {"a.example.com": api.url, "b.example.com": other.url}
        async with HttpClient(connections=4) as client:
            outbound = Outbound(client, resolve, allow=("*.example.com",), egress_map=hosts)
            saga = _saga(api, RestExchange(outbound, SECRETS), text=EVENTS)
            await saga.installed("https://a.example.com")
            assert (_phase(saga), len(_ours(api)), len(_ours(other))) == (Phase.ACTIVE, 1, 0)
            # The answer at the new place is lost, and the old place is away for a while.
            other.loses["POST"], api.loses["DELETE"] = 1, 2
            await saga.installed("https://b.example.com")
            assert (_phase(saga), len(_ours(api)), len(_ours(other))) == (Phase.ACTIVE, 0, 1)
            await saga.installed("https://evil.example.org")
            assert (_phase(saga), len(_ours(other))) == (Phase.ACTIVE, 1), "restored"
            await saga.uninstalled()
            assert (_phase(saga), _ours(api), _ours(other)) == (Phase.EMPTY, [], [])
