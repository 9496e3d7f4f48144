"""The watch hands out the newest good keyring, complete, however the file is changed, broken or removed."""

import asyncio
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from schemas.keyring import Keyring
from services.adapters.process import metrics
from services.adapters.process.errors import Unusable
from services.adapters.process.file_identity import SETTLED_S, file_identity
from services.adapters.secrets.keyring_watch import LOOK_S, KeyringWatch
from services.ingress.endpoints import credentials
from tests.support.eventually import eventually_async

SECRET = "canary-secret-0123456789-0123456789"
OTHER = "canary-others-0123456789-0123456789"


def text(*names: str, secret: str = SECRET) -> str:
    return json.dumps({"endpoints": {name: {"current": {"secret": secret}} for name in names}})


def names(ring: Keyring) -> tuple[str, ...]:
    """This test's demand on a keyring: at least one endpoint, as for the ingress."""
    return tuple(credentials(ring).endpoints)


def rename_over(path: Path, content: str) -> None:
    staging = path.with_name("staging")
    staging.write_text(content)
    staging.rename(path)


def write_in_place(path: Path, content: str) -> None:
    path.write_text(content)


def swap_the_link(path: Path, content: str) -> None:
    """As the kubelet does: the file is a link into `..data`, which is a link to a folder, and that one is replaced."""
    folder = path.with_name(f"..{len(list(path.parent.iterdir()))}")
    folder.mkdir()
    (folder / path.name).write_text(content)
    fresh = path.with_name("..data_tmp")
    fresh.symlink_to(folder.name)
    fresh.rename(path.with_name("..data"))
    if not path.is_symlink():
        path.unlink(missing_ok=True)
        path.symlink_to(f"..data/{path.name}")


@contextmanager
def no_more_files() -> Iterator[None]:
    """This process has as many files open as it may; `stat` needs none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def sample(name: str, **labels: str) -> float:
    return metrics.KEYRING.registry.get_sample_value(name, labels) or 0.0


class WatchedFile:
    """A file, who watches it, and what was said; a look is one period later than the last."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keyring.json"
        self.path.write_text(text("a"))
        self.told = LogCapture()
        heard = structlog.make_filtering_bound_logger("info")
        log = structlog.wrap_logger(structlog.PrintLogger(), processors=[self.told], wrapper_class=heard)
        self.watch = KeyringWatch(self.path, names, log)
        self._now_s = 0.0
        self._before = self._counts()

    def look(self, later_s: float = LOOK_S) -> tuple[str, ...]:
        self._now_s += later_s
        self.watch.look(self._now_s)
        return self.watch.newest()

    def settle(self) -> None:
        """Look until nothing more is expected of the file."""
        self.look()
        self.look(SETTLED_S + LOOK_S)
        self.told.entries.clear()

    def said(self) -> list[str]:
        return [f"{entry['log_level']}: {entry['event']}" for entry in self.told.entries]

    def counted(self) -> tuple[float, float]:
        """Keyrings taken, and broken ones, since the beginning."""
        taken, broken = self._counts()
        return taken - self._before[0], broken - self._before[1]

    @property
    def broken(self) -> float:
        return sample("lifecycle_keyring_broken")

    @staticmethod
    def _counts() -> tuple[float, float]:
        name = "lifecycle_keyring_reloads_total"
        return sample(name, result="taken"), sample(name, result="broken")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[WatchedFile]:
    yield WatchedFile(tmp_path)
    metrics.KEYRING_BROKEN.set(0)


REPLACEMENTS = [rename_over, write_in_place, swap_the_link]


@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_a_replaced_file_is_loaded_at_the_next_look(world: WatchedFile, replace: Any) -> None:
    replace(world.path, text("a"))
    world.settle()
    for number in range(3):
        replace(world.path, text("a", f"b{number}"))
        assert world.look() == ("a", f"b{number}")
        assert world.said() == ["info: keyring taken"]
        world.settle()
    assert world.counted() == (3, 0)


def test_a_change_before_the_first_look_is_loaded(world: WatchedFile) -> None:
    write_in_place(world.path, text("b"))
    assert world.look() == ("b",)


