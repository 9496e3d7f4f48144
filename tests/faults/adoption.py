"""A vendor's existing tenants are adopted on a real installation, by a command that is killed midway and repeated.

    python -m tests.faults.adoption [--tenants 2000] [--uninstall 200]

Judged by the call list and the inventory of the outside systems: a dry run changes nothing; the adoption makes, changes
and removes nothing; every tenant becomes active in generation 1, told of once; a later uninstall removes exactly the
resources of its tenants. Prints the seconds of each part; ends with 1 when something was otherwise.
"""

import argparse
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Event

from schemas.event import Event as LifecycleEvent
from schemas.topics import EVENTS
from schemas.values import Key
from services import engines
from services.adapters.kafka.tenant_view import TenantView
from services.cli.show import say
from tests.support.adoption_world import SYSTEMS, AdoptionWorld, await_plan
from tests.support.eventually import eventually
from tests.support.ledger_process import LedgerBench
from tests.support.operator_world import database_of, provisioner
from tests.support.simulator_process import outside

_UNBRAKED = {"REMOVALS_AT_ONCE": "100000", "SESSION_TIMEOUT_S": "20"}
_DEADLINE_S = 280.0
_POLL_S = 0.2


@contextmanager
def _supervised_ledger(bench: LedgerBench) -> Iterator[None]:
    """A ledger that is started again when it ends by itself, as by a supervisor: a starved one ends as stalled."""
    ending = Event()

    def keep() -> None:
        while not ending.is_set():
            worker = bench.start(SESSION_TIMEOUT_S="20")
            while worker.poll() is None and not ending.wait(_POLL_S):
                pass
            status = worker.stop(30) if ending.is_set() else worker.poll()
            if not ending.is_set():
                say(f"  the ledger ended with {status}, and is started again")

    with ThreadPoolExecutor(1) as pool:
        kept = pool.submit(keep)
        try:
            yield
        finally:
            ending.set()
            kept.result(60)


@contextmanager
def _world(folder: Path, bootstrap: str, admin_url: str) -> Iterator[AdoptionWorld]:
    bench = LedgerBench(bootstrap, f"t{secrets.token_hex(5)}-", folder)
    given = {"keyring_file": str(folder / "keyring.json"), "oauth_client_secret": "s" * 32}
    with ExitStack() as stack:
        stack.enter_context(_supervised_ledger(bench))
        database = stack.enter_context(database_of(admin_url))
        systems = stack.enter_context(outside(folder, database, **given))
        stack.enter_context(provisioner(bench, systems, database, **_UNBRAKED))
        await_plan(database)
        view = stack.enter_context(closing(TenantView({"bootstrap.servers": bootstrap}, bench.prefix)))
        yield AdoptionWorld(bench, systems, folder, view, database=database)


@contextmanager
def _timed(what: str) -> Iterator[None]:
    began_s = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - began_s:.1f} s")


def play(world: AdoptionWorld, count: int, uninstall: int) -> None:
    """Adopts so many tenants, and uninstalls some.

    Raises:
        AssertionError: something was otherwise than it must be; the text says what.
    """
    with _timed(f"{count} tenants made by the vendor"):
        keys = world.vendors_tenants(count)
    before, there = world.changes(keys), world.things(keys)
    assert there == dict.fromkeys(SYSTEMS, count), there
    file = world.file([world.line(key) for key in keys])
    with _timed("dry run"):
        looked = world.adopt(file, "--dry-run")
    assert {line["end"] for line in looked["lines"]} == {"can be adopted"}
    assert (world.rows(), world.changes(keys)) == ({}, before), "a dry run changed something"
    with _timed("adoption, killed halfway"):
        world.adopt_and_die(file, after_rows=count // 2)
    say(f"  rows after the kill: {len(world.rows())}")
    with _timed("the same command again"):
        found = world.adopt(file)
    assert {line["end"] for line in found["lines"]} <= {"adopted", "adopted already"}
    with _timed("then until all are active"):
        world.until_active(keys, _DEADLINE_S)
    assert (world.changes(keys), world.things(keys)) == (before, there), "something was made, changed or removed"
    # A ledger that was started again may repeat a record: the identity in its header is the same.
    told = {one.ce_id: LifecycleEvent.model_validate_json(one.value) for one in world.bench.out(EVENTS)}
    events = {(one.key, one.event) for one in told.values()}
    assert len(told) == len(events) == 3 * count, "the ledger took an observation twice"
    _uninstall(world, keys, keys[:uninstall], before)


def _uninstall(
    world: AdoptionWorld, keys: Sequence[Key], gone: Sequence[Key], before: Counter[tuple[str, str]]
) -> None:
    with _timed(f"{len(gone)} uninstalled, until all are deprovisioned"):
        world.uninstalled(gone)
        eventually(lambda: all(map(world.is_deprovisioned, gone)), _DEADLINE_S)
    assert world.things(gone) == dict.fromkeys(SYSTEMS, 0)
    assert world.things(keys) == dict.fromkeys(SYSTEMS, len(keys) - len(gone))
    news = world.changes(keys)
    news.subtract(before)
    wanted = {(system, "delete"): len(gone) for system in SYSTEMS}
    assert {call: number for call, number in news.items() if number} == wanted, news


def main(arguments: Sequence[str]) -> int:
    """Plays the adoption; 1 when something was otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=2_000)
    parser.add_argument("--uninstall", type=int, default=200, help="tenants that are uninstalled afterwards")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lifecycle-adoption-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with (
            engines.running(folder, dict(os.environ)) as running,
            _world(folder, running.kafka_bootstrap, running.database_url) as world,
        ):
            try:
                play(world, given.tenants, given.uninstall)
            except AssertionError as error:
                say(f"WRONG: {error}")
                return 1
    say("as it must be")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
