"""`lifecycle reconcile`: compare with Genesys now, report the three views, and rule on held changes by name."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from services.cli import environment
from services.cli.exits import CommandError, Exit
from services.cli.options import KEY_HELP

Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]


def reconcile(
    key: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Only these tenants: " + KEY_HELP)] = None,
    now: Annotated[bool, typer.Option("--now", help="Run at once; the service runs by itself every hour.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; publish and remember nothing.")] = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report", help="Print every difference between Genesys, the view and outside, and its decision."
        ),
    ] = False,
    outside: Annotated[
        bool, typer.Option("--outside", help="With --report: look every resource up in its system, read-only.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="With --report: list the keys that agree as well.")] = False,
    org: Annotated[
        list[str] | None, typer.Option(help="Only this organisation, or the beginning of its id; may be repeated.")
    ] = None,
    approve: Annotated[
        str | None,
        typer.Option(help="Do exactly what an earlier run stopped at: its removals, or an organisation's new tenants."),
    ] = None,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Compare Genesys with the view and publish the differences; ends with 1 for the brake or anything unread."""
    from services.adapters.process.clock import now_us
    from services.cli import naming, show
    from services.cli.reconcile_report import read_report
    from services.cli.reconcile_text import print_report, print_run, report_status, status_of
    from services.operations.reconciliation import ReportScope
    from services.reconciler.run import run_once

    _check_mode(key, org, approve, now=now, dry_run=dry_run, report=report)
    if (outside or every) and not report:
        raise CommandError(Exit.UNUSABLE, f"{'--outside' if outside else '--all'}: goes with --report")
    settings = environment.settings_of_operator(state_dir)
    keys = naming.keys_of(key, settings) if key else None
    orgs = naming.organisations_of(org, settings) if org else None
    with environment.require_kafka(settings):
        if report:
            found = asyncio.run(read_report(settings, ReportScope(keys, orgs), looks=outside, every=every))
        else:
            run = run_once(settings, now=now_us, dry_run=dry_run, orgs=orgs, keys=keys, approval=approve)
            found = asyncio.run(run).as_json()
    if as_json:
        show.as_json(found)
    elif report:
        print_report(found)
    else:
        print_run(found)
    named = bool(key or org)
    raise typer.Exit(report_status(found, named=named) if report else status_of(found, named=named))


def _check_mode(
    key: list[str] | None, org: list[str] | None, approve: str | None, *, now: bool, dry_run: bool, report: bool
) -> None:
    """Refuses contradicting options: else one of them would be ignored silently.

    Raises:
        CommandError: the option, and the valid form (UNUSABLE).
    """
    if not now and not dry_run and not report:
        raise CommandError(Exit.UNUSABLE, "say --now to run at once, --dry-run to see the plan, or --report")
    if report and (now or dry_run):
        raise CommandError(Exit.UNUSABLE, "--report: changes nothing by itself; say --report alone")
    if (dry_run or report) and approve is not None:
        word = "--dry-run" if dry_run else "--report"
        raise CommandError(Exit.UNUSABLE, f"--approve: a {word} changes nobody; say --now --approve")
    if key and org:
        raise CommandError(Exit.UNUSABLE, "--org: KEY names the tenants already; say one of both")
