"""Checks of what is on this machine: Python, keyring, plan, spool folder, organisations' files. They ask nobody."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services import provisioner
from services.adapters.genesys import organisations as accounts
from services.adapters.genesys.answers import NoInformation
from services.adapters.genesys.client import hosts_for
from services.adapters.process.settings import Settings
from services.adapters.secrets import keyring as keyrings
from services.adapters.spool.disk import fullness, is_volatile, put_aside
from services.cli.doctor.finding import CheckContext, Finding, fault, skipped, well
from services.core.saga.plan import BadPlan, Plan, parse
from services.provisioner.kinds import SECRET_OUTPUTS
from services.provisioner.plans import settings_for_plans

_PYTHON_LEAST, _PYTHON_BELOW = (3, 11), (3, 14)
_NAMED: Final = 3
"""More faulty files than these are counted."""


def python() -> Finding:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    if _PYTHON_LEAST <= sys.version_info[:2] < _PYTHON_BELOW:
        return well("python", version)
    return fault("python", version, "use Python 3.11, 3.12 or 3.13")


def keyring(asked: CheckContext) -> Iterator[Finding]:
    """The file of secrets: readable by its owner alone, and whole."""
    path = asked.settings.keyring_file
    found = keyrings.load(path)
    if path.stat().st_mode & 0o077:
        yield fault("keyring", f"{path} may be read by others", f"chmod 600 {path}")
    elif found.material is None:
        cure = "give the other services the file that holds `material`; only the ingress can run with this one"
        yield fault("keyring", f"{path} has no material", cure)
    else:
        yield well("keyring", f"endpoints: {', '.join(sorted(found.endpoints))}")


def read_plan(chosen: Settings) -> Plan:
    """The plan as the provisioner would read it.

    Raises:
        BadPlan: with every fault.
        OSError: there is no such file.
        UnicodeDecodeError: it is not UTF-8.
    """
    path = chosen.plan_file or Path(str(provisioner.__file__)).with_name("plan.toml")
    return parse(path.read_text(encoding="utf-8"), kinds=SECRET_OUTPUTS.keys(), settings=settings_for_plans(chosen))


def plan(asked: CheckContext) -> Iterator[Finding]:
    """PLAN_FILE, each setting that it needs, and what of the provisioner's settings go together."""
    name = str(asked.settings.plan_file or "the guide's plan")
    try:
        found = read_plan(asked.settings)
    except BadPlan as error:
        for text in error.faults:
            cure = "set it, or take the step out of PLAN_FILE" if "is missing" in text else "correct PLAN_FILE"
            yield fault("plan", f"{name}: {text}", cure)
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "not UTF-8"
        yield fault("plan", f"{name}: {told}", "name a file that the provisioner can read in PLAN_FILE")
    else:
        yield well("plan", f"{name}: {', '.join(step.name for step in found.steps)}")


def spool(asked: CheckContext) -> Iterator[Finding]:
    """The folder where deliveries wait while Kafka is away."""
    folder, full_at = asked.settings.spool_dir, asked.settings.spool_high_water
    if folder is None:
        cure = "set SPOOL_DIR to a folder on a volume that outlives process and machine"
        yield skipped("spool", "SPOOL_DIR is not set: while Kafka is away the answer is 503", cure)
    elif folder.exists() and not folder.is_dir():
        yield fault("spool", f"{folder} is no folder", "name a folder in SPOOL_DIR")
    elif is_volatile(folder):
        cure = "name a folder on a volume that outlives the machine's restart, or none"
        yield fault("spool", f"{folder} is in memory: what was answered 200 would be lost", cure)
    elif kept := put_aside(folder):
        cure = "look at them, then remove them; the hourly reconciliation finds what they held"
        yield fault("spool", f"{folder}: damaged, put aside: {', '.join(kept)}", cure)
    elif (full := fullness(folder)) >= full_at:
        cure = "make room, or raise SPOOL_HIGH_WATER"
        yield fault(
            "spool", f"{folder}: its file system is {full:.0%} full, and the spool closes at {full_at:.0%}", cure
        )
    else:
        yield well("spool", str(folder))


def organisations(asked: CheckContext) -> Iterator[Finding]:
    """The files with credentials of the Genesys API, and whether each names a region that there is."""
    chosen = asked.settings
    if not chosen.orgs_dir.is_dir():
        cure = "make it, one file an organisation, where the reconciler should ask Genesys"
        yield skipped("organisations", f"ORGS_DIR: {chosen.orgs_dir} is no folder", cure)
        return
    found = accounts.load(chosen.orgs_dir)
    faults = dict(sorted(found.faults.items()))
    for org_id, organisation in sorted(found.known.items()):
        try:
            hosts_for(organisation, chosen.genesys_login_url, chosen.genesys_api_url)
        except NoInformation as none:
            faults[org_id] = none.reason
    if faults:
        told = "; ".join(f"{name}.json: {why}" for name, why in list(faults.items())[:_NAMED])
        more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        cure = f"correct these files in {chosen.orgs_dir}: their organisations are not compared"
        yield fault("organisations", told + more, cure)
    else:
        yield well("organisations", f"{len(found.known)} with credentials in {chosen.orgs_dir}")


def organisations_count(chosen: Settings) -> int:
    """How many organisations have credentials here."""
    return len(accounts.load(chosen.orgs_dir).known)
