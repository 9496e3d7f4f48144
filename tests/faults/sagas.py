"""Many tenants at once at the provisioner: storms, outages, poison, sleepers, a second worker.

`python -m tests.faults.sagas` plays every scenario, each on a database and topics of its own; `--scenario storm` plays
one. What exists is read from the simulator and from PostgreSQL. Ends with 1 when something was left, doubled or late.
"""

import argparse
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import psycopg
from psycopg import sql

from schemas.outcome import State
from schemas.tenant import Desired
from services import engines
from services.core.saga.plan import schema_name
from services.engines import Engine
from tests.faults.newest_outcomes import NewestOutcomes
from tests.support.provisioner_process import Scene, desired, end, gone, key, shut
from tests.support.provisioner_stage import SYSTEMS, staged
from tests.support.simulator_process import Outside


@dataclass
class SagaWorld:
    """One installation, everything outside of it, and what was found wrong.

    Attributes:
        scene: The provisioners.
        outside: The simulator.
        said: What the provisioners said, and when.
        admin_url: Of the database server.
        scale: How many times shorter an outage is than it would be.
        faults: What was found wrong, in words.
    """

    scene: Scene
    outside: Outside
    said: NewestOutcomes
    admin_url: str
    scale: float
    faults: list[str] = field(default_factory=list)
    first_org: int = field(default_factory=lambda: secrets.randbelow(2**40))
    """Roles, which are named after keys, are shared by all databases of a server: no other scenario has these keys."""
    published: set[str] = field(default_factory=set)

    def key(self, number: int, org: int) -> str:
        """A key of this scenario's organisation `org`."""
        return key(number, org=self.first_org + org)

    def publish_desired(self, versions: Sequence[Desired]) -> None:
        """Write them, and remember when."""
        self.published |= {version.key for version in versions}
        self.scene.publish_desired(versions)
        self.said.note_published(versions)

    def must(self, what: str, holds: bool) -> None:  # noqa: FBT001 - a claim and whether it is true
        """Note what does not hold."""
        if not holds:
            self.faults.append(what)

    def tell(self, text: str) -> None:
        """One figure, for a person."""
        sys.stdout.write(f"    {text}\n")
        sys.stdout.flush()

    def exist(self, keys: Sequence[str], systems: Sequence[str] = SYSTEMS) -> None:
        """Each of these keys has each thing once, and nobody has two."""
        inventory = self.inventory()
        for of in keys:
            counts = {system: len(inventory[system].get(of, [])) for system in systems}
            self.must(f"{of}: {counts}", counts == dict.fromkeys(systems, 1))

    def empty(self) -> None:
        """Nothing exists anywhere."""
        inventory = self.inventory()
        left = {system: len(inventory[system]) for system in SYSTEMS if inventory[system]}
        self.must(f"left in the inventory: {left}", not left)
        ((schemas,),) = self.scene.rows("SELECT count(*) FROM pg_namespace WHERE starts_with(nspname, 't_')")
        possible = [schema_name(of, generation) for of in self.published for generation in (1, 2, 3)]
        ((roles,),) = self.scene.rows("SELECT count(*) FROM pg_roles WHERE rolname = ANY(%s)", possible)
        self.must(f"left in PostgreSQL: {schemas} schemas, {roles} roles", schemas == roles == 0)

    def inventory(self) -> dict[str, dict[str, list[Any]]]:
        """The resources of the outside systems."""
        found: dict[str, dict[str, list[Any]]] = httpx2.get(f"{self.outside.url}/inventory", timeout=60).json()
        return found


def host(number: int) -> dict[str, str]:
    """A configuration with a CRM of the tenant's own."""
    return {"crmEndpoint": f"https://tenant{number}.salesforce.com"}


