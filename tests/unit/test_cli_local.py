"""`lifecycle status`, `logs`, `restart` and `down` where no `up` runs; growing logs, and reused process ids."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, cast

import pytest

from services.cli.exits import CommandError, Exit
from services.cli.local.logs import _follow, _last_lines
from services.cli.local.process_file import FILE, ProcessFile, SupervisedProcess, find_up, orphans, process_info
from tests.unit.test_cli_commands import lifecycle


@pytest.mark.parametrize("words", [("status",), ("restart", "ledger"), ("down",), ("logs", "ledger")], ids=" ".join)
def test_a_missing_state_folder_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    done = lifecycle(*words, "--state-dir", "nope", cwd=tmp_path)
    assert done.returncode == Exit.UNUSABLE
    assert "--state-dir: nope: no such folder" in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("status",), Exit.UNREACHABLE, "nothing runs in"),
        (("restart", "ledger"), Exit.UNREACHABLE, "nothing runs in"),
        (("logs", "ledger"), Exit.UNUSABLE, "nothing was ever started here"),
        (("down",), Exit.OK, "nothing runs in"),
        (("down", "--timeout", "soon"), Exit.UNUSABLE, "--timeout: 'soon'"),
    ],
)
def test_each_command_reports_that_no_up_runs(words: tuple[str, ...], status: Exit, said: str, tmp_path: Path) -> None:
    done = lifecycle(*words, "--state-dir", ".", cwd=tmp_path)
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_up_with_prometheus_starts_nothing_where_it_is_not_installed(tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    done = lifecycle("up", "--observe", "--state-dir", "state", cwd=tmp_path, PATH=str(empty))
    assert done.returncode == Exit.UNREACHABLE, done.stderr
    assert "prometheus is not installed here" in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("TENANTS_FILE", None, "No such file"),
        ("TENANTS_FILE", "[]", "must be a JSON object"),
        ("PLAN_FILE", None, "No such file"),
        ("PLAN_FILE", "[[step]]\nname = 1", "step 1"),
    ],
)
def test_an_up_whose_provisioner_could_not_start_starts_nothing(
    name: str, content: str | None, said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "given").write_text(content)
    done = lifecycle("up", "--state-dir", "state", cwd=tmp_path, **{name: "given", "PYTHONPATH": str(Path.cwd())})
    assert done.returncode == Exit.UNUSABLE, done.stderr
    assert f"{name}: given: " in done.stderr
    assert said in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    "words", [("orgs", "list"), ("tenants", "list"), ("orgs", "list", "--state-dir", ".lifecycle")], ids=" ".join
)
def test_a_command_beside_an_up_that_starts_says_so(words: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / ".lifecycle"
    folder.mkdir()
    ProcessFile(folder)
    done = lifecycle(*words, cwd=tmp_path, PYTHONPATH=str(Path.cwd()))
    assert done.returncode == Exit.UNREACHABLE, done.stdout + done.stderr
    assert "`lifecycle up` in .lifecycle is still starting" in done.stderr


def test_the_doctor_beside_an_up_that_starts_says_so(tmp_path: Path) -> None:
    folder = tmp_path / ".lifecycle"
    folder.mkdir()
    ProcessFile(folder)
    doctor = lifecycle("doctor", "--json", cwd=tmp_path, PYTHONPATH=str(Path.cwd()))
    (found,) = [one for one in json.loads(doctor.stdout) if one["what"] == "up"]
    assert "is still starting" in found["detail"]


def test_a_running_up_is_found_and_a_killed_up_is_not(tmp_path: Path) -> None:
    roll = ProcessFile(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        roll.use_source(lambda: {"one": SupervisedProcess(process.pid, "one.log", 2)})
        found = find_up(tmp_path)
        assert found is not None
        assert (found.up.pid, found.ready) == (os.getpid(), False)
        seen = found.process_of("one")
        assert seen is not None
        assert (seen.pid, seen.parent) == (process.pid, os.getpid())
        assert 0 <= seen.age_s < 60
        assert orphans(tmp_path) == [process.pid]
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    assert found.process_of("one") is None
    assert orphans(tmp_path) == []
    told = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(told | {"began": told["began"] - 1}))
    assert find_up(tmp_path) is None, "the id is used again by another process"
    roll.withdraw()
    assert find_up(tmp_path) is None


def test_a_child_of_another_process_is_not_taken_for_a_service(tmp_path: Path) -> None:
    ProcessFile(tmp_path).use_source(lambda: {"one": SupervisedProcess(1, "one.log", 0)})
    found = find_up(tmp_path)
    assert found is not None
    assert process_info(1) is not None
    assert found.process_of("one") is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"processes": {"a": {}}, "pid": 1, "began": 1, "ready": true}'])
def test_a_foreign_process_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CommandError, match=FILE) as refused:
        find_up(tmp_path)
    assert refused.value.status is Exit.UNUSABLE


@pytest.mark.parametrize("count", [0, 1, 3, 5_000, 20_000])
def test_the_last_lines_of_a_log_of_any_length_are_read(count: int, tmp_path: Path) -> None:
    lines = [f"{number} {'x' * (number % 97)}".encode() for number in range(10_000)]
    path = tmp_path / "one.log"
    path.write_bytes(b"\n".join(lines) + b"\n")
    with path.open("rb") as file:
        assert _last_lines(file, count) == (lines[-count:] if count else [])
        assert file.read() == b""


class _Replaced:
    """The path of a log that is replaced after every look, and is absent at every third look."""

    def __init__(self, folder: Path, count: int) -> None:
        self._paths = [folder / str(number) for number in range(count)]
        for number, path in enumerate(self._paths):
            path.write_text(f"line {number}\n")
        self._looks = 0

    def exists(self) -> bool:
        return True

    def stat(self) -> os.stat_result:
        return self._next().stat()

    def open(self, mode: str) -> IO[bytes]:
        assert mode == "rb"
        return self._next().open("rb")

    def _next(self) -> Path:
        self._looks += 1
        if self._looks % 3 == 0 or not self._paths:
            raise FileNotFoundError
        return self._paths.pop(0)


def test_a_log_replaced_again_and_again_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, said = 1_500, list[str]()

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            said.extend(line for line in text.split("\n") if line)
            if len(said) == count + 1:
                raise BrokenPipeError  # the only end of a follower
            return len(text)

    monkeypatch.setattr(sys, "stdout", Screen())
    monkeypatch.setattr("time.sleep", lambda _: None)
    first = tmp_path / "first"
    first.write_text("line\n")
    with first.open("rb") as file, pytest.raises(BrokenPipeError):
        _follow(cast("Path", _Replaced(tmp_path, count)), file, pretty=False)
    assert said == ["line", *(f"line {number}" for number in range(count))]


def test_a_closed_pipe_behind_logs_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "ledger.log").write_text("a line of a log\n" * 20_000)
    words = [sys.executable, "-m", "services.cli.main", "logs", "ledger", "-n", "20000", "--state-dir", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (Exit.OK, b"")


def test_a_signal_during_output_ends_up(tmp_path: Path) -> None:
    program = (
        "import os, signal\n"
        "from services.cli import show\n"
        "from services.cli.local.up import interruptible\n"
        "with interruptible(), show._lock:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.stderr.startswith(b"stopping\n")
    assert b"KeyboardInterrupt" in done.stderr


ROOT = Path(__file__).parents[2]
