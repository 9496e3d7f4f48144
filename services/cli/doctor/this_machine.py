"""Checks of this machine, without any network: Python, keyring, plan, spool folder, files of organisations."""

import sys
from collections.abc import Iterator
from typing import Final

from schemas.keyring import Authority
from services.adapters import tenant_file
from services.adapters.genesys import organisations as accounts
from services.adapters.genesys.answers import NoInformation
from services.adapters.genesys.client import hosts_for
from services.adapters.process.settings import Settings
from services.adapters.secrets import keyring as keyring_adapter
from services.adapters.spool.disk import aside_folders, fullness, is_volatile
from services.cli.doctor.finding import CheckContext, Finding, fault, skipped, well
from services.cli.doctor.organisation import region_fault
from services.cli.wording import counted
from services.core.saga.plan import BadPlan, Plan
from services.provisioner.kinds import TRAITS
from services.provisioner.plans import checked, plan_path

_PYTHON_LEAST, _PYTHON_BELOW = (3, 11), (3, 14)
_MOST_NAMED: Final = 3
"""Number of faulty files named; the rest is counted."""


def python() -> Finding:
    """Checks the version of the interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    if _PYTHON_LEAST <= sys.version_info[:2] < _PYTHON_BELOW:
        return well("python", version)
    return fault("python", version, "use Python 3.11, 3.12 or 3.13")


def keyring(context: CheckContext) -> Iterator[Finding]:
    """Checks the keyring file: readable by the owner alone, and complete."""
    path = context.settings.keyring_file
    found = keyring_adapter.load(path)
    if rights := _rights_of_others(path.stat().st_mode):
        yield fault("keyring", f"{path} may be {rights}", f"chmod 600 {path}")
    elif found.material is None:
        cure = "give the other services the file that holds `material`; only the ingress can run with this one"
        yield fault("keyring", f"{path} has no material", cure)
    else:
        yield well("keyring", f"endpoints: {', '.join(sorted([*found.endpoints, *found.hints]))}")
    askable = accounts.load(context.settings.orgs_dir).known
    for name, endpoint in sorted(found.hints.items()):
        if endpoint.authority is Authority.EVENT:
            yield from _events_without_asking(name, [org for org in endpoint.orgs if org.lower() in askable])


def _events_without_asking(name: str, askable: list[str]) -> Iterator[Finding]:
    """Warns of an endpoint whose audits count as events, and finds fault where Genesys could be asked instead."""
    if askable:
        cure = f"`lifecycle keyring add NAME --hint` for them, and {name} without: whoever can be asked is asked"
        yield fault("keyring", f"{name}: audits count as events for {', '.join(askable)}, with credentials here", cure)
    else:
        cure = "ask these customers for API credentials; until then keep this secret as a password"
        yield skipped("keyring", f"{name}: audits count as events, and nobody can be asked if they are true", cure)


def _rights_of_others(mode: int) -> str:
    """Returns the rights of the group and of every user in words, as `read by its group`; empty without a right."""
    classes = (("its group", mode >> 3), ("every user", mode))
    rights = (("read", 4), ("changed", 2), ("executed", 1))
    return ", ".join(f"{right} by {whom}" for whom, bits in classes for right, bit in rights if bits & bit)


def read_plan(chosen: Settings) -> Plan:
    """Returns the plan, read as by the provisioner.

    Raises:
        BadPlan: the plan has faults; the exception lists every fault.
        OSError: the file does not exist, or cannot be read.
        UnicodeDecodeError: the file is not UTF-8.
    """
    return checked(plan_path(chosen).read_text(encoding="utf-8"), chosen, TRAITS)


def plan(context: CheckContext) -> Iterator[Finding]:
    """Checks PLAN_FILE and the settings needed by the steps."""
    name = str(context.settings.plan_file or "the guide's plan")
    try:
        found = read_plan(context.settings)
    except BadPlan as error:
        for text in error.faults:
            cure = "set it, or take the step out of PLAN_FILE" if "is missing" in text else "correct PLAN_FILE"
            yield fault("plan", f"{name}: {text}", cure)
    except (OSError, UnicodeDecodeError) as error:
        detail = error.strerror if isinstance(error, OSError) else "not UTF-8"
        yield fault("plan", f"{name}: {detail}", "name a file that the provisioner can read in PLAN_FILE")
    else:
        yield well("plan", f"{name}: {', '.join(step.name for step in found.steps)}")


def tenants_file(context: CheckContext) -> Iterator[Finding]:
    """Checks TENANTS_FILE, where the variable is set."""
    path = context.settings.tenants_file
    if path is None:
        return
    known = tenant_file.load(path)
    if rights := _rights_of_others(path.stat().st_mode):
        yield fault("tenants file", f"{path} may be {rights}", f"chmod 600 {path}")
    else:
        yield well("tenants file", f"{counted(len(known), 'line')} in {path}")


def spool(context: CheckContext) -> Iterator[Finding]:
    """Checks the spool folder of the ingress: durable, undamaged, and with room."""
    folder, full_at = context.settings.spool_dir, context.settings.spool_high_water
    if folder is None:
        cure = "set SPOOL_DIR to a folder on a volume that outlives process and machine"
        yield skipped("spool", "SPOOL_DIR is not set: while Kafka is away the answer is 503", cure)
    elif folder.exists() and not folder.is_dir():
        yield fault("spool", f"{folder} is no folder", "name a folder in SPOOL_DIR")
    # The order is by severity: a folder in memory loses deliveries at the next restart, a full one only closes the
    # spool.
    elif is_volatile(folder):
        cure = "name a folder on a volume that outlives the machine's restart, or none"
        yield fault("spool", f"{folder} is in memory: what was answered 200 would be lost", cure)
    elif kept := aside_folders(folder):
        cure = "look at them, then remove them; the hourly reconciliation finds what they held"
        yield fault("spool", f"{folder}: damaged, put aside: {', '.join(kept)}", cure)
    elif (full := fullness(folder)) >= full_at:
        cure = "make room, or raise SPOOL_HIGH_WATER"
        yield fault(
            "spool", f"{folder}: its file system is {full:.0%} full, and the spool closes at {full_at:.0%}", cure
        )
    else:
        yield well("spool", str(folder))


def organisations(context: CheckContext) -> Iterator[Finding]:
    """Checks the files of Genesys credentials, and the region in each."""
    chosen = context.settings
    if not chosen.orgs_dir.is_dir():
        cure = "`lifecycle orgs add` writes one file an organisation, where the reconciler should ask Genesys"
        yield skipped("organisations", f"ORGS_DIR: {chosen.orgs_dir} is no folder", cure)
        return
    found = accounts.load(chosen.orgs_dir)
    faults = dict(sorted(found.faults.items()))
    for org_id, organisation in sorted(found.known.items()):
        try:
            hosts_for(organisation, chosen.genesys_login_url, chosen.genesys_api_url)
        except NoInformation:
            faults[org_id] = region_fault(organisation.region)
    if faults:
        detail = "; ".join(f"{name}.json: {why}" for name, why in list(faults.items())[:_MOST_NAMED])
        more = f" and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
        cure = "`lifecycle orgs add ORG --replace` writes such a file anew: its organisation is not compared"
        yield fault("organisations", detail + more, cure)
    else:
        yield well("organisations", f"{len(found.known)} with credentials in {chosen.orgs_dir}")


def organisations_count(chosen: Settings) -> int:
    """Returns the number of organisations with credentials on this machine."""
    return len(accounts.load(chosen.orgs_dir).known)
