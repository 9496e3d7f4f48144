"""The program `lifecycle`: every service and every operator's task as a command.

Rule: this file only names commands and options. Each command imports its modules when it runs, so `--help` and small
commands start at once. `main` turns every error of the environment into a sentence and an exit status.
"""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from services.cli import environment
from services.cli.adopt import adopt
from services.cli.audit import audit
from services.cli.exits import EPILOG, CommandError, Exit
from services.cli.hints import hints
from services.cli.keyring import keyring
from services.cli.local.commands import down, restart, status
from services.cli.local.logs import logs
from services.cli.operate import doctor, replay
from services.cli.orgs import orgs
from services.cli.plan import plan
from services.cli.reconcile import reconcile
from services.cli.sagas import sagas
from services.cli.send import send
from services.cli.tenants import tenants
from services.cli.topics import topics
from services.cli.webhook import webhook
from services.simulator.fault_examples import help_text

app = typer.Typer(
    name="lifecycle",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StateDir = Annotated[
    Path | None, typer.Option(help="State folder of `lifecycle up`; also STATE_DIR. Default .lifecycle")
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
_RUN, _SERVICES, _OPERATE = "Run everything", "Services, configured by environment", "Operate"


def _version(asked: bool) -> None:
    """Prints the version and exits, for the option `--version`."""
    if asked:
        version()
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Provision and remove everything that belongs to a Genesys Cloud integration, exactly once."""


@app.command(rich_help_panel=_RUN)
def demo(
    story: Annotated[list[str] | None, typer.Option(help="Play only this story (a to h); may be repeated.")] = None,
    orgs: Annotated[int, typer.Option(min=1, help="Organisations that install in the burst of story g.")] = 500,
    keep: Annotated[bool, typer.Option("--keep", help="Keep everything running afterwards, until Ctrl-C.")] = False,
) -> None:
    """Start everything in a temporary folder, play the guide's stories, and check the end of each."""
    from services.cli.demo.demo import demo as play

    raise typer.Exit(play(environment.process(), tuple(story or ()), orgs, keep=keep))


@app.command(rich_help_panel=_RUN)
def up(
    state_dir: StateDir = None,
    endpoints_file: Annotated[
        Path | None,
        typer.Option(help="File for all endpoints, as JSON, written once ready. Default STATE_DIR/endpoints.json"),
    ] = None,
    observe: Annotated[
        bool, typer.Option("--observe", help="Run the machine's Prometheus too, with our rules and alerts.")
    ] = False,
) -> None:
    """Start everything and keep it running until SIGTERM or Ctrl-C; the data stays."""
    from services.cli.local.observe import SCRAPE_S
    from services.cli.local.up import up as run

    run(environment.state_dir(state_dir), environment.process(), endpoints_file, scrape_s=SCRAPE_S if observe else None)


for local in (status, logs, restart, down):
    app.command(rich_help_panel=_RUN)(local)


@app.command(rich_help_panel=_SERVICES)
def ingress() -> None:
    """Prove signed webhooks and write each to Kafka before it is answered."""
    from services.adapters.process.settings import IngressSettings
    from services.ingress.main import main as run

    raise typer.Exit(run(environment.section(IngressSettings)))


app.add_typer(hints, name="hints", rich_help_panel=_SERVICES)


@app.command(rich_help_panel=_SERVICES)
def ledger(
    republish: Annotated[
        bool, typer.Option("--republish", help="Write tenants and desired of every key again.")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on where records are gone unread; ask Genesys about every key.")
    ] = False,
    recover_only: Annotated[
        bool, typer.Option("--recover-only", help="Bring the local tables up to date, and end.")
    ] = False,
) -> None:
    """Identify the event of each delivery, merge the event into the tenant, and publish the desired state."""
    if recover_only and (republish or accept_loss):
        other = "--republish" if republish else "--accept-loss"
        raise CommandError(Exit.UNUSABLE, f"{other}: --recover-only ends before the ledger joins; say only one")
    from services.adapters.process.settings import LedgerSettings
    from services.ledger.main import StartOptions
    from services.ledger.main import main as run

    raise typer.Exit(run(environment.section(LedgerSettings), StartOptions(republish, accept_loss, recover_only)))


@app.command(rich_help_panel=_SERVICES)
def provisioner(
    accept_older: Annotated[
        bool,
        typer.Option(
            "--accept-older-registry",
            help="Go on with a registry restored from a backup: look up what was done since in the outside systems.",
        ),
    ] = False,
) -> None:
    """Drive the outside systems to the desired state."""
    from services.adapters.process.settings import ProvisionerSettings
    from services.provisioner.main import main as run

    raise typer.Exit(run(environment.section(ProvisionerSettings), accept_older=accept_older))


@app.command(rich_help_panel=_SERVICES)
def reconciler() -> None:
    """Compare with Genesys hourly and publish differences as observations."""
    from services.adapters.process.settings import ReconcilerSettings
    from services.reconciler.main import main as run

    raise typer.Exit(run(environment.section(ReconcilerSettings)))


@app.command(rich_help_panel=_SERVICES, epilog=help_text())
def simulator() -> None:
    """Simulate Genesys and the outside systems, for demo and tests."""
    from services.adapters.process.settings import SimulatorSettings
    from services.simulator.main import main as run

    raise typer.Exit(run(environment.section(SimulatorSettings)))


@app.command(rich_help_panel=_OPERATE)
def version(as_json: Json = False) -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    from services.cli import show

    found = installed("genesys-lifecycle")
    if as_json:
        show.as_json({"name": "genesys-lifecycle", "version": found})
    else:
        print(found)


for command in (send, adopt, reconcile, replay, doctor):
    app.command(rich_help_panel=_OPERATE)(command)
app.add_typer(tenants, name="tenants", rich_help_panel=_OPERATE)
app.add_typer(sagas, name="sagas", rich_help_panel=_OPERATE)
app.add_typer(plan, name="plan", rich_help_panel=_OPERATE)
app.add_typer(audit, name="audit", rich_help_panel=_OPERATE)
app.add_typer(topics, name="topics", rich_help_panel=_OPERATE)
app.add_typer(keyring, name="keyring", rich_help_panel=_OPERATE)
app.add_typer(orgs, name="orgs", rich_help_panel=_OPERATE)
app.add_typer(webhook, name="webhook", rich_help_panel=_OPERATE)


def main() -> None:
    """Runs a command and ends the process with the exit status."""
    # Without a handler, Python prints libraries' warnings to standard error. The command reports each fault once by
    # itself; a service sets up its own log.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        app()
    except CommandError as failure:
        _end(str(failure), failure.status)
    except KeyboardInterrupt:
        _end("interrupted", Exit.INTERRUPTED)
    except Exception as error:
        translated = _translated(error)
        if translated is None:
            raise
        _end(*translated)


def _translated(error: Exception) -> tuple[str, Exit] | None:
    """Returns message and exit status for a known error; None for an unknown error, a bug of ours.

    The adapters turn libraries' exceptions into their own. A library's exception that still arrives here is translated
    as well: a traceback is reserved for bugs of ours.
    """
    from confluent_kafka import KafkaException
    from psycopg import Error as DatabaseError

    from services.adapters.kafka.producer import KafkaError
    from services.adapters.postgres.sessions import NoDatabase
    from services.adapters.process.errors import Unusable
    from services.adapters.registry.registry import RegistryAway
    from services.engines import EngineError

    # A driver's message may go on in further lines; the first one names the fault.
    lines = str(error).splitlines() or [type(error).__name__]
    translated: tuple[str, Exit] | None = None
    match error:
        case Unusable():
            translated = str(error), Exit.UNUSABLE
        case KafkaError():
            translated = _as_pair(environment.kafka_failure(error))
        # librdkafka's own exception has a code and no sentence; `kafka_failure` adds the sentence.
        case KafkaException():
            translated = _as_pair(environment.kafka_failure(KafkaError(error.args[0].name())))
        case NoDatabase():
            translated = lines[0], Exit.REFUSED if error.refused else Exit.UNREACHABLE
        case RegistryAway(refused=True):
            translated = f"PostgreSQL (DATABASE_URL): {lines[0]} (`lifecycle doctor` says more)", Exit.REFUSED
        case RegistryAway() | DatabaseError():
            translated = f"PostgreSQL: {lines[0]} (`lifecycle doctor` says more)", Exit.UNREACHABLE
        case EngineError():
            translated = str(error), Exit.UNREACHABLE
        case ConnectionError() | TimeoutError():
            translated = f"{lines[0]} (`lifecycle doctor` says more)", Exit.UNREACHABLE
        # The last case: ConnectionError and TimeoutError are subclasses of OSError.
        case OSError(strerror=str(why)):
            translated = f"{error.filename}: {why}" if error.filename else why, Exit.UNUSABLE
    return translated


def _as_pair(failure: CommandError) -> tuple[str, Exit]:
    """Returns message and exit status of a command's error."""
    return str(failure), failure.status


def _end(text: str, status: Exit) -> None:
    """Prints the message to standard error, line by line, and exits."""
    from services.cli import show

    for line in text.splitlines():
        show.say(f"lifecycle: {line}")
    sys.exit(status)


if __name__ == "__main__":
    main()
