"""Children of a child: none outlives the request to end."""

import os
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


def test_children_of_a_leader_that_ends_as_asked_are_killed(tmp_path: Path) -> None:
    leader, grandchild = _started(tmp_path, "time.sleep(600)")
    assert leader.stop(10) == -15
    eventually(lambda: process_info(grandchild) is None)
