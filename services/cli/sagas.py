"""`lifecycle sagas`: the state of each tenant's provisioning, and the operator's request for a retry."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from services.cli import environment
from services.cli.exits import CommandError, Exit
from services.cli.options import KEY_HELP

if TYPE_CHECKING:
    from services.adapters.process.settings import Settings
    from services.adapters.registry.registry import Registry
    from services.adapters.registry.types import Claim

R = TypeVar("R")

sagas = typer.Typer(help="The state of provisioning, per key.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]

_LEASE_S: Final = 5.0
"""Seconds of the lease for one retry, and of the wait for a worker's lease to end."""
_CLAIM_POLL_S: Final = 0.1
"""Seconds between two attempts to lease a saga."""
_CONNECTIONS: Final = 2
_NO_LIMIT: Final = 100_000
"""More sagas than any registry holds."""


class PhaseGroup(StrEnum):
    """Groups of phases, for the option --state."""

    FAILED = "failed"
    """Rolled back, or at a standstill: a system is away, refuses, or contradicts itself."""
    WORKING = "working"
    """In progress, without a standstill."""
    ACTIVE = "active"
    EMPTY = "empty"


_PHASES: Final = {
    PhaseGroup.FAILED: ("rolled_back",),
    PhaseGroup.WORKING: ("creating", "updating", "restoring", "compensating", "removing"),
    PhaseGroup.ACTIVE: ("active",),
    PhaseGroup.EMPTY: ("empty",),
}


