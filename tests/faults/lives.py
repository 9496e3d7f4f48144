"""Plays scaled days of 200 integrations before a hostile Genesys, and judges that nobody was torn down wrongly.

    python -m tests.faults.lives --seeds 1-50 [--orgs 20] [--integrations 200] [--day-s 60] [--confirm always]

Every integration lives a random life (install, uninstall, enable, disable, configuration, reinstall, restore) told by
webhooks of which 30 % are never sent and others come twice, late, in any order and with another time; by hints of every
second change; by the audits and listings of an API that misbehaves as the simulator can. An hour lasts 5 s, a second
look 2 s. Then the API heals, and every tenant must be as in Genesys within 120 s after the next whole run. The rule
about teardowns is in tests/faults/lives_judge.py. Ends with 1 when something was otherwise; a failed seed names the
command to run again, and tells the story of each key that was wrong.
"""

import argparse
import heapq
import itertools
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx2

from schemas.values import EventType, Json, Key
from services import engines
from services.adapters.process.clock import now_us
from services.cli.show import say
from tests.faults.lives_judge import LifeVerdict, judge, story, unequal
from tests.faults.lives_plan import LifePlan, LifeSize, PlannedChange, plan
from tests.support.eventually import eventually
from tests.support.life_world import UNBRAKED, LifeWorld, life_world

HEALED_S: Final = 120.0
CONFIGURATION: Final[Json] = {"crmEndpoint": "https://acme.salesforce.com", "syncInterval": "PT5M"}
_AT_ONCE: Final = 8
_STORIES: Final = 4


def settings(size: LifeSize, seed: int, confirm: str) -> dict[str, str]:
    """Returns the settings of a scaled day: an hour lasts 5 s."""
    return {
        "RECONCILE_INTERVAL_S": "5",
        "RECONCILE_SECOND_LOOK_S": str(size.second_look_s),
        "RECONCILE_AUDIT_INTERVAL_S": "1",
        "SIMULATOR_RATE_PER_MINUTE": "6000",
        **UNBRAKED,
        "CONFIRM_REMOVALS": confirm,
        "SIMULATOR_SEED": str(seed),
    }


@dataclass
class DayResult:
    """Result of a seed.

    Attributes:
        verdict: Verdict over calls and records.
        unequal: Keys that are not as in Genesys at the end, and why.
        healed_s: Seconds from healing until every tenant was as in Genesys.
        run_s: Seconds from healing to the end of the next whole run.
        approvals: Approvals of the operator: each let the removals of a run go.
        deaths: Ends of processes.
    """

    verdict: LifeVerdict
    unequal: dict[Key, str]
    healed_s: float
    run_s: float
    approvals: int
    deaths: list[str]

    @property
    def faults(self) -> dict[str, str]:
        """Returns all that is not as it must be."""
        late = {"all": f"as in Genesys {self.healed_s:.0f} s after healing, run at {self.run_s:.0f} s"}
        died = {f"process {number}": text for number, text in enumerate(self.deaths)}
        return self.verdict.faults | self.unequal | died | (late if self.healed_s > self.run_s + HEALED_S else {})


@dataclass
class Day:
    """A day of a plan in a world."""

    world: LifeWorld
    plan: LifePlan
    _due: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def play(self) -> DayResult:
        """Plays the day, heals, waits for the end, and judges."""
        world = self.world
        self._admit()
        over = threading.Event()
        operator = threading.Thread(target=_operate, args=(world, over), name="operator")
        operator.start()
        try:
            self._run()
            world.heal()
            healed = time.monotonic()
            world.until_runs(2)  # the first may have begun before
            run_s = time.monotonic() - healed
            left = unequal(world)
            while left and time.monotonic() - healed <= run_s + HEALED_S:
                time.sleep(1)
                left = unequal(world)
            healed_s = time.monotonic() - healed
        finally:
            over.set()
            operator.join()
        return DayResult(judge(world), left, healed_s, run_s, len(world.approvals), list(world.deaths))

    def _admit(self) -> None:
        """Installs the first integration of each organisation, and waits until each organisation is compared."""
        for change in self.plan.first:
            state = self._change(change)
            assert self.world.webhook(change.key, state, {"source": "first"}).answer.startswith("200")
        eventually(lambda: not unequal(self.world), 90)
        self.world.until_runs(2)

    def _run(self) -> None:
        began_s = time.monotonic()
        for change in self.plan.changes:
            self._at(began_s + change.at_s, partial(self._tell, change))
        for at_s, fault in self.plan.faults:
            self._at(began_s + at_s, partial(self.world.fault, fault))
        # A key's changes are in order, since each is asked for and answered by this one thread.
        with ThreadPoolExecutor(_AT_ONCE) as senders:
            while self._due:
                at_s, _, act = heapq.heappop(self._due)
                time.sleep(max(0.0, at_s - time.monotonic()))
                if isinstance(act, _Attempt):
                    senders.submit(act)
                else:
                    act()

    def _at(self, at_s: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._due, (at_s, next(self._numbers), act))

    def _change(self, change: PlannedChange) -> Any:
        return self.world.change(
            change.key, change.event, change.configuration, enabled=change.enabled, restores=change.restores
        )

    def _tell(self, change: PlannedChange) -> None:
        """Makes a change, and plans the attempts to tell of it."""
        state, metadata = self._change(change), self._metadata(change)
        for delivery in change.deliveries:
            attempt = _Attempt(self.world, change.key, state, metadata, delivery)
            self._at(time.monotonic() + delivery.after_s, attempt)

    def _metadata(self, change: PlannedChange) -> dict[str, Any]:
        """A third of the organisations name events by id, a third by sequence, and a third not at all."""
        number = len(self.world.truth[change.key])
        naming = int(change.key[:2], 16) % 3
        named: dict[str, Any] = {"eventId": f"{change.key}/{number}"} if naming == 0 else {}
        return {"source": "marketplace", "installedBy": "admin@example.com"} | named | (
            {"sequence": number} if naming == 1 else {}
        )  # fmt: skip


