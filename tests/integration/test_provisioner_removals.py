"""The brake on removals and the confirmation by Genesys, as real provisioners ask them before a teardown destroys."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from schemas.outcome import Direction, Outcome, State
from schemas.removal import removals_digest
from services.adapters.process import clock
from services.adapters.process.environment import read
from services.adapters.process.settings import ProvisionerSettings
from services.adapters.registry.registry import Registry
from services.adapters.registry.types import Removal, RemovalRules
from services.core.saga.removal import GenesysSays
from services.core.unwell import GENESYS_SAYS_INSTALLED, GENESYS_UNREAD, REMOVAL_BRAKED, REMOVAL_REFUSED
from services.provisioner.confirmation import Confirmation, NotAsked
from services.provisioner.removals import RemovalGate, TurnedAway
from tests.support.eventually import eventually
from tests.support.genesys_server import FakeGenesys, serving, serving_beside
from tests.support.provisioner_process import Scene, desired, end, gone, key, untraced
from tests.support.provisioner_stage import SYSTEMS, Stage, done, ended, exists, staged
from tests.support.saga_world import STEPS
from tests.support.unreadable import unexpected

T = TypeVar("T")

LIMIT = 5


@pytest.fixture
def scene(kafka_bootstrap: str, topic_prefix: str, database_url: str, tmp_path: Path) -> Iterator[Scene]:
    with Scene(kafka_bootstrap, topic_prefix, database_url, tmp_path) as made:
        made.environment["REMOVALS_AT_ONCE"] = "1"
        yield made


@pytest.fixture
def stage(kafka_bootstrap: str, topic_prefix: str, database_url: str, tmp_path: Path) -> Iterator[Stage]:
    with staged(kafka_bootstrap, topic_prefix, database_url, tmp_path) as made:
        yield made


def _operate(scene: Scene, act: Callable[[Registry], Awaitable[T]]) -> T:
    """Does an operator's act on the registry."""

    async def acted() -> T:
        registry = Registry(scene.database, schema="lifecycle", lease_s=1, worker="operator", on_unreadable=unexpected)
        await registry.open()
        try:
            return await act(registry)
        finally:
            await registry.close()

    return asyncio.run(acted())


def _approve(scene: Scene, keys: Sequence[str]) -> int:
    until_us = clock.now_us() + 3_600_000_000
    approved = _operate(
        scene,
        lambda registry: registry.approve_removals(
            keys, digest=removals_digest(keys), by="ada", reason="closed", expires_us=until_us
        ),
    )
    return len(approved)


def _waits(scene: Scene, of: str, reason: str) -> Outcome:
    """Wait until a teardown says this reason."""

    def last() -> Outcome | None:
        said = scene.outcomes(of)
        return said[-1] if said and said[-1].reason == reason else None

    found = eventually(last)
    assert found is not None
    assert (found.direction, found.state) == (Direction.DOWN, State.WORKING)
    return found


def _held(scene: Scene) -> list[str]:
    return [one.key for one in _operate(scene, Registry.held_removals)]


@pytest.mark.long
def test_a_storm_of_uninstalls_removes_the_limit_and_an_approval_exactly_its_set(stage: Stage) -> None:
    scene, keys = stage.scene, stage.keys(60)
    scene.environment["REMOVALS_AT_ONCE"] = str(LIMIT)
    for _ in range(2):
        scene.start()
    scene.publish_desired([desired(of, 1) for of in keys])
    ended(stage, keys, 1)
    storm = keys[:30]
    scene.publish_desired([gone(of, 2) for of in storm])
    eventually(lambda: len(_held(scene)) == len(storm) - LIMIT)
    held = _held(scene)
    ended(stage, [of for of in storm if of not in held], 2)
    for of in held:
        _waits(scene, of, REMOVAL_BRAKED)
    inventory = httpx2.get(f"{stage.world.url}/inventory", timeout=20).raise_for_status().json()
    for of in keys:
        there = int(of in held or of not in storm)
        assert {system: len(inventory[system].get(of, [])) for system in SYSTEMS} == dict.fromkeys(SYSTEMS, there), of
    assert not any(call[0] == "delete" for of in held for call in stage.world.calls(of))

    assert _approve(scene, held[:10]) == 10
    ended(stage, held[:10], 2)
    assert _held(scene) == held[10:]
    assert _approve(scene, held[:10]) == 0, "it is used up"
    assert _approve(scene, held[10:]) == 15
    ended(stage, held[10:], 2)
    exists(stage, {of: None if of in storm else 1 for of in keys})


