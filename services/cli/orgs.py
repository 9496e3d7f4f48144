"""`lifecycle orgs`: adds, lists, checks and removes the organisations whose Genesys the reconciler reads.

Rule: a client secret comes from standard input or a prompt, never from the command line, where every user of the
machine and the shell's history would see the secret; and no output shows a secret.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from schemas.values import UUID_PATTERN
from services.cli import environment
from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from schemas.genesys import Organisation
    from services.adapters.genesys.organisations import Organisations
    from services.adapters.process.settings import ReconcilerSettings
    from services.cli.doctor.finding import Finding

orgs = typer.Typer(help="The organisations whose Genesys is read.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]
Org = Annotated[str, typer.Argument(metavar="ORG", help="Organisation id, its beginning, or the name in the file.")]

_ORG_ID: Final = re.compile(UUID_PATTERN, re.IGNORECASE | re.ASCII)
_CLEARED: Final = {
    "region": "region",
    "tenant-id-from": "tenant_id_from",
    "integration-type": "integration_types",
    "name": "name",
}
"""Words of `--clear` to fields of `Organisation`."""
_AT_ONCE: Final = 8
"""Organisations that are asked about simultaneously."""


@orgs.callback()
def group() -> None:
    """The organisations whose Genesys is read."""


@orgs.command()
def add(
    org: Annotated[
        str,
        typer.Argument(metavar="ORG", help="Organisation id, a UUID; with --replace its beginning or the name do too."),
    ],
    client_id: Annotated[
        str | None, typer.Option(help="Id of the OAuth client; the secret is read from standard input, or asked for.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Region of the organisation: mypurecloud.ie, eu-west-1, …")] = None,
    tenant_id_from: Annotated[
        str | None, typer.Option(help="Property of the integrations' configuration that has the tenantId.")
    ] = None,
    integration_type: Annotated[
        list[str] | None, typer.Option(help="Integration type that is yours; repeatable. Default: every type.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for people; commands take it in place of the id.")] = None,
    no_check: Annotated[bool, typer.Option("--no-check", help="Write the file without asking Genesys.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the file of this organisation; what is not named is kept.")
    ] = False,
    clear: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="With --replace: take region, tenant-id-from, integration-type or name out; repeatable.",
        ),
    ] = None,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Write the file of an organisation, once Genesys accepts the OAuth client; a running reconciler takes it."""
    from services.adapters.genesys import organisations
    from services.cli import orgs_file, orgs_text

    if clear and not replace:
        raise CommandError(Exit.UNUSABLE, "--clear: goes with --replace")
    settings, org_id = _settings(state_dir), org.lower()
    if replace and _ORG_ID.fullmatch(org_id) is None:
        org_id = _named(org, _load(settings), settings)
    if _ORG_ID.fullmatch(org_id) is None:
        raise CommandError(Exit.UNUSABLE, f"ORG: {org!r} is no organisation id, which is a UUID")
    path = orgs_file.path_of(settings.orgs_dir, org_id)
    if path.exists() and not replace:
        raise orgs_file.exists(path)
    former = organisations.load(settings.orgs_dir).known.get(org_id)
    fields = {
        "client_id": client_id,
        "region": region,
        "tenant_id_from": tenant_id_from,
        "integration_types": tuple(dict.fromkeys(integration_type or ())),
        "name": name,
    }
    cleared = _cleared(clear or [], fields)
    # Before the secret is asked for: a mistyped option must not cost a second typing of the secret.
    _check_region(orgs_file.changed(former, org_id, fields, "unknown yet", cleared), settings)
    made = orgs_file.changed(former, org_id, fields, orgs_file.read_secret(), cleared)
    found = [] if no_check else _check({org_id: made}, settings)[org_id]
    orgs_text.refuse_faults(found, path)
    orgs_file.write(path, made, replace=replace)
    orgs_text.print_added(path, made, found, as_json=as_json)


@orgs.command("list")
def show_all(
    check: Annotated[bool, typer.Option("--check", help="Log in to Genesys for each organisation.")] = False,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """List every organisation with region, types, age of file and sync; ends with 1 for a broken file or bad login."""
    from services.adapters.process.clock import now_us
    from services.cli import orgs_text, show
    from services.reconciler.audit_memory import sync_times

    settings = _settings(state_dir)
    found = _load(settings)
    logins = _logins(found.known, settings) if check else None
    try:
        cursors = sync_times(settings.state_dir)
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"STATE_DIR: {error}") from None
    rows = orgs_text.rows(settings.orgs_dir, found, cursors, logins, now_us())
    if as_json:
        show.as_json(rows)
    else:
        orgs_text.print_rows(rows, settings.orgs_dir)
    raise typer.Exit(Exit.DEVIATION if any(row["fault"] or row.get("login") for row in rows) else Exit.OK)


