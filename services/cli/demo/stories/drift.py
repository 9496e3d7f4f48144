"""The story of changes in Genesys that no webhook told."""

from typing import Final

from schemas.tenant import Stage
from schemas.times import instant
from schemas.values import EventType
from services.adapters.process.clock import now_us
from services.cli import sender
from services.cli.demo.scene import SECOND_US, Scene
from services.cli.demo.view import PublicRecords

_RUNS: Final = 6
_SETTLE_S: Final = 10.0
"""For what was published to become so, when nothing waits for a second look."""


def drift(scene: Scene) -> None:
    """(h) One integration disabled and one removed in Genesys; nobody says so."""
    disabled, removed = scene.integration("disabled"), scene.integration("removed")
    for of in (disabled, removed):
        scene.send(EventType.INSTALLED, of)
    for of in (disabled, removed):
        scene.until(of, Stage.ACTIVE, revision=1)
    # Absence counts only for what was once seen present.
    scene.reconcile()
    world = scene.world
    sender.tell_genesys(world.client, world.stack.simulator, EventType.DISABLED, disabled)
    sender.tell_genesys(world.client, world.stack.simulator, EventType.UNINSTALLED, removed)

    def aligned(view: PublicRecords) -> bool:
        one, other = view.tenants[disabled.key], view.tenants[removed.key]
        return one.enabled is False and other.stage is Stage.DEPROVISIONED

    for _ in range(_RUNS):
        again = scene.reconcile().get("look_again_at")
        wait_s = (instant(again) - now_us()) / SECOND_US if again else _SETTLE_S
        if world.view.until(aligned, max(0.0, wait_s)):
            break
    scene.check(
        world.view.until(aligned, 0), "not aligned: " + "; ".join(_stands(scene, of.key) for of in scene.cast.values())
    )
    scene.until(disabled, Stage.ACTIVE, revision=2)
    scene.check_provisioned(disabled)
    scene.until(removed, Stage.DEPROVISIONED, revision=2)
    scene.check_gone(removed, archived=True)


def _stands(scene: Scene, key: str) -> str:
    tenant = scene.world.view.tenants[key]
    return f"{tenant.tenant_id} is {tenant.stage}, enabled {tenant.enabled}, at revision {tenant.revision}"
