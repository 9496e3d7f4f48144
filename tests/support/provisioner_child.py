"""A real provisioner process whose outside is a table, configured by environment.

Start: `python -m tests.support.provisioner_child`.

One hand serves every kind. What it does to a thing is one statement in the test's own database, so that what exists,
how often it was made and who asked are read from there and not from the provisioner.
"""

import asyncio
import os
import sys
from dataclasses import replace

import psycopg
import uvloop
from psycopg_pool import AsyncConnectionPool

from services.adapters.process import logs
from services.adapters.process.environment import read
from services.adapters.process.settings import ProvisionerSettings
from services.core.saga.calls import Absent, Answer, Call, Done, Refused, Unknown, Verb, resource_name
from services.provisioner.kinds import TRAITS
from services.provisioner.main import StepHandlers, serve
from tests.support.saga_world import PLAN_TEXT

TABLES = """
    CREATE SCHEMA IF NOT EXISTS outside;
    CREATE TABLE IF NOT EXISTS outside.things (
        step text, name text, key text, generation int, idempotency_key text, made int NOT NULL DEFAULT 1,
        PRIMARY KEY (step, name)
    );
    CREATE TABLE IF NOT EXISTS outside.calls (
        id bigserial PRIMARY KEY, step text, verb text, key text, tenant_id text, generation int, epoch bigint,
        idempotency_key text
    );
"""
CANARY = "canary-token-0123456789"
_TOKENS = replace(TRAITS["oauth"], outputs=("id", "token"), secret_outputs=frozenset({"token"}))
_CREATE = """
    INSERT INTO outside.things (step, name, key, generation, idempotency_key) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (step, name) DO UPDATE
    SET made = things.made + (things.idempotency_key <> excluded.idempotency_key)::int
"""


class Table:
    """Does to a table what a kind does to a system; `bad` in the settings names a step to refuse."""

    def __init__(self, url: str, pause_s: float) -> None:
        self._pool = AsyncConnectionPool(url, min_size=1, max_size=8, open=False, kwargs={"autocommit": True})
        self._pause_s = pause_s

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    async def call(self, call: Call) -> Answer:
        try:
            async with self._pool.connection() as session:
                await session.execute(
                    "INSERT INTO outside.calls (step, verb, key, tenant_id, generation, epoch, idempotency_key)"
                    " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                    (
                        call.step,
                        call.verb.value,
                        call.key,
                        call.tenant_id,
                        call.generation,
                        call.epoch,
                        call.idempotency_key,
                    ),
                )
                await asyncio.sleep(self._pause_s)
                answer = await self._act(session, call)
                await asyncio.sleep(self._pause_s)
                return answer
        except psycopg.OperationalError as error:
            return Unknown(type(error).__name__)

    async def _act(self, session: psycopg.AsyncConnection[tuple[object, ...]], call: Call) -> Answer:
        name = resource_name(call.key, call.generation)
        resource = (call.step, name)
        if call.settings.get("bad") == call.step and call.verb in {Verb.CREATE, Verb.UPDATE}:
            return Refused("bad")
        if call.verb is Verb.CREATE:
            await session.execute(_CREATE, (*resource, call.key, call.generation, call.idempotency_key))
            return Done({"id": name, "token": CANARY} if call.kind == "oauth" else {"id": name})
        if call.verb is Verb.DELETE:
            gone = await session.execute("DELETE FROM outside.things WHERE step = %s AND name = %s", resource)
            return Done() if gone.rowcount else Absent()
        found = await session.execute("SELECT 1 FROM outside.things WHERE step = %s AND name = %s", resource)
        return Done({"id": name}) if await found.fetchone() else Absent()


async def _run() -> int:
    given = read(os.environ, ProvisionerSettings)
    table = Table(os.environ["DATABASE_URL"], float(os.environ.get("OUTSIDE_PAUSE_S", "0")))
    await table.open()
    log = logs.configure("provisioner", given.log_level)
    try:
        handlers = StepHandlers(dict.fromkeys(TRAITS, table), TRAITS | {"oauth": _TOKENS}, PLAN_TEXT)
        return await serve(given, handlers, log)
    finally:
        await table.close()


if __name__ == "__main__":
    sys.exit(uvloop.run(_run()))
