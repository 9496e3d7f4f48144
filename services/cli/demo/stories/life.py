"""Stories of one tenant's life: the guide's example, a life from install to uninstall, and a refused secret."""

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
    """(a) The guide's own example request, with the timestamps of now."""
    scene.cast["acme"] = _GUIDE
    answer = scene.send(EventType.INSTALLED, _GUIDE)
    scene.check(answer.body == {"status": "queued"}, f"the answer is {answer.body}, not queued")
    scene.until(_GUIDE, Stage.ACTIVE, revision=1)
    scene.revisions(_GUIDE, 1)
    scene.check_provisioned(_GUIDE)
    created = [call["system"] for call in scene.world.outside.calls(_GUIDE.key) if call["verb"] == "create"]
    scene.check(created == list(PROVISIONED), f"created in the order {created}, not {list(PROVISIONED)}")


def whole_life(scene: Scene) -> None:
    """(d) Install, configure, disable, enable, uninstall."""
    of = scene.integration("whole")
    scene.send(EventType.INSTALLED, of)
    scene.until(of, Stage.ACTIVE, revision=1)
    changed = InstalledIntegration(of.org, of.id, of.tenant, of.configuration | {"syncInterval": "PT1M"})
    for revision, event in enumerate((EventType.CONFIGURATION_UPDATED, EventType.DISABLED, EventType.ENABLED), 2):
        scene.send(event, changed)
        scene.until(of, Stage.ACTIVE, revision=revision)
    tenant = scene.world.view.tenants[of.key]
    interval = (tenant.configuration or {}).get("syncInterval")
    scene.check(interval == "PT1M", f"the configuration published says {interval}, not PT1M")
    scene.check_provisioned(of)
    scene.send(EventType.UNINSTALLED, changed)
    scene.until(of, Stage.DEPROVISIONED, revision=5)
    scene.revisions(of, 5)
    scene.check_gone(of, archived=True)
    _check_reverse(scene, of)


def refused(scene: Scene) -> None:
    """(e) An invalid OAuth client secret at the CRM, then a corrected configuration."""
    of = scene.integration("refused", {"crmClientId": "lifecycle", "crmClientSecret": "invalid-client-secret"})
    scene.send(EventType.INSTALLED, of)
    scene.until(of, Stage.PROVISIONING_ROLLED_BACK, revision=1)
    scene.check_gone(of, archived=True)
    undone = [call["system"] for call in scene.world.outside.calls(of.key) if call["verb"] == "delete"]
    scene.check("middleware" in undone, f"{of.tenant}: compensated {undone}, the middleware is not among them")
    corrected = InstalledIntegration(
        of.org, of.id, of.tenant, of.configuration | {"crmClientSecret": "the-client-secret-of-acme"}
    )
    scene.send(EventType.CONFIGURATION_UPDATED, corrected)
    scene.until(of, Stage.ACTIVE, revision=2)
    scene.revisions(of, 2)
    # The compensation ended the first life; its audit trail stays archived.
    scene.check_provisioned(of, generation=2)


def _check_reverse(scene: Scene, of: InstalledIntegration) -> None:
    """Teardown is the reverse of creation: tokens first."""
    deleted = [call["system"] for call in scene.world.outside.calls(of.key) if call["verb"] == "delete"]
    expected = list(reversed(PROVISIONED))
    scene.check(deleted == expected, f"{of.tenant}: deleted in the order {deleted}, not {expected}")
