"""The follower of audits between a real Genesys API and its files: what it took on survives crash and outage."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from schemas.times import instant
from services.adapters.genesys.audit_queries import SHORTEST_US
from services.adapters.process import logs
from services.adapters.process.clock import now_us
from services.adapters.process.environment import read
from services.adapters.process.settings import ReconcilerSettings
from services.core.reconcile.audit_gaps import OVERLAP_US, AuditCursor
from services.core.reconcile.onboarding import HeldOrganisation
from services.core.reconcile.reconcile import ReconcilePlan
from services.reconciler.audit_memory import AuditMemory, sync_times
from services.reconciler.audits import AuditFollower
from services.reconciler.reading import Readers
from services.reconciler.report import RunReport
from tests.support.eventually import eventually_async
from tests.support.genesys_server import FakeGenesys, serving
from tests.support.simulator_process import Outside, outside

ORG = "98765432-1234-5678-9abc-def012345678"
IDS = [f"a1b2c3d4-e5f6-7890-abcd-{number:012d}" for number in range(5)]
INTERVAL_S = 0.2
DAY_US = 86_400_000_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Outside]:
    with outside(tmp_path) as running:
        yield running


def change(world: Outside, number: int, **body: object) -> str:
    url = f"{world.url}/genesys/control/orgs/{ORG}/integrations/{IDS[number]}"
    key: str = httpx2.put(url, json=body).raise_for_status().json()["key"]
    return key


def settings(url: str, folder: Path, orgs: Path) -> ReconcilerSettings:
    environ = {
        "ORGS_DIR": str(orgs),
        "STATE_DIR": str(folder),
        "GENESYS_LOGIN_URL": f"{url}/login",
        "GENESYS_API_URL": url,
        "RECONCILE_AUDIT_INTERVAL_S": str(INTERVAL_S),
        "RECONCILE_SECOND_LOOK_S": "0.1",
    }
    return read(environ, ReconcilerSettings)


@asynccontextmanager
async def following(chosen: ReconcilerSettings) -> AsyncIterator[AuditFollower]:
    """A follower of its own, as after a restart; it ends between two requests, whatever waits."""
    readers = Readers(chosen, now_us)
    follower = AuditFollower(chosen, readers, now_us, logs.configure("reconciler", "error"))
    task = asyncio.create_task(follower.run())
    try:
        yield follower
        await eventually_async(lambda: asyncio.sleep(0, not follower._busy))
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await readers.close()


async def until_due(follower: AuditFollower, *keys: str) -> None:
    async def is_due() -> bool:
        return follower.due({}) == set(keys)

    await eventually_async(is_due)


def report(*, read: tuple[str, ...] = (ORG,), held: tuple[HeldOrganisation, ...] = ()) -> RunReport:
    return RunReport(False, read, ReconcilePlan((), {}, None, {}, 0, 5, ()), (), 0, held, None, {})


async def test_keys_wait_over_a_restart_also_while_the_audits_are_away(world: Outside) -> None:
    chosen = settings(f"{world.url}/genesys", world.folder, world.orgs)
    keys = [change(world, number) for number in (0, 1)]
    async with following(chosen) as follower:
        await until_due(follower, *keys)
    world.fault("genesys", "error", path="/audits")
    async with following(chosen) as follower:
        await until_due(follower, *keys)
        await follower.was_read(report(read=()), frozenset(keys), now_us())
        assert follower.due({}) == set(keys), "an organisation without a reading settles nothing"
        await follower.was_read(report(held=(HeldOrganisation(ORG, tuple(keys)),)), frozenset(keys), now_us())
        assert follower.due({}) == set(keys), "nor an organisation that waits to be let in"
        await follower.was_read(report(), frozenset(keys[:1]), now_us())
        assert follower.due({}) == {keys[1]}
        assert follower.due({keys[1]: now_us()}) == frozenset(), "at most once in five minutes"
    async with following(chosen) as follower:
        await until_due(follower, keys[1])
        await follower.was_read(report(), None, now_us())
    assert sync_times(world.folder)[ORG].waiting == {}
    assert now_us() - sync_times(world.folder)[ORG].synced_us < 5_000_000


async def test_an_organisation_without_a_file_asks_for_nobody(world: Outside) -> None:
    chosen = settings(f"{world.url}/genesys", world.folder, world.orgs)
    key = change(world, 0)
    async with following(chosen) as follower:
        await until_due(follower, key)
        file = world.orgs / f"{ORG}.json"
        file.rename(file.with_suffix(".away"))
        await until_due(follower)
        file.with_suffix(".away").rename(file)
        await until_due(follower, key)


async def test_audits_that_cannot_be_saved_are_read_again_after_a_crash(world: Outside) -> None:
    chosen = settings(f"{world.url}/genesys", world.folder, world.orgs)
    key = change(world, 0)
    barrier = world.folder / "reconciler"
    barrier.symlink_to("nowhere")  # nothing can be read there, and no folder made
    async with following(chosen) as follower:
        await until_due(follower, key)
        await eventually_async(lambda: asyncio.sleep(0, bool(follower._troubles)))
        with pytest.raises(OSError, match="reconciler"):
            await follower.was_read(report(), None, now_us())
    assert sync_times(world.folder) == {}
    barrier.unlink()
    async with following(chosen) as follower:
        await until_due(follower, key)
        await eventually_async(lambda: asyncio.sleep(0, key in sync_times(world.folder)[ORG].waiting))


class SlowMemory(AuditMemory):
    """The real file, on a disk that takes a tenth of a second for each save."""

    saves = 0

    def save(self, cursors: Mapping[str, AuditCursor]) -> None:
        self.saves += 1
        time.sleep(0.1)
        super().save(cursors)


async def test_many_organisations_share_a_save_that_holds_nobody_up(world: Outside) -> None:
    chosen = settings(f"{world.url}/genesys", world.folder, world.orgs)
    readers = Readers(chosen, now_us)
    follower = AuditFollower(chosen, readers, now_us, logs.configure("reconciler", "error"))
    follower._memory = slow = SlowMemory(world.folder)
    orgs = [f"{number:08x}-1234-5678-9abc-def012345678" for number in range(200)]
    turns = 0

    async def keep(org_id: str) -> None:
        follower._keep(org_id, AuditCursor("client", now_us()))
        await follower._save()
        assert org_id in await asyncio.to_thread(sync_times, world.folder), "saved before the caller goes on"

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    turning = asyncio.create_task(turn())
    await asyncio.gather(*map(keep, orgs))
    turning.cancel()
    await readers.close()
    assert slow.saves <= 3
    assert turns > slow.saves, "the loop went on during the saves"
    assert sync_times(world.folder).keys() == set(orgs)


async def test_other_credentials_begin_fourteen_days_back(world: Outside) -> None:
    chosen = settings(f"{world.url}/genesys", world.folder, world.orgs)
    key = change(world, 0)
    async with following(chosen) as follower:
        await until_due(follower, key)
        await follower.was_read(report(), None, now_us())
    assert ORG in sync_times(world.folder)
    async with following(chosen) as follower:
        await asyncio.sleep(3 * INTERVAL_S)
        assert follower.due({}) == frozenset(), "an audit of the overlap asks once"
    file = world.folder / "reconciler" / "audits.json"
    stored = json.loads(file.read_text())[ORG]
    file.write_text(json.dumps({ORG: stored | {"client_id": "another", "until_us": now_us()}}))
    async with following(chosen) as follower:
        await until_due(follower, key)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", f'{{"{ORG}": {{"until_us": 1}}}}'], ids=["empty", "cut short", "a list", "a part"]
)
async def test_a_damaged_cursor_counts_as_lost_and_skips_nothing(world: Outside, content: str) -> None:
    chosen = settings(f"{world.url}/genesys", world.folder, world.orgs)
    key = change(world, 0)
    file = world.folder / "reconciler" / "audits.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    async with following(chosen) as follower:
        await until_due(follower, key)


async def test_a_span_with_too_many_audits_is_read_in_parts(tmp_path: Path) -> None:
    genesys = FakeGenesys(ORG)
    spans: list[tuple[int, int]] = []

    def crowded(request: Request) -> Response | None:
        if not request.url.path.endswith("/realtime"):
            return None
        begin, end = (instant(text) for text in json.loads(genesys.bodies[-1])["interval"].split("/"))
        if end - begin > 2 * DAY_US:
            return JSONResponse({"entities": [{}], "pageNumber": 1, "total": 6_000})
        spans.append((begin, end))
        return JSONResponse({"entities": [], "pageNumber": 1, "total": 0})

    genesys.lie = crowded
    (tmp_path / f"{ORG}.json").write_text(json.dumps({"org_id": ORG, "client_id": "c", "client_secret": "s"}))
    async with serving(genesys) as served, following(settings(served.url, tmp_path / "state", tmp_path)):
        await eventually_async(lambda: asyncio.sleep(0, bool(spans) and now_us() - spans[-1][1] < 5_000_000))
    assert now_us() - spans[0][0] > 13.9 * DAY_US
    # The parts leave no gap, and each begins an overlap before the end of the one before.
    assert all(abs(before[1] - after[0] - OVERLAP_US) < 2_000 for before, after in pairwise(spans[:6]))


async def test_audits_without_number_are_trouble_and_no_endless_question(tmp_path: Path) -> None:
    genesys = FakeGenesys(ORG)
    wide = {"inin-ratelimit-count": "1", "inin-ratelimit-allowed": "100000", "inin-ratelimit-reset": "60"}

    def countless(request: Request) -> Response | None:
        if not request.url.path.endswith("/realtime"):
            return None
        number = json.loads(genesys.bodies[-1])["pageNumber"]
        return JSONResponse({"entities": [], "pageNumber": number, "total": 1_000_000}, headers=wide)

    genesys.lie = countless
    (tmp_path / f"{ORG}.json").write_text(json.dumps({"org_id": ORG, "client_id": "c", "client_secret": "s"}))
    async with serving(genesys) as served, following(settings(served.url, tmp_path / "state", tmp_path)) as follower:
        await eventually_async(lambda: asyncio.sleep(0, bool(follower._troubles)))
    assert len(genesys.calls) < 100
    assert SHORTEST_US >= 2 * OVERLAP_US, "what a span cannot be shortened below must be read"


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_no_change_is_missed_whatever_a_hostile_genesys_answers(tmp_path: Path, seed: int) -> None:
    lies = ("error", "down", "rate_limited", "unauthorized", "blank", "wrong_total", "empty", "stale", "unknown_values")
    with outside(tmp_path, simulator_seed=str(seed)) as world:
        chosen, changed = settings(f"{world.url}/genesys", world.folder, world.orgs), set[str]()
        change(world, 0)
        for round_number in range(2):
            async with following(chosen) as follower:
                for lie in lies:
                    world.fault("genesys", lie, path="/audits", share=0.3)
                for number in range(len(IDS)):
                    changed.add(change(world, number, configuration={"round": round_number}))
                    await asyncio.sleep(INTERVAL_S)
                world.heal()
                await until_due(follower, *changed)
                await follower.was_read(report(), None, now_us())
                await eventually_async(lambda: asyncio.sleep(0, follower.due({}) == frozenset()))
                changed.clear()


async def test_a_cursor_older_than_fourteen_days_goes_on_by_a_transaction(world: Outside) -> None:
    chosen = settings(f"{world.url}/genesys", world.folder, world.orgs)
    key = change(world, 0)
    client_id = json.loads((world.orgs / f"{ORG}.json").read_text())["client_id"]
    AuditMemory(world.folder).save({ORG: AuditCursor(client_id, now_us() - 20 * DAY_US)})
    # The realtime query would not reach so far back, and is away.
    world.fault("genesys", "error", path="/realtime")
    async with following(chosen) as follower:
        await until_due(follower, key)
        assert now_us() - sync_times(world.folder)[ORG].until_us < 60_000_000
