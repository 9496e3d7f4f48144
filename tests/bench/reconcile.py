"""`make bench-reconcile`: whole runs of the reconciler over many organisations, on a real simulator and a real Kafka.

Every organisation has a token of its own and a budget of 300 requests a minute, which the simulator counts. All tenants
agree with Genesys, so a run reads and compares everything and publishes nothing. Genesys is on loopback: seconds are
the reconciler's and the simulator's processor time, not the latency of a platform. Nothing is pinned.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid5

import httpx2
import rfc8785

from schemas import codec
from schemas.tenant import Stage, Tenant
from schemas.topics import TENANTS, named
from services import engines
from services.adapters.kafka import topics
from services.adapters.process.clock import now_us
from services.adapters.secrets import keyring
from services.core.ledger.identity import keyed
from services.engines import Engine, child_process
from services.engines.ports import HOST, free_ports
from tests.bench import machine, publish_result, report
from tests.bench.verdict import GateResult, Standing, exit_status
from tests.faults import records
from tests.support import ledger_process
from tests.support.simulator_process import Outside

_COMMAND: Final = "bench-reconcile"
_NAMESPACE: Final = UUID("7b9c3a52-94c1-5b8a-8f07-35c8b7ed1f10")
_INTERVAL_S: Final = 1.0
_LOOK_S: Final = 0.25
_FLAT: Final = 1.05
_HOUR_S: Final = 3_600
_ANSWER_S: Final = 5.0
_PARTITIONS: Final = 12


@dataclass(frozen=True, slots=True)
class WholeRun:
    """One whole run.

    Attributes:
        requests: Of all tokens.
        seconds: From the end of the run before; of the first from the start of the process.
        peak_bytes: Greatest resident memory of the reconciler.
        slowest_s: Longest answer of `/metrics` meanwhile.
        unanswered: Organisations without a whole reading.
    """

    number: int
    requests: int
    seconds: float
    peak_bytes: int
    slowest_s: float
    unanswered: int


def main() -> int:
    """Run the benchmark; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.reconcile", description=__doc__)
    parser.add_argument("--orgs", type=int, default=1_000, help="organisations; default 1,000")
    parser.add_argument("--integrations", type=int, default=50, help="of each; default 50")
    asked = publish_result.asked(parser, _COMMAND, rounds=3)
    began_us = now_us()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-bench-")))
        wanted = (Engine.KAFKA,)
        running = stack.enter_context(engines.running(folder / "engines", dict(os.environ), wanted=wanted))
        runs, budgets = _measure(asked, running.kafka_bootstrap, folder)
    refused = sum(one["requests_refused"] + one["mints_refused"] for one in budgets.values())
    growth = max(run.peak_bytes for run in runs[1:]) / runs[0].peak_bytes if runs[1:] else 1.0
    slowest_s, longest_s = max(run.slowest_s for run in runs), max(run.seconds for run in runs)
    verdicts = [
        _gate("requests above a token's budget", f"{refused}", "0", holds=not refused),
        _gate(
            "organisations not read whole", f"{sum(run.unanswered for run in runs)}", "0", holds=not runs[-1].unanswered
        ),
        _gate("a whole run", f"{longest_s:.0f} s", f"≤ {_HOUR_S} s", holds=longest_s <= _HOUR_S),
        _gate("peak memory, later runs ÷ first", f"{growth:.2f}", f"≤ {_FLAT:.2f}", holds=growth <= _FLAT),
        _gate("slowest answer of /metrics", f"{slowest_s:.2f} s", f"≤ {_ANSWER_S:.0f} s", holds=slowest_s <= _ANSWER_S),
    ]
    what = (
        f"{asked.orgs:,} organisations of {asked.integrations} integrations, {asked.rounds} whole runs after each other"
    )
    figures: dict[str, Any] = {"runs": [asdict(run) for run in runs]}
    result = publish_result.Result(
        _COMMAND,
        began_us,
        f"{what}; one simulator on loopback, nothing pinned.",
        _table(runs),
        verdicts,
        figures,
        picture=False,
    )
    publish_result.tell(result, asked.docs, asked.json)
    return exit_status(verdicts, [])


def _gate(gate: str, measured: str, required: str, *, holds: bool) -> GateResult:
    return GateResult(gate, measured, required, Standing.HOLDS if holds else Standing.FAILS)


def _table(runs: list[WholeRun]) -> str:
    head = ("run", "requests", "seconds", "requests/s", "peak memory", "slowest /metrics")
    return report.table(
        head,
        [
            (
                f"{run.number}",
                f"{run.requests:,}",
                f"{run.seconds:.0f}",
                f"{run.requests / run.seconds:.0f}",
                f"{run.peak_bytes / 2**20:.0f} MiB",
                f"{run.slowest_s * 1_000:.0f} ms",
            )
            for run in runs
        ],
    )


def _measure(
    asked: argparse.Namespace, bootstrap: str, folder: Path
) -> tuple[list[WholeRun], Mapping[str, Mapping[str, int]]]:
    """The whole runs of one reconciler, and what the simulator counted of each token."""
    topics.apply({"bootstrap.servers": bootstrap}, prefix="", partitions=_PARTITIONS, replication=1)
    keyring_file = ledger_process.keyring(folder / "keyring.json")
    _know(folder, asked.orgs, asked.integrations)
    _publish_tenants(bootstrap, keyring_file, asked.orgs, asked.integrations)
    port, database_port = free_ports(2)
    outside = Outside(folder, port, database_port)
    outside.start()
    try:
        with _reconciler(bootstrap, keyring_file, outside, folder) as (child, url):
            found = list(_runs(asked.rounds, child.pid, url, outside))
        return found, _budgets(outside)
    finally:
        outside.stop()


