"""Two reconcilers of one installation, live webhooks and runs by hand at once: same end, and no call with two keys.

The installation is whole: ingress, ledger, provisioner, simulator, and a reconciler with the state folder of `up`. The
rival has a state folder of its own, as on a second machine. Every change is told by a webhook, while both reconcilers
and an operator's `reconcile --now` compare the same keys. The active reconciler is paused until the other has taken
over, and later the active one is killed.

Rule of the judge: of one life (key, generation) and system, two creating calls without a delete between them carry the
same idempotency key, and so do two deleting calls without a create between them. A repeat of an intent keeps its key; a
second intent has another one. Tokens alone are deleted and created within a life: they are issued anew after an
`uninstalled` between two installs.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import uuid4

import httpx2

from schemas.values import EventType, Json, Key
from services.cli.exits import Exit
from services.engines import child_process
from services.engines.ports import HOST, free_ports
from tests.faults.lives_judge import judge, story, unequal
from tests.support.eventually import eventually
from tests.support.life_world import UNBRAKED, LifeWorld

SETTINGS: Final = {
    "RECONCILE_INTERVAL_S": "1",
    "RECONCILE_SECOND_LOOK_S": "1",
    "RECONCILE_AUDIT_INTERVAL_S": "1",
    "SIMULATOR_RATE_PER_MINUTE": "60000",
    **UNBRAKED,
}
_ORGS: Final = 3
_ACTIVE: Final = "lifecycle_reconciler_active"
_TAKE_OVER_S: Final = 60.0
_STORIES: Final = 4
_SECOND_S: Final = 1.1
_FIRST: Final[Json] = {"crmEndpoint": "https://acme.salesforce.com", "syncInterval": "PT5M"}
_SECOND: Final[Json] = {"crmEndpoint": "https://acme.salesforce.com", "syncInterval": "PT9M"}
_INSTALL: Final = (EventType.INSTALLED, _FIRST, True)
_LIFE: Final = (
    (EventType.CONFIGURATION_UPDATED, _SECOND, True),
    (EventType.DISABLED, _SECOND, False),
    (EventType.ENABLED, _SECOND, True),
    (EventType.UNINSTALLED, _SECOND, True),
    (EventType.INSTALLED, _FIRST, True),
)
"""The changes of every integration after its first install; the reinstall of every second one is left out."""


@dataclass(frozen=True)
class RivalReconciler:
    """A second reconciler, with a state folder of its own."""

    process: child_process.Child
    url: str

    @property
    def is_active(self) -> bool:
        """True if this instance holds the lease, by its own metric."""
        try:
            text = httpx2.get(f"{self.url}/metrics", timeout=5).text
        except httpx2.TransportError:
            return False
        return f"{_ACTIVE} 1.0" in text.splitlines()


@contextmanager
def rival_reconciler(world: LifeWorld) -> Iterator[RivalReconciler]:
    """A second reconciler of the installation during the context."""
    folder = world.stack.folders.top / "rival"
    folder.mkdir()
    (port,) = free_ports(1)
    given = {
        **world.stack.environ,
        "PATH": os.environ["PATH"],
        "METRICS_PORT": str(port),
        "STATE_DIR": str(folder),
    }
    argv = (sys.executable, "-m", "services.cli.main", "reconciler")
    child = child_process.start(argv, env=given, log_path=folder / "log", cwd=Path.cwd())
    try:
        yield RivalReconciler(child, f"http://{HOST}:{port}")
    finally:
        if child.poll() is None:
            child.kill()


def race(world: LifeWorld, rival: RivalReconciler, integrations: int) -> tuple[dict[str, str], list[str]]:
    """Plays the lives of the integrations, with two takeovers; returns the faults by key, and stories of such keys.

    Args:
        world: The installation.
        rival: Its second reconciler.
        integrations: Number of integrations.
    """
    orgs = [str(uuid4()) for _ in range(_ORGS)]
    keys = [f"{orgs[number % _ORGS]}:{uuid4()}" for number in range(integrations)]
    by_hand: list[int] = []
    over = threading.Event()
    operator = threading.Thread(target=_reconcile_by_hand, args=(world, over, by_hand), name="operator")
    operator.start()
    try:
        eventually(lambda: _is_first_active(world) is not rival.is_active, _TAKE_OVER_S)
        _play(world, keys[::2], lambda: _pause_active(world, rival))
        _play(world, keys[1::2], lambda: _kill_active(world, rival))
        with suppress(AssertionError):  # told below, by key
            eventually(lambda: not unequal(world), 120)
        world.until_runs(3)
    finally:
        over.set()
        operator.join()
    calls = world.client.get(f"{world.stack.simulator}/calls").raise_for_status().json()
    found = called_twice(calls) | judge(world).faults | unequal(world)
    found |= {f"process {number}": text for number, text in enumerate(world.deaths) if not _is_reconciler(text)}
    if not {call["verb"] for call in calls} >= {"create", "delete"} or not any(_observed(world, key) for key in keys):
        found["all"] = "nothing was made, removed or observed"
    if not by_hand or set(by_hand) - {Exit.OK, Exit.DEVIATION}:
        found["reconcile --now"] = f"ended with {sorted(set(by_hand))}"
    return found, [line for key in list(found)[:_STORIES] if key in world.truth for line in story(world, key)]


def _is_reconciler(death: str) -> bool:
    return death.startswith("reconciler")


def _observed(world: LifeWorld, key: Key) -> bool:
    return any(" observed " in line for line in story(world, key))


def _play(world: LifeWorld, keys: list[Key], takes_over: Callable[[], None]) -> None:
    """Plays the lives of these integrations; the takeover begins once a third of the lives are told."""
    with ThreadPoolExecutor(8) as senders:
        lives = [senders.submit(_live, world, key, reinstalls=not number % 2) for number, key in enumerate(keys)]
        eventually(lambda: sum(one.done() for one in lives) >= len(keys) // 3, 120)
        takes_over()
        for one in lives:
            one.result()


def _is_first_active(world: LifeWorld) -> bool:
    return world.metric("reconciler", _ACTIVE) == 1


def _pause_active(world: LifeWorld, rival: RivalReconciler) -> None:
    """Stops the active reconciler until the other one has taken over, and wakes it."""
    is_first = not rival.is_active
    pid = world.stack.supervisor.pids()["reconciler"] if is_first else rival.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: rival.is_active if is_first else _is_first_active(world), _TAKE_OVER_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: _is_first_active(world) is not rival.is_active, _TAKE_OVER_S)


def _kill_active(world: LifeWorld, rival: RivalReconciler) -> None:
    """Kills the active reconciler, and waits for its successor; `up` starts its own one again."""
    if rival.is_active:
        rival.process.kill()
    else:
        os.kill(world.stack.supervisor.pids()["reconciler"], signal.SIGKILL)
    eventually(lambda: _is_first_active(world) or rival.is_active, _TAKE_OVER_S)


def called_twice(calls: list[dict[str, Any]]) -> dict[Key, str]:
    """Returns the keys with a creating or deleting call that came once more, under another idempotency key.

    Args:
        calls: The calls in order of effect.
    """
    last: dict[tuple[Any, ...], tuple[str, str]] = {}
    found: dict[Key, str] = {}
    for call in calls:
        verb, idempotency_key = call["verb"], call["idempotency_key"]
        if verb not in {"create", "delete"} or not idempotency_key:
            continue
        of = call["key"], call["generation"], call["system"]
        known_verb, known_key = last.get(of, ("", ""))
        if known_verb == verb and known_key != idempotency_key:
            found.setdefault(call["key"], f"twice: {call}, and {known_key} before")
        last[of] = verb, idempotency_key
    return found


def _live(world: LifeWorld, key: Key, *, reinstalls: bool) -> None:
    """Changes an integration, and tells each change by a webhook, at once or later than a run of a reconciler."""
    chance = Random(key)
    for event, configuration, enabled in (_INSTALL, *(_LIFE if reinstalls else _LIFE[:-1])):
        if event is EventType.UNINSTALLED:
            # The judge takes the time of an observed install for anywhere within its second (lives_judge.py, rule 1).
            time.sleep(_SECOND_S)
        state = world.change(key, event, configuration, enabled=enabled)
        time.sleep(chance.choice((0.0, 0.0, 1.5)))
        world.webhook(key, state, {})


def _reconcile_by_hand(world: LifeWorld, over: threading.Event, ends: list[int]) -> None:
    """Runs `lifecycle reconcile --now` again and again; keeps the exit statuses."""
    while not over.wait(0.1):
        try:
            ends.append(world.lifecycle("reconcile", "--now")[0])
        except subprocess.TimeoutExpired:
            ends.append(-1)
