"""`lifecycle doctor`: is everything there that the services need, and what to do where it is not.

Rule: a check says one of three things: well, a fault with what to do about it, or not looked at and why. It changes
nothing, and shows no secret.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from services.adapters.kafka import KafkaError
from services.adapters.settings import Settings, Unusable

_PYTHON_LEAST, _PYTHON_BELOW = (3, 11), (3, 14)


class Health(StrEnum):
    """What a check found."""

    WELL = "well"
    FAULT = "fault"
    SKIPPED = "not looked at"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        what: What was looked at.
        health: What was found.
        detail: In words.
        cure: What to do; empty where nothing has to be done.
    """

    what: str
    health: Health
    detail: str
    cure: str = ""


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at everything, in the order in which faults hide each other.

    Args:
        environ: The environment of an operator's command.
    """
    from services.adapters import settings

    yield _python()
    try:
        chosen = settings.read(environ)
    except Unusable as error:
        for line in str(error).splitlines():
            yield Finding("settings", Health.FAULT, line, "correct this environment variable")
        return
    yield Finding("settings", Health.WELL, "every variable can be used")
    for check in (_keyring, _spool, _kafka, _topics, _database, _organisations):
        yield _guarded(check, chosen)


def _guarded(check: Callable[[Settings], Finding], chosen: Settings) -> Finding:
    try:
        return check(chosen)
    except Unusable as error:
        return Finding(check.__name__.strip("_"), Health.FAULT, str(error), "correct this file or variable")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    well = _PYTHON_LEAST <= sys.version_info[:2] < _PYTHON_BELOW
    cure = "" if well else "use Python 3.11, 3.12 or 3.13"
    return Finding("python", Health.WELL if well else Health.FAULT, version, cure)


def _keyring(chosen: Settings) -> Finding:
    from services.adapters import keyring

    found = keyring.load(chosen.keyring_file)
    mode = chosen.keyring_file.stat().st_mode & 0o077
    if mode:
        return Finding(
            "keyring", Health.FAULT, f"{chosen.keyring_file} may be read by others", f"chmod 600 {chosen.keyring_file}"
        )
    if found.material is None:
        cure = "only ingress can run with it; take the file that holds `material`"
        return Finding("keyring", Health.FAULT, f"{chosen.keyring_file} has no material", cure)
    return Finding("keyring", Health.WELL, f"endpoints: {', '.join(sorted(found.endpoints))}")


def _spool(chosen: Settings) -> Finding:
    from services.adapters.spool.disk import fullness, is_volatile, put_aside

    folder = chosen.spool_dir
    if folder is None:
        cure = "set SPOOL_DIR where a volume outlives process and machine"
        return Finding("spool", Health.SKIPPED, "SPOOL_DIR is not set: while Kafka is away the answer is 503", cure)
    if is_volatile(folder):
        cure = "name a folder on a volume that outlives the machine's restart, or none"
        return Finding("spool", Health.FAULT, f"{folder} is in memory: what was answered 200 would be lost", cure)
    if kept := put_aside(folder):
        cure = "look at them, then remove them; the hourly reconciliation finds what they held"
        return Finding("spool", Health.FAULT, f"{folder}: damaged, put aside: {', '.join(kept)}", cure)
    if (full := fullness(folder)) >= chosen.spool_high_water:
        cure = "make room, or raise SPOOL_HIGH_WATER"
        return Finding("spool", Health.FAULT, f"{folder}: its file system is {full:.0%} full", cure)
    return Finding("spool", Health.WELL, str(folder))


def _kafka(chosen: Settings) -> Finding:
    from services.engines.answers import kafka_answers

    if chosen.kafka_bootstrap_servers is None:
        return Finding(
            "kafka",
            Health.FAULT,
            "KAFKA_BOOTSTRAP_SERVERS is not set, and no `lifecycle up` runs in the state folder",
            "set it, or start `lifecycle up`",
        )
    if kafka_answers(chosen.kafka_bootstrap_servers, 5.0):
        return Finding("kafka", Health.WELL, chosen.kafka_bootstrap_servers)
    cure = "start it, or correct KAFKA_BOOTSTRAP_SERVERS and KAFKA_CONFIG"
    return Finding("kafka", Health.FAULT, f"no broker answers at {chosen.kafka_bootstrap_servers}", cure)


def _topics(chosen: Settings) -> Finding:
    from services.adapters import topics

    if chosen.kafka_bootstrap_servers is None:
        return Finding("topics", Health.SKIPPED, "no Kafka is known")
    try:
        plan = topics.plan(
            chosen.kafka,
            prefix=chosen.topic_prefix,
            partitions=chosen.topic_partitions,
            replication=chosen.topic_replication,
            timeout_s=5.0,
        )
    except KafkaError as error:
        return Finding("topics", Health.SKIPPED, f"Kafka does not answer ({error})")
    if plan.create:
        return Finding("topics", Health.FAULT, f"missing: {', '.join(plan.create)}", "lifecycle topics apply")
    if plan.conflicts:
        cure = "set TOPIC_PARTITIONS to what the topics have"
        return Finding("topics", Health.FAULT, "; ".join(plan.conflicts), cure)
    if plan.configure:
        cure = "lifecycle topics plan shows which; change them with kafka-configs"
        return Finding("topics", Health.FAULT, f"settings differ: {', '.join(plan.configure)}", cure)
    return Finding("topics", Health.WELL, "as the table says")


def _database(chosen: Settings) -> Finding:
    from services.adapters.postgres import fault

    if chosen.database_url is None:
        return Finding("postgresql", Health.FAULT, "DATABASE_URL is not set", "set it, or start `lifecycle up`")
    if why := fault(chosen.database_url):
        cure = "start it, or correct DATABASE_URL"
        return Finding("postgresql", Health.FAULT, f"DATABASE_URL: {why}", cure)
    if chosen.tenant_database_url is not None and (why := fault(chosen.tenant_database_url)):
        cure = "start it (under `up` it is behind the simulator), or correct TENANT_DATABASE_URL"
        return Finding("postgresql", Health.FAULT, f"TENANT_DATABASE_URL: {why}", cure)
    return Finding("postgresql", Health.WELL, "registry and tenants' database answer")


def _organisations(chosen: Settings) -> Finding:
    from services.adapters import organisations

    if not Path(chosen.orgs_dir).is_dir():
        cure = "make it, one file an organisation, where the reconciler should ask Genesys"
        return Finding("organisations", Health.SKIPPED, f"{chosen.orgs_dir} is no folder", cure)
    found = organisations.load(chosen.orgs_dir)
    if found.faults:
        detail = "; ".join(f"{name}.json {fault}" for name, fault in sorted(found.faults.items()))
        return Finding(
            "organisations", Health.FAULT, detail, "correct these files: their organisations are not compared"
        )
    return Finding("organisations", Health.WELL, f"{len(found.known)} with credentials in {chosen.orgs_dir}")