def storm(world: SagaWorld) -> None:
    """500 organisations in 60 s, then 500 in 1 s, each system at 100 ms; all leave while a tenth of the calls fail."""
    first = [world.key(number, org=number) for number in range(500)]
    second = [world.key(number, org=number) for number in range(500, 1_000)]
    world.scene.start()
    began = time.monotonic()
    for number in range(0, 500, 10):
        time.sleep(max(0.0, began + number * 60 / 500 - time.monotonic()))
        world.publish_desired(
            [desired(of, 1, configuration=host(n)) for n, of in enumerate(first[number : number + 10], number)]
        )
    world.said.until(first, 1, 120)
    took_s = time.monotonic() - began
    world.tell(f"500 installs in 60 s: all active {took_s:.1f} s after the first (at most 75)")
    world.must(f"500 installs in 60 s took {took_s:.0f} s", took_s <= 75)

    began = time.monotonic()
    world.publish_desired([desired(of, 1, configuration=host(n)) for n, of in enumerate(second, 500)])
    world.said.until(second, 1, 120)
    took_s = time.monotonic() - began
    world.tell(f"500 installs in 1 s: all active after {took_s:.1f} s (at most 60)")
    world.must(f"500 installs in 1 s took {took_s:.0f} s", took_s <= 60)
    world.exist(first + second)

    for system in SYSTEMS:
        world.outside.fault(system, "error", share=0.05)
        world.outside.fault(system, "lost_answer", share=0.05)
    began = time.monotonic()
    everybody = first + second
    world.publish_desired([gone(of, 2) for of in everybody])
    ends = world.said.until(everybody, 2, 300)
    world.tell(f"1,000 uninstalls while a tenth of the calls fail: {time.monotonic() - began:.1f} s")
    world.must("an uninstall was given up", all(said.state is State.DONE for said in ends))
    world.outside.heal()
    world.empty()


def outage(world: SagaWorld) -> None:
    """One system says 503 for ten minutes (scaled): who does not need it goes on, and nobody is given up."""
    needs = [world.key(number, org=number) for number in range(40)]
    others = [world.key(number, org=number) for number in range(100, 130)]
    world.scene.start()
    down_s = 600 / world.scale
    world.outside.fault("crm", "error")
    world.publish_desired([desired(of, 1, configuration={"crmEndpoint": "https://one.salesforce.com"}) for of in needs])
    began = time.monotonic()
    for number, of in enumerate(others):
        time.sleep(max(0.0, began + number * down_s / len(others) - time.monotonic()))
        world.publish_desired([desired(of, 1, configuration={})])
    time.sleep(max(0.0, began + down_s - time.monotonic()))
    ends = world.said.until(others, 1, 20)
    slowest_s = max(world.said.took_s(said) for said in ends)
    world.tell(f"the CRM down for {down_s:.0f} s: others active after {slowest_s:.1f} s at most")
    world.must(f"others waited {slowest_s:.1f} s", slowest_s <= 5)
    world.must("somebody got through a system that is down", not world.said.ended(needs, 1))
    healed = time.monotonic()
    world.outside.heal()
    ends = world.said.until(needs, 1, 150)
    took_s = time.monotonic() - healed
    world.tell(f"40 tenants that waited for it: all active {took_s:.1f} s after it healed (at most 30)")
    # A wait is 60 s at most: sooner than that they come only because they are woken.
    world.must(f"converged only {took_s:.0f} s after it healed", took_s <= 30)
    world.must("an outage cost somebody its tries", all(said.state is State.DONE for said in ends))
    world.exist(needs)
    world.exist(others, [system for system in SYSTEMS if system != "crm"])


def registry(world: SagaWorld) -> None:
    """The registry is away for two minutes (scaled); what was desired meanwhile is done soon after."""
    world.scene.start()
    before = [world.key(number, org=number) for number in range(40)]
    world.publish_desired([desired(of, 1, configuration=host(number)) for number, of in enumerate(before)])
    world.said.until(before, 1, 60)
    fresh = [world.key(number, org=number) for number in range(100, 140)]
    with shut(world.admin_url, world.scene.database):
        world.publish_desired([gone(of, 2) for of in before])
        world.publish_desired([desired(of, 1, configuration=host(number)) for number, of in enumerate(fresh)])
        time.sleep(120 / world.scale)
    healed = time.monotonic()
    world.said.until(before, 2, 150)
    world.said.until(fresh, 1, 150)
    took_s = time.monotonic() - healed
    world.tell(f"the registry away for {120 / world.scale:.0f} s: all done {took_s:.1f} s after it came back")
    world.must(f"converged only {took_s:.0f} s after it came back", took_s <= 120)
    world.exist(fresh)
    inventory = world.inventory()
    world.must("left of who was uninstalled meanwhile", not any(inventory[s].get(of) for s in SYSTEMS for of in before))