def test_a_file_that_vanished_before_the_first_look_is_told_once_and_the_last_good_one_stays(
    world: WatchedFile,
) -> None:
    away = world.path.rename(world.path.with_name("away"))
    # The clock of a machine that has run for days.
    assert world.look(1_000_000.0) == world.look() == ("a",)
    assert world.broken == 1
    assert world.said() == ["error: keyring broken"]
    assert world.watch.fault() != ""
    away.rename(world.path)
    assert world.look() == ("a",)
    assert (world.broken, world.watch.fault()) == (0, "")


def test_an_unchanged_file_is_not_reloaded(world: WatchedFile) -> None:
    for _ in range(20):
        world.look()
    os.utime(world.path)
    assert world.look() == ("a",)
    assert world.counted() == (0, 0)
    assert world.said() == []


def test_a_second_write_that_stat_does_not_show_is_found_while_the_file_settles(world: WatchedFile) -> None:
    write_in_place(world.path, text("b"))
    world.look()
    write_in_place(world.path, text("c"))
    world.watch._identity = file_identity(world.path)  # as if both fell into one tick of the clock
    assert world.look() == ("c",)


BROKEN = {
    "half written": text("a", "b")[:-20],
    "empty": "",
    "not a keyring": "{}",
    "a short secret": text("b", secret="canary"),
    "nobody": text(),
}


@pytest.mark.parametrize("replace", REPLACEMENTS)
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_an_unusable_file_keeps_the_last_good_keyring_and_is_reported_once(
    world: WatchedFile, replace: Any, content: str
) -> None:
    world.settle()
    replace(world.path, content)
    for _ in range(3):
        assert world.look() == ("a",)
        assert world.broken == 1
    assert world.counted() == (0, 1)
    assert world.said() == ["error: keyring broken"]
    assert "canary" not in str(world.told.entries).replace(str(world.path), "")

    replace(world.path, text("b"))
    assert world.look() == ("b",)
    assert world.broken == 0
    assert world.counted() == (1, 1)
    assert world.said() == ["error: keyring broken", "info: keyring taken"]


def test_a_missing_file_is_a_fault_until_it_is_back(world: WatchedFile) -> None:
    world.settle()
    world.path.rename(world.path.with_name("away"))
    assert world.look() == world.look() == ("a",)
    assert world.broken == 1
    assert "No such file" in str(world.told.entries)
    world.path.with_name("away").rename(world.path)
    assert world.look() == ("a",)
    assert world.broken == 0
    assert world.counted() == (0, 1), "it is the same keyring: nothing was reloaded"
    assert world.said() == ["error: keyring broken", "info: keyring taken"]


def test_an_unopenable_file_is_retried_although_it_did_not_change(world: WatchedFile) -> None:
    world.settle()
    write_in_place(world.path, text("b"))
    with no_more_files():
        world.look()
        assert world.look(SETTLED_S + 1) == ("a",)
    assert world.broken == 1
    assert "Too many open files" in str(world.told.entries)
    assert world.look() == ("b",)
    assert world.broken == 0


def test_alternating_faults_are_reported_once_each_until_the_file_is_good(world: WatchedFile) -> None:
    for content in ("", "{}", "", "{}", "", "{}"):
        write_in_place(world.path, content)
        world.look()
    assert world.said() == ["error: keyring broken"] * 2
    write_in_place(world.path, text("a"))
    world.look()
    write_in_place(world.path, "{}")
    world.look()
    assert world.said() == ["error: keyring broken"] * 2 + ["info: keyring taken", "error: keyring broken"]


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_an_unusable_first_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keyring.json"
    path.write_text(content)
    with pytest.raises(Unusable):
        KeyringWatch(path, names, structlog.get_logger())


async def test_a_running_watch_loads_changes_until_it_is_cancelled(world: WatchedFile) -> None:
    looking = asyncio.create_task(world.watch.run())
    await asyncio.sleep(0)
    rename_over(world.path, text("b"))

    async def seen() -> bool:
        return world.watch.newest() == ("b",)

    await eventually_async(seen)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
