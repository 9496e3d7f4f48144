"""Starts the simulator: an HTTP port for all outside systems, and a port of the proxy before the tenants' database."""

import asyncio
import random
import signal
from pathlib import Path

import uvicorn
from psycopg.conninfo import conninfo_to_dict
from starlette.applications import Starlette
from starlette.middleware import Middleware

from services.adapters.postgres.url import usable
from services.adapters.process import health, logs
from services.adapters.process.clock import now_us
from services.adapters.process.errors import Unusable
from services.adapters.process.logs import Logger
from services.adapters.process.settings import SimulatorSettings
from services.simulator import accounts, grants, objects, rest, truth
from services.simulator.faults import Faults
from services.simulator.genesys import SimulatedGenesys
from services.simulator.genesys_api import Api
from services.simulator.genesys_audit_api import AuditApi
from services.simulator.genesys_audits import AuditLog
from services.simulator.genesys_budget import Budgets
from services.simulator.genesys_control import Control
from services.simulator.memory import Memory
from services.simulator.proxy import Proxy
from services.simulator.webhooks import Webhooks
from services.simulator.wire import Dated, Protocol
from services.simulator.world import OutsideWorld

_IDLE_S = 75
"""Longer than the idle time-out of any client. The client must close an idle connection first: a request sent on a
connection that the server is closing gets no answer."""


def main(settings: SimulatorSettings) -> int:
    """Runs the simulator until SIGTERM or SIGINT; returns the exit status 0.

    Raises:
        Unusable: A needed setting is missing or unusable.
    """
    log = logs.configure("simulator", settings.log_level)
    # uvicorn replaces these handlers while serving, ends on a signal, and then raises the signal again for the handlers
    # from before. The default handlers would kill the process then.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    asyncio.run(_run(settings, log))
    return 0


async def _run(settings: SimulatorSettings, log: Logger) -> None:
    """Builds the simulator from the settings and serves until a signal."""
    memory = Memory(settings.state_dir / "simulator.jsonl")
    chance = random.Random(settings.simulator_seed)  # noqa: S311 - which calls fail, not a secret
    world = OutsideWorld(memory, Faults(chance), settings.simulator_latency_s)
    genesys = SimulatedGenesys(memory, settings.orgs_dir, AuditLog(memory, now_us))
    webhooks = Webhooks(settings.simulator_webhook_url, settings.keyring_file, genesys.webhook, log)
    app = _app(settings, world, genesys, webhooks)
    proxy = await _proxy(settings, world)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Protocol,
        ws="none",
        lifespan="off",  # the resources are closed below, since the proxy is no part of the application
        log_config=None,
        access_log=False,
        date_header=False,  # `Dated` adds the header
        backlog=2048,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=2,
    )
    try:
        await uvicorn.Server(config).serve()
    finally:
        if proxy is not None:
            proxy.close()
        await webhooks.close()
        memory.close()
        log.info("stopped")


def _app(settings: SimulatorSettings, world: OutsideWorld, genesys: SimulatedGenesys, webhooks: Webhooks) -> Starlette:
    """Returns the application with the routes of every outside system."""
    budgets = Budgets(settings.simulator_rate_per_minute)
    api = Api(genesys, world.faults, budgets)
    audit_api = AuditApi(api, AuditLog(world.memory, now_us), now_us)
    archive: Path = settings.simulator_archive_dir or settings.state_dir / "archive"
    return Starlette(
        routes=[
            *truth.routes(world, settings.database_url, archive),
            *rest.routes(world),
            *grants.routes(world),
            *accounts.routes(world),
            *objects.routes(world, archive),
            *api.routes(),
            *audit_api.routes(),
            *Control(genesys, budgets, webhooks).routes(),
            *health.routes("simulator", dict[str, str]),
        ],
        middleware=[Middleware(Dated)],
    )


async def _proxy(settings: SimulatorSettings, world: OutsideWorld) -> asyncio.Server | None:
    """Starts the proxy before the tenants' database; returns None if no database is configured.

    Raises:
        Unusable: DATABASE_URL names several hosts, a Unix socket, or no host.
    """
    if settings.database_url is None:
        return None
    where = conninfo_to_dict(usable("DATABASE_URL", settings.database_url))
    host, port = str(where.get("host") or ""), str(where.get("port") or "5432")
    if not host or host.startswith("/") or "," in host or not port.isdigit():
        raise Unusable("DATABASE_URL: the simulator's proxy needs one host reached by TCP")
    return await Proxy(world, (host, int(port))).start(settings.host, settings.simulator_database_port)
