"""A real provisioner whose outside answers at once: `python -m tests.bench.saga_worker`, configured by environment.

The tenants' database alone is a real one, by the real kind. What remains is what a saga costs here, there and in the
registry. When it ends, it writes down how many statements it asked
PostgreSQL (`STATEMENTS_FILE`) and the CPU it used.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import uvloop

from services.adapters.process import logs
from services.adapters.process.environment import read
from services.adapters.process.settings import ProvisionerSettings, required
from services.core.saga.calls import Absent, Answer, Call, Done, Verb
from services.provisioner.caller import StepHandler
from services.provisioner.kinds import TRAITS
from services.provisioner.kinds.postgres import PostgresKind
from services.provisioner.main import StepHandlers, serve
from tests.support.saga_world import PLAN_TEXT


class InstantSystem:
    """Does whatever is asked, in no time."""

    async def call(self, call: Call) -> Answer:
        return Done({"id": call.step}) if call.verb in {Verb.CREATE, Verb.UPDATE} else Absent()


class _Counted:
    statements = 0


def _count_statements() -> None:
    real = psycopg.AsyncCursor.execute

    async def execute(self: Any, *args: Any, **kwargs: Any) -> Any:
        _Counted.statements += 1
        return await real(self, *args, **kwargs)

    psycopg.AsyncCursor.execute = execute  # type: ignore[method-assign]  # to count, and nothing else


async def _run() -> int:
    given = read(os.environ, ProvisionerSettings)
    log = logs.configure("provisioner", given.log_level)
    database = PostgresKind(required(given, "database_url"))
    kinds: dict[str, StepHandler] = dict.fromkeys(TRAITS, InstantSystem()) | {"postgres": database}
    status = await serve(given, StepHandlers(kinds, TRAITS, PLAN_TEXT), log)
    await database.close()
    told = {"statements": _Counted.statements, "cpu_s": time.process_time()}
    Path(os.environ["STATEMENTS_FILE"]).write_text(json.dumps(told))
    return status


if __name__ == "__main__":
    _count_statements()
    sys.exit(uvloop.run(_run()))
