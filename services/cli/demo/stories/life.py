"""Stories of a tenant's life: the guide's example, a life from install to uninstall, and a refused OAuth secret."""

from schemas.tenant import Stage
from schemas.values import EventType
from services.cli.demo.outside import PROVISIONED
from services.cli.demo.scene import CONFIGURATION, Scene
from services.cli.sender import InstalledIntegration

_GUIDE = InstalledIntegration(
    org="98765432-1234-5678-9abc-def012345678",
    id="a1b2c3d4-e5f6-7890-abcd-ef1234567890",
    tenant="tenant_acme_corp",
    configuration=CONFIGURATION,
)


def guide(scene: Scene) -> None:
    """(a) The guide's example request, with present timestamps. Expects resources created in the plan's order."""
    scene.integrations["acme"] = _GUIDE
    answer = scene.send(EventType.INSTALLED, _GUIDE)
    scene.check(answer.body == {"status": "queued"}, f"the answer is {answer.body}, not queued")
    scene.wait_for_stage(_GUIDE, Stage.ACTIVE, revision=1)
    scene.check_event_count(_GUIDE, 1)
    scene.check_provisioned(_GUIDE)
    created = [call["system"] for call in scene.context.outside.calls(_GUIDE.key) if call["verb"] == "create"]
    scene.check(created == list(PROVISIONED), f"created in the order {created}, not {list(PROVISIONED)}")


def whole_life(scene: Scene) -> None:
    """(d) Install, configure, disable, enable, uninstall. Expects a removal in reverse order, and an archive."""
    integration = scene.integration("whole")
    scene.send(EventType.INSTALLED, integration)
    scene.wait_for_stage(integration, Stage.ACTIVE, revision=1)
    changed = InstalledIntegration(
        integration.org, integration.id, integration.tenant, integration.configuration | {"syncInterval": "PT1M"}
    )
    for revision, event in enumerate((EventType.CONFIGURATION_UPDATED, EventType.DISABLED, EventType.ENABLED), 2):
        scene.send(event, changed)
        scene.wait_for_stage(integration, Stage.ACTIVE, revision=revision)
    tenant = scene.context.view.tenants[integration.key]
    interval = (tenant.configuration or {}).get("syncInterval")
    scene.check(interval == "PT1M", f"the configuration published says {interval}, not PT1M")
    scene.check_provisioned(integration)
    scene.send(EventType.UNINSTALLED, changed)
    scene.wait_for_stage(integration, Stage.DEPROVISIONED, revision=5)
    scene.check_event_count(integration, 5)
    scene.check_gone(integration, archived=True)
    _check_reverse(scene, integration)


def refused(scene: Scene) -> None:
    """(e) The CRM refuses the OAuth client secret; a corrected configuration follows.

    Expects the compensation of the first attempt, then an active tenant of generation 2.
    """
    integration = scene.integration("refused", {"crmClientId": "lifecycle", "crmClientSecret": "invalid-client-secret"})
    scene.send(EventType.INSTALLED, integration)
    scene.wait_for_stage(integration, Stage.PROVISIONING_ROLLED_BACK, revision=1)
    scene.check_gone(integration, archived=True)
    undone = [call["system"] for call in scene.context.outside.calls(integration.key) if call["verb"] == "delete"]
    scene.check("middleware" in undone, f"{integration.tenant}: compensated {undone}, the middleware is not among them")
    corrected = InstalledIntegration(
        integration.org,
        integration.id,
        integration.tenant,
        integration.configuration | {"crmClientSecret": "the-client-secret-of-acme"},
    )
    scene.send(EventType.CONFIGURATION_UPDATED, corrected)
    scene.wait_for_stage(integration, Stage.ACTIVE, revision=2)
    scene.check_event_count(integration, 2)
    # The compensation ended generation 1; the archive of generation 1 stays.
    scene.check_provisioned(integration, generation=2)


def _check_reverse(scene: Scene, integration: InstalledIntegration) -> None:
    """Checks that the teardown deleted the resources in the reverse order of creation, tokens first."""
    deleted = [call["system"] for call in scene.context.outside.calls(integration.key) if call["verb"] == "delete"]
    expected = list(reversed(PROVISIONED))
    scene.check(deleted == expected, f"{integration.tenant}: deleted in the order {deleted}, not {expected}")
