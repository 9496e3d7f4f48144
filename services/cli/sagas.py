"""`lifecycle sagas`: where each tenant's provisioning stands, and the operator's wish that it be tried again."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from services.cli import environment
from services.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from services.adapters.claims import Row
    from services.adapters.registry import Registry
    from services.adapters.settings import Settings

R = TypeVar("R")

sagas = typer.Typer(help="Where provisioning stands, per key.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]

_LEASE_S: Final = 5.0
_CONNECTIONS: Final = 2


class State(StrEnum):
    """Groups of phases, as operators ask for them."""

    FAILED = "failed"
    """Needs somebody: rolled back, or left half undone."""
    WORKING = "working"
    """Under way, or waiting for its next try."""
    ACTIVE = "active"
    EMPTY = "empty"


_PHASES: Final = {
    State.FAILED: ("rolled_back", "compensation_failed", "removal_failed"),
    State.WORKING: ("creating", "updating", "restoring", "compensating", "removing"),
    State.ACTIVE: ("active",),
    State.EMPTY: ("empty",),
}


@sagas.command("list")
def show_all(
    state: Annotated[State | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, those that changed last first.")] = 100,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Sagas, those that changed last first."""
    from services.cli import show

    phases = None if state is None else _PHASES[state]
    found = [_told(row) for row in _ask(state_dir, lambda registry: registry.sagas(phases=phases, limit=limit))]
    if as_json:
        show.as_json(found)
        return
    columns = ("key", "phase", "generation", "version", "stands_at", "why", "due", "changed")
    show.table(columns, [[one[name] for name in columns] for one in found])
    if len(found) == limit:
        show.say(f"the newest {limit}; --limit shows more")


