"""Output of `lifecycle orgs`: the listing, findings, the confirmation of a removal; never a secret."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import typer

from schemas.genesys import Organisation
from services.adapters.genesys.organisations import Organisations
from services.cli import orgs_file, show, wording
from services.cli.doctor.finding import Finding, fault
from services.cli.doctor.findings_text import findings_as_json, print_findings
from services.cli.doctor.organisation import has_faults
from services.cli.exits import CommandError, Exit
from services.core.reconcile.audit_gaps import AuditCursor

AFTER_REMOVAL: Final = (
    "Its tenants stay as they are: absence of information removes nothing. A webhook that is lost from now on is not "
    "found, a re-check is not answered; `lifecycle tenants list --org ORG` shows them."
)
_OTHERS: Final = 0o077
"""Rights of group and others in a file's mode."""


def rows(
    folder: Path,
    found: Organisations,
    cursors: Mapping[str, AuditCursor],
    logins: Mapping[str, str] | None,
    now_us: int,
) -> list[dict[str, Any]]:
    """Returns an entry per organisation, as in `lifecycle orgs list --json`.

    Args:
        folder: ORGS_DIR.
        found: The contents of the folder.
        cursors: Organisation id to the cursor of its audits.
        logins: Organisation id to the fault of the login, empty for a valid one; None if no login was tried.
        now_us: Our clock, microseconds UTC.
    """
    # Once for all: a listing of the folder for each of thousands of organisations takes minutes.
    paths = orgs_file.paths_by_id(folder)
    ids = sorted({*found.known, *found.faults})
    return [_row(paths.get(one, folder / f"{one}.json"), one, found, cursors.get(one), logins, now_us) for one in ids]


def _row(
    path: Path,
    org_id: str,
    found: Organisations,
    cursor: AuditCursor | None,
    logins: Mapping[str, str] | None,
    now_us: int,
) -> dict[str, Any]:
    organisation = found.known.get(org_id)
    state = path.stat() if path.exists() else None
    row: dict[str, Any] = {
        "org": org_id,
        "name": organisation and organisation.name,
        "region": organisation and organisation.region,
        "integration_types": sorted(organisation.types) if organisation else [],
        "tenant_id_from": organisation and organisation.tenant_id_from,
        "client_id": organisation and organisation.client_id,
        "file": str(path),
        "age_s": None if state is None else max(0, now_us // 1_000_000 - int(state.st_mtime)),
        "followed": cursor is not None,
        "sync_age_s": max(0, now_us - cursor.synced_us) // 1_000_000 if cursor and cursor.is_synced else None,
        "open_to_others": state is not None and bool(state.st_mode & _OTHERS),
        "fault": found.faults.get(org_id),
    }
    return row if logins is None else {**row, "login": logins.get(org_id)}


def print_rows(found: list[dict[str, Any]], folder: Path) -> None:
    """Prints a line per organisation, and a count."""
    if not found:
        show.say(f"no organisation has a file in {folder}; `lifecycle orgs add` writes one")
        return
    with_login = "login" in found[0]
    columns = ("organisation", "region", "file age", "sync age", *(("login",) if with_login else ()))
    show.listing(columns, [_listing_row(row, with_login=with_login) for row in found])
    broken = sum(row["fault"] is not None for row in found)
    more = f", {broken} with a broken file" if broken else ""
    show.say(f"{wording.counted(len(found), 'organisation')} in {folder}{more}")


def _listing_row(row: Mapping[str, Any], *, with_login: bool) -> show.ListingRow:
    age = "-" if row["age_s"] is None else wording.span(row["age_s"] * 1_000_000)
    # A new organisation has been waiting since its file appeared: the age of the file stands beside.
    unsynced = "never" if row["followed"] else "-"
    sync = unsynced if row["sync_age_s"] is None else wording.span(row["sync_age_s"] * 1_000_000)
    cells = [row["org"], row["region"] or "-", age, sync]
    if with_login:
        cells.append("-" if row["login"] is None else "fault" if row["login"] else "valid")
    types = ", ".join(row["integration_types"]) or "every type"
    notes = [row["name"]] if row["name"] else []
    notes.append(f"broken: {row['fault']}" if row["fault"] else types)
    if row["open_to_others"]:
        notes.append(f"others have a right to the file: chmod 600 {row['file']}")
    if row.get("login"):
        notes.append(f"login: {row['login']}")
    is_bad = bool(row["fault"] or row.get("login"))
    return show.ListingRow(cells=cells, styles={0: "red"} if is_bad else {}, note="; ".join(notes))


def refuse_faults(found: list[Finding], path: Path) -> None:
    """Refuses to go on with faults, after printing all findings.

    Raises:
        CommandError: a finding is a fault (REFUSED).
    """
    if has_faults(found):
        print_findings(found)
        raise CommandError(Exit.REFUSED, f"{path}: not written; --no-check writes it all the same")


def print_added(path: Path, organisation: Organisation, found: list[Finding], *, as_json: bool) -> None:
    """Prints the written file and the findings."""
    if as_json:
        show.as_json({"org": organisation.org_id, "file": str(path), "findings": findings_as_json(found)})
        return
    if found:
        print_findings(found)
    print(f"{path}: written")
    if not found:
        show.say(f"nothing was asked; `lifecycle orgs check {organisation.org_id[:8]}` does")
    show.say("a running reconciler compares the organisation within a minute; to see the plan now:")
    show.say(f"lifecycle reconcile --dry-run --org {organisation.org_id[:8]}")


def broken_file(org_id: str, why: str) -> Finding:
    """Returns the finding of a broken file."""
    return fault("file", f"{org_id}.json: {why}", "`lifecycle orgs add ORG --replace` writes the file anew")


def print_checks(findings: Mapping[str, list[Finding]], found: Organisations, folder: Path, *, as_json: bool) -> None:
    """Prints the findings of each organisation under the id."""
    if as_json:
        show.as_json([{"org": org_id, "findings": findings_as_json(of)} for org_id, of in findings.items()])
        return
    if not findings:
        show.say(f"no organisation has a file in {folder}; `lifecycle orgs add` writes one")
    for number, (org_id, of) in enumerate(findings.items()):
        name = found.known[org_id].name if org_id in found.known else None
        print(f"{'' if number == 0 else chr(10)}{org_id}{f' ({name})' if name else ''}")
        print_findings(of)


def confirm_removal(path: Path, org_id: str) -> None:
    """Asks on the terminal for the removal of an organisation's file.

    Raises:
        CommandError: standard input is no terminal (UNUSABLE), or the answer is no (REFUSED).
        KeyboardInterrupt: Ctrl-C or the end of input at the prompt.
    """
    if not sys.stdin.isatty():
        raise CommandError(
            Exit.UNUSABLE, f"{path}: its secret cannot be had back, and nobody is here to ask: say --yes"
        )
    show.say(f"{path}: Genesys will not be read for it any more; its secret cannot be had back. {AFTER_REMOVAL}")
    try:
        if not typer.confirm(f"Remove {org_id}?", default=False, err=True):
            raise CommandError(Exit.REFUSED, "nothing was removed")
    except typer.Abort:
        # click turns Ctrl-C at a prompt into Abort; `main` expects KeyboardInterrupt and ends with 130.
        raise KeyboardInterrupt from None
