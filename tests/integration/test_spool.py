"""Records on a real disk: kept once reported, read back in order, and every loss reported."""

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from schemas.spooled import VERSION, Spooled, encode
from services.adapters.spool import FolderInUse, NewerVersion, Spool, SpoolError, abandoned_folders
from services.adapters.spool.folder import Folder
from services.adapters.spool.records import Records
from tests.faults.spool_subject import numbers, record, said
from tests.unit.test_spooled import as_version

PLENTY = 1 << 30
ALL = list(range(1, 101))


@pytest.fixture
async def left(tmp_path: Path) -> Path:
    """A folder as a killed process leaves it: a hundred records, ten a sync, all of them in the log."""
    spool = await Spool.open(tmp_path / "living", unexpected)
    for first in ALL[::10]:
        await append(spool, first, 10)
    folder = tmp_path / "left" / spool.path.name
    shutil.copytree(spool.path, folder)
    spool.delete(ALL)
    await spool.end()
    return folder


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    spool = await Spool.open(tmp_path, unexpected)
    yield spool
    await spool.end()


def test_a_folder_that_cannot_be_made_whole_keeps_no_file_open(tmp_path: Path) -> None:
    # So long that the kernel takes the path of `lock`, and refuses that of `records`.
    length = 4_095 - len("/records") + 1 - len("/.0000000000000001-12345678")
    parent = tmp_path
    while (left := length - len(str(parent))) > 1:
        parent = parent / ("x" * min(200, left - 1 if left < 202 else left - 202))
    parent.mkdir(parents=True)
    assert len(str(parent)) == length
    before = _open_files()
    with pytest.raises(SpoolError, match="name too long"):
        Folder.begin(parent, 1)
    assert _open_files() == before
    assert [path.name for path in parent.glob(".*/*")] == ["lock"]


def _open_files() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


async def test_appended_records_are_kept_and_read_back_in_order(spool: Spool) -> None:
    await append(spool, 1, 100)
    assert await spool.oldest(1000, PLENTY) == [(number, record(number)) for number in range(1, 101)]


async def test_reports_arrive_in_order_and_after_append_has_returned(spool: Spool) -> None:
    told: list[int] = []
    for number in range(50):
        spool.append(record(number), lambda _, number=number: told.append(number))  # type: ignore[misc]
        assert not told
    await append(spool, 50, 1)
    assert told == list(range(50))


async def test_the_oldest_records_are_returned_until_they_are_deleted(spool: Spool) -> None:
    await append(spool, 1, 10)
    assert await read(spool, most=2) == [1, 2] == await read(spool, most=2)
    spool.delete([2, 3])
    assert await read(spool, most=2) == [1, 4]
    spool.delete([1, 1, 99])
    assert await read(spool) == [4, 5, 6, 7, 8, 9, 10]


async def test_a_read_keeps_its_size_limit_but_returns_at_least_one_record(spool: Spool) -> None:
    await append(spool, 1, 10)
    sizes = [len(encode(number, record(number))) for number in range(1, 11)]
    assert await read(spool, size_bytes=sum(sizes[:4])) == [1, 2, 3, 4]
    assert await read(spool, size_bytes=sum(sizes[:4]) - 1) == [1, 2, 3]
    assert await read(spool, size_bytes=1) == [1]


async def test_a_spool_reports_its_depth_size_and_age(spool: Spool) -> None:
    assert (spool.depth, spool.size_bytes, spool.oldest_us, spool.waiting, spool.closed) == (0, 0, None, 0, "")
    first, second = len(encode(1, record(5))), len(encode(2, record(6)))
    reports = [kept_by(spool, record(5)), kept_by(spool, record(6))]
    assert (spool.depth, spool.waiting, spool.waiting_bytes) == (0, 2, first + second)
    await asyncio.gather(*reports)
    assert (spool.depth, spool.waiting, spool.waiting_bytes) == (2, 0, 0)
    assert (spool.size_bytes, spool.oldest_us) == (first + second, 5)
    spool.delete([1])
    assert (spool.depth, spool.size_bytes, spool.oldest_us) == (1, second, 6)


async def test_a_closed_spool_keeps_waiting_records_refuses_new_ones_and_is_drained(spool: Spool) -> None:
    waiting = kept_by(spool, record(1))
    spool.close_to_new("age")
    spool.close_to_new("size")
    assert spool.closed == "age"
    refused = kept_by(spool, record(2))
    assert await waiting
    assert not await refused
    assert await read(spool) == [1]