def test_a_held_removal_goes_by_an_approval_alone_and_a_reinstall_ends_the_wait(scene: Scene) -> None:
    scene.start()
    first, second, third, other = (key(number) for number in range(4))
    scene.publish_desired([desired(of, 1) for of in (first, second, third)])
    for of in (first, second, third):
        assert scene.ended(of, 1).state is State.DONE
    scene.publish_desired([gone(first, 2)])
    assert done(scene.ended(first, 2))
    scene.publish_desired([gone(of, 2) for of in (second, third)])
    for of in (second, third):
        _waits(scene, of, REMOVAL_BRAKED)
        assert scene.things(of) == list(STEPS)

    bad = {"crmEndpoint": "https://acme.salesforce.com", "bad": "subscriptions"}
    scene.publish_desired([desired(other, 1, configuration=bad)])
    assert scene.ended(other, 1).state is State.ROLLED_BACK, "a compensation is no removal"
    scene.publish_desired([gone(other, 2)])
    assert done(scene.ended(other, 2)), "nor is the end of what was never active"

    # Another uninstall neither begins the wait anew nor ends it; nor does a refusal.
    scene.publish_desired([gone(third, 3)])
    refused = _operate(scene, lambda registry: registry.refuse_removals([third], by="ada", reason="an accident"))
    assert refused == [third]
    assert _waits(scene, third, REMOVAL_REFUSED).desired_version == 3
    scene.publish_desired([desired(second, 3, uninstalled_at=2), desired(third, 4)])
    # Tokens from before an uninstall are issued anew, as in a grace period; nothing else is touched.
    for of, version, undone in ((second, 3, {"tokens"}), (third, 4, set())):
        back = scene.ended(of, version)
        assert (back.direction, back.state, back.generation) == (Direction.UP, State.DONE, 1)
        assert {step for step, verb in scene.calls(of) if verb == "delete"} == undone
    assert _held(scene) == []

    scene.publish_desired([gone(second, 4)])
    _waits(scene, second, REMOVAL_BRAKED)
    assert _approve(scene, [second]) == 1
    assert done(scene.ended(second, 4))
    released = [(said.state, said.reason) for said in scene.outcomes(second) if said.desired_version == 4]
    assert released[-2:] == [(State.WORKING, None), (State.DONE, None)]
    assert scene.things(second) == []


def test_a_worker_killed_between_admission_and_intent_uses_up_one_place(stage: Stage) -> None:
    scene, (first, second) = stage.scene, stage.keys(2)
    scene.environment["REMOVALS_AT_ONCE"] = "1"
    assert _active(stage, [first, second])
    shipped, scene.program = scene.program, ("tests.support.provisioner_dying",)
    dying = scene.start(DIES="before", DIES_AT="1")
    scene.publish_desired([gone(first, 2)])
    assert dying.wait(60) == -9
    assert scene.rows("SELECT key FROM lifecycle.removals WHERE admitted_at IS NOT NULL") == [(first,)]
    assert scene.rows("SELECT phase FROM lifecycle.sagas WHERE key = %s", first) == [("active",)]
    scene.program = shipped
    scene.start()
    ended(stage, [first], 2)
    scene.publish_desired([gone(second, 2)])
    _waits(scene, second, REMOVAL_BRAKED)
    assert _held(scene) == [second]


def _active(stage: Stage, keys: Sequence[str]) -> bool:
    """Install by a provisioner that then ends."""
    process = stage.scene.start()
    stage.scene.publish_desired([desired(of, 1) for of in keys])
    ended(stage, keys, 1)
    return end(process) == 0


# -- the confirmation


def _one(of: str) -> str:
    """The organisation of a key."""
    return of.partition(":")[0]


def _orgs(folder: Path, *org_ids: str) -> Path:
    orgs = folder / "orgs"
    orgs.mkdir(exist_ok=True)
    for org_id in org_ids:
        given = {"org_id": org_id, "client_id": "client", "client_secret": "secret"}
        (orgs / f"{org_id}.json").write_text(json.dumps(given))
    return orgs


def _genesys(url: str, orgs: Path) -> dict[str, str]:
    return {"ORGS_DIR": str(orgs), "GENESYS_LOGIN_URL": f"{url}/login", "GENESYS_API_URL": url}


