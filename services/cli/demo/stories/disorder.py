"""Stories of a sender with repeated deliveries and a wrong order of deliveries."""

from schemas.tenant import Stage
from schemas.values import EventType
from services.cli.demo.scene import Scene
from services.cli.sender import InstalledIntegration

_ATTEMPTS = 6


def repeated(scene: Scene) -> None:
    """(b) One event in six deliveries, each with a new timestamp and retry metadata. Expects one event, one tenant."""
    integration = scene.integration("repeated")
    for retry in range(_ATTEMPTS):
        # The sender stamps each attempt anew, so the first attempt has the oldest timestamp.
        scene.send(EventType.INSTALLED, integration, age_s=(_ATTEMPTS - retry) * 1.5, retry=retry)
    scene.wait_for_stage(integration, Stage.ACTIVE, revision=1)
    audited = scene.context.view.until(lambda view: view.verdicts[integration.key].total() >= _ATTEMPTS, 30)
    verdicts = dict(scene.context.view.verdicts[integration.key])
    scene.check(audited, f"{integration.tenant}: the audit trail knows {verdicts}, not {_ATTEMPTS} deliveries")
    scene.check_event_count(integration, 1)
    scene.check_provisioned(integration)
    scene.notes.append(f"verdicts in the audit trail: {verdicts}")


def uninstalled_first(scene: Scene) -> None:
    """(c) The uninstall arrives before the older install. Expects two events and no call to an outside system."""
    integration = scene.integration("overtaken")
    scene.send(EventType.UNINSTALLED, integration)
    # genesys=False: in Genesys the integration is gone; only the webhook of the old install comes now.
    scene.send(EventType.INSTALLED, integration, age_s=10, genesys=False)
    scene.wait_for_stage(integration, Stage.DEPROVISIONED, revision=2)
    scene.check_event_count(integration, 2)
    calls = scene.context.outside.calls(integration.key)
    scene.check(not calls, f"{integration.tenant}: {len(calls)} calls, not one should have been made")
    scene.check_gone(integration, archived=False)


def late_uninstall(scene: Scene) -> None:
    """(f) An install and a reinstall arrive; the uninstall from the time between the two arrives last.

    Expects the reinstalled tenant to stay. Only the tokens are issued anew.
    """
    integration = scene.integration("reinstalled")
    again = InstalledIntegration(
        integration.org, integration.id, integration.tenant, integration.configuration | {"syncInterval": "PT10M"}
    )
    scene.send(EventType.INSTALLED, integration, age_s=60)
    scene.wait_for_stage(integration, Stage.ACTIVE, revision=1)
    scene.send(EventType.INSTALLED, again, age_s=20)
    scene.wait_for_stage(integration, Stage.ACTIVE, revision=2)
    before = scene.context.outside.inventory()
    # genesys=False: in Genesys the integration is installed again; only the webhook of the old uninstall comes now.
    scene.send(EventType.UNINSTALLED, integration, age_s=40, genesys=False)
    scene.wait_for_stage(integration, Stage.ACTIVE, revision=3)
    scene.wait_for_calls(integration, _tokens_are_new, "tokens issued anew")
    scene.check_event_count(integration, 3)
    scene.check_provisioned(integration)
    after = scene.context.outside.inventory()
    for system in ("middleware", "crm", "schemas", "subscriptions"):
        same = before[system].get(integration.key) == after[system].get(integration.key)
        scene.check(same, f"{integration.tenant}: {system} was made anew")
    deleted = {call["system"] for call in scene.context.outside.calls(integration.key) if call["verb"] == "delete"}
    scene.check(deleted <= {"tokens"}, f"{integration.tenant}: deleted: {deleted}")


def _tokens_are_new(calls: list[dict[str, object]]) -> bool:
    """True if tokens were issued at least twice, and the last call is a creation and not a revocation."""
    issued = [call for call in calls if call["system"] == "tokens" and call["verb"] == "create"]
    return len(issued) >= 2 and calls[-1]["verb"] == "create"
