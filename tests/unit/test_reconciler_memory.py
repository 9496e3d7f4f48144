"""The reconciler's memory: kept sights, forgotten sights, and the lock of its folder."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.core.reconcile.audit_gaps import AuditCursor, AuditedKey
from services.core.reconcile.onboarding import OrganisationState
from services.core.reconcile.reconcile import Doubt, Sight
from services.core.rulings import RefusedRemovals
from services.reconciler.audit_memory import AuditMemory
from services.reconciler.memory import LastRun, Sights, replace_json
from tests.support.genesys_worlds import key_of

KEPT = {key_of(1): Sight("client", Doubt("absent", 7), 3), key_of(2): Sight()}


def test_saved_sights_are_loaded_by_any_process(tmp_path: Path) -> None:
    one, other = Sights(tmp_path), Sights(tmp_path)
    assert other.load() == {}
    one.save(KEPT)
    assert other.load() == KEPT
    one.save({})
    assert other.load() == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"k": 1}', '{"k": {}}', '{"k": {"seen_by": null, "doubt": 1}}'])
def test_an_unreadable_sights_file_is_forgotten(tmp_path: Path, text: str) -> None:
    sights = Sights(tmp_path)
    sights.save(KEPT)
    (tmp_path / "reconciler" / "sights.json").write_text(text)
    assert Sights(tmp_path).load() == {}


def test_changing_the_loaded_sights_does_not_change_the_memory(tmp_path: Path) -> None:
    sights = Sights(tmp_path)
    sights.save(KEPT)
    sights.load().clear()
    assert sights.load() == KEPT


async def test_two_runs_on_one_folder_take_turns(tmp_path: Path) -> None:
    order: list[str] = []

    async def run(name: str, inside: asyncio.Event, leave: asyncio.Event) -> None:
        async with Sights(tmp_path).hold_lock():
            order.append(f"{name} in")
            inside.set()
            await leave.wait()
            order.append(f"{name} out")

    first_in, first_leaves, second_in, second_leaves = (asyncio.Event() for _ in range(4))
    second_leaves.set()
    first = asyncio.create_task(run("first", first_in, first_leaves))
    await first_in.wait()
    second = asyncio.create_task(run("second", second_in, second_leaves))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(second_in.wait()), 0.3)
    first_leaves.set()
    await asyncio.gather(first, second)
    assert order == ["first in", "first out", "second in", "second out"]


def test_saved_admissions_are_loaded_by_any_process(tmp_path: Path) -> None:
    one, other = Sights(tmp_path), Sights(tmp_path)
    assert other.admissions() == {}
    one.save_admissions({"a": OrganisationState.HELD, "b": OrganisationState.ADMITTED})
    assert other.admissions() == {"a": OrganisationState.HELD, "b": OrganisationState.ADMITTED}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": "else"}'])
def test_an_unreadable_admissions_file_is_forgotten(tmp_path: Path, text: str) -> None:
    (Sights(tmp_path)._folder / "admissions.json").write_text(text)
    assert Sights(tmp_path).admissions() == {}


def test_saved_refusals_and_orphans_are_loaded_by_any_process(tmp_path: Path) -> None:
    one, other = Sights(tmp_path), Sights(tmp_path)
    assert (other.refusals(), other.orphans()) == ((), {})
    refusal = RefusedRemovals("0123456789abcdef", "Ada", "a wrong role", frozenset(KEPT), 7)
    one.save_refusals([refusal])
    one.save_orphans({"k g1 schema": 9})
    assert (other.refusals(), other.orphans()) == ((refusal,), {"k g1 schema": 9})


@pytest.mark.parametrize("text", ["", "{}", "{", "[1]", '[{"digest": "d"}]', '[{"digest": "d", "by": "b", "keys": 1}]'])
def test_an_unreadable_refusals_file_is_forgotten(tmp_path: Path, text: str) -> None:
    sights = Sights(tmp_path)
    (tmp_path / "reconciler" / "refusals.json").write_text(text)
    assert sights.refusals() == ()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": "else"}', '{"a": null}'])
def test_an_unreadable_orphans_file_is_forgotten(tmp_path: Path, text: str) -> None:
    sights = Sights(tmp_path)
    (tmp_path / "reconciler" / "orphans.json").write_text(text)
    assert sights.orphans() == {}


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e400", "1e30", "9" * 30, "-" + "9" * 30, "1.5"])
def test_a_file_with_a_number_that_is_no_time_is_forgotten(tmp_path: Path, number: str) -> None:
    sights, folder = Sights(tmp_path), tmp_path / "reconciler"
    sights.save({"k": Sight(None, None, 77)})
    sights.save_refusals([RefusedRemovals("d", "Ada", "", frozenset({"k"}), 77)])
    sights.save_orphans({"k g1 schema": 77})
    sights.save_last(LastRun(ended_us=77))
    cursor = AuditCursor("client", 1, waiting={"k": AuditedKey(1, 77)}, listed_us=1)
    AuditMemory(tmp_path).save({"org": cursor})
    assert AuditMemory(tmp_path).load() == {"org": cursor}
    for file in folder.glob("*.json"):
        file.write_text(file.read_text().replace("77", number))
    assert (sights.load(), sights.refusals(), sights.orphans(), sights.last()) == ({}, (), {}, LastRun())
    assert AuditMemory(tmp_path).load() == {}


def test_two_writers_of_one_file_never_meet_in_their_temporary_files(tmp_path: Path) -> None:
    path = tmp_path / "sights.json"
    contents = [{"key": str(number) * 2_000} for number in range(4)]

    def write(content: dict[str, str]) -> None:
        for _ in range(25):
            replace_json(path, content)
            assert json.loads(path.read_text()) in contents

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, contents))
    assert list(tmp_path.iterdir()) == [path], "no temporary file stays"


def test_a_file_that_cannot_be_replaced_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "sights.json").mkdir()
    with pytest.raises(OSError, match=r"sights\.json"):
        replace_json(tmp_path / "sights.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["sights.json"]