@dataclass(frozen=True)
class _Attempt:
    """An attempt to tell of a change, to be made by any thread."""

    world: LifeWorld
    key: Key
    state: Any
    metadata: dict[str, Any]
    delivery: Any

    def __call__(self) -> None:
        if self.delivery.is_hint:
            self.world.hint(self.key, self.state)
        else:
            how = {"retry": self.delivery.retry, "restamped": self.delivery.restamped}
            self.world.webhook(self.key, self.state, self.metadata, **how)


def settle(world: LifeWorld, orgs: int, each: int) -> list[Key]:
    """Installs `each` integrations in each organisation, and returns the keys once each was seen in a listing."""
    names = [str(uuid4()) for _ in range(orgs)]
    keys = [f"{name}:{uuid4()}" for _ in range(each) for name in names]
    for key in keys:
        world.webhook(key, world.change(key, EventType.INSTALLED, CONFIGURATION, enabled=True), {})
    eventually(lambda: not unequal(world), 120)
    world.until_runs(2)
    return keys


def _operate(world: LifeWorld, over: threading.Event) -> None:
    """Plays the operator: while the brake holds, approves a plan whose removals are all gone in Genesys."""
    while not over.wait(1.0):
        with suppress(httpx2.HTTPError):
            if not world.metric("reconciler", "lifecycle_reconciler_brake_engaged"):
                continue
            approve(world)


def approve(world: LifeWorld) -> None:
    """Looks at the plan, and approves its removals if Genesys has none of them."""
    _, output, _ = world.lifecycle("reconcile", "--dry-run", "--json")
    found = json.loads(output or "{}")
    going = [line["key"] for line in found.get("plan", ()) if line["action"] == "remove"]
    word = (found.get("stopped") or {}).get("approval")
    states = [world.true_state(key) for key in going]
    if word and all(state is not None and not state.installed for state in states):
        status, _, _ = world.lifecycle("reconcile", "--now", "--approve", word)
        world.approvals.append(f"{word} {status}")


def play(
    seed: int, size: LifeSize, folder: Path, kafka: str, admin_url: str, confirm: str = "off"
) -> tuple[DayResult, list[str]]:
    """Plays one seed on an installation of its own; returns the result, and the stories of wrong keys.

    Args:
        seed: The seed.
        size: Size of the day.
        folder: State folder of the installation.
        kafka: `host:port` of the broker.
        admin_url: URL of a PostgreSQL role that may create databases.
        confirm: CONFIRM_REMOVALS.
    """
    began_us = now_us()
    with life_world(folder, kafka, admin_url, **settings(size, seed, confirm)) as world:
        result = Day(world, plan(seed, size)).play()
        stories = [line for key in list(result.faults)[:_STORIES] if key in world.truth for line in story(world, key)]
        told, changes = len(world.told), sum(map(len, world.truth.values()))
    verdict = result.verdict
    say(
        f"seed {seed}: {changes} changes, {told} attempts, {verdict.teardowns} destructive calls "
        f"({verdict.late} late, {verdict.misled} misled, {verdict.unconfigured} unconfigured), "
        f"{result.approvals} approvals, as in Genesys {result.healed_s:.0f} s after healing, "
        f"next run at {result.run_s:.0f} s, {(now_us() - began_us) / 1e6:.0f} s in all"
    )
    return result, stories


def main(arguments: Sequence[str]) -> int:
    """Plays the seeds; 1 when one ended otherwise than it must."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1-50", help="first and last seed, as 1-50, or one seed")
    parser.add_argument("--orgs", type=int, default=20)
    parser.add_argument("--integrations", type=int, default=200)
    parser.add_argument("--day-s", type=float, default=60.0)
    parser.add_argument("--confirm", default="off", choices=("off", "reachable", "always"), help="CONFIRM_REMOVALS")
    given = parser.parse_args(arguments)
    size = LifeSize(given.orgs, given.integrations, given.day_s)
    first, _, last = given.seeds.partition("-")
    failed = []
    for seed in range(int(first), int(last or first) + 1):
        folder = Path(tempfile.mkdtemp(prefix=f"lifecycle-lives-{seed}-"))
        with _engines() as (kafka, admin_url):
            result, stories = play(seed, size, folder, kafka, admin_url, given.confirm)
        for key, fault in list(result.faults.items())[:20]:
            say(f"    WRONG: {key}: {fault}")
        for line in stories:
            say(f"    {line}")
        if result.faults:
            failed.append(seed)
            say(f"    logs: {folder / 'logs'}")
            say(f"    again: python -m tests.faults.lives --seeds {seed} " + " ".join(_shown(given)))
        else:
            shutil.rmtree(folder)
    say(f"{len(failed)} seeds failed: {failed}" if failed else f"seeds {given.seeds}: all as they must be")
    return 1 if failed else 0


def _shown(given: argparse.Namespace) -> Iterator[str]:
    yield f"--orgs {given.orgs}"
    yield f"--integrations {given.integrations}"
    yield f"--day-s {given.day_s:g}"
    yield f"--confirm {given.confirm}"


@contextmanager
def _engines() -> Iterator[tuple[str, str]]:
    """Address of Kafka and URL of PostgreSQL, of engines for one seed."""
    with tempfile.TemporaryDirectory(prefix="lifecycle-engines-") as name:
        Path(name).chmod(0o711)  # an unprivileged PostgreSQL walks in
        with engines.running(Path(name), dict(os.environ)) as running:
            yield running.kafka_bootstrap, running.database_url


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
