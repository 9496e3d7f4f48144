"""`lifecycle sagas`: the state of each tenant's provisioning, and the operator's request for a retry."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from services.cli import environment
from services.cli.exits import CommandError, Exit
from services.cli.options import KEY_HELP
from services.cli.registry import open_registry
from services.core.saga.phase_groups import PhaseGroup

if TYPE_CHECKING:
    from services.adapters.process.settings import Settings
    from services.adapters.registry.registry import Registry
    from services.core.saga.retry import RetryResult
    from services.core.saga.view import SagaEnd

R = TypeVar("R")

sagas = typer.Typer(help="The state of provisioning, per key.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]


@sagas.command("list")
def show_all(
    state: Annotated[PhaseGroup | None, typer.Option(help="Only sagas in this group of phases.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, latest change first.")] = 100,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """List sagas, latest change first."""
    from services.cli import sagas_text, show, wording
    from services.core.saga.view import view_of
    from services.operations import sagas as operations

    settings = environment.settings_of_operator(state_dir)
    rows = _with_registry(settings, lambda registry: operations.rows(registry, state, limit))
    found = [view_of(row) for row in rows]
    if as_json:
        show.as_json([sagas_text.saga_json(saga) for saga in found])
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
    from services.core.saga.view import steps_of, view_of

    settings = environment.settings_of_operator(state_dir)
    of = naming.keys_of([key], settings)[0]
    rows = _with_registry(settings, lambda registry: registry.sagas(key=of, limit=1))
    if not rows:
        raise CommandError(Exit.NOT_FOUND, f"{of}: no such saga")
    saga, steps = view_of(rows[0]), steps_of(rows[0].journal)
    if as_json:
        show.as_json(sagas_text.saga_json(saga) | {"steps": [sagas_text.step_json(step) for step in steps]})
        return
    sagas_text.print_saga(saga, steps)


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
    from services.core.saga.retry import RetryEnd

    if bool(key) == failed:
        raise CommandError(Exit.UNUSABLE, "name the keys, or say --failed")
    settings = environment.settings_of_operator(state_dir)
    material = keyring.raw(keyring.material(settings.keyring_file).audit[0])
    named = naming.keys_of(key or (), settings)
    found = _retry_all(settings, named, material)
    fails = not all(result.is_done for _, result in found)
    ends: dict[str, SagaEnd] = {}
    if wait:
        tried = [of for of, result in found if result.is_done]
        ends = _with_registry(settings, lambda registry: follow(registry, tried, timeout_s, show.say))
        fails = fails or not all(end.reached for end in ends.values())
    shown = [(of, result.text, *([ends[of].text if of in ends else ""] if wait else [])) for of, result in found]
    columns = ("key", "result", *(["end"] if wait else []))
    if as_json:
        show.as_json([dict(zip(columns, row, strict=True)) for row in shown])
    elif shown:
        show.table(columns, shown)
    else:
        show.say("no saga failed: nothing to try again")
    if any(result.end is RetryEnd.NO_SAGA for _, result in found):
        raise typer.Exit(Exit.NOT_FOUND)
    if fails:
        raise typer.Exit(Exit.DEVIATION)


def _retry_all(settings: "Settings", keys: list[str], material: bytes) -> "list[tuple[str, RetryResult]]":
    """Retries the sagas of these keys, or without keys all failed sagas.

    Raises:
        CommandError: a recovery of the registry is in progress (UNUSABLE).
    """
    from services.operations import sagas as operations

    try:
        return _with_registry(settings, lambda registry: operations.retry_all(registry, keys, material))
    except operations.RecoveryInProgress as error:
        raise CommandError(Exit.UNUSABLE, str(error)) from None


def _with_registry(settings: "Settings", use: "Callable[[Registry], Awaitable[R]]") -> R:
    """Opens the registry, runs `use` in an event loop, and returns the result."""

    async def run() -> R:
        async with open_registry(settings, "sagas") as registry:
            return await use(registry)

    # Before the pool opens: a pool retries and would report only a timeout.
    environment.require_registry(settings)

    return asyncio.run(run())
