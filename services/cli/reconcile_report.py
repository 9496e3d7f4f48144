"""Reads what `lifecycle reconcile --report` shows: Genesys, the view, the registry, and the outside systems on request.

Rule: a source that cannot be read is named in the report, and the rest is reported.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from schemas.times import rfc3339
from services.cli import environment
from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from schemas.values import Key
    from services.adapters.process.settings import Settings
    from services.adapters.registry.types import HeldRemoval
    from services.core.reconcile.three_views import ComparedKey, Orphan, OutsideView
    from services.core.saga.plan import Plan
    from services.operations.reconciliation import ReportScope
    from services.operations.rulings import GracedRemoval
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
    from services.core.reconcile.orphans import seen_twice
    from services.operations.reconciliation import GenesysReading, three_views
    from services.operations.rulings import digest_of, offered
    from services.reconciler.memory import Sights
    from services.reconciler.run import run_once

    # The outside first: whatever is provisioned meanwhile then looks older than the view, and never removed.
    outside = await read_outside(settings, scope, looks=looks)
    run = await run_once(settings, now=now_us, dry_run=True, orgs=scope.orgs, keys=scope.keys)
    unread = {refusal.scope: refusal.reason for refusal in run.refusals if refusal.scope not in run.read}
    reading = GenesysReading(run.plan, run.tenants, run.held, unread)
    views = three_views(reading, scope, outside.views, outside.unreadable, every=every)
    refusals = [one for one in Sights(settings.state_dir).refusals() if now_us() < one.expires_us]
    second_look_us = int(settings.reconcile_second_look_s * 1_000_000)
    orphans = await remember_orphans(settings, scope, outside, now_us()) if outside.looked else ()
    ruled = offered(outside.held, scope)
    return {
        "at": rfc3339(now_us()),
        "read": list(run.read),
        "unread": [{"org": refusal.scope, "reason": refusal.reason} for refusal in run.refusals],
        "outside": {
            "read": outside.views is not None,
            "looked": outside.looked,
            "why": outside.why,
        },
        "keys": [_key_json(one) for one in views.differing],
        "agreeing": views.agreeing,
        "brake": _brake_json(run),
        "refused": [
            {
                "digest": one.digest,
                "by": one.by,
                "reason": one.reason,
                "expires_at": rfc3339(one.expires_us),
                "keys": sorted(one.keys),
            }
            for one in refusals
        ],
        "held_removals": {
            "digest": digest_of(ruled),
            "digest_keys": [one.key for one in ruled],
            "keys": [one.key for one in outside.held],
            "refused": sum(one.refused_by is not None for one in outside.held),
        },
        "in_grace": graced_json(outside.in_grace),
        "held": run.as_json()["held"],
        "orphans": _orphans_json(orphans, seen_twice(orphans, now_us(), second_look_us)),
    }


@dataclass(slots=True)
class OutsideReading:
    """The registry, and what a look at the outside systems showed.

    Attributes:
        looked: True if the resources were looked up in their systems.
        views: The keys of the registry; None if the registry was not read.
        unreadable: Keys that this release cannot read, with the reasons.
        held: Removals that the brake of the provisioner holds.
        in_grace: Removals whose first delete waits for the end of a grace period.
        strangers: Resources of keys that the registry does not have.
        plan: The plan of the look; None without a look.
        why: Why the registry was not read; else empty.
        status: Exit status of a command that cannot do without the registry.
    """

    looked: bool = False
    views: "dict[Key, OutsideView] | None" = None
    unreadable: "dict[Key, str]" = field(default_factory=dict)
    held: "list[HeldRemoval]" = field(default_factory=list)
    in_grace: "list[GracedRemoval]" = field(default_factory=list)
    strangers: "tuple[Orphan, ...]" = ()
    plan: "Plan | None" = None
    why: str = ""
    status: Exit = Exit.UNREACHABLE

    @property
    def orphans(self) -> "list[Orphan]":
        """Returns the resources of ended lives that the look found."""
        of_views = [one for view in (self.views or {}).values() for one in view.orphans]
        return [*of_views, *self.strangers]


async def read_outside(settings: "Settings", scope: "ReportScope", *, looks: bool) -> OutsideReading:
    """Reads the registry, and on request looks every resource up in its system."""
    from services.adapters.postgres.sessions import NoDatabase
    from services.adapters.process import logs
    from services.adapters.process.clock import now_us
    from services.cli import show
    from services.cli.registry import open_registry
    from services.operations.reconciliation import outside_views
    from services.operations.rulings import held_removals, removals_in_grace
    from services.provisioner.outside_look import OutsideLook

    if settings.database_url is None:
        return OutsideReading(why=_NO_REGISTRY)
    found = OutsideReading()
    try:
        environment.require_registry(settings)
        async with AsyncExitStack() as stack:
            registry = await stack.enter_async_context(
                open_registry(settings, "reconcile", found.unreadable.__setitem__)
            )
            look = None
            if looks:
                look = OutsideLook(settings, registry, logs.configure("reconcile", "CRITICAL"))
                stack.push_async_callback(look.close)
                await look.list_lives()
            progress = stack.enter_context(show.Progress())

            def on_progress(done: int, of: int) -> None:
                if looks:
                    progress("looking outside", done, of)

            found.held = await held_removals(registry, scope)
            found.in_grace = await removals_in_grace(registry, scope, now_us())
            held = {one.key for one in found.held}
            found.views = await outside_views(registry, scope, held, look.look if look else None, on_progress)
            if look is not None:
                found.looked, found.plan = True, look.plan
                known = {*found.views, *found.unreadable}
                found.strangers = tuple(one for one in look.strangers(known) if scope.has(one.key))
    except NoDatabase as error:
        return OutsideReading(why=str(error), status=Exit.REFUSED if error.refused else Exit.UNREACHABLE)
    except CommandError as error:
        return OutsideReading(why=str(error), status=error.status)
    return found


async def remember_orphans(
    settings: "Settings", scope: "ReportScope", outside: OutsideReading, now_us: int
) -> "tuple[Orphan, ...]":
    """Stores the first sights of the orphans of a look; returns the orphans with their first sights."""
    from services.core.reconcile.orphans import sighted
    from services.reconciler.memory import Sights

    sights = Sights(settings.state_dir)
    async with sights.hold_lock():
        orphans, first_sights = sighted(outside.orphans, sights.orphans(), scope.has, now_us)
        sights.save_orphans(first_sights)
    return orphans


def _orphans_json(orphans: "tuple[Orphan, ...]", ripe: "tuple[Orphan, ...]") -> dict[str, Any]:
    from services.core.rulings import orphans_digest

    return {
        "digest": orphans_digest(one.name for one in ripe) if ripe else None,
        "resources": [
            {
                "key": one.key,
                "generation": one.generation,
                "step": one.step,
                "first_seen": rfc3339(one.first_seen_us),
                "seen_twice": one in ripe,
                "removable": one.removable,
            }
            for one in orphans
        ],
    }


def graced_json(found: "Sequence[GracedRemoval]") -> list[dict[str, str]]:
    """Returns removals in a grace period, each with its end, as JSON."""
    return [{"key": one.key, "until": rfc3339(one.until_us)} for one in found]


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
        "refused": run.stopped.refused if run.stopped else 0,
    }
