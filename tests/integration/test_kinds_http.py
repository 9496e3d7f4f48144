"""Duties of every kind that speaks HTTP, against a real simulator process; the rules are equal for all kinds."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from services.adapters.http_client import HttpClient, resolve
from services.core.saga.calls import (
    Absent,
    Answer,
    Done,
    OperatorRefused,
    Refused,
    Retryable,
    Unknown,
    Verb,
    resource_name,
)
from services.provisioner.kinds.http import HttpKind
from services.provisioner.kinds.oauth import OAuthKind
from services.provisioner.kinds.outbound import Outbound
from services.provisioner.kinds.step_kind import StepKind
from services.provisioner.kinds.subscription import SubscriptionKind
from tests.support.eventually import eventually
from tests.support.simulator_process import Outside, a_call, outside


@dataclass(frozen=True)
class KindUnderTest:
    """One kind as the shipped plan uses it."""

    system: str
    kind: StepKind
    settings: dict[str, Any]

    async def __call__(self, verb: Verb, **more: Any) -> Answer:
        return await self.kind.call(a_call(verb, settings=self.settings, **more))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside(tmp_path_factory.mktemp("outside")) as running:
        yield running


@pytest.fixture
async def outbound(world: Outside) -> AsyncIterator[Outbound]:
    client = HttpClient(connections=10)
    yield Outbound(client, resolve, allow=("*.salesforce.com",), egress_map={"*.salesforce.com": f"{world.url}/crm"})
    await client.close()


@pytest.fixture(params=["middleware", "crm", "subscriptions", "tokens"])
def subject(request: pytest.FixtureRequest, world: Outside, outbound: Outbound) -> KindUnderTest:
    ours = {"url_from": "operator"}
    found = {
        "middleware": KindUnderTest(
            "middleware",
            HttpKind(outbound),
            ours | {"url": f"{world.url}/middleware", "body": {"configuration": {"a": 1}}},
        ),
        "crm": KindUnderTest(
            "crm",
            HttpKind(outbound),
            {
                "url": "https://acme.salesforce.com",
                "path": "/connections",
                "credentials": {"path": "/services/oauth2/token", "client_id": "c", "client_secret": "good"},
            },
        ),
        "subscriptions": KindUnderTest(
            "subscriptions",
            SubscriptionKind(outbound),
            ours | {"url": f"{world.url}/subscriptions", "topics": ["presence"]},
        ),
        "tokens": KindUnderTest(
            "tokens", OAuthKind(outbound), ours | {"url": f"{world.url}/oauth", "client_id": "l", "client_secret": "s"}
        ),
    }
    subject: KindUnderTest = found[request.param]
    return subject


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A key no other test uses."""
    number = abs(hash(request.node.nodeid)) % 10**12
    return f"98765432-1234-5678-9abc-def012345678:a1b2c3d4-e5f6-7890-abcd-{number:012d}"


@pytest.fixture(autouse=True)
def healed(world: Outside) -> Iterator[None]:
    yield
    world.heal()


async def test_a_create_repeated_by_one_intent_makes_one_resource_and_equal_answers(
    subject: KindUnderTest, world: Outside, key: str
) -> None:
    first = await subject(Verb.CREATE, key=key)
    again = await subject(Verb.CREATE, key=key)
    assert isinstance(first, Done)
    assert again == first
    assert [row["generation"] for row in world.inventory(subject.system, key)] == [1]


async def test_creates_by_two_intents_make_one_resource(subject: KindUnderTest, world: Outside, key: str) -> None:
    assert isinstance(await subject(Verb.CREATE, key=key, n=1), Done)
    assert isinstance(await subject(Verb.CREATE, key=key, n=2), Done)
    assert len(world.inventory(subject.system, key)) == 1


async def test_a_resource_deleted_twice_stays_absent(subject: KindUnderTest, world: Outside, key: str) -> None:
    made = await subject(Verb.CREATE, key=key)
    assert isinstance(made, Done)
    assert isinstance(await subject(Verb.DELETE, key=key, n=2, outputs=made.outputs), Done)
    assert world.inventory(subject.system, key) == []
    assert isinstance(await subject(Verb.DELETE, key=key, n=3, outputs=made.outputs), Done | Absent)
    assert await subject(Verb.READ, key=key, outputs=made.outputs) == Absent()
    assert [outcome for verb, outcome in world.calls(key, subject.system) if verb == "delete"] == _deleted_twice(
        subject
    )


