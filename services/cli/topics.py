"""`lifecycle topics`: the topic table, and the cluster compared with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli import environment
from services.cli.acls import Format
from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.adapters.process.settings import Settings

topics = typer.Typer(help="The topics of the journey.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]


@topics.command("list")
def show_table(as_json: Json = False) -> None:
    """The table: who writes what, who reads it, how long it stays. Asks nobody."""
    from schemas.topics import TOPICS
    from services.cli import show

    if as_json:
        show.as_json(
            [
                {
                    "name": topic.name,
                    "writers": topic.writers,
                    "readers": topic.readers,
                    "restricted": topic.restricted,
                    "config": topic.config,
                }
                for topic in TOPICS
            ]
        )
        return
    rows = [
        (
            topic.name,
            ", ".join(topic.writers),
            ", ".join(topic.readers),
            _kept(topic),
            "yes" if topic.restricted else "",
        )
        for topic in TOPICS
    ]
    show.table(("topic", "written by", "read by", "kept", "restricted"), rows)


@topics.command()
def plan(as_json: Json = False, state_dir: StateDir = None) -> None:
    """Compare the cluster with the table; ends with 1 when something differs."""
    from services.adapters.kafka import topics as hands
    from services.cli import show

    settings = environment.settings_of_operator(state_dir)
    with environment.answering(settings):
        found = hands.plan(**_arguments(settings))
    if as_json:
        show.as_json({"create": found.create, "configure": found.configure, "conflicts": found.conflicts})
    else:
        _tell("create", found.create)
        _tell("configure", [f"{name} {settings}" for name, settings in found.configure.items()])
        _tell("conflict", found.conflicts)
    raise typer.Exit(Exit.DEVIATION if found.create or found.configure or found.conflicts else Exit.OK)


@topics.command()
def apply(as_json: Json = False, state_dir: StateDir = None) -> None:
    """Create the topics that are missing; a setting that differs is named and left, a conflict ends with 1."""
    from services.adapters.kafka import topics as hands
    from services.cli import show

    settings = environment.settings_of_operator(state_dir)
    with environment.answering(settings):
        done = hands.apply(**_arguments(settings))
    if as_json:
        show.as_json({"created": done.create, "configure": done.configure, "conflicts": done.conflicts})
    else:
        _tell("created", done.create)
        if not (done.create or done.conflicts or done.configure):
            print("nothing to do: every topic is there")
    for name, odd in done.configure.items():
        show.say(f"lifecycle: {_to_configure(name, odd)}")
    if done.conflicts:
        raise CommandError(Exit.DEVIATION, "\n".join(done.conflicts))


def _to_configure(name: str, odd: "Mapping[str, str]") -> str:
    wanted = ",".join(f"{setting}={value}" for setting, value in odd.items())
    return f"{name} is set in another way: `kafka-configs --alter --topic {name} --add-config {wanted}`"


@topics.command()
def acls(
    principal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERVICE=NAME", help="As whom a service logs in; may be repeated. lifecycle-SERVICE else."
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="For whom.")] = Format.KAFKA_ACLS,
    cluster: Annotated[str, typer.Option(help="Of Strimzi users: the name of the Kafka object.")] = "my-cluster",
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Print the least rights of each service on a cluster with ACLs; TOPIC_PREFIX counts. Asks nobody."""
    from services.adapters.process import settings
    from services.cli import acls as forms
    from services.cli import show

    named = forms.principals(principal or ())
    given = forms.of_principals(named, settings.read(environment.operator(state_dir)).topic_prefix)
    if as_json:
        show.as_json(forms.as_objects(given, named))
    elif form is Format.STRIMZI:
        print("\n---\n".join(forms.as_strimzi(given, cluster)))
    else:
        for line in forms.as_commands(given):
            print(line)


def _arguments(settings: "Settings") -> dict[str, Any]:
    return {
        "config": settings.kafka,
        "prefix": settings.topic_prefix,
        "partitions": settings.topic_partitions,
        "replication": settings.topic_replication,
    }


def _tell(what: str, names: Any) -> None:
    for name in names:
        print(f"{what}: {name}")


def _kept(topic: Any) -> str:
    from schemas.topics import DAY_MS

    return "compacted" if topic.retention_ms is None else f"{topic.retention_ms // DAY_MS} d"
