"""An operator's approval or refusal by name, for `lifecycle reconcile --approve` and `--refuse`.

The digest names one of three sets, asked for in this order: the removals that the provisioner holds, the removals of
the reconciler's plan, the new tenants of an organisation. The sets never share a digest: a removal that the provisioner
holds is no removal for the reconciler any more. Removals that were refused are in a set only where KEY names them.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from schemas.times import rfc3339
from services.adapters.process.errors import Unusable
from services.cli import environment, options
from services.cli.exits import CommandError, Exit
from services.core.rulings import names

if TYPE_CHECKING:
    from schemas.values import Key
    from services.adapters.process.settings import Settings
    from services.adapters.registry.registry import Registry
    from services.adapters.registry.types import HeldRemoval
    from services.operations.reconciliation import ReportScope
    from services.operations.rulings import ActRecorder, GracedRemoval, Ruling
    from services.reconciler.run import ApprovedSet

APPROVAL_LIFE: Final = "PT1H"
REFUSAL_LIFE: Final = "P1D"
_APPROVAL_MOST: Final = "P7D"
_REFUSAL_MOST: Final = "P30D"
_NO_DATABASE: Final = "DATABASE_URL: missing"


def ruling_of(
    settings: "Settings", by: str | None, reason: str, expires: str | None, now_us: int, *, refuses: bool
) -> "Ruling":
    """Returns the operator's act from the options.

    Raises:
        CommandError: no name is given, or a text or the expiry cannot be used (UNUSABLE).
    """
    from services.operations.rulings import Ruling

    name = options.operator_name(settings, by, reason)
    life, most = (REFUSAL_LIFE, _REFUSAL_MOST) if refuses else (APPROVAL_LIFE, _APPROVAL_MOST)
    life_us = options.span_us(expires or life, "--expires", most)
    if not life_us:
        raise CommandError(Exit.UNUSABLE, f"--expires: 0 would rule on nothing; leave it out for {life}")
    return Ruling(name, reason, now_us, now_us + life_us)


async def approve(settings: "Settings", scope: "ReportScope", digest: str, ruling: "Ruling") -> dict[str, Any]:
    """Approves exactly the set that the digest names; returns the act, with the report of the run, as JSON.

    Raises:
        Unusable: the digest names no present set, or a setting is missing; nothing was done or recorded.
        KafkaError: the act was not recorded, and nothing was approved.
        CommandError: the registry does not answer.
    """
    from services.adapters.process.clock import now_us
    from services.cli.reconcile_report import graced_json
    from services.operations.rulings import BY_PROVISIONER, approve_removals, digest_of, offered
    from services.reconciler.run import OtherSet, run_once

    async with _sources(settings, scope) as (registry, recorder, held):
        ruled = offered(held, scope)
        if registry is not None and names(digest, digest_of(ruled)):
            keys = [one.key for one in ruled]
            reached = await approve_removals(registry, recorder, keys, digest, ruling, BY_PROVISIONER)
            return act_json("approved", "provisioner", digest, keys, ruling, missed=set(keys).difference(reached))
        done: dict[str, Any] = {}

        async def on_approved(approved: "ApprovedSet") -> None:
            put_off = await _record_approved(registry, recorder, approved, digest, ruling)
            of = "newcomers" if approved.org_id else "reconciler"
            done.update(act_json("approved", of, digest, approved.keys, ruling))
            done["put_off"] = graced_json(put_off)

        try:
            run = await run_once(
                settings,
                now=now_us,
                dry_run=False,
                orgs=scope.orgs,
                keys=scope.keys,
                approval=digest,
                on_approved=on_approved,
            )
        except OtherSet as error:
            graced = await _graced_text(registry, scope, now_us())
            raise Unusable(f"{error}{_held_text('approved', registry, held, scope)}{graced}") from None
        return done | {"run": run.as_json()}


async def refuse(settings: "Settings", scope: "ReportScope", digest: str, ruling: "Ruling") -> dict[str, Any]:
    """Refuses exactly the removals that the digest names; returns the act as JSON.

    Raises:
        Unusable: the digest names no present removals; nothing was done or recorded.
        KafkaError: the act was not recorded, and nothing was refused.
        CommandError: the registry does not answer.
    """
    from services.adapters.process.clock import now_us
    from services.core.rulings import RefusedRemovals
    from services.operations.rulings import BY_RECONCILER, ActKind, digest_of, offered, refuse_removals
    from services.reconciler.memory import Sights
    from services.reconciler.run import run_once

    async with _sources(settings, scope) as (registry, recorder, held):
        ruled = offered(held, scope)
        if registry is not None and names(digest, digest_of(ruled)):
            keys = [one.key for one in ruled]
            reached = await refuse_removals(registry, recorder, keys, digest, ruling)
            return act_json("refused", "provisioner", digest, keys, ruling, missed=set(keys).difference(reached))
        run = await run_once(settings, now=now_us, dry_run=True, orgs=scope.orgs, keys=scope.keys)
        present = run.plan.approval
        if not names(digest, present):
            if any(names(digest, one.approval) for one in run.held):
                raise Unusable(
                    f"--refuse: {digest!r}: new tenants of an organisation stay held by themselves; to keep them out, "
                    "name your types with `lifecycle orgs add ORG --replace --integration-type TYPE`"
                )
            nobody = "this run has no removals that nobody has refused"
            what = f"the removals of this run are refused with {present}" if present else nobody
            raise Unusable(
                f"--refuse: {digest!r}: {what}; nothing was done{_held_text('refused', registry, held, scope)}"
            )
        keys = list(run.plan.offered)
        await recorder.record(ActKind.REMOVAL_REFUSED, keys, digest, ruling, BY_RECONCILER)
        sights = Sights(settings.state_dir)
        async with sights.hold_lock():
            kept = [one for one in sights.refusals() if ruling.at_us < one.expires_us]
            new = RefusedRemovals(digest, ruling.by, ruling.reason, frozenset(keys), ruling.expires_us)
            sights.save_refusals([*kept, new])
        if registry is not None:
            # Withdraws earlier approvals: the provisioner would let such a removal pass.
            await registry.refuse_removals(keys, by=ruling.by, reason=ruling.reason)
        return act_json("refused", "reconciler", digest, keys, ruling)


async def remove_orphans(settings: "Settings", scope: "ReportScope", digest: str, ruling: "Ruling") -> dict[str, Any]:
    """Asks the sagas to remove exactly the orphans that the digest names; returns the act as JSON.

    The outside systems are looked at once more: an orphan that is not found now is removed by nobody.

    Raises:
        Unusable: the digest does not name the orphans seen twice, or a setting is missing; nothing was done.
        CommandError: the registry does not answer, or is being recovered.
    """
    from schemas.audit import OperatorAct
    from services.adapters.process.clock import now_us
    from services.adapters.process.settings import required
    from services.adapters.secrets import keyring
    from services.cli.reconcile_report import read_outside, remember_orphans
    from services.cli.registry import open_registry
    from services.core.reconcile.orphans import seen_twice
    from services.core.rulings import orphans_digest
    from services.operations.orphans import OrphanEnd, ask_removal

    required(settings, "database_url")
    outside = await read_outside(settings, scope, looks=True)
    if outside.plan is None:
        raise CommandError(outside.status, f"outside: not read: {outside.why}")
    orphans = await remember_orphans(settings, scope, outside, now_us())
    ripe = seen_twice(orphans, now_us(), int(settings.reconcile_second_look_s * 1_000_000))
    present = orphans_digest(one.name for one in ripe) if ripe else None
    if not names(digest, present):
        what = f"the {len(ripe)} orphans seen twice have {present}" if present else "no orphan was seen twice"
        raise Unusable(f"--remove-orphans: {digest!r}: {what}; nothing was done")
    material = keyring.raw(keyring.material(settings.keyring_file).audit[0])
    async with open_registry(settings, "reconcile") as registry:
        if await registry.is_half_recovered():
            raise CommandError(Exit.UNUSABLE, "the registry is being recovered: its provisioner drives everything anew")
        if await registry.plan_text(outside.plan.digest) is None:
            raise Unusable("PLAN_FILE: not the plan of the provisioner, which could not carry the removal out")
        act = OperatorAct(by=ruling.by, reason=ruling.reason, digest=digest, number=len(ripe))
        ends = await ask_removal(registry, ripe, outside.plan, act, material)
    return {
        "ruling": "asked to remove",
        "held_by": "orphans",
        "digest": digest,
        "by": ruling.by,
        "reason": ruling.reason,
        "orphans": [one.name for one in ripe],
        "ends": dict(ends),
        "is_done": all(end is OrphanEnd.ASKED for end in ends.values()),
    }


@asynccontextmanager
async def _sources(
    settings: "Settings", scope: "ReportScope"
) -> "AsyncIterator[tuple[Registry | None, ActRecorder, list[HeldRemoval]]]":
    """Opens the registry, if DATABASE_URL is given, and the recorder of acts; reads the removals held there."""
    from schemas.topics import AUDIT
    from services.adapters.kafka.producer import KafkaError
    from services.adapters.secrets import keyring
    from services.cli.registry import open_registry
    from services.operations.rulings import held_removals, recording
    from services.reconciler.run import wrong_topics

    # A record in a topic that loses records proves nothing.
    if wrong := await asyncio.to_thread(wrong_topics, settings, AUDIT):
        raise KafkaError(wrong)
    async with AsyncExitStack() as stack:
        registry, held = None, []
        if settings.database_url is not None:
            # Before the pool opens: a pool retries and would report only a timeout.
            environment.require_registry(settings)
            registry = await stack.enter_async_context(open_registry(settings, "reconcile"))
            held = await held_removals(registry, scope)
        recorder = await stack.enter_async_context(recording(settings, keyring.material(settings.keyring_file)))
        yield registry, recorder, held


async def _record_approved(
    registry: "Registry | None", recorder: "ActRecorder", approved: "ApprovedSet", digest: str, ruling: "Ruling"
) -> "list[GracedRemoval]":
    """Records the approval of a run's set; of removals also for the provisioner, which would hold them once more.

    Returns:
        The removals whose grace period outlasts the approval: the provisioner will hold them all the same.
    """
    from services.operations.rulings import BY_RECONCILER, NEWCOMER, ActKind, approve_removals, put_off_beyond

    if approved.org_id is not None:
        await recorder.record(ActKind.NEWCOMER_APPROVED, approved.keys, digest, ruling, NEWCOMER)
        return []
    if registry is None:
        raise Unusable(
            f"{_NO_DATABASE}: without an approval in the registry the provisioner would hold the same removals once "
            "more; nothing was done"
        )
    put_off = await put_off_beyond(registry, approved.keys, ruling)
    await approve_removals(registry, recorder, approved.keys, digest, ruling, BY_RECONCILER)
    return put_off


async def _graced_text(registry: "Registry | None", scope: "ReportScope", now_us: int) -> str:
    """Returns the end of a sentence about the removals that take no approval yet."""
    from services.operations.rulings import removals_in_grace

    found = [] if registry is None else await removals_in_grace(registry, scope, now_us)
    if not found:
        return ""
    first, last = (rfc3339(of(one.until_us for one in found)) for of in (min, max))
    until = first if first == last else f"{first} to {last}"
    return f"; {len(found)} removals are in a grace period until {until} and take an approval after it"


def _held_text(verb: str, registry: "Registry | None", held: "list[HeldRemoval]", scope: "ReportScope") -> str:
    """Returns the end of a sentence about the removals that the provisioner holds."""
    from services.operations.rulings import digest_of, offered

    if registry is None:
        return f"; removals held by the provisioner were not looked at ({_NO_DATABASE})"
    ruled = offered(held, scope)
    told = f"; the {len(ruled)} removals held by the provisioner are {verb} with {digest_of(ruled)}" if ruled else ""
    left_out = len(held) - len(ruled)
    return told + (f"; {left_out} that it holds were refused, and are {verb} by KEY alone" if left_out else "")


def act_json(
    verb: str, of: str, digest: str, keys: "Collection[Key]", ruling: "Ruling", missed: "Collection[Key]" = ()
) -> dict[str, Any]:
    """Returns an act as JSON.

    Args:
        verb: `approved` or `refused`.
        of: What holds the set: `provisioner`, `reconciler` or `newcomers`.
        digest: Digest of the set.
        keys: The set.
        ruling: The act.
        missed: Keys that the act did not reach: what held them had let them go between the reading and the act.
    """
    return {
        "ruling": verb,
        "held_by": of,
        "digest": digest,
        "by": ruling.by,
        "reason": ruling.reason,
        # The provisioner holds a refused removal without an end (operations/rulings.py).
        "expires_at": None if (verb, of) == ("refused", "provisioner") else rfc3339(ruling.expires_us),
        "keys": list(keys),
        "missed": sorted(missed),
        "is_done": not missed,
    }
