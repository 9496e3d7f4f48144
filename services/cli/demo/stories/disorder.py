"""Stories of a sender that repeats itself and loses the order."""

from schemas.tenant import Stage
from schemas.values import EventType
from services.cli.demo.scene import Scene
from services.cli.sender import InstalledIntegration

_ATTEMPTS = 6


def repeated(scene: Scene) -> None:
    """(b) One delivery and its five retries: each with another timestamp and other metadata, as the guide says."""
    of = scene.integration("repeated")
    for retry in range(_ATTEMPTS):
        # The sender stamps each attempt anew: the first is the oldest.
        scene.send(EventType.INSTALLED, of, age_s=(_ATTEMPTS - retry) * 1.5, retry=retry)
    scene.until(of, Stage.ACTIVE, revision=1)
    told = scene.world.view.until(lambda view: view.verdicts[of.key].total() >= _ATTEMPTS, 30)
    verdicts = dict(scene.world.view.verdicts[of.key])
    scene.check(told, f"{of.tenant}: the audit trail knows {verdicts}, not {_ATTEMPTS} deliveries")
    scene.revisions(of, 1)
    scene.check_provisioned(of)
    scene.notes.append(f"verdicts in the audit trail: {verdicts}")


def uninstalled_first(scene: Scene) -> None:
    """(c) The uninstall overtakes the install it ends."""
    of = scene.integration("overtaken")
    scene.send(EventType.UNINSTALLED, of)
    scene.send(EventType.INSTALLED, of, age_s=10, genesys=False)
    scene.until(of, Stage.DEPROVISIONED, revision=2)
    scene.revisions(of, 2)
    calls = scene.world.outside.calls(of.key)
    scene.check(not calls, f"{of.tenant}: {len(calls)} calls, not one should have been made")
    scene.check_gone(of, archived=False)


def late_uninstall(scene: Scene) -> None:
    """(f) Installed, reinstalled with another configuration, and only then the uninstall between them arrives."""
    of = scene.integration("reinstalled")
    again = InstalledIntegration(of.org, of.id, of.tenant, of.configuration | {"syncInterval": "PT10M"})
    scene.send(EventType.INSTALLED, of, age_s=60)
    scene.until(of, Stage.ACTIVE, revision=1)
    scene.send(EventType.INSTALLED, again, age_s=20)
    scene.until(of, Stage.ACTIVE, revision=2)
    before = scene.world.outside.inventory()
    scene.send(EventType.UNINSTALLED, of, age_s=40, genesys=False)
    scene.until(of, Stage.ACTIVE, revision=3)
    scene.until_calls(of, _tokens_are_new, "tokens issued anew")
    scene.revisions(of, 3)
    scene.check_provisioned(of)
    after = scene.world.outside.inventory()
    for system in ("middleware", "crm", "schemas", "subscriptions"):
        same = before[system].get(of.key) == after[system].get(of.key)
        scene.check(same, f"{of.tenant}: {system} was made anew")
    deleted = {call["system"] for call in scene.world.outside.calls(of.key) if call["verb"] == "delete"}
    scene.check(deleted <= {"tokens"}, f"{of.tenant}: deleted: {deleted}")


def _tokens_are_new(calls: list[dict[str, object]]) -> bool:
    issued = [call for call in calls if call["system"] == "tokens" and call["verb"] == "create"]
    return len(issued) >= 2 and calls[-1]["verb"] == "create"
