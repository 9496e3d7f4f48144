"""`lifecycle plan`: check a plan as the provisioner does at its start, and show the calls of a tenant beforehand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli import environment
from services.cli.exits import CommandError, Exit
from services.cli.options import KEY_HELP

if TYPE_CHECKING:
    from services.adapters.process.settings import Settings

plan = typer.Typer(help="The plan of provisioning: its faults, and its calls before any is made.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]
PlanFile = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="The plan, TOML; default PLAN_FILE, else the shipped plan.")
]


@plan.callback()
def group() -> None:
    """The plan of provisioning: its faults, and its calls before any is made."""


@plan.command()
def check(file: PlanFile = None, as_json: Json = False, state_dir: StateDir = None) -> None:
    """Check a plan completely, as the provisioner does at its start; ends with 1 for a plan with faults.

    Settings of the plan come from the environment, as for the provisioner; a missing setting is a fault of the step.
    """
    from services.cli import plan_text, show
    from services.core.saga.plan import BadPlan
    from services.provisioner.kinds import TRAITS
    from services.provisioner.plans import checked, plan_path, read_plan_file

    settings = _settings(state_dir)
    path = file or plan_path(settings)
    text = read_plan_file(path, "FILE" if file else "PLAN_FILE")
    try:
        found = checked(text, settings, TRAITS)
    except BadPlan as bad:
        if as_json:
            show.as_json(plan_text.faults_json(path, bad))
        else:
            plan_text.print_faults(path, bad)
        raise typer.Exit(Exit.DEVIATION) from None
    if as_json:
        show.as_json(plan_text.plan_json(path, found))
    else:
        plan_text.print_plan(path, found)


@plan.command("show")
def show_calls(
    file: PlanFile = None,
    key: Annotated[str | None, typer.Option("--for", metavar="KEY", help="The tenant: " + KEY_HELP)] = None,
    configuration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A tenant's configuration, a JSON object, in place of a living tenant."),
    ] = None,
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="The calls of an uninstall, in place of the desired state.")
    ] = False,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Show each call for a tenant as the provisioner would make it now, secrets hidden; calls nothing.

    The calls are shown as if each succeeds. Without FILE a living tenant is shown with the plan of its life. With FILE
    the tenant is shown as a new life. Ends with 1 if a name is missing that the plan needs.
    """
    from services.cli import plan_calls, plan_calls_text, show

    if key is None and configuration is None:
        raise CommandError(Exit.UNUSABLE, "say --for KEY, or --configuration FILE for a tenant that does not exist")
    if configuration is None:
        assert key is not None
        found = plan_calls.of_tenant(environment.settings_of_operator(state_dir), key, file, uninstall=uninstall)
    else:
        found = plan_calls.of_configuration(_settings(state_dir), key, file, configuration, uninstall=uninstall)
    if as_json:
        show.as_json(plan_calls_text.calls_json(found))
    else:
        plan_calls_text.print_calls(found)
    if found.preview.missing:
        raise typer.Exit(Exit.DEVIATION)


def _settings(state_dir: Path | None) -> "Settings":
    """Returns the settings of a command that needs no engine.

    Raises:
        Unusable: a variable has a fault; the message lists all faults.
        CommandError: the `up` of the folder was killed, or does not run.
    """
    from services.adapters.process.environment import read
    from services.adapters.process.settings import Settings

    return read(environment.operator(state_dir), Settings)
