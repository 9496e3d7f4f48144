"""`lifecycle hints`: the readers of hints from a queue."""

import typer

from services.cli import environment

hints = typer.Typer(help="Hints of Genesys from a queue, for those who open no port.", no_args_is_help=True)


@hints.callback()
def group() -> None:
    """Hints of Genesys from a queue, for those who open no port."""


@hints.command()
def sqs() -> None:
    """Read audits of EventBridge from the SQS queue HINTS_SQS_QUEUE_URL, and have each key read from Genesys."""
    from services.adapters.process.settings import HintsSettings
    from services.ingress.hints_main import main as run

    raise typer.Exit(run(environment.section(HintsSettings)))
