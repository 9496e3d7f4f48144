"""`lifecycle doctor`, `reconcile`, `replay`: check the installation, compare with Genesys, fold a history offline."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.cli import environment
from services.cli.exits import CommandError, Exit
from services.cli.options import KEY_HELP

Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]

_NAMED_AT_MOST: Final = 10
"""Refusals listed one by one; a greater number is counted by reason, and `--json` lists all."""

_ORG_SHOWN: Final = 13
"""Characters of an organisation's id in a command to copy: a UUID up to its second dash."""


def doctor(
    settings: Annotated[
        bool, typer.Option("--settings", help="List every setting instead, with its services, default and reason.")
    ] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Log in to Genesys for every organisation as well.")] = False,
    org: Annotated[
        list[str] | None,
        typer.Option(help="Ask Genesys all that `lifecycle orgs check` asks about this organisation; may be repeated."),
    ] = None,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Check every dependency of the services and print a remedy for each fault; ends with 1 for a fault."""
    import gc
    import os
    import sys

    from services.cli import show
    from services.cli.doctor import Health, examine
    from services.cli.doctor.finding import fault
    from services.cli.doctor.findings_text import findings_as_json, print_findings

    if settings:
        _list_settings(as_json=as_json)
        return
    # Observed: the destructor of a librdkafka admin client can wait for ever for the client's own thread, and the
    # garbage collector may call it in any thread of ours. This process is short-lived and needs no collector.
    gc.disable()
    up = []
    try:
        environ = environment.operator(state_dir)
    except environment.UpNotRunning as error:
        # The addresses of the killed `up` lead nowhere, so all further checks use our own environment.
        environ = {name: text for name, text in environment.process().items() if text}
        cure = "`lifecycle up` starts everything again; `lifecycle status` says more"
        up = [fault("up", str(error), cure)]
    found = [*up, *examine(environ, environment.state_dir(state_dir), deep=deep, orgs=org or ())]
    if as_json:
        show.as_json(findings_as_json(found))
    else:
        print_findings(found)
    sys.stdout.flush()
    # `os._exit` runs no destructors and joins no threads: a check that hangs in a library must not delay the end.
    # Nothing needs to be saved; only standard output has to be flushed first.
    os._exit(Exit.DEVIATION if any(f.health is Health.FAULT for f in found) else Exit.OK)


def reconcile(
    key: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Only these tenants: " + KEY_HELP)] = None,
    now: Annotated[bool, typer.Option("--now", help="Run at once; the service runs by itself every hour.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; publish and remember nothing.")] = False,
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
    import asyncio

    from services.adapters.process.clock import now_us
    from services.cli import naming, show
    from services.reconciler.run import run_once

    _check_reconcile_options(key, org, approve, now=now, dry_run=dry_run)
    settings = environment.settings_of_operator(state_dir)
    keys = naming.keys_of(key, settings) if key else None
    orgs = naming.organisations_of(org, settings) if org else None
    with environment.require_kafka(settings):
        run = run_once(settings, now=now_us, dry_run=dry_run, orgs=orgs, keys=keys, approval=approve)
        found = asyncio.run(run).as_json()
    if as_json:
        show.as_json(found)
    else:
        print_run(found)
    raise typer.Exit(status_of(found, named=bool(key or org)))


def _check_reconcile_options(
    key: list[str] | None, org: list[str] | None, approve: str | None, *, now: bool, dry_run: bool
) -> None:
    """Refuses contradicting options: else one of them would be ignored silently.

    Raises:
        CommandError: the option, and the valid form (UNUSABLE).
    """
    if not now and not dry_run:
        raise CommandError(Exit.UNUSABLE, "say --now to run at once, or --dry-run to see the plan")
    if dry_run and approve is not None:
        raise CommandError(Exit.UNUSABLE, "--approve: a --dry-run changes nobody; say --now --approve")
    if key and org:
        raise CommandError(Exit.UNUSABLE, "--org: KEY names the tenants already; say one of both")


def replay(
    file: Annotated[
        Path,
        typer.Argument(help="JSON Lines: `received_at` (RFC 3339) and `body` (as posted), or `audit` (the envelope)."),
    ],
    as_json: Json = False,
) -> None:
    """Fold a recorded history offline and print each decision and the reason, per delivery and per key."""
    from services.cli import show
    from services.core.ledger.replay import replay as fold

    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"{file}: {error.strerror}") from None
    found = fold(lines)
    if as_json:
        show.as_json(found.as_json())
        return
    columns = ("line", "key", "uid", "verdict", "revision", "why")
    show.table(columns, [(d.line, d.key, d.uid, d.verdict, d.revision, d.why) for d in found.deliveries])
    print()
    states = ("installed", "enabled", "uninstalled_at", "flags")
    rows = [
        (key, *(" ".join(one[s]) if s == "flags" else one[s] for s in states)) for key, one in found.tenants.items()
    ]
    show.table(("key", *states), rows)


def print_run(found: dict[str, Any]) -> None:
    """Prints the report of a run for a person.

    Args:
        found: The report as JSON.
    """
    from services.cli import show, wording

    if found["plan"]:
        keys = [line["key"] for line in found["plan"]]
        shown = wording.short_keys(keys) if show.shows_results() else {key: key for key in keys}
        rows = [(shown[line["key"]], line["action"], line["reason"]) for line in found["plan"]]
        show.table(("key", "action", "reason"), rows, whole=2)
    for text in _refusal_lines(found["refusals"]):
        print(f"no information: {text}")
    if found["stopped"]:
        stop = found["stopped"]
        how = f"; remove them with: lifecycle reconcile --now --approve {stop['approval']}" if stop["approval"] else ""
        gone = wording.counted(stop["absent"], "tenant")
        print(f"STOPPED: {gone} gone, at most {stop['limit']} may go in one run{how}")
    for one in found["held"]:
        new = wording.counted(one["newcomers"], "tenant")
        print(f"HELD: {one['org']}: its first run would create {new}, and at most {one['limit']} without an approval.")
        print("  Nothing of this organisation is published. Are all of them yours (integration_types)? Then:")
        # The beginning of the id keeps the command within a line of a terminal.
        print(f"  lifecycle reconcile --now --org {one['org'][:_ORG_SHOWN]} --approve {one['approval']}")
    read, again, unread = len(found["read"]), found["look_again_at"], _unread(found)
    print(
        f"{wording.counted(read, 'organisation')} read, {wording.counted(found['published'], 'observation')} published"
        + (f", keys not read or not whole: {unread}" if unread else "")
        + (f"; look again at {again}" if again else "")
    )


def status_of(found: dict[str, Any], *, named: bool = False) -> Exit:
    """Returns the exit status of a run.

    Args:
        found: The report as JSON.
        named: True if the operator named organisations or tenants. Then missing credentials are a deviation; without
            names, an organisation without credentials is not ours to read.
    """
    from services.reconciler.report import NO_CREDENTIALS, NOT_WRITTEN

    reasons = {refusal["reason"] for refusal in found["refusals"]} - (set() if named else {NO_CREDENTIALS})
    if any(reason.startswith(NOT_WRITTEN) for reason in reasons):
        return Exit.UNREACHABLE
    return Exit.DEVIATION if reasons or found["stopped"] or found["held"] or _unread(found) else Exit.OK


def _unread(found: dict[str, Any]) -> int:
    """Returns the number of keys not read, or not read whole."""
    return sum(line["action"] == "unread" for line in found["plan"])


def _refusal_lines(refusals: list[dict[str, str]]) -> Iterator[str]:
    """Yields each refusal with the scope; above `_NAMED_AT_MOST`, a line per reason with a count."""
    if len(refusals) <= _NAMED_AT_MOST:
        yield from (f"{one['scope']}: {one['reason']}" for one in refusals)
        return
    scopes: dict[str, list[str]] = {}
    for one in refusals:
        scopes.setdefault(one["reason"], []).append(one["scope"])
    for reason, of in scopes.items():
        yield f"once ({of[0]}): {reason}" if len(of) == 1 else f"{len(of)} times: {reason}"


def _list_settings(*, as_json: bool) -> None:
    """Prints every setting with default and meaning, a table for each set of services that read the settings."""
    from services.adapters.process.settings import SECTIONS, Settings, readers
    from services.cli import show

    fields: list[dict[str, Any]] = [
        {"name": name.upper(), "services": readers(name), "default": _default(field), "meaning": field.description}
        for name, field in Settings.model_fields.items()
    ]
    # Settings of many services first, then of each service in the order of the journey, then of commands alone.
    order = list(SECTIONS)
    fields.sort(key=lambda one: (-len(one["services"]), [order.index(name) for name in one["services"]]))
    if as_json:
        show.as_json(fields)
        return
    names = {tuple(order): "every service", (): "the operators' commands alone"}
    for services, group in groupby(fields, key=lambda one: one["services"]):
        rows = [(one["name"], one["default"], one["meaning"]) for one in group]
        show.table(("setting", "default", "meaning"), rows, f"Read by {names.get(services, ', '.join(services))}")
        print()


def _default(field: Any) -> str:
    """Returns the default of a setting in the notation of the environment; empty for none."""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None or value == {} else str(value)