async def test_an_empty_folder_is_removed_at_the_end_of_its_spool(tmp_path: Path) -> None:
    spool = await Spool.open(tmp_path / "spools", unexpected)
    assert spool.path.stat().st_mode & 0o777 == 0o700
    await append(spool, 1, 3)
    spool.delete([1, 2, 3])
    await spool.end()
    await spool.end()
    assert visible(tmp_path / "spools") == []
    assert not await kept_by(spool, record(4))
    assert await spool.oldest(1, PLENTY) == []


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_end_is_finished_by_the_next_end(turns: int, tmp_path: Path) -> None:
    spool = await Spool.open(tmp_path, unexpected)
    await append(spool, 1, 10)
    spool.delete(range(1, 11))
    ending = asyncio.create_task(spool.end())
    for _ in range(turns):
        await asyncio.sleep(0)
    ending.cancel()
    await spool.end()
    assert not spool.path.exists()


async def test_undrained_records_are_drained_by_the_next_process(tmp_path: Path) -> None:
    for start in (1, 11):
        spool = await Spool.open(tmp_path, unexpected)
        await append(spool, start, 10)
        spool.delete([1, 2])
        await spool.end()
    first, second = abandoned_folders(tmp_path)
    for folder, start in ((first, 1), (second, 11)):
        former = await Spool.adopt(folder, unexpected)
        assert (former.closed, former.depth, former.damaged, former.oldest_us) == ("former", 8, 0, start + 2)
        assert not await kept_by(former, record(1))
        assert [found.received_us for _, found in await former.oldest(99, PLENTY)] == list(range(start + 2, start + 10))
        former.delete(range(1, 11))
        await former.end()
    assert visible(tmp_path) == []


async def test_records_deleted_behind_an_undeleted_one_return_and_count_as_no_damage(tmp_path: Path) -> None:
    spool = await Spool.open(tmp_path, unexpected)
    await append(spool, 1, 9)
    spool.delete([1, 2, 4, 5, 9])
    assert await read(spool) == [3, 6, 7, 8]
    await spool.end()
    former = await adopted(tmp_path)
    assert (await read(former), former.damaged) == ([3, 4, 5, 6, 7, 8, 9], 0)
    former.delete(range(10))
    await former.end()


async def test_many_deletions_do_not_slow_the_reader(spool: Spool) -> None:
    await append(spool, 1, 5000)
    for front in range(1, 5001, 500):
        assert (await read(spool, most=500))[0] == front
        spool.delete(range(front, front + 500))
    assert (spool.depth, spool.size_bytes) == (0, 0)


async def test_more_than_memory_holds_is_kept(tmp_path: Path) -> None:
    spool = await Spool.open(tmp_path, unexpected)
    large = [record(number, 2 << 20) for number in range(1, 21)]
    assert all(await asyncio.gather(*(kept_by(spool, one) for one in large)))
    assert [one for _, one in await spool.oldest(99, PLENTY)] == large
    await spool.end()
    former = await adopted(tmp_path)
    assert [one for _, one in await former.oldest(99, PLENTY)] == large
    await former.end()


