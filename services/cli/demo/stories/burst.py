"""The story of a partner who installs everywhere at once (the guide's edge case 1)."""

import asyncio
from typing import Final

import httpx2

from schemas.tenant import Stage
from schemas.values import EventType
from services.adapters.process.clock import now_us
from services.cli import sender
from services.cli.demo.outside import ARCHIVE, PROVISIONED
from services.cli.demo.scene import Scene
from services.cli.demo.view import PublicRecords
from services.cli.local.wiring import WEBHOOK_PATH
from services.cli.sender import InstalledIntegration

_AT_ONCE: Final = 64
_DEADLINE_S: Final = 240.0


def burst(scene: Scene) -> None:
    """(g) Every organisation installs within a second or two; no 5xx, and every one becomes active."""
    cast = [scene.integration(f"{number:03}") for number in range(scene.world.orgs)]
    asyncio.run(_install_at_genesys(scene, cast))
    scene.began_us = now_us()
    statuses = asyncio.run(_storm(scene, cast))
    scene.notes.append(f"{len(cast)} webhooks answered in {(now_us() - scene.began_us) / 1e6:.1f} s: {statuses}")
    scene.check(statuses == {200: len(cast)}, f"answers by status: {statuses}, not {len(cast)} times 200")
    keys = {of.key for of in cast}

    def all_active(view: PublicRecords) -> bool:
        done = sum(view.tenants[key].stage is Stage.ACTIVE for key in keys if key in view.tenants)
        scene.world.progress("active", done, len(keys))
        return done == len(keys)

    if not scene.world.view.until(all_active, _DEADLINE_S):
        others = [f"{of.tenant}: {stands}" for of in cast if (stands := _stands(scene, of)) != Stage.ACTIVE]
        scene.deviations.append(f"{len(others)} are not active after {_DEADLINE_S:g} s: {'; '.join(others[:5])}")
    scene.world.view.until(lambda view: not any(view.gaps(key) for key in keys), 30.0)
    check_each_once(scene, cast)


def check_each_once(scene: Scene, cast: list[InstalledIntegration]) -> None:
    """Each of the cast has every resource exactly once, its schema in PostgreSQL, and revisions without a gap."""
    found = scene.world.outside.inventory()
    comments = list(scene.world.outside.schemas().values())
    for of in cast:
        counts = {system: len(found[system].get(of.key, [])) for system in PROVISIONED}
        scene.check(set(counts.values()) == {1}, f"{of.tenant}: exists: {counts}")
        scene.check(not found[ARCHIVE].get(of.key), f"{of.tenant}: archived")
        schemas = sum(of.key in comment for comment in comments)
        scene.check(schemas == 1, f"{of.tenant}: {schemas} schemas in PostgreSQL")
        gaps = scene.world.view.gaps(of.key)
        scene.check(not gaps, f"{of.tenant}: {gaps}")


async def _install_at_genesys(scene: Scene, cast: list[InstalledIntegration]) -> None:
    """The partner's script: Genesys knows them all before it tells."""
    gate = asyncio.Semaphore(_AT_ONCE)
    async with httpx2.AsyncClient(base_url=scene.world.stack.simulator, timeout=30.0, trust_env=False) as client:

        async def one(of: InstalledIntegration) -> None:
            async with gate:
                told = {"tenantId": of.tenant, "enabled": True, "configuration": of.configuration}
                (await client.put(sender.genesys_path(of), json=told)).raise_for_status()

        await asyncio.gather(*map(one, cast))


async def _storm(scene: Scene, cast: list[InstalledIntegration]) -> dict[int, int]:
    """Send everything and count the answers by status."""
    counted: dict[int, int] = {}
    gate = asyncio.Semaphore(_AT_ONCE)
    url = scene.world.stack.ingress + WEBHOOK_PATH
    limits = httpx2.Limits(max_connections=_AT_ONCE)
    async with httpx2.AsyncClient(timeout=sender.TIMEOUT_S, limits=limits, trust_env=False) as client:

        async def one(of: InstalledIntegration) -> None:
            async with gate:
                now = now_us()
                raw = sender.body(EventType.INSTALLED, of, now)
                answer = await client.post(url, content=raw, headers=sender.headers(scene.world.secret, raw, now))
                counted[answer.status_code] = counted.get(answer.status_code, 0) + 1

        await asyncio.gather(*map(one, cast))
    return counted


def _stands(scene: Scene, of: InstalledIntegration) -> str:
    tenant = scene.world.view.tenants.get(of.key)
    if tenant is None:
        return "unknown"
    return f"{tenant.stage} ({tenant.reason})" if tenant.reason else f"{tenant.stage}"
