"""The supervisor and processes that end: real processes, real signals."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.local.supervisor import Supervisor, restart_delay_s, status_text
from services.engines import child_process
from tests.support.eventually import eventually


class Program:
    """A Python one-liner as a supervised process."""

    def __init__(self, folder: Path, name: str, code: str) -> None:
        self.log_path = folder / f"{name}.log"
        self._argv = (sys.executable, "-c", code)
        self._child: child_process.Child | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def start(self) -> None:
        self._child = child_process.start(self._argv, env=dict(os.environ), log_path=self.log_path)

    def poll(self) -> int | None:
        return self._child.poll() if self._child else None

    def stop(self, timeout_s: float) -> None:
        if self._child:
            self._child.stop(timeout_s)


_FOREVER = "import time\nwhile True: time.sleep(1)"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def changes() -> list[None]:
    return []


@pytest.fixture
def supervisor(told: list[str], changes: list[None]) -> Iterator[Supervisor]:
    one = Supervisor(told.append, lambda: changes.append(None))
    yield one
    one.stop(5)


def test_a_killed_process_is_restarted_at_once_and_its_new_id_reported(
    tmp_path: Path, supervisor: Supervisor, told: list[str], changes: list[None]
) -> None:
    supervisor.add("steady", Program(tmp_path, "steady", _FOREVER))
    first = supervisor.pids()["steady"]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: supervisor.pids()["steady"] != first)
    assert eventually(lambda: len(changes)) == 1
    assert "steady was ended by SIGKILL" in told[0]
    assert "at once" in told[0]


def test_a_process_that_ends_repeatedly_is_reported_with_status_and_last_line(
    tmp_path: Path, supervisor: Supervisor, told: list[str]
) -> None:
    supervisor.add("sick", Program(tmp_path, "sick", "print('PORT: missing'); raise SystemExit(2)"))
    eventually(lambda: supervisor.deaths["sick"] >= 3)
    assert "sick ended with exit status 2" in told[0]
    assert "PORT: missing" in told[0]
    assert "in 0.5 s" in told[1]


def test_a_process_that_cannot_be_started_is_retried(tmp_path: Path, supervisor: Supervisor, told: list[str]) -> None:
    class Gone(Program):
        starts = 0

        def start(self) -> None:
            self.starts += 1
            if self.starts == 2:
                self._child = None
                raise OSError("no memory")
            super().start()

    supervisor.add("gone", Gone(tmp_path, "gone", _FOREVER))
    os.kill(supervisor.pids()["gone"], signal.SIGKILL)
    eventually(lambda: supervisor.deaths["gone"] == 2)
    assert any("gone did not start: no memory" in text for text in told)
    eventually(lambda: supervisor.pids().get("gone"))


class _Died(Program):
    """Ends when the test says so, with whatever status; its log is nowhere."""

    starts = 0
    status: int | None = None

    @property
    def pid(self) -> int | None:
        return self.starts or None

    def start(self) -> None:
        self.starts += 1
        self.status = None

    def poll(self) -> int | None:
        return self.status


@pytest.mark.parametrize("status", [1, -35], ids=["no log", "a signal without a name"])
def test_an_odd_exit_status_does_not_end_the_supervisor(
    status: int, tmp_path: Path, supervisor: Supervisor, told: list[str]
) -> None:
    program = _Died(tmp_path, "odd", "")
    supervisor.add("odd", program)
    for starts in (2, 3):
        program.status = status
        eventually(lambda starts=starts: program.starts == starts)  # type: ignore[misc]  # bound per turn
    assert len(told) == 2


def test_a_failed_write_of_process_ids_is_reported_and_the_supervisor_continues(
    tmp_path: Path, told: list[str]
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    supervisor = Supervisor(told.append, full)
    program = _Died(tmp_path, "full", "")
    supervisor.add("full", program)
    for starts in (2, 3):
        program.status = -signal.SIGKILL
        eventually(lambda starts=starts: program.starts == starts)  # type: ignore[misc]  # bound per turn
    assert any("No space left on device" in text for text in told)
    supervisor.stop(5)


def test_process_ids_are_written_while_a_process_is_added(tmp_path: Path, supervisor: Supervisor) -> None:
    class Adding(_Died):
        @property
        def pid(self) -> int | None:
            # In the watcher's thread nothing is added: the main thread adds, in the middle of its own question.
            if self.starts and threading.current_thread() is threading.main_thread():
                supervisor.add(f"late {len(supervisor.deaths)}", _Died(tmp_path, "late", ""))
            return self.starts or None

    supervisor.add("early", Adding(tmp_path, "early", ""))
    assert supervisor.pids() == {"early": 1}
    assert supervisor.pids() == {"early": 1, "late 1": 1}


def test_stopping_ends_processes_in_reverse_order_and_restarts_none(tmp_path: Path, told: list[str]) -> None:
    ends: list[str] = []

    class Noted(Program):
        def stop(self, timeout_s: float) -> None:
            ends.append(self.log_path.stem)
            super().stop(timeout_s)

    supervisor = Supervisor(told.append, lambda: None)
    programs = [Noted(tmp_path, name, _FOREVER) for name in ("first", "second", "third")]
    for program in programs:
        supervisor.add(program.log_path.stem, program)
    supervisor.stop(5)
    assert ends == ["third", "second", "first"]
    assert all(program.poll() is not None for program in programs)
    assert told == []


def test_a_process_that_ignores_sigterm_is_killed_in_time(tmp_path: Path) -> None:
    deaf = (
        "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('deaf', flush=True)\nwhile True: time.sleep(1)"
    )
    supervisor = Supervisor(lambda _: None, lambda: None)
    program = Program(tmp_path, "deaf", deaf)
    supervisor.add("deaf", program)
    eventually(lambda: "deaf" in program.log_path.read_text())
    stopper = threading.Thread(target=supervisor.stop, args=(1,))
    stopper.start()
    stopper.join(10)
    assert program.poll() == -signal.SIGKILL


def test_the_restart_delay_grows_with_every_early_death_up_to_a_cap() -> None:
    assert [restart_delay_s(deaths) for deaths in range(9)] == [0, 0, 0.5, 1, 2, 4, 8, 15, 15]
    assert restart_delay_s(10_000) == 15


def test_an_exit_status_is_described_in_words() -> None:
    assert status_text(2) == "exit status 2"
    assert status_text(-signal.SIGKILL) == "SIGKILL"
    assert status_text(-35) == "signal 35"
