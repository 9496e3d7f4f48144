"""Programs of the operator in real processes: no process, no folder and no secret outlives a call.

The programs name themselves by a word in their arguments, and `/proc` is asked who of that name is there.
"""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.adapters.programs import launcher
from services.adapters.programs.run import Program, ProgramEnd, ProgramResult, Programs
from tests.support.eventually import eventually

SILENCE_S = 20.0
FAMILY = """
import os, signal, subprocess, sys, time
word, folder = sys.argv[1:3]
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 3:
    if sys.argv[3] == "daemon" and os.fork():
        os._exit(0)
    os.setsid()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", word])
else:
    for way in ("session", "daemon"):
        subprocess.Popen([sys.executable, __file__, word, folder, way])
open(os.path.join(folder, "there-" + str(os.getpid())), "w").close()
time.sleep(600)
"""
"""A program that ignores SIGTERM, with a child in a session of its own, a daemon, and a child of each."""
MEMBERS = 5


@pytest.fixture
def word() -> str:
    return f"word-{secrets.token_hex(8)}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "programs"


@pytest.fixture
def family(tmp_path: Path) -> Path:
    path = tmp_path / "family.py"
    path.write_text(FAMILY)
    return path


def alive(word: str) -> list[int]:
    """Processes with a word in their arguments; a zombie has none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        # The word alone: the worker and its launcher have it in their arguments only among others.
        if word.encode() in arguments and b"tests.support.program_worker" not in arguments:
            found.append(int(path.parent.name))
    return found


async def run(folder: Path, *argv: str, given: str = "", timeout_s: float = 20.0, most: int = 1_000) -> ProgramResult:
    programs = Programs(folder, SILENCE_S)
    try:
        return await programs.run(Program(argv, given, {"PATH": "/usr/bin:/bin"}, timeout_s, most), lambda _: None)
    finally:
        await programs.close()


def done(output: bytes) -> ProgramResult:
    return ProgramResult(ProgramEnd.EXITED, 0, output)


def shell(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text)


@contextmanager
def worker(folder: Path, *argv: str, silence_s: float, timeout_s: float = 60.0) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.support.program_worker", str(folder), str(silence_s), str(timeout_s), *argv]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def grown(word: str, folder: Path) -> bool:
    return len(alive(word)) == MEMBERS and len(list(folder.parent.glob("there-*"))) >= MEMBERS - 2


async def test_a_program_reads_its_input_and_answers(folder: Path) -> None:
    assert await run(folder, "cat", given='{"a": "\u00e9"}') == done('{"a": "é"}'.encode())
    assert await run(folder, *shell("exit 211")) == ProgramResult(ProgramEnd.EXITED, 211)
    assert await run(folder, *shell("kill -9 $$")) == ProgramResult(ProgramEnd.SIGNALLED, 9)


async def test_a_long_input_stops_no_program_that_does_not_read_it(folder: Path) -> None:
    assert (await run(folder, "true", given="x" * 5_000_000)).end is ProgramEnd.EXITED
    assert (await run(folder, *shell("wc -c"), given="x" * 5_000_000)).output.strip() == b"5000000"


async def test_nothing_of_this_process_is_inherited(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://canary")
    with (folder.parent / "open").open("w") as opened:
        os.set_inheritable(opened.fileno(), True)
        result = await run(folder, *shell("env; ls -l /proc/self/fd | wc -l; pwd; umask"))
    lines = result.output.decode().splitlines()
    assert {line.partition("=")[0] for line in lines if "=" in line} <= {"PATH", "HOME", "TMPDIR", "PWD", "SHLVL", "_"}
    home = next(line.partition("=")[2] for line in lines if line.startswith("HOME="))
    # A line for the total, input, output, errors, and the folder that `ls` reads.
    assert lines[-3:-1] == ["5", home]
    assert not list(folder.iterdir()), "the working folder is removed"


async def test_each_call_has_a_private_folder_which_is_removed_whatever_became_of_it(folder: Path) -> None:
    found = await asyncio.gather(*(run(folder, *shell("stat -c %a .; pwd; ls -A; touch x")) for _ in range(4)))
    modes, paths, *rest = zip(*(one.output.decode().splitlines() for one in found), strict=True)
    assert set(modes) == {"700"}
    assert len(set(paths)) == 4
    assert not rest
    await run(folder, *shell("mkdir -p a/b; touch a/b/c; chmod 0 a/b a"))
    assert not list(folder.iterdir())


async def test_no_descriptor_and_no_zombie_is_left(folder: Path, tmp_path: Path) -> None:
    async def some() -> tuple[int, int]:
        programs = Programs(folder, SILENCE_S)
        ways = (("true",), ("/no/such",), ("yes",), shell("kill -9 0"), shell("exit 3"))
        runs = [Program(argv, "x", {"PATH": "/usr/bin:/bin"}, 20, 10) for argv in ways]
        await asyncio.gather(*(programs.run(program, lambda _: None) for program in runs))
        task = asyncio.create_task(programs.run(Program(("cat",), "", {"PATH": "/bin"}, 20, 10), lambda _: None))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await programs.close()
        await asyncio.sleep(0)
        return len(list(Path("/proc/self/fd").iterdir())), len(launcher._children())

    await some()
    before = await some()
    assert [await some() for _ in range(3)] == [before] * 3


async def test_a_program_that_does_not_exist_is_named_and_nothing_runs(folder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x")
    for program, why in (
        ("/no/such", "No such file"),
        (str(plain), "Permission denied"),
        (str(tmp_path), "Permission"),
    ):
        result = await run(folder, program)
        assert result.end is ProgramEnd.NOT_STARTED
        assert why in result.why


async def test_a_folder_that_cannot_be_made_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = await run(tmp_path / "file" / "below", "true")
    assert result.end is ProgramEnd.UNABLE


async def test_the_time_limit_ends_the_program_with_every_descendant(folder: Path, family: Path, word: str) -> None:
    task = asyncio.create_task(run(folder, sys.executable, str(family), word, str(family.parent), timeout_s=8.0))
    await asyncio.to_thread(eventually, lambda: grown(word, folder))
    assert (await task).end is ProgramEnd.TIMED_OUT
    assert not alive(word)
    assert not list(folder.iterdir())


async def test_a_program_may_tidy_up_after_sigterm(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    result = await run(folder, *shell(f"trap 'echo tidy >{mark}; exit 0' TERM; sleep 60 & wait"), timeout_s=4.0)
    assert result.end is ProgramEnd.TIMED_OUT, "what it says after its time is believed of nobody"
    assert mark.read_text() == "tidy\n"


async def test_what_a_program_leaves_running_ends_with_it(folder: Path, family: Path, word: str) -> None:
    python = f"{sys.executable} {family} {word} {family.parent}"
    ready = f'while [ "$(ls {family.parent}/there-* 2>/dev/null | wc -l)" -lt 3 ]; do sleep 0.05; done'
    result = await run(folder, *shell(f"{python} & {ready}; exit 3"))
    assert (result.end, result.status) == (ProgramEnd.EXITED, 3)
    assert not alive(word)


async def test_too_much_output_ends_the_program_and_errors_without_end_do_not_stop_it(folder: Path, word: str) -> None:
    assert (await run(folder, "yes", word)).end is ProgramEnd.TOO_MUCH
    assert not alive(word)
    result = await run(folder, *shell("head -c 3000000 /dev/zero >&2; head -c 1000 /dev/zero"))
    assert (result.end, len(result.output)) == (ProgramEnd.EXITED, 1_000)


async def test_lines_of_standard_error_are_passed_on_one_by_one_and_long_ones_are_cut(folder: Path) -> None:
    lines: list[bytes] = []
    programs = Programs(folder, SILENCE_S)
    text = "printf 'a\\n\\nb' >&2; sleep 0.2; printf 'c\\nd\\n' >&2; head -c 100000 /dev/zero >&2; printf '\\nlast' >&2"
    await programs.run(Program(shell(text), "", {"PATH": "/usr/bin:/bin"}, 20, 10), lines.append)
    assert lines[:4] == [b"a", b"", b"bc", b"d"]
    assert lines[-1] == b"last"
    assert 0 < max(map(len, lines)) <= 8_192
    await programs.close()


async def test_a_cancelled_call_ends_its_program(folder: Path, family: Path, word: str) -> None:
    task = asyncio.create_task(run(folder, sys.executable, str(family), word, str(family.parent)))
    await asyncio.to_thread(eventually, lambda: grown(word, folder))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(word)
    assert not list(folder.iterdir())


async def test_nothing_starts_without_leave_and_a_program_ends_once_the_leave_is_over(
    folder: Path, family: Path, word: str, tmp_path: Path
) -> None:
    programs, leave = Programs(folder, 1.0), [False]
    environment = {"PATH": "/usr/bin:/bin"}
    touch = Program(("touch", str(tmp_path / "mark")), "", environment, 20, 10)
    assert (await programs.run(touch, lambda _: None, may_act=lambda: leave[0])).end is ProgramEnd.LATE
    leave[0] = True
    program = Program((sys.executable, str(family), word, str(tmp_path)), "", environment, 60, 10)
    task = asyncio.create_task(programs.run(program, lambda _: None, may_act=lambda: leave[0]))
    await asyncio.to_thread(eventually, lambda: grown(word, folder))
    leave[0] = False
    assert (await task).end is ProgramEnd.LOST
    await programs.close()
    assert not alive(word)
    assert not (tmp_path / "mark").exists()


async def test_a_killed_launcher_leaves_its_group_to_the_service(folder: Path, word: str) -> None:
    text = f"sh -c 'sleep 600; true' {word} & kill -9 $PPID; sleep 600; true"
    assert (await run(folder, "sh", "-c", text, word)).end is ProgramEnd.LOST
    assert not list(folder.iterdir())
    await asyncio.to_thread(eventually, lambda: not alive(word))


def test_a_worker_killed_by_sigkill_leaves_no_process_and_no_folder(folder: Path, family: Path, word: str) -> None:
    with worker(folder, sys.executable, str(family), word, str(family.parent), silence_s=SILENCE_S) as process:
        eventually(lambda: grown(word, folder))
        process.kill()
        process.wait()
        eventually(lambda: not alive(word))
        eventually(lambda: not list(folder.iterdir()))


def test_a_stopped_worker_ends_its_program_and_believes_nothing_of_it(folder: Path, family: Path, word: str) -> None:
    with worker(folder, sys.executable, str(family), word, str(family.parent), silence_s=2.0) as process:
        eventually(lambda: grown(word, folder))
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: not alive(word))
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.read().split() == ["begun", "lost"]


def test_a_launcher_starts_nothing_for_a_worker_that_stood_still(tmp_path: Path) -> None:
    """The stop falls between the call and the program: the time is the call's, not the launcher's."""
    mark, reading, result = tmp_path / "mark", *os.pipe()
    order = {
        "argv": ["touch", str(mark)], "input": "", "environment": {"PATH": "/usr/bin:/bin"}, "folder": str(tmp_path),
        "begun_s": time.clock_gettime(time.CLOCK_BOOTTIME) - 9, "end_s": time.clock_gettime(time.CLOCK_BOOTTIME) + 9,
        "grace_s": 1, "silence_s": 5,
    }  # fmt: skip
    command = [sys.executable, "-I", "-S", "-B", launcher.__file__, str(result)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(result,), start_new_session=True)
    os.close(result)
    process.communicate(json.dumps(order).encode() + b"\n", 20)
    with os.fdopen(reading) as told:
        assert json.loads(told.read())["end"] == "late"
    assert not mark.exists()


@pytest.mark.parametrize("order", [b"", b'{"argv":'])
def test_a_worker_that_dies_before_its_order_is_whole_starts_nothing(order: bytes) -> None:
    reading, result = os.pipe()
    command = [sys.executable, "-I", "-S", "-B", launcher.__file__, str(result)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(result,), start_new_session=True)
    os.close(result)
    process.communicate(order, 20)
    with os.fdopen(reading) as told:
        assert told.read() == ""
    assert process.returncode == 0
