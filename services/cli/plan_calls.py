"""Reads a tenant, living or given by a file, and previews the calls of the provisioner, for `lifecycle plan show`.

Rule: nothing is changed, and no outside system is called. A living tenant is read from the registry without a lease.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from schemas.codec import Unreadable
from schemas.saga import Journal
from schemas.tenant import Desired
from schemas.values import Json
from services.adapters.process import logs
from services.adapters.process.clock import now_us
from services.adapters.process.errors import Unusable
from services.adapters.tenant_file import TenantFile
from services.cli import environment, naming
from services.cli.exits import CommandError, Exit
from services.cli.registry import open_registry
from services.core.saga.intents import completed
from services.core.saga.next_move import Plans
from services.core.saga.plan import BadPlan, Plan, parse
from services.core.saga.rehearsal import new_life, sample_of, uninstalled
from services.provisioner.kinds import TRAITS
from services.provisioner.plans import checked, plan_path, read_plan_file, settings_for_plans
from services.provisioner.preview import Preview, masks_of, preview

if TYPE_CHECKING:
    from services.adapters.process.settings import Settings

SAMPLE_KEY: Final = "00000000-0000-4000-8000-000000000001:00000000-0000-4000-9000-000000000001"
"""Key of a tenant that does not exist; the names of the outside resources are made from the key."""


@dataclass(frozen=True, slots=True)
class TenantCalls:
    """The calls of a tenant, and their sources.

    Attributes:
        key: `orgId:integrationId`.
        tenant_id: The tenantId; None if unknown.
        source: Source of the plan, in words.
        preview: The calls.
    """

    key: str
    tenant_id: str | None
    source: str
    preview: Preview


def of_configuration(
    settings: "Settings", key: str | None, file: Path | None, configuration: Path, *, uninstall: bool
) -> TenantCalls:
    """Returns the calls for a tenant that does not exist; needs no engine.

    Args:
        settings: The environment.
        key: A full key for the names of resources; None for a sample.
        file: The plan; None for PLAN_FILE or the shipped plan.
        configuration: File with the configuration, a JSON object.
        uninstall: True for the calls of an uninstall.

    Raises:
        CommandError: the key is no full key, or the file is no JSON object (UNUSABLE).
        Unusable: the plan cannot be read, or has faults.
    """
    if key is not None and not naming.is_full_key(key):
        raise CommandError(Exit.UNUSABLE, f"--for: {key!r}: with --configuration, say orgId:integrationId in full")
    plan, source = _plan(settings, file)
    journal, desired = sample_of((key or SAMPLE_KEY).lower(), _json_object(configuration), now_us())
    return asyncio.run(_calls(settings, Plans(plan), journal, desired, source, uninstall=uninstall))


def of_tenant(settings: "Settings", key: str, file: Path | None, *, uninstall: bool) -> TenantCalls:
    """Returns the calls for a living tenant.

    Args:
        settings: The environment.
        key: The tenant, under any name known to an operator.
        file: The plan of a new life; None for the plan of the present life, or of the next one.
        uninstall: True for the calls of an uninstall.

    Raises:
        CommandError: no such tenant (NOT_FOUND), or Kafka or the registry does not serve us.
        Unusable: the plan cannot be read, or has faults.
    """
    of = naming.keys_of([key], settings)[0]
    # Before the pool opens: a pool retries and would report only a timeout.
    environment.require_registry(settings)
    return asyncio.run(_of_tenant(settings, of, file, uninstall=uninstall))


async def _of_tenant(settings: "Settings", key: str, file: Path | None, *, uninstall: bool) -> TenantCalls:
    async with open_registry(settings, "plan") as registry:
        try:
            found = await registry.present(key)
        except Unreadable as fault:
            raise CommandError(Exit.UNUSABLE, f"{key}: its row cannot be read by this release: {fault}") from None
        if found is None:
            told = f"{key}: the provisioner knows no such tenant; --configuration FILE shows one that does not exist"
            raise CommandError(Exit.NOT_FOUND, told)
        desired, journal = found
        life = journal.life
        if life is not None and file is None:
            source = f"of its life ({life.plan[:12]})"
            plan = _kept(life.plan, await registry.plan_text(life.plan), settings)
        else:
            plan, source = _plan(settings, file)
            if life is not None and Plans(plan).known(life) is None:
                journal, source = new_life(journal), f"{source}, as a new life"
    return await _calls(settings, Plans(plan), journal, desired, source, uninstall=uninstall)


async def _calls(
    settings: "Settings", plans: Plans, journal: Journal, desired: Desired, source: str, *, uninstall: bool
) -> TenantCalls:
    at_us, log = now_us(), logs.configure("plan", "error")
    told = await TenantFile(settings.tenants_file, log).of(desired.key, time.monotonic())
    desired = completed(desired, told)
    if uninstall:
        journal, desired = uninstalled(plans, journal, desired, at_us)
    masks = masks_of(settings, settings.published_names)
    shown = preview(plans, journal, desired, settings, masks, at_us, log)
    return TenantCalls(desired.key, desired.tenant_id, source, shown)


def _plan(settings: "Settings", file: Path | None) -> tuple[Plan, str]:
    """Returns a checked plan, and its file in words.

    Raises:
        Unusable: the plan cannot be read, or has faults.
    """
    path, named = file or plan_path(settings), "FILE" if file else "PLAN_FILE"
    text = read_plan_file(path, named)
    try:
        return checked(text, settings, TRAITS), str(path)
    except BadPlan as bad:
        raise Unusable("\n".join(f"{named}: {path}: {fault}" for fault in bad.faults)) from None


def _kept(digest: str, text: str | None, settings: "Settings") -> Plan:
    """Returns the plan of a life.

    Raises:
        CommandError: the plan is not kept, or this release cannot carry the plan out (UNUSABLE).
    """
    named = f"the plan of its life ({digest[:12]})"
    if text is None:
        raise CommandError(Exit.UNUSABLE, f"{named} is not in the registry; name the plan as FILE")
    try:
        return parse(text, kinds=TRAITS, settings=settings_for_plans(settings))
    except BadPlan as bad:
        raise CommandError(Exit.UNUSABLE, "\n".join(f"{named}: {fault}" for fault in bad.faults)) from None


def _json_object(path: Path) -> Json:
    """Returns the JSON object of a file.

    Raises:
        CommandError: the file cannot be read, or is no JSON object (UNUSABLE).
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"--configuration: {path}: {error.strerror}") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CommandError(Exit.UNUSABLE, f"--configuration: {path}: must be a JSON object in UTF-8")
    return found
