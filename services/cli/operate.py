"""`lifecycle doctor`, `replay`: check the installation, fold a history offline."""

from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.cli import environment
from services.cli.exits import CommandError, Exit

Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]

_WAIT: Final = "wait until it is ready, and run `lifecycle doctor` again"


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
    from services.cli.doctor.finding import fault, skipped
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
    except environment.UpStarting as error:
        environ = {name: text for name, text in environment.process().items() if text}
        up = [skipped("up", str(error), _WAIT)]
    else:
        folder = environment.state_dir(state_dir)
        if "KAFKA_BOOTSTRAP_SERVERS" not in environ and environment.is_up_starting(folder):
            up = [skipped("up", str(environment.UpStarting(folder)), _WAIT)]
    found = [*up, *examine(environ, environment.state_dir(state_dir), deep=deep, orgs=org or ())]
    if as_json:
        show.as_json(findings_as_json(found))
    else:
        print_findings(found)
    sys.stdout.flush()
    # `os._exit` runs no destructors and joins no threads: a check that hangs in a library must not delay the end.
    # Nothing needs to be saved; only standard output has to be flushed first.
    os._exit(Exit.DEVIATION if any(f.health is Health.FAULT for f in found) else Exit.OK)


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