def _ids(orgs: int, integrations: int) -> Iterator[tuple[str, str]]:
    for org in range(orgs):
        org_id = str(uuid5(_NAMESPACE, f"{org}"))
        for number in range(integrations):
            yield org_id, str(uuid5(_NAMESPACE, f"{org}/{number}"))


def _configuration(integration_id: str) -> dict[str, Any]:
    """Half a KiB, as of an integration with some settings."""
    return {
        "crmEndpoint": f"https://{integration_id[:8]}.my.salesforce.com",
        "syncInterval": "PT15M",
        "mapping": {f"field{number}": f"value of {integration_id[:13]} {number}" for number in range(10)},
    }


def _know(folder: Path, orgs: int, integrations: int) -> None:
    """Writes the simulator's memory: fifty thousand requests to its control API would take longer than the runs."""
    journal = folder / "state" / "simulator.jsonl"
    journal.parent.mkdir()
    with journal.open("w") as file:
        for org in dict.fromkeys(org for org, _ in _ids(orgs, 1)):
            row = {"id": org, "client_id": f"client-{org[:8]}", "client_secret": f"secret-{org}"}
            file.write(json.dumps(["orgs", org, row]) + "\n")
        for org, identity in _ids(orgs, integrations):
            own = {"org": org, "id": identity, "tenant_id": None, "enabled": True, "version": 1, "before": None}
            line = ["integrations", f"{org}:{identity}", {**own, "configuration": _configuration(identity)}]
            file.write(json.dumps(line) + "\n")


def _publish_tenants(bootstrap: str, keyring_file: Path, orgs: int, integrations: int) -> None:
    """Writes the view: every tenant is active, and agrees with Genesys."""
    mac_key = keyring.raw(keyring.material(keyring_file).configuration)
    producer = records.producer(bootstrap)
    for org, identity in _ids(orgs, integrations):
        tenant = Tenant(
            key=f"{org}:{identity}",
            version=2,
            tenant_id=f"tenant-{identity[:13]}",
            installed=True,
            enabled=True,
            configuration={},
            configuration_mac=keyed(mac_key, rfc8785.dumps(_configuration(identity))),
            stage=Stage.ACTIVE,
            reason=None,
            flags=(),
            revision=1,
            generation=1,
            recheck_at=None,
            updated_at=now_us() - 3_600_000_000,
        )
        message = codec.encode(tenant, key=tenant.key, ce_id=tenant.key, source="/bench", at_us=tenant.updated_at)
        producer.produce(named(TENANTS), message.value, message.key, headers=list(message.headers))
        producer.poll(0)
    assert producer.flush(60) == 0


@contextmanager
def _reconciler(
    bootstrap: str, keyring_file: Path, outside: Outside, folder: Path
) -> Iterator[tuple[child_process.Child, str]]:
    (port,) = free_ports(1)
    environ = {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "KEYRING_FILE": str(keyring_file),
        "STATE_DIR": str(folder / "reconciler"),
        "ORGS_DIR": str(outside.orgs),
        "GENESYS_LOGIN_URL": f"{outside.url}/genesys/login",
        "GENESYS_API_URL": f"{outside.url}/genesys",
        "METRICS_PORT": str(port),
        "RECONCILE_INTERVAL_S": str(_INTERVAL_S),
        "LOG_LEVEL": "warning",
    }
    argv = (sys.executable, "-m", "services.cli.main", "reconciler")
    child = child_process.start(argv, env=environ, log_path=folder / "reconciler.log", cwd=Path.cwd())
    try:
        yield child, f"http://{HOST}:{port}"
    finally:
        child.stop(60)


def _runs(count: int, pid: int, url: str, outside: Outside) -> Iterator[WholeRun]:
    """Looks at metrics and memory until so many whole runs have ended."""
    ended, requests, since_s = 0.0, 0, time.monotonic()
    for number in range(1, count + 1):
        peak, slowest_s, now = 0, 0.0, ended
        while now <= ended:
            time.sleep(_LOOK_S)
            asked_s = time.monotonic()
            values = _metrics(url)
            peak = max(peak, machine.rss_bytes(pid))
            if values:
                slowest_s = max(slowest_s, time.monotonic() - asked_s)
                now = values.get("last_run_timestamp_seconds", 0.0)
            publish_result.progress(f"run {number} of {count}: {peak / 2**20:.0f} MiB")
        ended, before, requests = now, requests, sum(one["requests"] for one in _budgets(outside).values())
        took_s, since_s = time.monotonic() - since_s, time.monotonic()
        unanswered = int(values['organisations{result="unanswered"}'])
        yield WholeRun(number, requests - before, took_s, peak, slowest_s, unanswered)


def _metrics(url: str) -> dict[str, float]:
    """The reconciler's own metrics; none before it listens."""
    try:
        text = httpx2.get(f"{url}/metrics", timeout=60).text
    except httpx2.TransportError:
        return {}
    lines = (
        line.removeprefix("lifecycle_reconciler_") for line in text.splitlines() if line[:21] == "lifecycle_reconciler_"
    )
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def _budgets(outside: Outside) -> Mapping[str, Mapping[str, int]]:
    found: dict[str, dict[str, int]] = httpx2.get(f"{outside.url}/genesys/control/budgets", timeout=60).json()
    return found


if __name__ == "__main__":
    publish_result.finish(main)
