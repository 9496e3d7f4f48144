"""Checks of PostgreSQL: the registry, the tenants' database, the rights of both roles, and the registry's clock."""

import time
from collections.abc import Iterator
from typing import Any, Final

from services.adapters.postgres.sessions import NoDatabase, RegistryAccess, registry_standing, session
from services.adapters.registry.registry import MIGRATIONS, SCHEMA
from services.cli.doctor.finding import CheckContext, Finding, fault, skipped, well
from services.cli.doctor.kafka import CLOCK_OFF_S

_WHAT: Final = "postgresql"
_START: Final = "start it, or correct DATABASE_URL"


def registry(context: CheckContext) -> Iterator[Finding]:
    """Checks the registry's database: a session opens, the role may write, and the schema matches this release."""
    url = context.settings.database_url
    if url is None:
        yield fault(
            _WHAT,
            f"{context.missing_text('DATABASE_URL')}, and no `lifecycle up` runs",
            "set it, or start `lifecycle up`",
        )
        return
    try:
        with session("DATABASE_URL", url) as opened:
            standing = registry_standing(opened, SCHEMA)
            off_s, doubt_s = _clock(context, opened)
    except NoDatabase as error:
        cure = "correct user, password, database or rights of DATABASE_URL" if error.refused else _START
        yield fault(_WHAT, str(error), cure)
        return
    yield _registry_finding(standing, SCHEMA)
    what = "clock of PostgreSQL"
    # Only the certain part of the difference counts: the time on the network is not the clock's fault.
    if abs(off_s) - doubt_s > CLOCK_OFF_S:
        detail = f"{abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} this machine's"
        yield fault(what, detail, "keep all clocks with NTP or chrony: leases and journals go by this one")
    else:
        yield well(what, f"within {CLOCK_OFF_S:g} s of this machine's")


def tenants(context: CheckContext) -> Iterator[Finding]:
    """Checks the tenants' database: a session opens, and the role may create schemas and roles."""
    chosen, what = context.settings, "tenants' database"
    name = "TENANT_DATABASE_URL" if chosen.tenant_database_url else "DATABASE_URL"
    url = chosen.tenant_database_url or chosen.database_url
    if url is None:
        yield skipped(what, "neither TENANT_DATABASE_URL nor DATABASE_URL is set", "set one of them")
        return
    try:
        with session(name, url) as opened:
            row = opened.execute(_RIGHTS).fetchone()
    except NoDatabase as error:
        start = f"start it (under `up` it is behind the simulator), or correct {name}"
        yield fault(what, str(error), f"correct user, password or database of {name}" if error.refused else start)
        return
    assert row is not None, "one row always comes back"
    user, database, may_create, may_role = row
    missing = [
        *([] if may_create else [f'GRANT CREATE ON DATABASE "{database}" TO "{user}"']),
        *([] if may_role else [f'ALTER ROLE "{user}" CREATEROLE']),
    ]
    if missing:
        yield fault(what, f'{name}: the role "{user}" may not make schemas and roles', "; ".join(missing))
    else:
        yield well(what, f"{name} answers, and its role may make schemas and roles")


_RIGHTS: Final = """
    SELECT current_user::text, current_database()::text, has_database_privilege(current_database(), 'CREATE'),
           rolsuper OR rolcreaterole
    FROM pg_roles WHERE rolname = current_user
"""
"""One row: role, database, right to create schemas, right to create roles."""


def _registry_finding(found: RegistryAccess, schema: str) -> Finding:
    """Returns the finding for the rights and migrations of the registry; the most fundamental fault first."""
    # First of all: on a standby the role's rights below are granted all the same, and still every write fails.
    if found.only_reads:
        cure = "let DATABASE_URL lead to the primary (several hosts, and target_session_attrs=read-write)"
        return fault(_WHAT, "DATABASE_URL leads to a server that only reads", cure)
    if not found.readable or not found.writes:
        what = "change every table of" if found.readable else "use"
        detail = f'the role "{found.user}" may not {what} the schema {schema}'
        return fault(_WHAT, detail, "use the role of the provisioner, which made it, in DATABASE_URL")
    if not found.exists and not found.creates:
        detail = f'the role "{found.user}" may make no schema, and {schema} is not there'
        return fault(_WHAT, detail, f'GRANT CREATE ON DATABASE … TO "{found.user}"')
    if not found.migrations:
        return skipped(_WHAT, "answers; no provisioner has made its tables yet", "start `lifecycle provisioner`")
    if missing := _migrations() - found.migrations:
        detail = f"its tables are of an older release: {', '.join(sorted(missing))} to come"
        return fault(_WHAT, detail, "start a provisioner of this release: it brings them up to date")
    return well(_WHAT, "answers, takes writes, has the tables of this release")


def _migrations() -> frozenset[str]:
    """Returns the names of the migrations of this release."""
    return frozenset(path.name for path in MIGRATIONS.glob("*.sql"))


def _clock(context: CheckContext, opened: Any) -> tuple[float, float]:
    """Returns the lead of the server's clock over ours and the uncertainty of the lead, both in seconds."""
    began_s, began_us = time.monotonic(), context.now_us()
    row = opened.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
    # The server read its clock somewhere within `took_s`; the middle is the best guess, and half of it the uncertainty
    # (NTP).
    took_s = time.monotonic() - began_s
    return (int(row[0]) - began_us) / 1_000_000 - took_s / 2, took_s / 2
