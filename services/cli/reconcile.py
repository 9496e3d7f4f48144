"""`lifecycle reconcile`: compare with Genesys now, report the three views, and rule on held changes by name."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli import environment
from services.cli.exits import CommandError, Exit
from services.cli.options import KEY_HELP

if TYPE_CHECKING:
    from services.adapters.process.settings import Settings
    from services.cli.reconcile_text import Commands
    from services.operations.reconciliation import ReportScope

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
        typer.Option(
            metavar="DIGEST",
            help="With --now: do exactly what is held, the removals or an organisation's new tenants of this digest.",
        ),
    ] = None,
    refuse: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="Keep the tenants whose removals have this digest.")
    ] = None,
    remove_orphans: Annotated[
        str | None,
        typer.Option(metavar="DIGEST", help="Let the sagas remove the orphans that --report --outside saw twice."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who approves or refuses, for the audit trail; also LIFECYCLE_OPERATOR."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")] = "",
    expires: Annotated[
        str | None, typer.Option(help="End of the approval (default PT1H) or of the refusal (default P1D).")
    ] = None,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Compare Genesys with the view and publish the differences; ends with 1 for the brake or anything unread."""
    from services.adapters.process.clock import now_us
    from services.cli import naming, reconcile_rulings
    from services.cli.reconcile_report import read_report
    from services.cli.reconcile_text import Commands
    from services.operations.reconciliation import ReportScope

    modes = {
        "--now": now,
        "--dry-run": dry_run,
        "--report": report,
        "--refuse": refuse is not None,
        "--remove-orphans": remove_orphans is not None,
    }
    of_act = {"--by": by, "--reason": reason, "--expires": expires}
    mode = _check_mode(modes, is_approval=approve is not None, of_act=[word for word, given in of_act.items() if given])
    _check_scope(key, org, {"--outside": outside, "--all": every}, mode)
    settings = environment.settings_of_operator(state_dir)
    ruling = None
    if approve is not None or refuse is not None or remove_orphans is not None:
        ruling = reconcile_rulings.ruling_of(settings, by, reason, expires, now_us(), refuses=refuse is not None)
    scope = ReportScope(
        naming.keys_of(key, settings) if key else None, naming.organisations_of(org, settings) if org else None
    )
    with environment.require_kafka(settings):
        if report:
            work = read_report(settings, scope, looks=outside, every=every)
        elif ruling is not None and refuse is not None:
            work = reconcile_rulings.refuse(settings, scope, refuse, ruling)
        elif ruling is not None and approve is not None:
            work = reconcile_rulings.approve(settings, scope, approve, ruling)
        elif ruling is not None and remove_orphans is not None:
            work = reconcile_rulings.remove_orphans(settings, scope, remove_orphans, ruling)
        else:
            work = _run(settings, scope, dry_run=dry_run)
        found = asyncio.run(work)
    commands = Commands(scope, settings.lifecycle_operator)
    raise typer.Exit(_show(found, commands, as_json=as_json, named=bool(key or org)))


async def _run(settings: "Settings", scope: "ReportScope", *, dry_run: bool) -> dict[str, Any]:
    from services.adapters.process.clock import now_us
    from services.reconciler.run import run_once

    return (await run_once(settings, now=now_us, dry_run=dry_run, orgs=scope.orgs, keys=scope.keys)).as_json()


def _show(found: dict[str, Any], commands: "Commands", *, as_json: bool, named: bool) -> Exit:
    """Prints a report, an act or a run, and returns the exit status.

    Args:
        found: The result as JSON.
        commands: Formats the commands that rule on a set.
        as_json: True to print the JSON.
        named: True if the operator named organisations or tenants.
    """
    from services.cli import show
    from services.cli.reconcile_text import print_act, print_report, print_run, report_status, status_of

    is_report, is_act = "keys" in found and "brake" in found, "ruling" in found
    if as_json:
        show.as_json(found)
    else:
        (print_report if is_report else print_act if is_act else print_run)(found, commands)
    if is_report:
        return report_status(found, named=named)
    run = found.get("run") if is_act else found
    if not found.get("is_done", True):
        return Exit.DEVIATION
    return Exit.OK if run is None else status_of(run, named=named)


def _check_mode(modes: dict[str, bool], *, is_approval: bool, of_act: list[str]) -> str:
    """Returns the mode; refuses contradicting options: else one of them would be ignored silently.

    Args:
        modes: The options of which exactly one says what to do, and which of them are given.
        is_approval: True if `--approve` is given.
        of_act: Given options of an approval or a refusal.

    Raises:
        CommandError: the option, and the valid form (UNUSABLE).
    """
    given = [word for word, is_given in modes.items() if is_given]
    if not given:
        raise CommandError(
            Exit.UNUSABLE, "say --now to run at once, --dry-run to see the plan, --report, --refuse or --remove-orphans"
        )
    if len(given) > 1:
        raise CommandError(Exit.UNUSABLE, f"{given[1]}: {given[0]} says already what to do; say only one")
    if is_approval and given != ["--now"]:
        raise CommandError(Exit.UNUSABLE, f"--approve: a {given[0]} changes nobody; say --now --approve")
    if of_act and not is_approval and given[0] not in {"--refuse", "--remove-orphans"}:
        raise CommandError(Exit.UNUSABLE, f"{of_act[0]}: goes with --approve, --refuse or --remove-orphans")
    return given[0]


def _check_scope(key: list[str] | None, org: list[str] | None, of_report: dict[str, bool], mode: str) -> None:
    """Refuses options of a report in any other mode, and two scopes at once.

    Raises:
        CommandError: the option, and the valid form (UNUSABLE).
    """
    for word, is_given in of_report.items():
        if is_given and mode != "--report":
            raise CommandError(Exit.UNUSABLE, f"{word}: goes with --report")
    if key and org:
        raise CommandError(Exit.UNUSABLE, "--org: KEY names the tenants already; say only one")
