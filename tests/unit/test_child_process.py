"""Children of a child process: none outlives the request to end."""

import gc
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.cli.local.process_file import process_info
from services.engines.child_process import Child, start
from tests.support.eventually import eventually

_LEADER = """
import subprocess, sys, time
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
{rest}
"""


def _started(folder: Path, rest: str) -> tuple[Child, int]:
    """Returns a child, and the id of the child's own child."""
    log = folder / "log"
    leader = start([sys.executable, "-c", _LEADER.format(rest=rest)], env=os.environ, log_path=log)
    return leader, int(eventually(lambda: log.exists() and log.read_text().strip()))


@pytest.mark.parametrize("end", [lambda leader: leader.stop(10), lambda leader: leader.kill()], ids=["stop", "kill"])
def test_children_of_an_ended_leader_are_killed(end: Callable[[Child], int], tmp_path: Path) -> None:
    leader, grandchild = _started(tmp_path, "raise SystemExit(3)")
    assert leader.wait(30) == 3
    assert process_info(grandchild) is not None
    assert end(leader) == 3
    eventually(lambda: process_info(grandchild) is None)
    assert end(leader) == 3, "once more does no harm"


def test_the_id_of_an_ended_leader_goes_to_nobody_before_its_children_are_killed(tmp_path: Path) -> None:
    leader = start(["true"], env=os.environ, log_path=tmp_path / "log")
    assert leader.wait(30) == leader.poll() == 0
    assert Path(f"/proc/{leader.pid}").exists()
    assert leader.stop(10) == leader.poll() == 0
    assert not Path(f"/proc/{leader.pid}").exists()


def test_a_stranger_that_has_the_id_of_an_ended_leader_is_not_killed(tmp_path: Path) -> None:
    leader = start(["true"], env=os.environ, log_path=tmp_path / "log")
    (tmp_path / "stranger").mkdir()
    stranger, member = _started(tmp_path / "stranger", "raise SystemExit(0)")
    watched, ends = os.pidfd_open(member), select.poll()
    ends.register(watched)
    try:
        assert leader.stop(10) in {0, -15}
        stranger._process.wait()  # ends, and its group stays
        leader._process.pid = stranger.pid  # as if the kernel's numbers had begun anew
        leader.stop(10)
        leader.kill()
        assert not ends.poll(500)
    finally:
        os.kill(member, signal.SIGKILL)
        os.close(watched)


def test_an_ended_leader_whom_nobody_asked_to_end_is_forgotten_in_silence(tmp_path: Path) -> None:
    leader = start(["true"], env=os.environ, log_path=tmp_path / "log")
    pid = leader.pid
    assert leader.wait(30) == 0
    del leader  # a warning would be an error
    assert not Path(f"/proc/{pid}").exists()


def test_an_ended_leader_in_a_cycle_of_references_is_forgotten_in_silence(tmp_path: Path) -> None:
    class Owner:
        leader: Child
        owner: "Owner"

    owner = Owner()
    owner.owner = owner
    owner.leader = start(["true"], env=os.environ, log_path=tmp_path / "log")
    pid = owner.leader.pid
    assert owner.leader.wait(30) == 0
    del owner
    gc.collect()  # finalizes in any order; a warning would be an error
    assert not Path(f"/proc/{pid}").exists()


def test_a_wait_that_is_too_short_says_so(tmp_path: Path) -> None:
    leader = start(["sleep", "600"], env=os.environ, log_path=tmp_path / "log")
    assert leader.wait(0.1) is leader.poll() is None
    assert leader.kill() == -9


def test_children_of_a_leader_that_ends_on_request_are_killed(tmp_path: Path) -> None:
    leader, grandchild = _started(tmp_path, "time.sleep(600)")
    assert leader.stop(10) == -15
    eventually(lambda: process_info(grandchild) is None)