def _deleted_twice(subject: KindUnderTest) -> list[str]:
    """A grant that is not there names no token to revoke."""
    return ["done"] if subject.system == "tokens" else ["done", "absent"]


async def test_a_resource_never_created_is_absent(subject: KindUnderTest, key: str) -> None:
    assert await subject(Verb.READ, key=key) == Absent()
    assert await subject(Verb.DELETE, key=key) == Absent()


async def test_a_late_repeat_of_a_create_after_the_delete_makes_no_resource(
    subject: KindUnderTest, world: Outside, key: str
) -> None:
    made = await subject(Verb.CREATE, key=key, n=1)
    assert isinstance(made, Done)
    await subject(Verb.DELETE, key=key, n=2, outputs=made.outputs)
    await subject(Verb.CREATE, key=key, n=1)
    assert world.inventory(subject.system, key) == []


async def test_a_lost_answer_is_unknown_then_read_back_then_repeated_with_the_same_outputs(
    subject: KindUnderTest, world: Outside, key: str
) -> None:
    world.fault(subject.system, "lost_answer", verb="create", key=key, times=1)
    assert isinstance(await subject(Verb.CREATE, key=key), Unknown)
    found = await subject(Verb.READ, key=key)
    again = await subject(Verb.CREATE, key=key)
    assert isinstance(found, Done)
    assert found == again
    assert len(world.inventory(subject.system, key)) == 1
    assert world.calls(key, subject.system) == [("create", "lost"), ("read", "done"), _repeat(subject)]


def _repeat(subject: KindUnderTest) -> tuple[str, str]:
    """A repeated PUT finds its resource; a token is issued whatever was before."""
    return ("create", "done") if subject.system == "tokens" else ("update", "done")


async def test_a_lost_answer_to_a_delete_is_read_back_as_absent(
    subject: KindUnderTest, world: Outside, key: str
) -> None:
    made = await subject(Verb.CREATE, key=key)
    assert isinstance(made, Done)
    world.fault(subject.system, "lost_answer", verb="delete", key=key, times=1)
    assert isinstance(await subject(Verb.DELETE, key=key, n=2, outputs=made.outputs), Unknown)
    assert await subject(Verb.READ, key=key, outputs=made.outputs) == Absent()


async def test_a_delete_without_outputs_deletes_the_resource(subject: KindUnderTest, world: Outside, key: str) -> None:
    world.fault(subject.system, "lost_answer", verb="create", key=key, times=1)
    await subject(Verb.CREATE, key=key)
    assert isinstance(await subject(Verb.DELETE, key=key, n=2), Done)
    assert world.inventory(subject.system, key) == []


async def test_a_system_that_ignores_idempotency_keys_holds_one_resource(
    subject: KindUnderTest, world: Outside, key: str
) -> None:
    world.fault(subject.system, "ignore_idempotency", key=key)
    world.fault(subject.system, "lost_answer", verb="create", key=key, times=1)
    await subject(Verb.CREATE, key=key)
    assert isinstance(await subject(Verb.CREATE, key=key), Done)
    assert len(world.inventory(subject.system, key)) == 1


async def test_a_call_with_a_stale_epoch_changes_no_resource_and_is_retryable(
    subject: KindUnderTest, world: Outside, key: str
) -> None:
    made = await subject(Verb.CREATE, key=key, epoch=5)
    assert isinstance(made, Done)
    stale = await subject(Verb.DELETE, key=key, n=2, epoch=4, outputs=made.outputs)
    assert stale == Retryable("HTTP 409 stale_epoch", well=True)
    assert len(world.inventory(subject.system, key)) == 1
    assert world.calls(key, subject.system)[-1] == ("delete", "refused")


