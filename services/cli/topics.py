"""`lifecycle topics`: the topic table, and the comparison of the cluster with the table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli import environment
from services.cli.acls import Format
from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.adapters.process.settings import Settings

topics = typer.Typer(help="The topic table, and its comparison with the cluster.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]


@topics.command("list")
def show_table(as_json: Json = False) -> None:
    """Print the topic table: writers, readers and retention of each topic. Needs no cluster."""
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
            _retention(topic),
            "yes" if topic.restricted else "",
        )
        for topic in TOPICS
    ]
    show.table(("topic", "written by", "read by", "kept", "restricted"), rows)


@topics.command()
def plan(as_json: Json = False, state_dir: StateDir = None) -> None:
    """Compare the cluster with the topic table; ends with 1 for a difference."""
    from services.adapters.kafka import topics as kafka_topics
    from services.cli import show

    settings = environment.settings_of_operator(state_dir)
    with environment.require_kafka(settings):
        found = kafka_topics.plan(**_topic_arguments(settings))
    if as_json:
        show.as_json({"create": found.create, "configure": found.configure, "conflicts": found.conflicts})
    else:
        _print_lines("create", found.create)
        _print_lines("configure", [f"{name} {settings}" for name, settings in found.configure.items()])
        _print_lines("conflict", found.conflicts)
    raise typer.Exit(Exit.DEVIATION if found.create or found.configure or found.conflicts else Exit.OK)


@topics.command()
def apply(as_json: Json = False, state_dir: StateDir = None) -> None:
    """Create missing topics; a differing setting is named and left, a conflict ends with 1."""
    from services.adapters.kafka import topics as kafka_topics
    from services.cli import show

    settings = environment.settings_of_operator(state_dir)
    with environment.require_kafka(settings):
        done = kafka_topics.apply(**_topic_arguments(settings))
    if as_json:
        show.as_json({"created": done.create, "configure": done.configure, "conflicts": done.conflicts})
    else:
        _print_lines("created", done.create)
        if not (done.create or done.conflicts or done.configure):
            print("nothing to do: every topic is there")
    for name, difference in done.configure.items():
        show.say(f"lifecycle: {_configure_hint(name, difference)}")
    # Last: the topics that could be created are created and printed before the conflict ends the command.
    if done.conflicts:
        raise CommandError(Exit.DEVIATION, "\n".join(done.conflicts))


def _configure_hint(name: str, difference: "Mapping[str, str]") -> str:
    """Returns the command for the differing settings of a topic."""
    wanted = ",".join(f"{setting}={value}" for setting, value in difference.items())
    return f"{name} is set in another way: `kafka-configs --alter --topic {name} --add-config {wanted}`"


@topics.command()
def acls(
    principal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERVICE=NAME", help="Principal of a service; may be repeated. Default lifecycle-SERVICE."
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="Format of the output.")] = Format.KAFKA_ACLS,
    cluster: Annotated[str, typer.Option(help="Name of the Kafka object, for Strimzi users.")] = "my-cluster",
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Print the least rights of each service on a cluster with ACLs; names follow TOPIC_PREFIX. Needs no cluster."""
    from services.adapters.process.environment import read
    from services.adapters.process.settings import Settings
    from services.cli import acls as acl_forms
    from services.cli import show

    named = acl_forms.principals(principal or ())
    given = acl_forms.rights_by_principal(named, read(environment.operator(state_dir), Settings).topic_prefix)
    if as_json:
        show.as_json(acl_forms.as_json(given, named))
    elif form is Format.STRIMZI:
        print("\n---\n".join(acl_forms.as_strimzi(given, cluster)))
    else:
        for line in acl_forms.as_commands(given):
            print(line)


def _topic_arguments(settings: "Settings") -> dict[str, Any]:
    """Returns the common arguments of the adapter's `plan` and `apply`."""
    return {
        "config": settings.kafka,
        "prefix": settings.topic_prefix,
        "partitions": settings.topic_partitions,
        "replication": settings.topic_replication,
    }


def _print_lines(what: str, names: Any) -> None:
    """Prints a line per name."""
    for name in names:
        print(f"{what}: {name}")


def _retention(topic: Any) -> str:
    """Returns the retention of a topic in words."""
    from schemas.topics import DAY_MS

    return "compacted" if topic.retention_ms is None else f"{topic.retention_ms // DAY_MS} d"
