"""The work of `lifecycle adopt`: opens registry, Kafka and outside systems, and adopts a file or releases keys."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from services.cli import environment
from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from schemas.values import Key
    from services.adapters.process.settings import Settings
    from services.adapters.registry.registry import Registry
    from services.core.saga.adoption import Differing
    from services.core.saga.adoption_file import AdoptionFile
    from services.core.saga.plan import Plan
    from services.operations.adoption import Teller

_LINGER_MS: Final = 5
_TIMEOUT_MS: Final = 30_000
_VIEW_S: Final = 60.0
"""Seconds to read the view of the tenants."""


class Act(NamedTuple):
    """Name and reason of the operator; both are empty in a dry run."""

    by: str
    reason: str


async def adopt_file(
    settings: "Settings", file: Path, differing: "Differing", told_us: int, act: Act, *, dry_run: bool
) -> dict[str, Any]:
    """Adopts the tenants of a file; returns the ends as JSON.

    Args:
        settings: The environment.
        file: JSON Lines.
        differing: What becomes of a tenant with a resource that differs.
        told_us: Time of the file's content, microseconds UTC.
        act: The operator's act.
        dry_run: True to look alone.

    Raises:
        Unusable: a setting is missing, or the plan is not the provisioner's.
        CommandError: the registry does not answer, or is being recovered.
        KafkaError: the view was not read, or an observation was not acknowledged.
        OSError: the file cannot be read.
    """
    from schemas.audit import OperatorAct
    from services.adapters.kafka import tenant_view
    from services.adapters.process import logs
    from services.adapters.process.clock import now_us
    from services.cli import adopt_text, show
    from services.operations.adoption import AdoptionHands, AdoptionOrder, adopt_all, adoption_digest
    from services.provisioner.adoption_look import AdoptionLook
    from services.provisioner.outside_look import OutsideLook

    async with AsyncExitStack() as stack:
        registry, teller = await stack.enter_async_context(_opened(settings))
        outside = OutsideLook(settings, registry, logs.configure("adopt", "CRITICAL"))
        stack.push_async_callback(outside.close)
        await _check_plan(registry, outside.plan)
        parsed = await asyncio.to_thread(_parsed, file, outside.plan)
        keys = [line.key for line in parsed.tenants.values()]
        tenants = await asyncio.to_thread(tenant_view.read, settings.kafka, settings.topic_prefix, _VIEW_S)
        if not dry_run:
            await _have_newcomers_judged(settings, {key.partition(":")[0] for key in keys})
        of_set = OperatorAct(by=act.by, reason=act.reason, digest=adoption_digest(keys), number=len(keys))
        order = AdoptionOrder(of_set, told_us, differing, dry_run)
        look = AdoptionLook(outside, differing).look
        hands = AdoptionHands(registry, teller, look, tenants, _audit_key(settings), now_us)
        progress = stack.enter_context(show.Progress())

        def on_progress(done: int, of: int) -> None:
            progress("looking outside" if dry_run else "adopting", done, of)

        ends = await adopt_all(hands, order, parsed.tenants, on_progress)
    return adopt_text.adoption_json(order, parsed.bad, ends)


async def release_keys(settings: "Settings", keys: "Collection[Key]", act: Act) -> dict[str, Any]:
    """Releases adopted tenants; returns the ends as JSON. Errors as of `adopt_file`."""
    from services.cli import adopt_text
    from services.operations.release import release

    async with _opened(settings) as (registry, teller):
        material = _audit_key(settings)
        return adopt_text.release_json(
            {key: await release(registry, teller, key, act.by, act.reason, material) for key in keys}
        )


@asynccontextmanager
async def _opened(settings: "Settings") -> "AsyncIterator[tuple[Registry, Teller]]":
    """Opens the registry, and the way to the ledger."""
    from schemas.topics import AUDIT, RECEIVED
    from services.adapters.kafka.producer import KafkaError, Producer
    from services.cli.registry import open_registry
    from services.operations.adoption import Teller
    from services.reconciler.run import wrong_topics

    # A record in a topic that loses records proves nothing.
    if wrong := await asyncio.to_thread(wrong_topics, settings, RECEIVED, AUDIT):
        raise KafkaError(wrong)
    # Before the pool opens: a pool retries and would report only a timeout.
    environment.require_registry(settings)
    async with open_registry(settings, "adopt") as registry:
        if await registry.is_half_recovered():
            raise CommandError(Exit.UNUSABLE, "the registry is being recovered: its provisioner drives everything anew")
        producer = Producer(settings.kafka, linger_ms=_LINGER_MS, timeout_ms=_TIMEOUT_MS)
        try:
            yield registry, Teller(producer, settings.topic_prefix)
        finally:
            await producer.close(_TIMEOUT_MS / 1000)


async def _check_plan(registry: "Registry", plan: "Plan") -> None:
    """Refuses a plan that no provisioner has kept: adopted lives could not be carried on.

    Raises:
        Unusable: PLAN_FILE is another one than the provisioner's.
    """
    from services.adapters.process.errors import Unusable

    if await registry.plan_text(plan.digest) is None:
        raise Unusable("PLAN_FILE: no provisioner has run with this plan and this registry; start one with it first")


def _parsed(file: Path, plan: "Plan") -> "AdoptionFile":
    from services.core.saga.adoption_file import parse_file

    with file.open("rb") as lines:
        return parse_file(lines, plan)


async def _have_newcomers_judged(settings: "Settings", orgs: Collection[str]) -> None:
    """Has the first comparison of these organisations judged although the view will have tenants of them.

    Else the reconciler would make at once the tenants that were left out of the file, or left by the adoption.
    """
    from services.core.reconcile.onboarding import after_adoption
    from services.reconciler.memory import Sights

    sights = Sights(settings.state_dir)
    async with sights.hold_lock():
        before = sights.admissions()
        after = after_adoption(before, orgs)
        if after != before:
            sights.save_admissions(after)


def _audit_key(settings: "Settings") -> bytes:
    """Returns the newest key of `material.audit`."""
    from services.adapters.secrets import keyring

    return keyring.raw(keyring.material(settings.keyring_file).audit[0])
