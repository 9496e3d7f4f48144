"""`lifecycle webhook`: compares, registers, rotates and tries the webhook that Genesys calls.

Rule: a secret is named by its fingerprint and never printed. Nothing is told to Genesys before the ingress behind the
URL has proved the secret, so a registration never leads deliveries to a refusal.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from services.cli import environment, options
from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from services.cli.webhook_registration import Registration

webhook = typer.Typer(help="The webhook's registration in Genesys.", no_args_is_help=True)
Org = Annotated[
    list[str] | None,
    typer.Option(help="Organisation: id, its beginning, or name; repeatable. Default: each with a file in ORGS_DIR."),
]
Integration = Annotated[
    list[str] | None,
    typer.Option(help="Integration of the one --org; repeatable. Default: all of the types in its file."),
]
Url = Annotated[str | None, typer.Option(help="The webhook's public URL. Default: the ingress of the running `up`.")]
Endpoint = Annotated[
    str | None, typer.Option(help="Endpoint of the keyring whose secret signs. Default: the one that the URL names.")
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]

OVERLAP_MAX: Final = "24h"
"""Longest overlap of two valid secrets, as of `lifecycle keyring rotate`."""
_WAIT_MAX: Final = "1h"


@webhook.callback()
def group() -> None:
    """The webhook's registration in Genesys."""


@webhook.command()
def plan(
    org: Org = None,
    integration: Integration = None,
    url: Url = None,
    endpoint: Endpoint = None,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Show how the webhooks in Genesys differ from what should be; ends with 1 for a difference."""
    from services.cli import show, webhook_text

    wanted = _registration(org, integration, url, endpoint, state_dir)
    found = asyncio.run(wanted.read())
    if as_json:
        show.as_json(webhook_text.plan_json(wanted, found))
    else:
        webhook_text.print_plan(wanted, found)
    raise typer.Exit(found.status(differs=any(map(wanted.deviates, found.read))))


@webhook.command()
def apply(
    org: Org = None,
    integration: Integration = None,
    url: Url = None,
    endpoint: Endpoint = None,
    rotate_secret: Annotated[
        bool, typer.Option("--rotate-secret", help="Make a fresh secret first; the former one stays valid.")
    ] = False,
    overlap: Annotated[
        str,
        typer.Option(
            help="With --rotate-secret: how long the former secret stays valid, 25m to 24h; --wait and 25m at least."
        ),
    ] = "24h",
    again: Annotated[
        bool, typer.Option("--again", help="Tell Genesys even where nothing differs: it may not show its secret.")
    ] = False,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Do not ask the URL first: this machine cannot reach it.")
    ] = False,
    wait: Annotated[str, typer.Option(help="How long the ingress may take to prove the secret, at most 1h.")] = "2m",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Register what differs, after a question and a probe; with --rotate-secret no delivery is refused meanwhile."""
    from services.cli import show, webhook_apply, webhook_text
    from services.core.registration import OVERLAP_LEAST_US

    overlap_us, wait_us = options.span_us(overlap, "--overlap", OVERLAP_MAX), options.span_us(wait, "--wait", _WAIT_MAX)
    if overlap_us < OVERLAP_LEAST_US:
        raise CommandError(Exit.UNUSABLE, "--overlap: less than 25m, in which retries still have the former signature")
    if rotate_secret and no_probe:
        why = "a rotation has to see that the ingress has the new secret before Genesys signs with it"
        raise CommandError(Exit.UNUSABLE, f"--no-probe: {why}")
    wanted = _registration(org, integration, url, endpoint, state_dir)
    found = asyncio.run(wanted.read())
    webhook_apply.require_whole(wanted, found)
    start = webhook_apply.rotation(wanted, found) if rotate_secret else None
    changes = webhook_apply.changes(found, start, again=again)
    if not as_json:
        webhook_text.print_plan(wanted, changes)
    told = [one for one in changes.read if one.told]
    if told and not yes:
        webhook_text.confirm(len(told))
    done = webhook_apply.apply(wanted, changes, start, overlap_us, None if no_probe else wait_us / 1_000_000)
    if as_json:
        show.as_json(webhook_text.done_json(wanted, done))
    else:
        webhook_text.print_done(wanted, done)
    raise typer.Exit(done.status)


@webhook.command()
def verify(
    org: Org = None,
    integration: Integration = None,
    url: Url = None,
    endpoint: Endpoint = None,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Send a signed probe to the URL and compare Genesys; say what to do for each fault; ends with 1 for a fault."""
    from services.cli import show, webhook_findings, webhook_text
    from services.cli.doctor.finding import Health
    from services.cli.doctor.findings_text import print_findings

    wanted = _registration(org, integration, url, endpoint, state_dir)
    read = asyncio.run(wanted.read())
    shown = {} if as_json or not show.shows_results() else webhook_text.names(wanted, read)
    found = webhook_findings.findings(wanted, read, shown)
    if as_json:
        show.as_json([{"what": f.what, "health": f.health, "detail": f.detail, "cure": f.cure} for f in found])
    else:
        print_findings(found)
    raise typer.Exit(Exit.DEVIATION if any(f.health is Health.FAULT for f in found) else Exit.OK)


def _registration(
    orgs: list[str] | None, integrations: list[str] | None, url: str | None, endpoint: str | None, given: Path | None
) -> "Registration":
    """Returns what should be registered, for the integrations that the options name.

    Raises:
        CommandError: an option, a file of ORGS_DIR or the keyring cannot be used.
        Unusable: a setting or the keyring cannot be used.
    """
    from services.adapters.process.environment import read
    from services.adapters.process.settings import Settings
    from services.cli.webhook_registration import registration

    return registration(read(environment.operator(given), Settings), orgs, integrations, url, endpoint)
