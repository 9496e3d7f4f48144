"""The burst story: a partner installs the integration in all organisations at once (the guide's edge case 1)."""

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
    """(g) All organisations install within a second or two. Expects 200 for every webhook, and every tenant active."""
    integrations = [scene.integration(f"{number:03}") for number in range(scene.context.orgs)]
    asyncio.run(_install_at_genesys(scene, integrations))
    scene.began_us = now_us()  # the report's times are from the first webhook, without the preparation of Genesys
    statuses = asyncio.run(_storm(scene, integrations))
    scene.notes.append(
        f"{len(integrations)} webhooks answered in {(now_us() - scene.began_us) / 1e6:.1f} s: {statuses}"
    )
    scene.check(
        statuses == {200: len(integrations)}, f"answers by status: {statuses}, not {len(integrations)} times 200"
    )
    keys = {integration.key for integration in integrations}

    def all_active(view: PublicRecords) -> bool:
        done = sum(view.tenants[key].stage is Stage.ACTIVE for key in keys if key in view.tenants)
        scene.context.progress("active", done, len(keys))
        return done == len(keys)

    if not scene.context.view.until(all_active, _DEADLINE_S):
        not_active = [
            f"{integration.tenant}: {description}"
            for integration in integrations
            if (description := _describe(scene, integration)) != Stage.ACTIVE
        ]
        scene.deviations.append(
            f"{len(not_active)} are not active after {_DEADLINE_S:g} s: {'; '.join(not_active[:5])}"
        )
    # Tenants and events are in different topics, so the last events may be read later. Gaps after 30 s are reported.
    scene.context.view.until(lambda view: not any(view.gaps(key) for key in keys), 30.0)
    check_each_once(scene, integrations)


def check_each_once(scene: Scene, integrations: list[InstalledIntegration]) -> None:
    """Checks every tenant: one resource in each system, no archive, one schema in PostgreSQL, no gap in the revisions.

    Reads inventory and schemas once for all tenants; `Scene.check_provisioned` would read both for each tenant.
    """
    found = scene.context.outside.inventory()
    comments = list(scene.context.outside.schemas().values())
    for integration in integrations:
        counts = {system: len(found[system].get(integration.key, [])) for system in PROVISIONED}
        scene.check(set(counts.values()) == {1}, f"{integration.tenant}: exists: {counts}")
        scene.check(not found[ARCHIVE].get(integration.key), f"{integration.tenant}: archived")
        schemas = sum(integration.key in comment for comment in comments)
        scene.check(schemas == 1, f"{integration.tenant}: {schemas} schemas in PostgreSQL")
        gaps = scene.context.view.gaps(integration.key)
        scene.check(not gaps, f"{integration.tenant}: {gaps}")


async def _install_at_genesys(scene: Scene, integrations: list[InstalledIntegration]) -> None:
    """Creates all integrations in the simulator's Genesys, before the first webhook."""
    slots = asyncio.Semaphore(_AT_ONCE)
    async with httpx2.AsyncClient(base_url=scene.context.stack.simulator, timeout=30.0, trust_env=False) as client:

        async def install(integration: InstalledIntegration) -> None:
            async with slots:
                body = {"tenantId": integration.tenant, "enabled": True, "configuration": integration.configuration}
                (await client.put(sender.genesys_path(integration), json=body)).raise_for_status()

        await asyncio.gather(*map(install, integrations))


async def _storm(scene: Scene, integrations: list[InstalledIntegration]) -> dict[int, int]:
    """Sends the webhook of every installation, `_AT_ONCE` at a time; returns the number of answers by status."""
    counted: dict[int, int] = {}
    slots = asyncio.Semaphore(_AT_ONCE)
    url = scene.context.stack.ingress + WEBHOOK_PATH
    limits = httpx2.Limits(max_connections=_AT_ONCE)
    async with httpx2.AsyncClient(timeout=sender.TIMEOUT_S, limits=limits, trust_env=False) as client:

        async def send(integration: InstalledIntegration) -> None:
            async with slots:
                now = now_us()
                raw = sender.body(EventType.INSTALLED, integration, now)
                answer = await client.post(url, content=raw, headers=sender.headers(scene.context.secret, raw, now))
                counted[answer.status_code] = counted.get(answer.status_code, 0) + 1

        await asyncio.gather(*map(send, integrations))
    return counted


def _describe(scene: Scene, integration: InstalledIntegration) -> str:
    """Returns the stage of a tenant and its reason, as text."""
    tenant = scene.context.view.tenants.get(integration.key)
    if tenant is None:
        return "unknown"
    return f"{tenant.stage} ({tenant.reason})" if tenant.reason else f"{tenant.stage}"
