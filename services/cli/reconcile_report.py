"""Reads what `lifecycle reconcile --report` shows: Genesys, the view, the registry, and the outside systems on request.

Rule: a source that cannot be read is named in the report, and the rest is reported.
"""

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from schemas.times import rfc3339
from services.cli import environment
from services.cli.exits import CommandError

if TYPE_CHECKING:
    from schemas.values import Key
    from services.adapters.process.settings import Settings
    from services.core.reconcile.three_views import ComparedKey, OutsideView
    from services.operations.reconciliation import ReportScope
    from services.reconciler.report import RunReport

_NO_REGISTRY: Final = "DATABASE_URL: missing"


async def read_report(settings: "Settings", scope: "ReportScope", *, looks: bool, every: bool) -> dict[str, Any]:
    """Reads all sources and compares; returns the report as JSON.

    Args:
        settings: The environment.
        scope: The keys of the report.
        looks: True to look every resource up in its system.
        every: True to list the keys that agree as well.

    Raises:
        Unusable: brokers, key material, or with `looks` a setting of the provisioner is missing.
        KafkaError: the view cannot be read.
    """
    from services.adapters.process.clock import now_us
    from services.operations.reconciliation import GenesysReading, three_views
    from services.reconciler.run import run_once

    # The outside first: whatever is provisioned meanwhile then looks older than the view, and never removed.
    outside, unreadable, why = await _read_outside(settings, scope, looks=looks)
    run = await run_once(settings, now=now_us, dry_run=True, orgs=scope.orgs, keys=scope.keys)
    unread = {refusal.scope: refusal.reason for refusal in run.refusals if refusal.scope not in run.read}
    reading = GenesysReading(run.plan, run.tenants, run.held, unread)
    views = three_views(reading, scope, outside, unreadable, every=every)
    return {
        "at": rfc3339(now_us()),
        "read": list(run.read),
        "unread": [{"org": refusal.scope, "reason": refusal.reason} for refusal in run.refusals],
        "outside": {"read": outside is not None, "looked": looks and outside is not None, "why": why},
        "keys": [_key_json(one) for one in views.differing],
        "agreeing": views.agreeing,
        "brake": _brake_json(run),
        "held": [{"org": one.org_id, "newcomers": one.newcomers, "approval": one.approval} for one in run.held],
    }


async def _read_outside(
    settings: "Settings", scope: "ReportScope", *, looks: bool
) -> "tuple[dict[Key, OutsideView] | None, dict[Key, str], str]":
    """Returns the keys of the registry, the unreadable ones with their reasons, and why the registry was not read."""
    from services.adapters.postgres.sessions import NoDatabase
    from services.adapters.process import logs
    from services.cli import show
    from services.cli.registry import open_registry
    from services.operations.reconciliation import outside_views
    from services.provisioner.outside_look import OutsideLook

    if settings.database_url is None:
        return None, {}, _NO_REGISTRY
    unreadable: dict[Key, str] = {}
    try:
        environment.require_registry(settings)
        async with AsyncExitStack() as stack:
            registry = await stack.enter_async_context(open_registry(settings, "reconcile", unreadable.__setitem__))
            look = None
            if looks:
                look = OutsideLook(settings, registry, logs.configure("reconcile", "CRITICAL"))
                stack.push_async_callback(look.close)
                await look.list_lives()
            progress = stack.enter_context(show.Progress())

            def on_progress(done: int, of: int) -> None:
                if looks:
                    progress("looking outside", done, of)

            views = await outside_views(registry, scope, (), look.look if look else None, on_progress)
    except (NoDatabase, CommandError) as error:
        return None, {}, str(error)
    return views, unreadable, ""


def _key_json(one: "ComparedKey") -> dict[str, Any]:
    outside = one.outside
    return {
        "key": one.key,
        "genesys": {"says": one.genesys.says, "lock": one.genesys.lock, "why": one.genesys.why},
        "desired": {
            "says": one.desired.says,
            "enabled": one.desired.enabled,
            "stage": one.desired.stage,
            "reason": one.desired.reason,
        },
        "outside": None
        if outside is None
        else {
            "shows": outside.shows,
            "generation": outside.generation,
            "steps": dict(outside.steps),
            "missing": list(outside.missing),
            "unread": dict(outside.unread),
            "why": outside.why,
        },
        "differences": [
            {"difference": found.difference, "why": found.why, "decision": found.decision, "by": found.by}
            for found in one.findings
        ],
    }


def _brake_json(run: "RunReport") -> dict[str, Any]:
    return {
        "absent": run.plan.absent,
        "limit": run.plan.limit,
        "holds": run.stopped is not None,
        "approval": run.stopped.approval if run.stopped else None,
    }
