"""`lifecycle adopt`: take over tenants that exist already, or forget such a tenant, without a change outside."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli import environment
from services.cli.exits import CommandError, Exit
from services.cli.options import KEY_HELP

if TYPE_CHECKING:
    from services.core.saga.adoption import Differing

Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]


def adopt(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="JSON Lines: `key`, `tenantId`, `configuration`, `enabled`, `steps` (step to known outputs)."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read each resource outside and say what was found; change nothing.")
    ] = False,
    release: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY", help="Forget this adopted tenant and remove nothing outside; may be repeated. " + KEY_HELP
        ),
    ] = None,
    differing: Annotated[
        str | None,
        typer.Option(
            metavar="leave|keep|update",
            help="A tenant with a resource that differs: leave it (default), keep the resource as it is, or update it.",
        ),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="RFC 3339 time of the file's content; default its modification time."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who asks, for the audit trail; also LIFECYCLE_OPERATOR.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")] = "",
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Take over tenants that exist already, without a create; ends with 1 if any line was left or cannot be used."""
    from services.adapters.process.clock import now_us
    from services.cli import adopt_run, adopt_text, naming, options, show

    _check_mode(file, release, {"--dry-run": dry_run, "--differing": differing, "--as-of": as_of})
    choice = _differing(differing)
    told_us = 0 if file is None else _told_us(file, as_of, now_us())
    settings = environment.settings_of_operator(state_dir)
    act = adopt_run.Act("" if dry_run else options.operator_name(settings, by, reason), reason)
    keys = naming.keys_of(release, settings) if release else []
    with environment.require_kafka(settings):
        if file is None:
            found: dict[str, Any] = asyncio.run(adopt_run.release_keys(settings, keys, act))
        else:
            found = asyncio.run(adopt_run.adopt_file(settings, file, choice, told_us, act, dry_run=dry_run))
    if as_json:
        show.as_json(found)
    else:
        (adopt_text.print_release if file is None else adopt_text.print_adoption)(found)
    if found.get("unknown"):
        raise typer.Exit(Exit.NOT_FOUND)
    raise typer.Exit(Exit.OK if found["is_done"] else Exit.DEVIATION)


def _check_mode(file: Path | None, release: list[str] | None, of_file: dict[str, object]) -> None:
    """Refuses contradicting options: else one of them would be ignored silently.

    Raises:
        CommandError: the option, and the valid form (UNUSABLE).
    """
    if (file is None) is not bool(release):
        raise CommandError(Exit.UNUSABLE, "name a FILE of tenants to adopt, or say --release KEY; one of both")
    for option, given in of_file.items():
        if given and release:
            raise CommandError(Exit.UNUSABLE, f"{option}: goes with a FILE")


def _differing(given: str | None) -> "Differing":
    from services.cli import options
    from services.core.saga.adoption import Differing

    return Differing(options.one_of(given or Differing.LEAVE, list(Differing), "--differing", "choice"))


def _told_us(file: Path, as_of: str | None, now_us: int) -> int:
    """Returns the time of the file's content, microseconds UTC: never later than now.

    Raises:
        CommandError: the time cannot be used, or is to come (UNUSABLE).
        OSError: the file cannot be read.
    """
    from schemas.times import instant

    if as_of is None:
        return min(now_us, file.stat().st_mtime_ns // 1_000)
    try:
        told_us = instant(as_of)
    except ValueError:
        raise CommandError(Exit.UNUSABLE, f"--as-of: {as_of!r} is no RFC 3339 date-time with an offset") from None
    if told_us > now_us:
        raise CommandError(Exit.UNUSABLE, f"--as-of: {as_of} is still to come")
    return told_us
