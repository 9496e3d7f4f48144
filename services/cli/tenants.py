"""`lifecycle tenants`: the state and the history of each tenant."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from services.cli import environment
from services.cli.exits import CommandError, Exit
from services.cli.options import KEY_HELP

if TYPE_CHECKING:
    from schemas.tenant import Tenant
    from schemas.values import Key
    from services.adapters.process.settings import Settings

tenants = typer.Typer(help="The state and history of tenants, per key.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]
KeyOf = Annotated[str, typer.Argument(metavar="KEY", help=KEY_HELP)]

AGE_MAX: Final = "3650d"
"""Longest span of --older-than."""
_VIEW_S: Final = 30.0
"""Seconds for reading the whole view."""


@tenants.command("list")
def show_all(
    stage: Annotated[list[str] | None, typer.Option(help="Only this stage; may be repeated.")] = None,
    org: Annotated[
        list[str] | None, typer.Option(help="Only this organisation, or the beginning of its id; may be repeated.")
    ] = None,
    unwell: Annotated[
        bool,
        typer.Option("--unwell", help="Only tenants that failed, wait for 15 minutes or more, or need an operator."),
    ] = False,
    older_than: Annotated[
        str | None, typer.Option(help="Only tenants unchanged for so long: 30s, 15m, 2h, 7d.")
    ] = None,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """List every tenant, by name; a terminal shows short keys, accepted by every command."""
    from schemas.tenant import Stage
    from services.adapters.process.clock import now_us
    from services.cli import naming, options, show, wording
    from services.core.tenant_list import TenantFilter, filtered
    from services.core.unwell import REMOVAL_BRAKED, REMOVAL_REFUSED

    stages = {options.one_of(one, list(Stage), "--stage", "stage") for one in stage or ()}
    age_us = None if older_than is None else options.span_us(older_than, "--older-than", AGE_MAX)
    view = _read_view(environment.settings_of_operator(state_dir))
    known = {key.partition(":")[0] for key in view}
    orgs = {naming.organisation(one, known) for one in org or ()}
    now = now_us()
    found = filtered(view.values(), TenantFilter(stages, orgs, age_us, only_unwell=unwell), now)
    if as_json:
        show.as_json([one.model_dump(mode="json") for one in found.tenants])
        return
    if found.tenants:
        _print_list(found.tenants, view, now)
    show.say(wording.summary(found.tenants, len(view), len(found.unwell)))
    # A short wait is not unwell; this line keeps an empty list from looking as if no tenant waited.
    if unwell and found.waiting:
        waits = "1 more waits" if found.waiting == 1 else f"{found.waiting} more wait"
        show.say(f"{waits}, for less than 15 min: `lifecycle tenants list` says for what")
    if found.unwell and show.is_terminal():
        first = found.unwell[0]
        name = first.tenant_id or first.key
        # A retry does not release a removal from the brake: only a ruling on the whole set does.
        is_braked = first.reason in {REMOVAL_BRAKED, REMOVAL_REFUSED}
        remedy = "rule: lifecycle reconcile --report" if is_braked else f"try again: lifecycle sagas retry {name}"
        show.say(f"why: lifecycle tenants timeline {name}    {remedy}")


@tenants.command("show")
def show_one(key: KeyOf, as_json: Json = False, state_dir: StateDir = None) -> None:
    """Show a tenant."""
    from services.adapters.process.clock import now_us
    from services.cli import naming, show

    view = _read_view(environment.settings_of_operator(state_dir))
    found = view[naming.resolve(key, naming.tenant_names(view.values()))]
    fields: dict[str, Any] = found.model_dump(mode="json")
    if as_json:
        show.as_json(fields)
    else:
        _print_tenant(found, fields, now_us())


@tenants.command()
def timeline(key: KeyOf, as_json: Json = False, state_dir: StateDir = None) -> None:
    """Show the history of a key: events, outcomes and audit, in order of time."""
    from services.cli import naming, show, timeline_text
    from services.operations import timeline as timelines

    settings = environment.settings_of_operator(state_dir)
    of = naming.keys_of([key], settings)[0]
    with environment.require_kafka(settings):
        found = timelines.read(of, settings.kafka, settings.topic_prefix)
    if not found:
        raise CommandError(Exit.NOT_FOUND, f"{of}: nothing is known of it")
    if as_json:
        show.as_json(timeline_text.entries_json(found))
    else:
        timeline_text.print_timeline(of, found)


def _print_list(found: "Collection[Tenant]", view: "Mapping[Key, Tenant]", now_us: int) -> None:
    """Prints a line per tenant; in a pipe, keys are printed in full."""
    from services.cli import show, wording
    from services.core import reasons

    # Unique in the whole view, not only among the listed tenants: a listed key must be valid in the next command.
    shown = wording.short_keys(view.keys()) if show.shows_results() else {key: key for key in view}
    show.listing(
        ("tenant", "key", "stage", "changed"),
        [
            show.ListingRow(
                cells=(
                    one.tenant_id or "-",
                    shown[one.key],
                    one.stage or "-",
                    f"{wording.span(now_us - one.updated_at)} ago",
                ),
                styles={1: "dim", 2: wording.STYLES.get(one.stage or "", "")},
                note=reasons.note_text(one),
            )
            for one in found
        ],
    )


def _print_tenant(found: "Tenant", fields: "Mapping[str, Any]", now_us: int) -> None:
    """Prints a tenant; the key has a separate line, since a table of 80 columns would fold the key."""
    from services.cli import show, wording
    from services.core import reasons

    show.styled(found.key, "bold")
    shown = dict(fields) | {
        "reason": reasons.reason_text(found.reason, found.updated_at) or None,
        "configuration": ", ".join(f"{name}={value}" for name, value in (found.configuration or {}).items()) or None,
        "flags": " ".join(found.flags) or None,
        "updated_at": f"{wording.moment(found.updated_at)} UTC, {wording.span(now_us - found.updated_at)} ago",
    }
    del shown["key"]
    show.table(("field", "value"), shown.items())


def _read_view(settings: "Settings") -> "dict[Key, Tenant]":
    """Reads the view; records unreadable for this release are counted on standard error and left out."""
    from contextlib import closing

    from services.adapters.kafka.tenant_view import TenantView
    from services.cli import show

    with environment.require_kafka(settings), closing(TenantView(settings.kafka, settings.topic_prefix)) as view:
        found = view.catch_up(_VIEW_S)
        if view.unreadable:
            show.say(f"{view.unreadable} records of the view cannot be read by this release and are left out")
    return found