def poison(world: SagaWorld) -> None:
    """Tenants with a bad secret, and tenants whose calls hang, delay no other by more than 5 s."""
    world.scene.start()

    def slowest_s(numbers: range) -> float:
        keys = [world.key(number, org=number) for number in numbers]
        for number, of in zip(numbers, keys, strict=True):
            world.publish_desired([desired(of, 1, configuration=host(number))])
            time.sleep(0.2)
        return max(world.said.took_s(said) for said in world.said.until(keys, 1, 60))

    alone_s = slowest_s(range(20))
    secret = {"crmEndpoint": "https://one.salesforce.com", "crmClientId": "id", "crmClientSecret": "invalid"}
    bad = [world.key(number, org=number) for number in range(100, 140)]
    world.publish_desired([desired(of, 1, configuration=secret) for of in bad])
    beside_bad_s = slowest_s(range(20, 40))
    world.tell(f"slowest of 20 tenants: {alone_s:.1f} s alone, {beside_bad_s:.1f} s beside 40 with a bad secret")
    world.must("a bad secret delayed others", beside_bad_s - alone_s <= 5)
    world.must("a bad secret was taken", all(s.state is State.ROLLED_BACK for s in world.said.until(bad, 1, 60)))
    good = [world.key(number, org=number) for number in range(140, 145)]
    world.publish_desired([desired(of, 1, configuration={"crmEndpoint": "https://one.salesforce.com"}) for of in good])
    ends = world.said.until(good, 1, 20)
    world.must("a bad secret stopped the same system for others", all(s.state is State.DONE for s in ends))

    slow = [world.key(number, org=1_000 + number % 2) for number in range(200, 280)]
    for of in slow:
        world.outside.fault("middleware", "slow", key=of, seconds=8)
    world.publish_desired([desired(of, 1, configuration={}) for of in slow])
    beside_slow_s = slowest_s(range(40, 60))
    world.tell(f"beside two organisations with 80 tenants whose calls hang for 8 s: {beside_slow_s:.1f} s")
    world.must("calls that hang delayed others", beside_slow_s - alone_s <= 5)
    world.outside.heal()
    world.said.until(slow, 1, 180)
    world.exist(slow, [system for system in SYSTEMS if system != "crm"])


def fairness(world: SagaWorld) -> None:
    """One organisation installs 500 times at once; a lone tenant of another waits at most 5 s."""
    world.scene.start()
    crowd = [world.key(number, org=1) for number in range(500)]
    world.publish_desired([desired(of, 1, configuration=host(number)) for number, of in enumerate(crowd)])
    waits: list[float] = []
    for number in range(1_000, 1_008):
        time.sleep(0.5)
        of = world.key(number, org=number)
        world.publish_desired([desired(of, 1, configuration=host(number))])
        (said,) = world.said.until([of], 1, 60)
        waits.append(world.said.took_s(said))
    left = len(crowd) - len(world.said.ended(crowd, 1))
    world.tell(
        f"lone tenants beside 500 of one organisation: {max(waits):.1f} s at most ({left} of the crowd were left)"
    )
    world.must(f"a lone tenant waited {max(waits):.1f} s", max(waits) <= 5)
    world.must("nobody of the crowd was left to wait behind", left > 0)
    world.said.until(crowd, 1, 180)
    world.exist(crowd)


def sleepers(world: SagaWorld, *, forgetful: bool = False) -> None:
    """A worker sleeps in the middle of calls past its lease; what it wakes up to do late does no harm."""
    sleeper = world.scene.start()
    keys = [world.key(number, org=number) for number in range(20)]
    if forgetful:
        for system in SYSTEMS:
            world.outside.fault(system, "ignore_idempotency")
    for number, of in enumerate(keys):
        world.outside.fault(SYSTEMS[number % 5], "slow", verb="create", key=of, times=1, seconds=6)
    world.publish_desired([desired(of, 1, configuration=host(number)) for number, of in enumerate(keys)])
    begun = "SELECT count(*) FROM lifecycle.sagas WHERE position('\"open\":true' in journal::text) > 0"
    there = "SELECT 1 FROM pg_tables WHERE schemaname = 'lifecycle' AND tablename = 'sagas'"
    deadline = time.monotonic() + 30
    while not world.scene.rows(there) or world.scene.rows(begun)[0][0] < len(keys):
        assert time.monotonic() < deadline, "not every call is under way"
        time.sleep(0.1)
    sleeper.send_signal(signal.SIGSTOP)
    world.scene.start()
    world.publish_desired([gone(of, 2) for of in keys[:10]])
    ends = world.said.until(keys[:10], 2, 120) + world.said.until(keys[10:], 1, 120)
    world.must("somebody did not end well", all(said.state is State.DONE for said in ends))
    sleeper.send_signal(signal.SIGCONT)
    time.sleep(10)
    world.must("the sleeper did not stop", end(sleeper) == 0)
    world.exist(keys[10:])
    unchecked = "SELECT count(*) FROM lifecycle.sagas WHERE json_array_length(journal->'sweeps') > 0"
    deadline = time.monotonic() + 180
    while world.scene.rows(unchecked)[0][0] and time.monotonic() < deadline:
        time.sleep(1)
    inventory = world.inventory()
    late = [f"{s} of {of}" for s in SYSTEMS for of in keys[:10] if inventory[s].get(of)]
    world.must(f"late effects stayed: {late}", not late)
    whom = "systems that forget" if forgetful else "systems that know epochs"
    world.tell(f"20 sagas under way when their worker fell asleep, {whom}: nothing left, nothing twice")
    world.publish_desired([gone(of, 3) for of in keys[10:]])
    world.said.until(keys[10:], 3, 60)
    world.empty()


