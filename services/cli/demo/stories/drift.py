"""The drift story: changes in Genesys without a webhook, found by the reconciler."""

from typing import Final

from schemas.tenant import Stage
from schemas.times import instant
from schemas.values import EventType
from services.adapters.process.clock import now_us
from services.cli import sender
from services.cli.demo.scene import SECOND_US, Scene
from services.cli.demo.view import PublicRecords

_RUNS: Final = 6
"""Limit of reconciliations; the second look needs at least two."""
_SETTLE_S: Final = 10.0
"""Wait for the published observations to take effect, if no observation waits for a second look."""


def drift(scene: Scene) -> None:
    """(h) One integration is disabled and one is removed in Genesys, without webhooks. Expects both tenants aligned."""
    disabled, removed = scene.integration("disabled"), scene.integration("removed")
    for integration in (disabled, removed):
        scene.send(EventType.INSTALLED, integration)
    for integration in (disabled, removed):
        scene.wait_for_stage(integration, Stage.ACTIVE, revision=1)
    # The reconciler believes the absence of an integration only after a sight of the integration.
    scene.reconcile()
    context = scene.context
    sender.tell_genesys(context.client, context.stack.simulator, EventType.DISABLED, disabled)
    sender.tell_genesys(context.client, context.stack.simulator, EventType.UNINSTALLED, removed)

    def aligned(view: PublicRecords) -> bool:
        disabled_tenant, removed_tenant = view.tenants[disabled.key], view.tenants[removed.key]
        return disabled_tenant.enabled is False and removed_tenant.stage is Stage.DEPROVISIONED

    # An absence, and a contradiction of a recent event, counts only at a second sight, RECONCILE_SECOND_LOOK_S later.
    for _ in range(_RUNS):
        again = scene.reconcile().get("look_again_at")
        wait_s = (instant(again) - now_us()) / SECOND_US if again else _SETTLE_S
        if context.view.until(aligned, max(0.0, wait_s)):
            break
    scene.check(
        context.view.until(aligned, 0),
        "not aligned: " + "; ".join(_describe(scene, integration.key) for integration in scene.integrations.values()),
    )
    scene.wait_for_stage(disabled, Stage.ACTIVE, revision=2)
    scene.check_provisioned(disabled)
    scene.wait_for_stage(removed, Stage.DEPROVISIONED, revision=2)
    scene.check_gone(removed, archived=True)


def _describe(scene: Scene, key: str) -> str:
    """Returns stage, enablement and revision of a tenant, as text."""
    tenant = scene.context.view.tenants[key]
    return f"{tenant.tenant_id} is {tenant.stage}, enabled {tenant.enabled}, at revision {tenant.revision}"
