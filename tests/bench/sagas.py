"""`make bench-sagas`: first provisionings a second by one worker and by two, and what each asks of the registry.

The outside but the tenants' database answers at once (`tests/bench/saga_worker.py`), so the figures are the worker's,
PostgreSQL's and Kafka's; with real systems a saga takes as long as their six answers. Nothing is pinned: workers and
engines share the cores.
"""

import argparse
import json
import os
import random
import secrets
import signal
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

import psycopg
from psycopg import sql

from services import engines
from services.adapters.process.clock import now_us
from services.engines import Engine
from tests.bench import publish_result, report
from tests.bench.verdict import GateResult, Standing, exit_status, quartiles
from tests.faults.newest_outcomes import NewestOutcomes
from tests.support.provisioner_process import Scene, desired, end, key

_COMMAND: Final = "bench-sagas"
_LEAST_SHARE: Final = 0.4
_ORGS: Final = 200
_STEPS: Final = 6


@dataclass(frozen=True, slots=True)
class BurstResult:
    """One burst of desired versions.

    Attributes:
        workers: How many shared it.
        per_s: Sagas ended a second, from the first version to the last end.
        statements: Asked of PostgreSQL, a saga.
        cpu_ms: Of the workers, a saga.
        least_share: Of the sagas, by the worker that had fewer.
    """

    round: int
    workers: int
    per_s: float
    statements: float
    cpu_ms: float
    least_share: float


def main() -> int:
    """Run the benchmark; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sagas", description=__doc__)
    parser.add_argument("--sagas", type=int, default=2_000, help="of each turn; default 2,000")
    asked = publish_result.asked(parser, _COMMAND, rounds=3)
    began_us = now_us()
    turns = _measure(asked.rounds, asked.sagas, random.Random(asked.seed))
    least = min(turn.least_share for turn in turns if turn.workers > 1)
    holds = Standing.HOLDS if least >= _LEAST_SHARE else Standing.FAILS
    verdicts = [
        GateResult("sagas of the worker that had fewer, of two", f"{least:.2f}", f"≥ {_LEAST_SHARE:.2f}", holds)
    ]
    what = f"{asked.sagas:,} first provisionings of {_STEPS} steps, {_ORGS} organisations"
    how = f"{asked.rounds} rounds of {what}; nothing pinned."
    figures = {"turns": [asdict(turn) for turn in turns]}
    result = publish_result.Result(_COMMAND, began_us, how, _table(turns), verdicts, figures, picture=False)
    publish_result.tell(result, asked.docs, asked.json)
    return exit_status(verdicts, [])


def _measure(rounds: int, sagas: int, chance: random.Random) -> list[BurstResult]:
    turns: list[BurstResult] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-bench-")))
        wanted = (Engine.KAFKA, Engine.POSTGRES)
        running = stack.enter_context(engines.running(folder / "engines", dict(os.environ), wanted=wanted))
        assert running.kafka_bootstrap is not None
        assert running.database_url is not None
        for number in range(1, rounds + 1):
            for workers in chance.sample((1, 2), 2):
                publish_result.progress(f"round {number} of {rounds}: {workers} workers")
                own_folder = folder / f"{number}-{workers}"
                own_folder.mkdir()
                turns.append(_turn(number, workers, sagas, running.kafka_bootstrap, running.database_url, own_folder))
    return turns


def _turn(number: int, workers: int, sagas: int, kafka: str, server_url: str, folder: Path) -> BurstResult:
    database = f"bench_{secrets.token_hex(4)}"
    with psycopg.connect(server_url, autocommit=True) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    url = f"{server_url.rpartition('/')[0]}/{database}"
    with ExitStack() as stack:
        scene = stack.enter_context(Scene(kafka, f"{database}-", url, folder, program=("tests.bench.saga_worker",)))
        said = stack.enter_context(NewestOutcomes(scene))
        scene.environment |= {"LEASE_S": "15", "LOG_LEVEL": "warning"}
        files = [folder / f"statements-{worker}.json" for worker in range(workers)]
        processes = [scene.start(STATEMENTS_FILE=str(file)) for file in files]
        # Each of them has begun once it has had a saga of its own.
        warm = [key(1_000_000 + n, org=n) for n in range(200)]
        scene.publish_desired([desired(of, 1) for of in warm])
        said.until(warm, 1, 60)
        keys = [key(n, org=n % _ORGS) for n in range(sagas)]
        versions = [desired(of, 1) for of in keys]
        said.note_published(versions)
        scene.publish_desired(versions)
        ends = said.until(keys, 1, 600)
        took_s = max(said.took_s(one) for one in ends)
        query = "SELECT count(*) FROM lifecycle.sagas WHERE key = ANY(%s) GROUP BY worker"
        shares = [row[0] for row in scene.rows(query, keys)]
        for process in processes:
            assert end(process, signal.SIGTERM) == 0
        costs = [json.loads(file.read_text()) for file in files]
    _drop(server_url, database)
    done = sagas + len(warm)
    return BurstResult(
        number,
        workers,
        sagas / took_s,
        sum(cost["statements"] for cost in costs) / done,
        sum(cost["cpu_s"] for cost in costs) / done * 1_000,
        min(shares) / sagas if len(shares) == workers else 0.0,
    )


def _drop(server_url: str, database: str) -> None:
    """Remove the tenants of a turn: their roles are shared by all databases of the server."""
    with psycopg.connect(server_url, autocommit=True) as session:
        session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))
        for (role,) in session.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^t_[0-9a-f]{32}$'").fetchall():
            session.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def _table(turns: Sequence[BurstResult]) -> str:
    by_workers: defaultdict[int, list[BurstResult]] = defaultdict(list)
    for turn in turns:
        by_workers[turn.workers].append(turn)
    rows = []
    for workers, own in sorted(by_workers.items()):
        speed = quartiles(turn.per_s for turn in own)
        rows.append(
            (
                str(workers),
                f"{speed.middle:,.0f} [{speed.low:,.0f}-{speed.high:,.0f}]",
                f"{median(turn.statements for turn in own):.1f}",
                f"{median(turn.cpu_ms for turn in own):.1f}",
                f"{min(turn.least_share for turn in own):.2f}",
            )
        )
    return report.table(("workers", "sagas/s", "statements a saga", "CPU ms a saga", "least share"), rows)


if __name__ == "__main__":
    publish_result.finish(main)
