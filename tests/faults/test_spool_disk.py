"""A spool on a lying, full or hanging disk reports no unkept record as kept, and delays no other work.

Every run is a process of its own under strace, which fails or delays its system calls and writes down their order.
"""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from services.adapters.spool import Spool, SpoolError
from tests.faults.spool_subject import numbers, record, said
from tests.integration.test_spool import adopted, append, kept_by, read, unexpected

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None or os.geteuid() != 0, reason="strace and root are needed to betray a disk"
)

CALLS: Final = "fsync,fdatasync,write,writev,rename,mkdir"
LATE_MS: Final = 700
"""Far below a delay of two seconds, and far above what two busy cores need."""


def test_no_record_is_reported_kept_before_its_sync(tmp_path: Path) -> None:
    _, calls = betrayed(tmp_path, records=30, in_flight=1)
    order = [_step(call) for call in calls if _step(call)]
    assert order[:90] == ["write", "sync", "kept"] * 30


def test_the_names_of_a_new_folder_are_synced_before_its_first_record(tmp_path: Path) -> None:
    _, calls = betrayed(tmp_path / "new", records=1, in_flight=1)
    order = "\n".join(before('"kept', calls))
    folder = r'mkdir\("\S+/(\.\d+-\w+)/records".*fsync\(\d+<\S+/\1>\).*rename\("\S+/\1".*fsync\(\d+<\S+/new>\)'
    log = r".*write\(\d+<\S+\.log>.*fdatasync\(\d+<\S+\.log>.*fsync\(\d+<\S+/records>\)"
    assert re.search(folder + log, order, re.DOTALL), order


@pytest.mark.parametrize(("call", "after"), [("fdatasync", 1), ("fdatasync", 4), ("fsync", 1)])
def test_after_a_failed_sync_no_record_is_kept_and_no_sync_is_retried(call: str, after: int, tmp_path: Path) -> None:
    _, calls = betrayed(tmp_path / "count", records=1, in_flight=1)
    fatal = counted(call, before('"open', calls)) + after
    lines, calls = betrayed(tmp_path / "run", f"{call}:error=EIO:when={fatal}", records=100, in_flight=3)

    kept, refused = numbers(lines, "kept"), numbers(lines, "refused")
    assert (bool(kept), bool(refused)) == (after > 1, True)
    assert [line for line in lines if line.startswith(("closed", "later"))] == ["closed fsync", "later 0"]
    assert numbers(lines, "read") == kept

    failed = len(before("(INJECTED)", calls))
    assert not [each for each in calls[failed + 1 :] if each.startswith(("fsync(", "fdatasync("))]
    assert not [each for each in calls[failed + 1 :] if each.startswith("write(") and "/LOG>" not in each]

    again = said("drain", parent=str(tmp_path / "run"))
    assert "damaged 0" in again
    assert set(kept) <= set(numbers(again, "read")) <= {*kept, *refused}


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_slow_disk_delays_spooled_records_only(call: str, tmp_path: Path) -> None:
    _, calls = betrayed(tmp_path / "count", records=1, in_flight=1)
    first = counted(call, before(".log>", calls)) + 1
    lines, calls = betrayed(tmp_path / "run", f"{call}:delay_enter=2000000:when={first}+", records=2, in_flight=1)
    assert sum("(DELAYED)" in each and ".log>" in each for each in calls) >= 2
    assert numbers(lines, "kept") == numbers(lines, "read") == [1, 2]
    assert max(numbers(lines, "late_ms")) < LATE_MS


async def test_a_full_disk_closes_the_spool_and_keeps_every_kept_record(disk: Path) -> None:
    told: list[str] = []
    spool = await Spool.open(disk / "spools", told.append)
    # What comes at once may reach the disk as one write, which fails as one: a part comes first, and fits.
    reports = await asyncio.gather(*(kept_by(spool, record(number, 10_000)) for number in range(1, 101)))
    assert all(reports)
    reports += await asyncio.gather(*(kept_by(spool, record(number, 10_000)) for number in range(101, 1001)))
    kept = sum(reports)
    assert reports == [True] * kept + [False] * (1000 - kept)
    assert (spool.closed, told, await kept_by(spool, record(1))) == ("full", ["full"], False)
    assert await read(spool) == list(range(1, kept + 1))
    spool.delete([1, 2])
    assert (await read(spool, most=2), spool.depth) == ([3, 4], kept - 2)
    await spool.end()

    fill(disk)
    with pytest.raises(SpoolError, match="No space left on device"):
        await Spool.open(disk / "spools", unexpected)
    with pytest.raises(SpoolError, match="No space left on device"):
        await adopted(disk / "spools")
    mount(disk, "remount,size=64m")
    former = await adopted(disk / "spools")
    assert await read(former) == list(range(1, kept + 1))
    await former.end()


async def test_a_read_only_disk_is_reported_in_one_sentence(disk: Path) -> None:
    spool = await Spool.open(disk / "spools", unexpected)
    await append(spool, 1, 3)
    await spool.end()
    mount(disk, "remount,ro")
    with pytest.raises(SpoolError, match=r"spools: Read-only file system$"):
        await Spool.open(disk / "spools", unexpected)
    with pytest.raises(SpoolError, match="Read-only file system"):
        await adopted(disk / "spools")
    mount(disk, "remount,rw")
    former = await adopted(disk / "spools")
    assert await read(former) == [1, 2, 3]
    await former.end()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes."""
    mount(tmp_path, "size=3m")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def mount(mount_point: Path, how: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", mount_point], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def before(word: str, calls: list[str]) -> list[str]:
    return calls[: next(at for at, call in enumerate(calls) if word in call)]


def counted(name: str, calls: list[str]) -> int:
    return sum(call.startswith(f"{name}(") for call in calls)


def betrayed(parent: Path, fault: str = "", **subject: Any) -> tuple[list[str], list[str]]:
    """Output of a subject under a fault, and its system calls in their order."""
    log = parent.with_name(f"{parent.name}.strace")
    under = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-s", "12", "-o", str(log), "-e", f"trace={CALLS}"]
    if fault:
        under += ["-e", f"inject={fault}"]
    lines = said("keep", under=under, parent=str(parent), **subject)
    return lines, [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]


def _step(call: str) -> str:
    if '"kept' in call:
        return "kept"
    if ".log>" not in call:
        return ""
    return "sync" if call.startswith("fdatasync(") else "write"