@orgs.command()
def check(
    org: Annotated[
        str | None, typer.Argument(metavar="[ORG]", help="Organisation id, its beginning, or its name. Default all.")
    ] = None,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Ask Genesys about login, organisation, clock, permissions and paging, with a remedy for each fault."""
    from services.cli import orgs_text
    from services.cli.doctor.organisation import has_faults

    settings = _settings(state_dir)
    found = _load(settings)
    chosen = sorted({*found.known, *found.faults}) if org is None else [_named(org, found, settings)]
    findings = _check({org_id: found.known[org_id] for org_id in chosen if org_id in found.known}, settings)
    broken = found.faults.keys() & set(chosen)
    findings |= {org_id: [orgs_text.broken_file(org_id, found.faults[org_id])] for org_id in broken}
    orgs_text.print_checks({org_id: findings[org_id] for org_id in chosen}, found, settings.orgs_dir, as_json=as_json)
    raise typer.Exit(Exit.DEVIATION if any(map(has_faults, findings.values())) else Exit.OK)


@orgs.command()
def remove(
    org: Org,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Remove the file of an organisation: its Genesys is not read any more, and its tenants stay as they are."""
    from services.cli import orgs_file, orgs_text, show

    settings = _settings(state_dir)
    org_id = _named(org, _load(settings), settings)
    path = orgs_file.path_of(settings.orgs_dir, org_id)
    if not yes:
        orgs_text.confirm_removal(path, org_id)
    orgs_file.remove(path)
    if as_json:
        show.as_json({"org": org_id, "file": str(path), "removed": True})
    else:
        print(f"{path}: removed")
    if yes:
        show.say(orgs_text.AFTER_REMOVAL)


def _cleared(words: list[str], fields: dict[str, Any]) -> frozenset[str]:
    """Returns the fields of `Organisation` that `--clear` names.

    Raises:
        CommandError: a word names no such field, or a field that is given a value as well (UNUSABLE).
    """
    from services.cli import options

    for word in words:
        options.one_of(word, _CLEARED, "--clear", "field that can be taken out")
        if fields[_CLEARED[word]]:
            raise CommandError(Exit.UNUSABLE, f"--clear: {word} is given by --{word} as well")
    return frozenset(_CLEARED[word] for word in words)


def _settings(state_dir: Path | None) -> "ReconcilerSettings":
    """Returns the settings of the reconciler: from the environment, and of a running `up`.

    Raises:
        UpStarting: ORGS_DIR is not set, and an `up` starts whose folder of organisations is meant.
    """
    from services.adapters.process.environment import read
    from services.adapters.process.settings import ReconcilerSettings

    given, folder = environment.operator(state_dir), environment.state_dir(state_dir)
    if "ORGS_DIR" not in given and environment.is_up_starting(folder):
        raise environment.UpStarting(folder)
    return read(given, ReconcilerSettings)


def _load(settings: "ReconcilerSettings") -> "Organisations":
    """Returns the organisations of ORGS_DIR.

    Raises:
        CommandError: the folder cannot be read (UNUSABLE).
    """
    from services.adapters.genesys import organisations

    found = organisations.load(settings.orgs_dir)
    if (why := found.faults.get(str(settings.orgs_dir))) is not None:
        raise CommandError(Exit.UNUSABLE, f"ORGS_DIR: {settings.orgs_dir}: {why}")
    return found


def _named(given: str, found: "Organisations", settings: "ReconcilerSettings") -> str:
    """Returns the only organisation with a file named by an id, the beginning of an id, or a name.

    Raises:
        CommandError: no file matches (NOT_FOUND), or several (UNUSABLE).
    """
    from services.cli.doctor.organisation import matches
    from services.cli.options import nearest

    ids = matches(given, found.known, found.faults)
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise CommandError(Exit.UNUSABLE, f"ORG: {given!r} names {len(ids)} organisations: {', '.join(ids)}")
    words = [*found.known, *found.faults, *(one.name for one in found.known.values() if one.name)]
    near = nearest(given, words)
    raise CommandError(Exit.NOT_FOUND, f"ORG: {given!r} has no file in {settings.orgs_dir}{near}")


def _check_region(made: "Organisation", settings: "ReconcilerSettings") -> None:
    """Refuses an unknown region, and a missing one where the environment names no hosts.

    Raises:
        CommandError: the fault, with the nearest regions (UNUSABLE).
    """
    from services.adapters.genesys.regions import hosts_of
    from services.cli.doctor.organisation import region_fault

    named = settings.genesys_login_url and settings.genesys_api_url
    if (made.region is None and named) or (made.region is not None and hosts_of(made.region) is not None):
        return
    raise CommandError(Exit.UNUSABLE, f"--region: {region_fault(made.region)}")


def _check(known: "dict[str, Organisation]", settings: "ReconcilerSettings") -> "dict[str, list[Finding]]":
    """Asks Genesys about organisations, several at once; returns the findings by id."""
    from services.adapters.process.clock import now_us
    from services.cli.doctor.organisation import check_organisation

    return _for_each(known, lambda one, http: check_organisation(one, settings, http, now_us))


def _logins(known: "dict[str, Organisation]", settings: "ReconcilerSettings") -> dict[str, str]:
    """Logs in for organisations, several at once; returns the fault of each, empty text for none."""
    from services.adapters.process.clock import now_us
    from services.cli.doctor.organisation import login_fault

    return _for_each(known, lambda one, http: login_fault(one, settings, http, now_us))


def _for_each(known: "dict[str, Organisation]", ask: Any) -> dict[str, Any]:
    """Runs a coroutine for each organisation, at most `_AT_ONCE` simultaneously; returns the results by id."""
    import asyncio

    from services.adapters.genesys.client import connections

    async def ask_all() -> list[Any]:
        gate = asyncio.Semaphore(_AT_ONCE)
        async with connections() as http:

            async def asked(organisation: "Organisation") -> Any:
                async with gate:
                    return await ask(organisation, http)

            return await asyncio.gather(*map(asked, known.values()))

    return dict(zip(known, asyncio.run(ask_all()), strict=True)) if known else {}