@pytest.mark.parametrize("seed", range(12))
async def test_a_killed_process_has_kept_every_record_it_reported(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    in_flight, size_bytes, up_to = [(1, None, 500), (8, 100_000, 300), (64, None, 5_000), (256, None, 9_000)][seed % 4]
    most = 10**9 if seed < 6 else chance.randrange(1, 100)
    subject: Any = {"records": 10**9, "in_flight": in_flight, "size_bytes": size_bytes, "most": most}
    until = f"kept {chance.randrange(1, up_to)}"
    lines = await asyncio.to_thread(said, "keep", until=until, parent=str(tmp_path), **subject)
    last = max(numbers(lines, "kept"))
    former = await adopted(tmp_path)
    found = await former.oldest(10**9, PLENTY)
    first, end = found[0][0], found[-1][0] + 1
    assert found == [(number, record(number, size_bytes)) for number in range(first, end)]
    assert first <= max(1, last - most + 1) <= last < end
    assert (former.closed, former.damaged) == ("former", 0)
    former.delete(number for number, _ in found)
    await former.end()
    assert visible(tmp_path) == []


@pytest.mark.parametrize("cut", [1, 6, 7, 8, 400])
async def test_a_record_half_written_in_a_crash_is_skipped(cut: int, left: Path) -> None:
    log = log_of(left)
    log.write_bytes(log.read_bytes() + log.read_bytes()[:cut])
    former = await Spool.adopt(left, unexpected)
    assert (await read(former), former.closed) == (ALL, "former")
    await former.end()


async def test_kept_records_lost_by_truncation_are_counted_as_damage(left: Path) -> None:
    os.truncate(log_of(left), log_of(left).stat().st_size // 2)
    told: list[str] = []
    former = await Spool.adopt(left, told.append)
    found = await read(former)
    assert found == ALL[: len(found)]
    assert (former.closed, told, former.damaged) == ("corrupt", ["corrupt"], 100 - len(found))
    await former.end()


async def test_a_flipped_byte_loses_one_record_and_the_folder_is_put_aside(left: Path) -> None:
    flip(log_of(left), log_of(left).read_bytes().index(record(51).message.value))
    evidence = log_of(left).read_bytes()
    told: list[str] = []
    former = await Spool.adopt(left, told.append)
    assert (former.closed, told, former.damaged, former.depth) == ("corrupt", ["corrupt"], 1, 99)
    assert await former.oldest(999, PLENTY) == [(number, record(number)) for number in ALL if number != 51]
    former.delete(ALL)
    await former.end()
    assert visible(left.parent) == ["aside"]
    assert visible(left.parent / "aside") == [f"{left.name}-corrupt"]
    assert log_of(left.parent / "aside" / f"{left.name}-corrupt").read_bytes() == evidence


async def test_records_saved_from_a_damaged_folder_survive_a_crash(left: Path) -> None:
    flip(log_of(left), 100)
    former = await Spool.adopt(left, ignored)
    saved = await read(former)
    former.delete(saved[:50])
    await former.end()
    again = await Spool.adopt(abandoned_folders(left.parent)[0], ignored)
    assert await read(again) == saved[50:]
    again.delete(ALL)
    await again.end()


@pytest.mark.parametrize("kind", [5, 6, 7, 8, 9, 0])
def test_a_flip_that_hangs_rocksdb_is_found_before_rocksdb_reads_it(kind: int, left: Path) -> None:
    """Kinds of chunk that we do not write, in the middle of a record that spans blocks (facebook/rocksdb#13333)."""
    raw = bytearray(log_of(left).read_bytes())
    raw[(32 << 10) + 6] = kind
    log_of(left).write_bytes(raw)
    lines = said("drain", parent=str(left.parent))
    assert lines[:2] == ["closed corrupt", "damaged 1"]
    assert (len(numbers(lines, "read")), lines[-1]) == (100, "done")


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-*"])
async def test_records_are_read_without_the_manifest_of_rocksdb(name: str, left: Path) -> None:
    for file in (left / "records").glob(name):
        file.unlink()
    former = await Spool.adopt(left, ignored)
    assert (await read(former), former.closed) == (ALL, "corrupt")
    former.delete(ALL)
    await former.end()


@pytest.mark.parametrize("name", ["MANIFEST-*", "CURRENT"])
async def test_records_are_salvaged_from_table_files(name: str, tmp_path: Path) -> None:
    spool = await Spool.open(tmp_path, unexpected)
    await append(spool, 1, 100)
    spool.delete(range(1, 31))
    await spool.end()
    for file in (spool.path / "records").glob(name):
        file.unlink()
    former = await Spool.adopt(spool.path, ignored)
    assert (await read(former), former.damaged) == (ALL[30:], 1)
    await former.move_aside("seen")


async def test_a_spool_that_died_before_its_first_record_is_removed(tmp_path: Path) -> None:
    folder = Folder.begin(tmp_path, 1)
    folder.publish()
    folder.release()
    (folder.path / "records" / "MANIFEST-000001").touch()
    former = await adopted(tmp_path)
    assert former.depth == 0
    await former.end()
    assert visible(tmp_path) == []


async def test_a_record_damaged_after_the_start_hides_no_later_record(tmp_path: Path) -> None:
    spool = await Spool.open(tmp_path, unexpected)
    await append(spool, 1, 40, 100_000)
    await spool.end()
    told: list[str] = []
    former = await Spool.adopt(abandoned_folders(tmp_path)[0], told.append)
    (table,) = (former.path / "records").glob("*.sst")
    flip(table, table.read_bytes().index(record(11, 100_000).message.value))
    assert await read(former) == [number for number in range(1, 41) if number != 11]
    assert (former.closed, told, former.damaged, former.depth) == ("corrupt", ["corrupt"], 1, 39)
    former.delete(range(1, 41))
    await former.end()
    assert visible(tmp_path / "aside") == [f"{former.path.name}"]


async def test_a_gap_in_the_numbers_is_damage_and_hides_no_later_record(tmp_path: Path) -> None:
    folder = by_hand(tmp_path, [(1, encode(1, record(1))), (3, encode(4, record(4))), (5, encode(5, record(5)))])
    former = await Spool.adopt(folder, ignored)
    assert (former.closed, former.damaged, await read(former)) == ("corrupt", 3, [1, 5])
    await former.end()
    assert abandoned_folders(tmp_path) == [folder]


async def test_a_folder_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    folder = by_hand(tmp_path, [(1, encode(1, record(1))), (2, as_version(VERSION + 1, encode(2, record(2))))])
    with pytest.raises(NewerVersion, match="version 2"):
        await Spool.adopt(folder, unexpected)
    assert abandoned_folders(tmp_path) == [folder]


async def test_one_process_adopts_a_folder_and_the_other_is_refused(tmp_path: Path) -> None:
    spool = await Spool.open(tmp_path, unexpected)
    await append(spool, 1, 3)
    assert abandoned_folders(tmp_path) == []
    with pytest.raises(FolderInUse):
        await Spool.adopt(spool.path, unexpected)
    await spool.end()
    former = await adopted(tmp_path)
    with pytest.raises(FolderInUse):
        await Spool.adopt(former.path, unexpected)
    await former.end()


async def test_of_processes_that_start_at_once_each_folder_is_adopted_by_one(tmp_path: Path) -> None:
    for first in (1, 11, 21):
        spool = await Spool.open(tmp_path, unexpected)
        await append(spool, first, 10)
        await spool.end()
    runs = await asyncio.gather(*(asyncio.to_thread(said, "drain", parent=str(tmp_path)) for _ in range(3)))
    assert sorted(found for lines in runs for found in numbers(lines, "read")) == list(range(1, 31))
    assert visible(tmp_path) == []


async def test_adopting_a_removed_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderInUse):
        await Spool.adopt(tmp_path / "0000000000000001-gone", unexpected)


async def test_a_half_made_folder_of_a_dead_process_is_removed_and_of_a_living_one_kept(tmp_path: Path) -> None:
    died, living = Folder.begin(tmp_path, 1), Folder.begin(tmp_path, 2)
    died.release()
    (tmp_path / ".snapshots").mkdir()
    spool = await Spool.open(tmp_path, unexpected)
    assert not died.path.exists()
    assert living.path.exists()
    assert (tmp_path / ".snapshots").exists()
    living.remove()
    await spool.end()


def test_only_spool_folders_are_found_oldest_first(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "0000000000000001-nolock").mkdir()
    Folder.begin(tmp_path, 2).release()
    put_aside = Folder.begin(tmp_path, 3)
    put_aside.publish()
    put_aside.move_aside("fsync")
    later, sooner = Folder.begin(tmp_path, 5), Folder.begin(tmp_path, 4)
    for folder in (later, sooner):
        folder.publish()
        folder.release()
    assert abandoned_folders(tmp_path) == [sooner.path, later.path]
    assert abandoned_folders(tmp_path / "absent") == []


async def test_a_spool_put_aside_keeps_its_records(tmp_path: Path) -> None:
    spool = await Spool.open(tmp_path, unexpected)
    name = spool.path.name
    await append(spool, 1, 3)
    await spool.move_aside("fsync")
    assert spool.path == tmp_path / "aside" / f"{name}-fsync"
    assert abandoned_folders(tmp_path) == []
    former = await Spool.adopt(spool.path, unexpected)
    assert await read(former) == [1, 2, 3]
    await former.end()


async def test_a_folder_that_cannot_be_made_is_reported_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match=r"file: (Not a directory|File exists)"):
        await Spool.open(tmp_path / "file", unexpected)


