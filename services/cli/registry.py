"""Opens the provisioner's registry for an operator's command."""

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from services.adapters.process.settings import Settings
    from services.adapters.registry.registry import Registry

_CONNECTIONS: Final = 2


@asynccontextmanager
async def open_registry(
    settings: "Settings", command: str, on_unreadable: Callable[[str, str], None] | None = None
) -> "AsyncIterator[Registry]":
    """Opens the registry of the provisioner; the schema must exist already.

    Args:
        settings: The environment.
        command: Name of the command, stored beside a lease for operators to read.
        on_unreadable: Called with key and reason of a row that this release cannot read; None to print both.

    Raises:
        CommandError: the database does not answer (UNREACHABLE).
        Unusable: DATABASE_URL is missing or cannot be used.
    """
    from services.adapters.postgres.url import usable
    from services.adapters.process.settings import required
    from services.adapters.registry.registry import SCHEMA, Registry, RegistryAway
    from services.cli import show
    from services.operations.sagas import LEASE_S

    registry = Registry(
        usable("DATABASE_URL", required(settings, "database_url")),
        schema=SCHEMA,
        lease_s=LEASE_S,
        worker=f"lifecycle {command} on {socket.gethostname()}/{os.getpid()}",
        on_unreadable=on_unreadable
        or (lambda key, why: show.say(f"{key}: its row cannot be read by this release: {why}")),
        connections=_CONNECTIONS,
    )
    try:
        await registry.open()
        yield registry
    except RegistryAway as error:
        raise CommandError(Exit.UNREACHABLE, f"PostgreSQL (DATABASE_URL): {error}") from None
    finally:
        await registry.close()
