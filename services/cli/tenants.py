"""`lifecycle tenants`: what is, per key, and how it came to be so."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli import environment
from services.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from schemas.tenant import Tenant
    from services.adapters.settings import Settings

tenants = typer.Typer(help="What is, per key.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]
KeyOf = Annotated[str, typer.Argument(metavar="KEY", help="orgId:integrationId")]


@tenants.command("list")
def show_all(
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Every tenant."""
    from services.cli import show

    found = [one for _, one in sorted(_newest(state_dir).items()) if stage in {None, one.stage}]
    if as_json:
        show.as_json([one.model_dump(mode="json") for one in found])
        return
    columns = ("key", "tenant", "stage", "enabled", "revision", "generation", "reason", "flags")
    rows = [
        (one.key, _named(one), one.stage, one.enabled, one.revision, one.generation, one.reason, " ".join(one.flags))
        for one in found
    ]
    show.table(columns, rows)


@tenants.command("show")
def show_one(key: KeyOf, as_json: Json = False, state_dir: StateDir = None) -> None:
    """One tenant."""
    from services.cli import show

    found = _newest(state_dir).get(key.lower())
    if found is None:
        raise Failure(Exit.NOT_FOUND, f"{key}: no such tenant")
    fields: dict[str, Any] = found.model_dump(mode="json")
    if as_json:
        show.as_json(fields)
    else:
        show.table(("field", "value"), fields.items())


@tenants.command()
def timeline(key: KeyOf, as_json: Json = False, state_dir: StateDir = None) -> None:
    """What happened to one key: events, outcomes and audit, in order of time."""
    from services.cli import show

    settings = environment.settings_of_operator(state_dir)
    with environment.answering(settings):
        found = sorted(_happenings(key.lower(), settings), key=lambda one: (one["at"], one["id"]))
    if not found:
        raise Failure(Exit.NOT_FOUND, f"{key}: nothing is known of it")
    if as_json:
        show.as_json(found)
    else:
        show.table(
            ("at", "what", "which", "why"), [(one["at"], one["what"], one["which"], one["why"]) for one in found]
        )


def _named(tenant: "Tenant") -> str | None:
    """The bound tenantId, and the claimed one beside it where that is another (docs/tenant-changed.md)."""
    if tenant.claimed_tenant_id is None:
        return tenant.tenant_id
    return f"{tenant.tenant_id or '-'} (claimed: {tenant.claimed_tenant_id})"


def _newest(state_dir: Path | None) -> dict[str, Any]:
    """The view as it is now."""
    from services.adapters import tenant_view

    settings = environment.settings_of_operator(state_dir)
    with environment.answering(settings):
        return tenant_view.read(settings.kafka, settings.topic_prefix)


def _happenings(key: str, settings: "Settings") -> Iterator[dict[str, Any]]:
    """Each event, outcome and audit record of the key once, whatever Kafka repeats."""
    from schemas.audit import Audit
    from schemas.codec import decode
    from schemas.event import Event
    from schemas.outcome import Outcome
    from schemas.times import rfc3339
    from schemas.topics import AUDIT, EVENTS, OUTCOMES, named
    from services.adapters import history

    events, outcomes, audit = (named(topic, settings.topic_prefix) for topic in (EVENTS, OUTCOMES, AUDIT))
    seen: set[str] = set()
    for record in history.present(settings.kafka, [events, outcomes, audit]):
        name = record.headers.get("ce_id", "")
        if record.key != key or name in seen:
            continue
        seen.add(name)
        if record.topic == events:
            event = decode(Event, record.value)
            which, why = (
                f"{event.event} (revision {event.revision})",
                f"{event.source}, tenantId {event.tenant_id or '-'}, occurred {rfc3339(event.occurred_at)}",
            )
            yield {"at": rfc3339(record.at_us), "id": name, "what": "event", "which": which, "why": why}
        elif record.topic == outcomes:
            said = decode(Outcome, record.value)
            which = f"{said.direction} {said.state} (generation {said.generation})"
            bound = f"bound to {said.tenant_id}" if said.tenant_id else ""
            why = ", ".join(filter(None, (bound, said.step, said.error_class, said.reason)))
            yield {"at": rfc3339(record.at_us), "id": name, "what": "outcome", "which": which, "why": why}
        else:
            line = decode(Audit, record.value)
            yield {"at": rfc3339(record.at_us), "id": name, "what": line.what, "which": line.verdict, "why": line.why}
