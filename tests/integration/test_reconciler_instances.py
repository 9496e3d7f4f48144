"""Two reconcilers of one installation: one is active, the other stands by and takes over; real processes and Kafka."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from schemas.tenant import Desired
from schemas.topics import DESIRED, RECONCILER_GROUP, TENANTS, named
from services.adapters.kafka.tenant_view import TenantView
from services.engines import child_process
from tests.support.eventually import eventually
from tests.support.ledger_process import LedgerBench, body
from tests.support.reconciler_world import CONFIGURATION, ReconcilerWorld, changed, tenant_of
from tests.support.simulator_process import Outside

pytestmark = [pytest.mark.engines, pytest.mark.long]

TAKE_OVER_S = 60.0
"""Generous: a session is 8 s, and the machine may be busy."""


@pytest.fixture
def world(bench: LedgerBench, genesys: Outside, view: TenantView, tmp_path: Path) -> ReconcilerWorld:
    return ReconcilerWorld(bench, genesys, tmp_path, view)


@dataclass
class Instance:
    """A reconciler with a state folder of its own, as on a machine of its own."""

    process: child_process.Child
    url: str

    def metric(self, name: str) -> float:
        text = httpx2.get(f"{self.url}/metrics", timeout=10).text
        lines = [line for line in text.splitlines() if line.startswith(f"lifecycle_reconciler_{name} ")]
        return float(lines[0].rpartition(" ")[2])

    @property
    def is_active(self) -> bool:
        try:
            return self.metric("active") == 1
        except (httpx2.TransportError, IndexError):
            return False

    def ready(self) -> dict[str, Any] | None:
        try:
            answer = httpx2.get(f"{self.url}/readyz", timeout=10)
        except httpx2.TransportError:
            return None
        return answer.json() if answer.status_code == 200 else None


@contextmanager
def instance(world: ReconcilerWorld, name: str) -> Iterator[Instance]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = world.folder / name
    folder.mkdir()
    environ = {
        **world.environ,
        "PATH": os.environ["PATH"],
        "METRICS_PORT": str(port),
        "STATE_DIR": str(folder),
        "RECONCILE_INTERVAL_S": "1",
        "RECONCILE_AUDIT_INTERVAL_S": "1",
    }
    argv = (sys.executable, "-m", "services.cli.main", "reconciler")
    child = child_process.start(argv, env=environ, log_path=folder / "log", cwd=Path.cwd())
    try:
        yield Instance(child, f"http://127.0.0.1:{port}")
    finally:
        if child.poll() is None:
            child.kill()


def settled(one: Instance, other: Instance) -> tuple[Instance, Instance]:
    """The active and the standing-by instance, once both are ready and a single one is active."""
    eventually(lambda: one.ready() and other.ready() and one.is_active is not other.is_active, TAKE_OVER_S)
    return (one, other) if one.is_active else (other, one)


def desired(world: ReconcilerWorld) -> list[tuple[str, int]]:
    found = [Desired.model_validate_json(out.value) for out in world.bench.out(DESIRED)]
    return sorted((one.key, one.version) for one in found if one.key.startswith(world.org_id))


def test_a_stand_by_is_ready_does_nothing_and_takes_over_from_a_killed_one(world: ReconcilerWorld) -> None:
    known, first, second = (world.new_key() for _ in range(3))
    world.install(known)
    with instance(world, "one") as one, instance(world, "two") as two:
        active, idle = settled(one, two)
        told = idle.ready()
        assert told is not None
        assert told["checks"]["lease"] == "standing by: another instance is active"
        before = idle.metric('reads_total{result="read"}'), idle.metric('audit_reads_total{result="read"}')
        world.know(first)
        eventually(lambda: first in world.view.catch_up(30) and changed(world, first, installed=True), TAKE_OVER_S)
        assert idle.metric("last_run_timestamp_seconds") == 0, "its gauges double nothing"
        assert before == (idle.metric('reads_total{result="read"}'), idle.metric('audit_reads_total{result="read"}'))
        active.process.kill()
        began_s = time.monotonic()
        eventually(lambda: idle.is_active, TAKE_OVER_S)
        print(f"take-over after {time.monotonic() - began_s:.1f} s")
        world.know(second)
        eventually(lambda: second in world.view.catch_up(30) and changed(world, second, installed=True), TAKE_OVER_S)
    assert sorted(one.key for one in world.observations()) == sorted([first, second]), "each observed once"


def test_a_paused_one_is_replaced_and_harms_nobody_when_it_wakes(world: ReconcilerWorld) -> None:
    known, gone, fresh = (world.new_key() for _ in range(3))
    world.install(known)
    world.install(gone)
    with instance(world, "one") as one, instance(world, "two") as two:
        active, idle = settled(one, two)
        os.kill(active.process.pid, signal.SIGSTOP)
        try:
            eventually(lambda: idle.is_active, TAKE_OVER_S)
            world.know(fresh)
            world.forget(gone)
            eventually(lambda: fresh in world.view.catch_up(30) and changed(world, fresh, installed=True), TAKE_OVER_S)
            # The second instance has to see an integration before its absence counts: nothing is removed here.
        finally:
            os.kill(active.process.pid, signal.SIGCONT)
        settled(active, idle)
        later = world.new_key()
        world.know(later)
        eventually(lambda: later in world.view.catch_up(30) and changed(world, later, installed=True), TAKE_OVER_S)
    seen = [one.key for one in world.observations()]
    assert (seen.count(fresh), seen.count(later), seen.count(known)) == (1, 1, 0)


_MEMBER = """
import asyncio, sys
from services.adapters.kafka.partition_lease import NotActive, PartitionLease
async def main():
    lease = PartitionLease({"bootstrap.servers": sys.argv[1]}, topic=sys.argv[2], group=sys.argv[3])
    lease.start()
    await lease.until(held=True)
    await lease.confirm()
    print("held", flush=True)
    sys.stdin.readline()
    try:
        await lease.confirm()
        print("confirmed", flush=True)
    except NotActive as error:
        print("refused:", error, flush=True)
    sys.stdin.readline()
    await lease.close()