def test_a_removal_that_genesys_contradicts_waits_until_genesys_says_so_too(scene: Scene, tmp_path: Path) -> None:
    of = key(1)
    genesys = FakeGenesys(_one(of))
    genesys.add(of.partition(":")[2])
    with serving_beside(genesys):
        scene.environment |= {"CONFIRM_REMOVALS": "always", **_genesys(genesys.url, _orgs(tmp_path, _one(of)))}
        scene.start()
        scene.publish_desired([desired(of, 1)])
        assert done(scene.ended(of, 1))
        scene.publish_desired([gone(of, 2)])
        _waits(scene, of, GENESYS_SAYS_INSTALLED)
        assert scene.things(of) == list(STEPS)
        assert _operate(scene, lambda registry: registry.removal_counts(RemovalRules(1, 0, 60))).unconfirmed == {
            "installed": 1
        }
        genesys.integrations.clear()
        # The next question comes after ten seconds or more; it is brought forward.
        scene.run("UPDATE lifecycle.sagas SET due_at = clock_timestamp()")
        assert done(scene.ended(of, 2))
    assert '"event": "removal contradicted"' in scene.logs()


def test_a_reinstall_ends_the_wait_for_genesys(scene: Scene, tmp_path: Path) -> None:
    of = key(1)
    scene.environment |= {"CONFIRM_REMOVALS": "always", "ORGS_DIR": str(_orgs(tmp_path))}
    scene.start()
    scene.publish_desired([desired(of, 1)])
    assert done(scene.ended(of, 1))
    scene.publish_desired([gone(of, 2)])
    _waits(scene, of, GENESYS_UNREAD)
    scene.publish_desired([desired(of, 3)])
    back = scene.ended(of, 3)
    assert (back.direction, back.state, back.generation) == (Direction.UP, State.DONE, 1)


def _answers(status: int, **body: Any) -> Callable[[Request], Response | None]:
    """An answer in place of the truth, to a read of an integration."""
    return lambda request: JSONResponse(body, status) if "/integrations/" in request.url.path else None


CASES: dict[str, tuple[GenesysSays, Callable[[FakeGenesys, str], object]]] = {
    "404": (GenesysSays.GONE, lambda genesys, one: genesys.integrations.pop(one, None)),
    "200": (GenesysSays.INSTALLED, lambda genesys, one: genesys.add(one)),
    "disabled": (GenesysSays.INSTALLED, lambda genesys, one: genesys.add(one, "DISABLED")),
    "DELETED": (GenesysSays.GONE, lambda genesys, one: genesys.add(one, "DELETED")),
    "an unknown state": (GenesysSays.UNREAD, lambda genesys, one: genesys.add(one, "SLEEPING")),
    "500": (GenesysSays.UNREAD, lambda genesys, _: setattr(genesys, "lie", _answers(500))),
    "401": (GenesysSays.UNREAD, lambda genesys, _: setattr(genesys, "lie", _answers(401))),
    "a proxy's 404": (GenesysSays.UNREAD, lambda genesys, _: setattr(genesys, "lie", _answers(404))),
    "another organisation's token": (
        GenesysSays.UNREAD,
        lambda genesys, _: setattr(genesys, "org_id", "22222222-2222-4222-8222-222222222222"),
    ),
    "no file": (GenesysSays.UNREAD, lambda genesys, _: setattr(genesys, "url", "")),
}
HOLDS = {
    ("reachable", GenesysSays.INSTALLED): GENESYS_SAYS_INSTALLED,
    ("always", GenesysSays.INSTALLED): GENESYS_SAYS_INSTALLED,
    ("always", GenesysSays.UNREAD): GENESYS_UNREAD,
}


@pytest.mark.parametrize("case", CASES)
async def test_an_answer_of_genesys_holds_a_removal_as_the_setting_says(
    case: str, database_url: str, tmp_path: Path
) -> None:
    says, prepare = CASES[case]
    of = key(1)
    registry = Registry(database_url, schema="lifecycle", lease_s=60, worker="one", on_unreadable=unexpected)
    await registry.start()
    await registry.store(untraced([desired(of, 1)]))
    (claim,) = await registry.claim(1)
    async with serving(FakeGenesys(_one(of))) as genesys:
        url = genesys.url
        prepare(genesys, of.partition(":")[2])
        orgs = _orgs(tmp_path, *([_one(of)] if genesys.url else []))
        settings = read(_genesys(url, orgs), ProvisionerSettings)
        for number, mode in enumerate(("off", "reachable", "always"), 1):
            confirmation = Confirmation(settings, clock.now_us, structlog.get_logger())
            asked = None if mode == "off" else confirmation
            gate = RemovalGate(registry, RemovalRules(9, 0, 60), asked, needs_answer=mode == "always")
            found = await gate.enter(Removal(of, 1, number, number, 1), claim.epoch)
            reason = HOLDS.get((mode, says))
            assert found == (None if reason is None else TurnedAway(reason, 10.0)), mode
            if mode == "off":
                assert genesys.calls == []
            await confirmation.close()
    await registry.close()


