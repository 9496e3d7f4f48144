"""The event loop of the reconciler stays free while a disk stands still; a write ends before the lock is given up.

A named pipe in place of a state file is such a disk: who opens it waits until the other end is open, and a test decides
when that is. So nothing is timed: a loop that waits for the file itself can never run the test's next step.
"""

import asyncio
import os
import random
import threading
from pathlib import Path

import pytest

from services.adapters.genesys.organisations_watch import OrganisationsWatch
from services.adapters.process import clock, logs
from services.reconciler.audits import AuditFollower
from services.reconciler.main import _State, _tick
from services.reconciler.memory import Sights
from services.reconciler.run import sight
from tests.support.genesys_worlds import CLIENT, ORG, key_of
from tests.unit.test_reconciler_loop import Readers, resources_of

GIVEN_UP_S = 20.0
"""How long a blocked loop is given: without an end the test would hang instead of failing."""
MANY = frozenset(key_of(number) for number in range(1_000))
"""So many that their sights do not fit into a pipe: the writer waits until they are read."""


class StandingFile:
    """A state file whose reader or writer stands still until the loop has gone on."""

    def __init__(self, path: Path, content: str = "") -> None:
        os.mkfifo(path)
        self._path, self._content = path, content
        self._opened, self._may_go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve_reader if content else self._serve_writer)
        self._thread.start()
        self.loop_went_on = False

    async def stands(self) -> None:
        """Returns while the other side has the file open and waits."""
        while not self._opened.is_set():
            await asyncio.sleep(0.01)

    async def go_on(self) -> None:
        """Lets the other side have what it waits for."""
        self._may_go_on.set()
        await asyncio.to_thread(self._thread.join)

    def _serve_reader(self) -> None:
        with self._path.open("w") as pipe:
            # Later reads find a file as usual.
            self._path.unlink()
            self._path.write_text(self._content)
            self._wait()
            pipe.write(self._content)

    def _serve_writer(self) -> None:
        with self._path.open() as pipe:
            self._path.unlink()
            self._wait()
            pipe.read()

    def _wait(self) -> None:
        self._opened.set()
        self.loop_went_on = self._may_go_on.wait(GIVEN_UP_S)


def organisation_file(folder: Path) -> None:
    (folder / f"{ORG}.json").write_text(f'{{"org_id": "{ORG}", "client_id": "{CLIENT}", "client_secret": "s"}}')


@pytest.mark.parametrize(
    ("name", "content"),
    [("sights.json", "{}"), ("admissions.json", "{}"), ("refusals.json", "[]"), ("last_run.json", "{}")],
)
async def test_the_loop_goes_on_while_a_state_file_is_read(tmp_path: Path, name: str, content: str) -> None:
    resources, log = resources_of(tmp_path, Readers()), logs.configure("reconciler", "error")
    state = _State(float("inf"), AuditFollower(resources.settings, resources.readers, clock.now_us, log))
    standing = StandingFile(tmp_path / "reconciler" / name, content)
    files = OrganisationsWatch(tmp_path, log)
    ticking = asyncio.create_task(_tick(resources, files, state, random.Random(1), log))
    await standing.stands()
    await standing.go_on()
    await ticking
    assert standing.loop_went_on
    assert state.fault == ""


async def test_the_loop_goes_on_while_the_sights_are_written(tmp_path: Path) -> None:
    organisation_file(tmp_path)
    resources = resources_of(tmp_path, Readers())
    standing = StandingFile(tmp_path / "reconciler" / "sights.new")
    sighting = asyncio.create_task(sight(resources, MANY))
    await standing.stands()
    await standing.go_on()
    assert standing.loop_went_on
    with pytest.raises(OSError, match="Invalid argument"):  # a pipe takes no fsync
        await sighting


async def test_a_cancelled_run_keeps_the_lock_until_its_write_has_ended(tmp_path: Path) -> None:
    organisation_file(tmp_path)
    resources = resources_of(tmp_path, Readers())
    standing = StandingFile(tmp_path / "reconciler" / "sights.new")
    sighting = asyncio.create_task(sight(resources, MANY))
    await standing.stands()
    entered = asyncio.Event()

    async def other_process() -> None:
        async with Sights(tmp_path).hold_lock():
            entered.set()

    waiting = asyncio.create_task(other_process())
    for _ in range(3):
        sighting.cancel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(entered.wait()), 0.2)
    await standing.go_on()
    with pytest.raises(asyncio.CancelledError):
        await sighting
    await waiting
    assert standing.loop_went_on