asyncio.run(main())
"""


@contextmanager
def member(bench: LedgerBench, group: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", _MEMBER, bench.bootstrap, named(TENANTS, bench.prefix), bench.prefix + group]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def answer(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().rstrip()


def ask(running: subprocess.Popen[str]) -> None:
    assert running.stdin is not None
    running.stdin.write("\n")
    running.stdin.flush()


def test_the_broker_refuses_a_member_that_was_paused_and_confirms_the_one_that_took_over(bench: LedgerBench) -> None:
    group = f"{RECONCILER_GROUP}-{secrets.token_hex(3)}"
    with member(bench, group) as paused:
        assert answer(paused) == "held"
        os.kill(paused.pid, signal.SIGSTOP)
        ask(paused)
        with member(bench, group) as other:
            assert answer(other) == "held"
            ask(other)
            assert answer(other) == "confirmed"
            os.kill(paused.pid, signal.SIGCONT)
            assert answer(paused).startswith("refused:")


def test_runs_that_race_live_webhooks_end_in_the_same_state_and_ask_for_nothing_twice(world: ReconcilerWorld) -> None:
    keys = [world.new_key() for _ in range(20)]
    with instance(world, "one") as one, instance(world, "two") as two:
        active, _ = settled(one, two)
        for number, key in enumerate(keys):
            world.know(key)
            # The webhook is late by what a run may take, so that some keys are found by the run first.
            world.bench.receive(body(key, tenantId=tenant_of(key), configuration=CONFIGURATION), key)
            if number == len(keys) // 2:
                active.process.kill()
        eventually(
            lambda: all(key in world.view.catch_up(30) and changed(world, key, installed=True) for key in keys),
            TAKE_OVER_S,
        )
        (left,) = [each for each in (one, two) if each.process.poll() is None]
        eventually(lambda: left.is_active and left.metric("last_success_timestamp_seconds") > 0, TAKE_OVER_S)
    asked = desired(world)
    assert [key for key, _ in asked] == sorted(keys), "one desired version each: no call would be made twice"
