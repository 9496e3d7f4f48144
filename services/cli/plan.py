"""`lifecycle plan`: check a plan, as the provisioner does at its start."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli import environment
from services.cli.exits import Exit

if TYPE_CHECKING:
    from services.adapters.process.settings import Settings

plan = typer.Typer(help="The plan of provisioning: its faults, before a tenant meets one.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]
PlanFile = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="The plan, TOML; default PLAN_FILE, else the shipped plan.")
]


@plan.callback()
def group() -> None:
    """The plan of provisioning: its faults, before a tenant meets one."""


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


def _settings(state_dir: Path | None) -> "Settings":
    """Returns the settings of a command that needs no engine.

    Raises:
        Unusable: a variable has a fault; the message lists all faults.
        CommandError: the `up` of the folder was killed, or does not run.
    """
    from services.adapters.process.environment import read
    from services.adapters.process.settings import Settings

    return read(environment.operator(state_dir), Settings)