@pytest.mark.parametrize("mode", ["reachable", "always"])
async def test_a_contradicted_removal_waits_until_genesys_says_gone_whatever_comes_between(
    mode: str, database_url: str, tmp_path: Path
) -> None:
    of = key(1)
    identity = of.partition(":")[2]
    registry = Registry(database_url, schema="lifecycle", lease_s=60, worker="one", on_unreadable=unexpected)
    await registry.start()
    await registry.store(untraced([desired(of, 1)]))
    (claim,) = await registry.claim(1)
    async with serving(FakeGenesys(_one(of))) as genesys:
        orgs = _orgs(tmp_path, _one(of))
        confirmation = Confirmation(
            read(_genesys(genesys.url, orgs), ProvisionerSettings), clock.now_us, structlog.get_logger()
        )
        gate = RemovalGate(registry, RemovalRules(9, 0, 60), confirmation, needs_answer=mode == "always")

        async def enter(version: int) -> TurnedAway | None:
            return await gate.enter(Removal(of, 1, version, version, 1), claim.epoch)

        contradicted = TurnedAway(GENESYS_SAYS_INSTALLED, 10.0)
        genesys.add(identity)
        assert await enter(1) == contradicted
        file = orgs / f"{_one(of)}.json"
        whole = file.read_text()
        file.write_text(whole[:20])
        assert await enter(1) == contradicted, "half a file says nothing"
        file.write_text(whole)
        genesys.lie = _answers(200, id=identity, intendedState="SLEEPING")
        assert await enter(1) == contradicted, "nor does a state that this release does not know"
        genesys.lie = _answers(500)
        assert await enter(1) == contradicted, "nor a fault of Genesys"
        genesys.lie = lambda _: None
        await confirmation.close()
        # Another worker, or this one started again: the contradiction stands in the registry.
        confirmation = Confirmation(
            read(_genesys(genesys.url, orgs), ProvisionerSettings), clock.now_us, structlog.get_logger()
        )
        gate = RemovalGate(registry, RemovalRules(9, 0, 60), confirmation, needs_answer=mode == "always")
        genesys.integrations.clear()
        assert await enter(1) is None
        genesys.add(identity)
        file.unlink()
        again = await enter(2)
        assert again == (TurnedAway(GENESYS_UNREAD, 10.0) if mode == "always" else None), "another removal"
        await confirmation.close()
    await registry.close()


async def test_few_questions_to_an_organisation_are_under_way_at_once(tmp_path: Path) -> None:
    of = key(1)
    genesys = FakeGenesys(_one(of), silent=lambda request: "/integrations/" in request.url.path)
    async with serving(genesys):
        settings = read(_genesys(genesys.url, _orgs(tmp_path, _one(of))), ProvisionerSettings)
        confirmation = Confirmation(settings, clock.now_us, structlog.get_logger())
        found = await asyncio.gather(*(confirmation.ask(of) for _ in range(20)))
        assert found.count(NotAsked.CROWDED) == 16, "they come again, and hold up nobody"
        await confirmation.close()
    assert found.count(GenesysSays.GONE) == 4


async def test_a_proof_of_former_credentials_proves_nothing_of_the_present_ones(tmp_path: Path) -> None:
    of = key(1)
    mine, other = _one(of), "22222222-2222-4222-8222-222222222222"
    asked, may_answer = (asyncio.Event(), asyncio.Event()), (asyncio.Event(), asyncio.Event())

    async def slowly(number: int, org_id: str) -> AsyncIterator[str]:
        asked[number].set()
        await may_answer[number].wait()
        yield json.dumps({"id": org_id, "name": "org"})

    def answer(request: Request) -> Response | None:
        if request.url.path.endswith("/organizations/me"):
            is_former = request.headers["authorization"] == "Bearer token-1"
            body = slowly(0, mine) if is_former else slowly(1, other)
            return StreamingResponse(body, media_type="application/json")
        # Every organisation answers so of an integration that it never had.
        return JSONResponse({"code": "not.found", "status": 404}, 404) if "/integrations/" in request.url.path else None

    async with serving(FakeGenesys(mine, lie=answer)) as genesys:
        orgs = _orgs(tmp_path, mine)
        confirmation = Confirmation(
            read(_genesys(genesys.url, orgs), ProvisionerSettings), clock.now_us, structlog.get_logger()
        )
        former = asyncio.create_task(confirmation.ask(of))
        await asked[0].wait()
        given = {"org_id": mine, "client_id": "other", "client_secret": "of another organisation"}
        (orgs / f"{mine}.json").write_text(json.dumps(given))
        present = asyncio.create_task(confirmation.ask(of))
        await asked[1].wait()
        may_answer[0].set()
        assert await former is GenesysSays.GONE
        beside = asyncio.create_task(confirmation.ask(of))
        may_answer[1].set()
        assert (await present, await beside) == (GenesysSays.UNREAD, GenesysSays.UNREAD)
        await confirmation.close()