async def test_an_intent_repeated_with_other_inputs_is_refused(
    subject: KindUnderTest, world: Outside, key: str
) -> None:
    await subject(Verb.CREATE, key=key)
    same_name_other_life = replace(
        a_call(Verb.CREATE, key=key, settings=subject.settings),
        generation=2,
    )
    assert await subject.kind.call(same_name_other_life) == Refused("HTTP 422 idempotency_key_reused")
    assert len(world.inventory(subject.system, key)) == 1


@pytest.mark.parametrize("verb", list(Verb))
async def test_an_injected_refusal_is_refused_and_an_injected_error_is_retryable(
    subject: KindUnderTest, world: Outside, key: str, verb: Verb
) -> None:
    outputs: dict[str, Any] = {}
    if verb is not Verb.CREATE:
        made = await subject(Verb.CREATE, key=key)
        assert isinstance(made, Done)
        outputs = {} if verb is Verb.UPDATE and subject.system == "tokens" else dict(made.outputs)
    world.fault(subject.system, "refuse", key=key, times=1)
    assert isinstance(await subject(verb, key=key, n=2, outputs=outputs), Refused)
    world.fault(subject.system, "error", key=key, times=1)
    failed = await subject(verb, key=key, n=2, outputs=outputs)
    assert failed == Retryable("HTTP 503 unavailable")
    world.fault(subject.system, "unauthorized", key=key, times=1)
    denied = await subject(verb, key=key, n=2, outputs=outputs)
    assert isinstance(denied, Refused if subject.system == "crm" else OperatorRefused), "the CRM is the customer's own"
    assert isinstance(await subject(verb, key=key, n=2, outputs=outputs), Done)


async def test_a_change_at_a_system_that_is_down_is_unknown_and_a_read_is_retryable(
    subject: KindUnderTest, world: Outside, key: str
) -> None:
    world.fault(subject.system, "down", key=key)
    # The CRM is first asked for a session, which makes nothing: that silence leaves nothing in doubt.
    assert isinstance(await subject(Verb.CREATE, key=key), Retryable if subject.system == "crm" else Unknown)
    read = await subject(Verb.READ, key=key)
    assert isinstance(read, Retryable)
    assert world.inventory(subject.system, key) == []


async def test_a_call_given_up_by_timeout_may_take_effect_later(
    subject: KindUnderTest, world: Outside, key: str
) -> None:
    world.fault(subject.system, "slow", key=key, times=1, seconds=1.0)
    assert isinstance(await subject(Verb.CREATE, key=key, timeout_s=0.3), Unknown)
    assert world.inventory(subject.system, key) == []
    eventually(lambda: len(world.inventory(subject.system, key)) == 1)


async def test_a_refused_connection_is_retryable_and_leaves_no_doubt(subject: KindUnderTest, key: str) -> None:
    nowhere = {**subject.settings, "url": "http://127.0.0.1:9", "url_from": "operator"}
    answer = await subject.kind.call(a_call(Verb.CREATE, key=key, settings=nowhere))
    assert isinstance(answer, Retryable)


async def test_the_resource_is_named_by_key_and_generation(subject: KindUnderTest, world: Outside, key: str) -> None:
    for generation in (1, 2):
        assert isinstance(await subject(Verb.CREATE, key=key, generation=generation), Done)
    assert [row["generation"] for row in world.inventory(subject.system, key)] == [1, 2]
    if subject.system != "tokens":
        names = {row["id"] for row in world.inventory(subject.system, key)}
        assert names == {resource_name(key, 1), resource_name(key, 2)}


@pytest.mark.parametrize("part", ['x"; DROP SCHEMA public CASCADE;--', "🦄" * 50, "../../faults", "a b\tX: y%0d%0a"])
async def test_a_hostile_key_reaches_the_system_unchanged(subject: KindUnderTest, world: Outside, part: str) -> None:
    key = f"{part}:{part}"
    made = await subject(Verb.CREATE, key=key)
    assert isinstance(made, Done)
    assert len(world.inventory(subject.system, key)) == 1
    assert isinstance(await subject(Verb.DELETE, key=key, n=2, outputs=made.outputs), Done)
    assert world.inventory(subject.system, key) == []