@sagas.command("list")
def show_all(
    state: Annotated[PhaseGroup | None, typer.Option(help="Only sagas in this group of phases.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, latest change first.")] = 100,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """List sagas, latest change first."""
    from services.cli import sagas_text, show, wording

    phases = None if state is None else _PHASES[state]
    standing = None if state is None else state is PhaseGroup.FAILED
    settings = environment.settings_of_operator(state_dir)
    rows = _with_registry(settings, lambda registry: registry.sagas(phases=phases, standing=standing, limit=limit))
    found = [sagas_text.saga_json(row) for row in rows]
    if as_json:
        show.as_json(found)
        return
    if found:
        sagas_text.print_sagas(found)
    show.say(wording.counted(len(found), "saga") + (f" {state}" if state else ""))
    if len(found) == limit:
        show.say(f"the newest {limit}; --limit shows more")


@sagas.command("show")
def show_one(
    key: Annotated[str, typer.Argument(metavar="KEY", help=KEY_HELP)],
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Show one saga step by step; inputs and outputs of steps stay hidden, since both may hold secrets."""
    from services.cli import naming, sagas_text, show

    settings = environment.settings_of_operator(state_dir)
    of = naming.keys_of([key], settings)[0]
    rows = _with_registry(settings, lambda registry: registry.sagas(key=of, limit=1))
    if not rows:
        raise CommandError(Exit.NOT_FOUND, f"{of}: no such saga")
    shown = sagas_text.saga_json(rows[0])
    steps = sagas_text.steps_json(rows[0])
    if as_json:
        show.as_json(shown | {"steps": steps})
        return
    sagas_text.print_saga(shown, steps)


@sagas.command()
def retry(
    key: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help=KEY_HELP)] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Every saga that `list --state failed` shows.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow each saga to its end, which decides the exit status.")
    ] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Longest wait of --wait, in seconds.")] = 300.0,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Retry now sagas that were given up, were refused, or wait.

    Ends with 1 if a saga could not be retried or, with --wait, did not reach the desired state in time.
    """
    from services.adapters.secrets import keyring
    from services.cli import naming, show
    from services.cli.saga_wait import follow

    if bool(key) == failed:
        raise CommandError(Exit.UNUSABLE, "name the keys, or say --failed")
    settings = environment.settings_of_operator(state_dir)
    material = keyring.raw(keyring.material(settings.keyring_file).audit[0])
    named = naming.keys_of(key or (), settings)
    found = _with_registry(settings, lambda registry: _retry_all(registry, named, material))
    fails = any(result not in {_AGAIN, _NOTHING} for _, result in found)
    ends: dict[str, tuple[bool, str]] = {}
    if wait:
        tried = [of for of, result in found if result in {_AGAIN, _NOTHING}]
        ends = _with_registry(settings, lambda registry: follow(registry, tried, timeout_s, show.say))
        fails = fails or not all(well for well, _ in ends.values())
    shown = [(of, result, *([ends[of][1] if of in ends else ""] if wait else [])) for of, result in found]
    columns = ("key", "result", *(["end"] if wait else []))
    if as_json:
        show.as_json([dict(zip(columns, row, strict=True)) for row in shown])
    elif shown:
        show.table(columns, shown)
    else:
        show.say("no saga failed: nothing to try again")
    if any(result == _UNKNOWN for _, result in found):
        raise typer.Exit(Exit.NOT_FOUND)
    if fails:
        raise typer.Exit(Exit.DEVIATION)


_AGAIN: Final = "tried again now"
_UNKNOWN: Final = "no such saga"
_NOTHING: Final = "nothing to try again"
_IN_GRACE: Final = "in its grace period, which this does not shorten"
_UNWRITTEN: Final = {
    "NewerDesired": "a newer version came just now",
    "LeaseLost": "its lease was lost just now: another worker is at it, or it is gone",
    "TenantTaken": "its tenantId is bound to another organisation",
}
"""Sentence by the name of the registry's result; names, since the registry's types are imported late."""


async def _retry_all(registry: "Registry", keys: list[str], material: bytes) -> list[tuple[str, str]]:
    """Retries the sagas of these keys, or without keys all failed sagas; returns key and result of each.

    Raises:
        CommandError: a recovery of the registry is in progress (UNUSABLE).
    """
    # During a recovery nothing can be leased, so each retry would wait for `_LEASE_S` in vain.
    if await registry.is_half_recovered():
        raise CommandError(Exit.UNUSABLE, "the registry is being recovered: its provisioner drives everything anew")
    named = keys or [
        row.key for row in await registry.sagas(phases=_PHASES[PhaseGroup.FAILED], standing=True, limit=_NO_LIMIT)
    ]
    return [(key, await _retry(registry, key, material)) for key in named]


async def _retry(registry: "Registry", key: str, material: bytes) -> str:
    """Retries a saga and returns the result in words."""
    from schemas import codec
    from schemas.topics import AUDIT
    from services.adapters.registry.types import LeaseLost, NewerDesired, OutboxMessage, TenantTaken
    from services.core.ledger import audit
    from services.core.saga.intents import redriven
    from services.core.unwell import GRACE

    try:
        claim = await _claim_with_patience(registry, key)
    except codec.Unreadable as fault:
        return f"its row cannot be read by this release: {fault}"
    rows = await registry.sagas(key=key, limit=1)
    if claim is None or not rows:
        return f"{rows[0].worker or 'somebody'} is at it now" if rows else _UNKNOWN
    journal, messages = redriven(claim.journal), list[OutboxMessage]()
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
        messages = [OutboxMessage(AUDIT.name, number, codec.dump(line))]
        journal = journal.model_copy(update={"lines": number})
    # Due at once even if nothing is to be done: the former due time is unknown here, and a saga without work rests by
    # itself.
    written = await registry.write(claim, journal or claim.journal, messages, due_in_s=0.0, release=True)
    if isinstance(written, NewerDesired | TenantTaken):
        # The lease is still held: returned with the journal of the registry, and with the newer version.
        await registry.write(claim, claim.journal, (), due_in_s=0.0, release=True)
    # The registry compares texts: without a new journal an equal text says nothing of an earlier try.
    newer = isinstance(written, NewerDesired) and (journal is None or not written.written)
    if newer or isinstance(written, LeaseLost | TenantTaken):
        return _UNWRITTEN[type(written).__name__]
    if journal is None and rows[0].why == GRACE:
        return _IN_GRACE
    at_rest = claim.journal.target is not None and claim.journal.target.version >= claim.desired.version
    rests = journal is None and rows[0].why is None and rows[0].waits_for is None
    return _NOTHING if rests and at_rest else _AGAIN


async def _claim_with_patience(registry: "Registry", key: str) -> "Claim | None":
    """Leases the saga of a key; waits up to `_LEASE_S` for a worker to return the lease, then returns None."""
    until_s = time.monotonic() + _LEASE_S
    while True:
        claim = await registry.claim_one(key)
        if claim is not None or time.monotonic() >= until_s or not await registry.sagas(key=key, limit=1):
            return claim
        await asyncio.sleep(_CLAIM_POLL_S)


def _with_registry(settings: "Settings", use: "Callable[[Registry], Awaitable[R]]") -> R:
    """Opens the registry, runs `use` in an event loop, and returns the result."""

    async def run() -> R:
        async with _open_registry(settings) as registry:
            return await use(registry)

    # Before the pool opens: a pool retries and would report only a timeout.
    environment.require_registry(settings)

    return asyncio.run(run())


@asynccontextmanager
async def _open_registry(settings: "Settings") -> "AsyncIterator[Registry]":
    """Opens the registry of the provisioner; the schema must exist already.

    Raises:
        CommandError: the database does not answer (UNREACHABLE).
    """
    from services.adapters.postgres.url import usable
    from services.adapters.process.settings import required
    from services.adapters.registry.registry import SCHEMA, Registry, RegistryAway
    from services.cli import show

    worker = f"lifecycle sagas on {socket.gethostname()}/{os.getpid()}"
    url = usable("DATABASE_URL", required(settings, "database_url"))
    registry = Registry(
        url,
        schema=SCHEMA,
        lease_s=_LEASE_S,
        worker=worker,
        on_unreadable=lambda key, why: show.say(f"{key}: its row cannot be read by this release: {why}"),
        connections=_CONNECTIONS,
    )
    try:
        await registry.open()
        yield registry
    except RegistryAway as error:
        raise CommandError(Exit.UNREACHABLE, f"PostgreSQL (DATABASE_URL): {error}") from None
    finally:
        await registry.close()
