"""Prints the demo's report: for each story a table of the tenants' stages, and a verdict at the end."""

from collections.abc import Sequence

from schemas.tenant import Tenant
from schemas.times import instant
from services.cli.demo.scene import Scene
from services.cli.demo.stories import Story
from services.cli.local.stack import Stack
from services.cli.sender import InstalledIntegration
from services.cli.show import table

_SHOWN_AT_MOST = 4
"""A story with more tenants is shown as a summary, with a row for each stage."""

Row = tuple[object, ...]


def opening(built: Stack, took_s: float, second_look_s: int) -> None:
    """Prints the running engines, and the setting that differs from production."""
    print(f"Ready in {took_s:.1f} s: {built.chosen}.")
    print(
        f"Here alone the reconciler takes its second look after {second_look_s} s (RECONCILE_SECOND_LOOK_S, else 600)."
    )


def story(told: Story, scene: Scene) -> None:
    """Prints the table, the notes and the deviations of a story."""
    verdict = "as it should be" if not scene.deviations else f"{len(scene.deviations)} DEVIATIONS"
    print(f"\n({told.letter}) {told.title}: {verdict}")
    if len(scene.integrations) > _SHOWN_AT_MOST:
        table(("tenants", "stage", "revisions", "calls", "ms (median)", "ms (last)"), _summary(scene))
    else:
        rows = [row for integration in scene.integrations.values() for row in _timeline(scene, integration)]
        table(("tenant", "stage", "enabled", "revision", "calls", "ms"), rows)
    for note in scene.notes:
        print(f"  {note}")
    for text in scene.deviations:
        print(f"  DEVIATION: {text}")


def closing(deviations: Sequence[str], stories: int, took_s: float) -> None:
    """Prints the verdict over all stories."""
    if deviations:
        print(f"\n{len(deviations)} deviations in {stories} stories, {took_s:.0f} s:")
        for text in deviations:
            print(f"  {text}")
    else:
        print(f"\nAll {stories} stories ended as they should, in {took_s:.0f} s.")


def kept(built: Stack) -> None:
    """Prints commands for a look at the running installation."""
    print(f"\nKept running until Ctrl-C. Try:\n  lifecycle tenants list --state-dir {built.folders.top}")
    print(f"  curl {built.simulator}/inventory")


def _timeline(scene: Scene, integration: InstalledIntegration) -> list[Row]:
    """Returns a row for each change of a tenant; the column of calls counts the calls up to the change."""
    calls = [instant(call["at"]) for call in scene.context.outside.calls(integration.key)]
    changes = scene.context.view.changes[integration.key]
    rows: list[Row] = []
    for number, change in enumerate(changes):
        # The last change gets all remaining calls: some calls end after the change was published.
        until_us = change.at_us if number + 1 < len(changes) else max([*calls, change.at_us])
        made = sum(at_us <= until_us for at_us in calls)
        stage = f"{change.stage}" + (f" ({change.reason})" if change.reason else "")
        # The record's timestamp is from a different process: a difference of clocks must not give a negative time.
        ms = max(0, change.at_us - scene.began_us) // 1000
        rows.append((integration.tenant, stage, "yes" if change.enabled else "no", change.revision, made, ms))
    return rows


def _summary(scene: Scene) -> list[Row]:
    """Returns a row for each final stage, with the number of tenants, and the median and the last time in ms."""
    view, outside = scene.context.view, scene.context.outside
    found: dict[str, list[Tenant]] = {}
    for integration in scene.integrations.values():
        if integration.key in view.tenants:
            found.setdefault(str(view.tenants[integration.key].stage), []).append(view.tenants[integration.key])
    rows: list[Row] = []
    for stage, tenants in found.items():
        took = sorted(view.changes[tenant.key][-1].at_us - scene.began_us for tenant in tenants)
        calls = sum(len(outside.calls(tenant.key)) for tenant in tenants)
        revisions = sum(tenant.revision for tenant in tenants)
        rows.append((len(tenants), stage, revisions, calls, took[len(took) // 2] // 1000, took[-1] // 1000))
    return rows