@sagas.command("show")
def show_one(
    key: Annotated[str, typer.Argument(metavar="KEY", help="orgId:integrationId")],
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """One saga, step by step; what it was given and what it answered is not shown, since both may hold secrets."""
    from services.cli import show

    rows = _ask(state_dir, lambda registry: registry.sagas(key=key.lower(), limit=1))
    if not rows:
        raise Failure(Exit.NOT_FOUND, f"{key}: no such saga")
    told = _told(rows[0])
    steps = _steps(rows[0])
    if as_json:
        show.as_json(told | {"steps": steps})
        return
    show.table(("field", "value"), told.items())
    if steps:
        print()
        show.table(tuple(steps[0]), [tuple(step.values()) for step in steps])


@sagas.command()
def retry(
    key: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="orgId:integrationId")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Every saga that `list --state failed` shows.")] = False,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Try again now what was given up, refused, or waits; ends with 1 where one could not be."""
    from services.adapters import keyring
    from services.cli import show

    if bool(key) == failed:
        raise Failure(Exit.UNUSABLE, "name the keys, or say --failed")
    settings = environment.settings_of_operator(state_dir)
    material = keyring.raw(keyring.material(settings.keyring_file).audit[0])
    found = _ask(state_dir, lambda registry: _retry_all(registry, [one.lower() for one in key or ()], material))
    if as_json:
        show.as_json([{"key": of, "result": result} for of, result in found])
    else:
        show.table(("key", "result"), found)
    if any(result not in {_AGAIN, _NOTHING} for _, result in found):
        raise typer.Exit(Exit.DEVIATION)


_AGAIN: Final = "tried again now"
_NOTHING: Final = "nothing to try again"
_IN_GRACE: Final = "in its grace period, which this does not shorten"


async def _retry_all(registry: "Registry", keys: list[str], material: bytes) -> list[tuple[str, str]]:
    if await registry.is_half_recovered():
        raise Failure(Exit.UNUSABLE, "the registry is being recovered: its provisioner drives everything anew")
    named = keys or [row.key for row in await registry.sagas(phases=_PHASES[State.FAILED], limit=100_000)]
    return [(key, await _retry(registry, key, material)) for key in named]


async def _retry(registry: "Registry", key: str, material: bytes) -> str:
    from schemas import codec
    from schemas.topics import AUDIT
    from services.adapters.claims import Saying, Written
    from services.core import audit
    from services.core.saga import GRACE
    from services.core.saga_marks import redriven

    try:
        claim = await registry.claim_one(key)
    except codec.Unreadable as fault:
        return f"its row cannot be read by this release: {fault}"
    rows = await registry.sagas(key=key, limit=1)
    if claim is None or not rows:
        return f"{rows[0].worker or 'somebody'} is at it now" if rows else "no such saga"
    journal, sayings = redriven(claim.journal), list[Saying]()
    if journal is not None:
        number = journal.lines + 1
        why = f"an operator's wish, while it was {claim.journal.phase}"
        line = audit.line(
            line_id=f"{key}/retry/{number}",
            key=key,
            what="retry",
            verdict="tried again",
            why=why,
            at_us=claim.now_us(),
            material=material,
        )
        sayings = [Saying(AUDIT.name, number, codec.dump(line))]
        journal = journal.model_copy(update={"lines": number})
    # Due at once also where nothing is to be done: when it was due is not known here, and who has nothing to do rests.
    written = await registry.write(claim, journal or claim.journal, sayings, due_in_s=0.0, release=True)
    if not isinstance(written, Written):
        # What was journalled stays; the lease goes back, and the newer version is taken up.
        await registry.write(claim, claim.journal, (), due_in_s=0.0, release=True)
        return "a newer version came just now"
    if journal is None and rows[0].why == GRACE:
        return _IN_GRACE
    at_rest = claim.journal.target is not None and claim.journal.target.version >= claim.desired.version
    return _NOTHING if journal is None and rows[0].why is None and at_rest else _AGAIN


def _told(row: "Row") -> dict[str, Any]:
    from schemas.times import rfc3339

    step, why = _standing(row)
    return {
        "key": row.key,
        "phase": row.phase,
        "generation": row.generation,
        "version": row.desired_version,
        "tenant_id": row.tenant_id,
        "stands_at": step,
        "why": f"{row.waits_for} is away" if row.waits_for else row.why or why,
        "due": None if row.due_s is None else rfc3339(int(row.due_s * 1_000_000)),
        "changed": rfc3339(int(row.changed_s * 1_000_000)),
        "worker": row.worker,
    }


def _standing(row: "Row") -> tuple[str | None, str | None]:
    """The step that a saga stands at, and why."""
    journal = row.journal
    if journal.failure is not None:
        return journal.failure.step, f"{journal.failure.error_class}: {journal.failure.reason}"
    for name, log in journal.life.steps.items() if journal.life else ():
        if log.reason:
            return name, f"{log.verdict}: {log.reason} ({log.answers} answers, {log.silences} silences)"
    return None, journal.held


def _steps(row: "Row") -> list[dict[str, Any]]:
    from schemas.times import rfc3339

    lives = [*(sweep.life for sweep in row.journal.sweeps), *([row.journal.life] if row.journal.life else [])]
    return [
        {
            "generation": life.generation,
            "step": name,
            "there": log.there.value,
            "verdict": log.verdict.value,
            "open": log.open,
            "intents": log.n,
            "answers": log.answers,
            "silences": log.silences,
            "not_before": rfc3339(log.not_before) if log.not_before else None,
            "why": log.reason or None,
        }
        for life in lives
        for name, log in life.steps.items()
    ]


def _ask(state_dir: Path | None, ask: "Callable[[Registry], Awaitable[R]]") -> R:
    settings = environment.settings_of_operator(state_dir)

    async def asked() -> R:
        async with _opened(settings) as registry:
            return await ask(registry)

    return asyncio.run(asked())


@asynccontextmanager
async def _opened(settings: "Settings") -> "AsyncIterator[Registry]":
    """The registry of the provisioner, whose schema must be there already.

    Raises:
        Failure: no database answers.
    """
    from services.adapters.registry import SCHEMA, Registry, RegistryAway, usable
    from services.adapters.settings import required
    from services.cli import show

    worker = f"lifecycle sagas on {socket.gethostname()}/{os.getpid()}"
    url = usable("DATABASE_URL", required(settings, "database_url"))
    registry = Registry(url, schema=SCHEMA, lease_s=_LEASE_S, worker=worker, connections=_CONNECTIONS)
    registry.unreadable = lambda key, why: show.say(f"{key}: its row cannot be read by this release: {why}")
    try:
        await registry.open()
        yield registry
    except RegistryAway as error:
        raise Failure(Exit.UNREACHABLE, f"PostgreSQL (DATABASE_URL): {error}") from None
    finally:
        await registry.close()