def forgetful_sleepers(world: SagaWorld) -> None:
    """Likewise, where systems look at neither idempotency keys nor epochs."""
    sleepers(world, forgetful=True)


def pair(world: SagaWorld) -> None:
    """Two workers share 2,000 sagas, and do nothing twice."""
    for _ in range(2):
        world.scene.start()
    keys = [world.key(number, org=number % 200) for number in range(2_000)]
    began = time.monotonic()
    world.publish_desired([desired(of, 1, configuration=host(number)) for number, of in enumerate(keys)])
    world.said.until(keys, 1, 300)
    took_s = time.monotonic() - began
    shares = dict(world.scene.rows("SELECT worker, count(*) FROM lifecycle.sagas GROUP BY worker"))
    least = min(shares.values()) / len(keys) if len(shares) == 2 else 0.0
    world.tell(f"2,000 sagas by two workers in {took_s:.0f} s: shares {sorted(shares.values())}")
    world.must(f"shared unevenly: {shares}", least >= 0.4)
    world.exist(keys)
    calls = httpx2.get(f"{world.outside.url}/calls", timeout=60).json()
    made = [(call["system"], call["key"]) for call in calls if call["verb"] == "create" and call["outcome"] == "done"]
    world.must("something was made twice", len(made) == len(set(made)))


SCENARIOS: Final[dict[str, Callable[[SagaWorld], None]]] = {
    each.__name__: each for each in (storm, outage, registry, poison, fairness, sleepers, forgetful_sleepers, pair)
}
_LATENCY_S: Final = {"storm": "0.1", "fairness": "0.1"}


@contextmanager
def world(name: str, kafka: str, admin_url: str, scale: float) -> Iterator[SagaWorld]:
    """An installation of its own, and everything outside."""
    database = f"sagas_{name}_{secrets.token_hex(4)}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-sagas-")))
        with psycopg.connect(admin_url, autocommit=True) as session:
            session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        url = f"{admin_url.rpartition('/')[0]}/{database}"
        latency_s = _LATENCY_S.get(name, "0")
        staging = staged(kafka, f"{database}-", url, folder, simulator_latency_s=latency_s)
        scene, system = stack.enter_context(staging)
        scene.environment |= {"RETRY_FIRST_S": "1", "LEASE_S": "3"}
        yield SagaWorld(scene, system, stack.enter_context(NewestOutcomes(scene)), admin_url, scale)


def main(arguments: Sequence[str]) -> int:
    """Play scenarios one after the other; 1 when something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", action="append", choices=tuple(SCENARIOS), help="only this one; may be repeated")
    parser.add_argument("--scale", type=float, default=10, help="how many times shorter an outage is; default 10")
    given = parser.parse_args(arguments)
    clean = True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-engines-")))
        wanted = (Engine.KAFKA, Engine.POSTGRES)
        running = stack.enter_context(engines.running(folder, dict(os.environ), wanted=wanted))
        assert running.kafka_bootstrap is not None
        assert running.database_url is not None
        for name in given.scenario or SCENARIOS:
            sys.stdout.write(f"{name}: {SCENARIOS[name].__doc__}\n")
            with world(name, running.kafka_bootstrap, running.database_url, given.scale) as played:
                try:
                    SCENARIOS[name](played)
                except AssertionError as error:
                    played.faults.append(str(error))
            for fault in played.faults[:8]:
                sys.stdout.write(f"    WRONG: {fault}\n")
            clean = clean and not played.faults
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
