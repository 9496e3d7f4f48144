"""How the demo looks: a table a story, with what became of each tenant, and a verdict at the end."""

from collections.abc import Sequence

from schemas.tenant import Tenant
from schemas.times import instant
from services.cli.demo.scene import Scene
from services.cli.demo.stories import Story
from services.cli.local.stack import Stack
from services.cli.sender import InstalledIntegration
from services.cli.show import table

_SHOWN_AT_MOST = 4
"""Beyond so many tenants a story is told in one summary row."""

Row = tuple[object, ...]


def opening(built: Stack, took_s: float, second_look_s: int) -> None:
    """What runs, and what is other than in production."""
    print(f"Ready in {took_s:.1f} s: {built.chosen}.")
    print(
        f"Here alone the reconciler takes its second look after {second_look_s} s (RECONCILE_SECOND_LOOK_S, else 600)."
    )


def story(told: Story, scene: Scene) -> None:
    """One story: its table, its notes, its deviations."""
    verdict = "as it should be" if not scene.deviations else f"{len(scene.deviations)} DEVIATIONS"
    print(f"\n({told.letter}) {told.title}: {verdict}")
    if len(scene.cast) > _SHOWN_AT_MOST:
        table(("tenants", "stage", "revisions", "calls", "ms (median)", "ms (last)"), _summary(scene))
    else:
        rows = [row for of in scene.cast.values() for row in _timeline(scene, of)]
        table(("tenant", "stage", "enabled", "revision", "calls", "ms"), rows)
    for note in scene.notes:
        print(f"  {note}")
    for text in scene.deviations:
        print(f"  DEVIATION: {text}")


def closing(deviations: Sequence[str], stories: int, took_s: float) -> None:
    """The verdict."""
    if deviations:
        print(f"\n{len(deviations)} deviations in {stories} stories, {took_s:.0f} s:")
        for text in deviations:
            print(f"  {text}")
    else:
        print(f"\nAll {stories} stories ended as they should, in {took_s:.0f} s.")


def kept(built: Stack) -> None:
    """Where everything is, for somebody who wants to look around."""
    print(f"\nKept running until Ctrl-C. Try:\n  lifecycle tenants list --state-dir {built.folders.top}")
    print(f"  curl {built.simulator}/inventory")


def _timeline(scene: Scene, of: InstalledIntegration) -> list[Row]:
    """A row for each change of the tenant; `calls` are those made by then."""
    calls = [instant(call["at"]) for call in scene.world.outside.calls(of.key)]
    changes = scene.world.view.changes[of.key]
    rows: list[Row] = []
    for number, change in enumerate(changes):
        # All that were made before the next change belong to this one when it is the last.
        until_us = change.at_us if number + 1 < len(changes) else max([*calls, change.at_us])
        made = sum(at_us <= until_us for at_us in calls)
        stage = f"{change.stage}" + (f" ({change.reason})" if change.reason else "")
        ms = max(0, change.at_us - scene.began_us) // 1000
        rows.append((of.tenant, stage, "yes" if change.enabled else "no", change.revision, made, ms))
    return rows


def _summary(scene: Scene) -> list[Row]:
    """A row for each stage that tenants stand at in the end."""
    view, outside = scene.world.view, scene.world.outside
    found: dict[str, list[Tenant]] = {}
    for of in scene.cast.values():
        if of.key in view.tenants:
            found.setdefault(str(view.tenants[of.key].stage), []).append(view.tenants[of.key])
    rows: list[Row] = []
    for stage, tenants in found.items():
        took = sorted(view.changes[tenant.key][-1].at_us - scene.began_us for tenant in tenants)
        calls = sum(len(outside.calls(tenant.key)) for tenant in tenants)
        revisions = sum(tenant.revision for tenant in tenants)
        rows.append((len(tenants), stage, revisions, calls, took[len(took) // 2] // 1000, took[-1] // 1000))
    return rows