def unexpected(reason: str) -> None:
    raise AssertionError(reason)


def ignored(_: str) -> None:
    """For a spool that is known to be damaged."""


def kept_by(spool: Spool, record: Spooled) -> asyncio.Future[bool]:
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    spool.append(record, told.set_result)
    return told


async def append(spool: Spool, first: int, count: int, size_bytes: int | None = None) -> None:
    """Records with these numbers, if the spool was empty."""
    coming = (record(number, size_bytes) for number in range(first, first + count))
    assert all(await asyncio.gather(*(kept_by(spool, one) for one in coming)))


async def read(spool: Spool, most: int = 10**6, size_bytes: int = PLENTY) -> list[int]:
    return [number for number, _ in await spool.oldest(most, size_bytes)]


async def adopted(parent: Path) -> Spool:
    (folder,) = abandoned_folders(parent)
    return await Spool.adopt(folder, unexpected)


def by_hand(parent: Path, records: list[tuple[int, bytes]]) -> Path:
    folder = Folder.begin(parent, 1)
    folder.publish()
    written = Records(folder.path)
    written.commit(records)
    written.close()
    folder.release()
    return folder.path


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def log_of(folder: Path) -> Path:
    (log,) = (folder / "records").glob("*.log")
    return log


def flip(file: Path, at: int) -> None:
    with file.open("r+b") as raw:
        raw.seek(at)
        byte = raw.read(1)[0]
        raw.seek(at)
        raw.write(bytes([byte ^ 1]))