async def test_after_trouble_of_an_organisation_its_removals_are_asked_later_and_none_goes_unasked(
    database_url: str, tmp_path: Path
) -> None:
    of, beside, other = key(1, org=1), key(2, org=1), key(3, org=2)
    registry = Registry(database_url, schema="lifecycle", lease_s=60, worker="one", on_unreadable=unexpected)
    await registry.start()
    await registry.store(untraced([desired(one, 1) for one in (of, beside)]))
    epochs = {claim.key: claim.epoch for claim in await registry.claim(2)}
    genesys = FakeGenesys(_one(of), lie=_answers(500))
    async with serving(genesys):
        settings = read(_genesys(genesys.url, _orgs(tmp_path, _one(of), _one(other))), ProvisionerSettings)
        confirmation = Confirmation(settings, clock.now_us, structlog.get_logger())
        gate = RemovalGate(registry, RemovalRules(9, 0, 60), confirmation)
        assert await gate.enter(Removal(of, 1, 1, 1, 1), epochs[of]) is None, "reachable goes on after its own question"
        before = len(genesys.calls)
        found = await gate.enter(Removal(beside, 1, 1, 1, 1), epochs[beside])
        assert found == TurnedAway(GENESYS_UNREAD, 10.0)
        assert await confirmation.ask(beside) is NotAsked.LATER
        assert len(genesys.calls) == before
        genesys.org_id, genesys.lie = _one(other), lambda _: None
        assert await confirmation.ask(other) is GenesysSays.GONE, "another organisation is asked"
        await confirmation.close()
    await registry.close()


async def test_an_odd_answer_about_one_integration_silences_no_other(tmp_path: Path) -> None:
    odd, well = key(1), key(2)
    identity = odd.partition(":")[2]
    answers = {
        "another integration": JSONResponse({"id": "b", "intendedState": "ENABLED"}),
        "no fields": JSONResponse({}),
        "forbidden": JSONResponse({"code": "not.authorized", "status": 403}, 403),
    }
    for case, answer in answers.items():
        lie = lambda request, answer=answer: answer if request.url.path.endswith(identity) else None  # noqa: E731
        async with serving(FakeGenesys(_one(odd), lie=lie)) as genesys:
            settings = read(_genesys(genesys.url, _orgs(tmp_path, _one(odd))), ProvisionerSettings)
            confirmation = Confirmation(settings, clock.now_us, structlog.get_logger())
            assert await confirmation.ask(odd) is GenesysSays.UNREAD, case
            assert await confirmation.ask(well) is GenesysSays.GONE, case
            await confirmation.close()


@pytest.mark.parametrize("status", [200, 429])
async def test_a_spent_budget_is_asked_later_and_is_no_missing_answer(status: int, tmp_path: Path) -> None:
    first, second = key(1), key(2)
    headers = {"inin-ratelimit-count": "300", "inin-ratelimit-allowed": "300", "inin-ratelimit-reset": "50"}
    if status == 429:
        headers["retry-after"] = "50"

    def answer(request: Request) -> Response | None:
        if "/integrations/" not in request.url.path:
            return None
        body = {
            "id": request.url.path.rpartition("/")[2],
            "intendedState": "DELETED",
            "integrationType": {"id": "ours"},
        }
        return JSONResponse(body, status, headers)

    async with serving(FakeGenesys(_one(first), lie=answer)) as genesys:
        settings = read(_genesys(genesys.url, _orgs(tmp_path, _one(first))), ProvisionerSettings)
        confirmation = Confirmation(settings, clock.now_us, structlog.get_logger())
        assert await confirmation.ask(first) is (GenesysSays.GONE if status == 200 else NotAsked.LATER)
        calls = len(genesys.calls)
        assert await confirmation.ask(second) is NotAsked.LATER
        assert len(genesys.calls) == calls, "a refused request costs the patience of Genesys"
        await confirmation.close()
