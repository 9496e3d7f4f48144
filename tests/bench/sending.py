"""Runs the open-loop sender beside us, so that something can be done to the servers while it sends."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.bench.openloop import BEGUN, Answers, Plan

_BESIDES_S: Final = 60.0
"""For opening its connections and telling what it found."""


@dataclass(frozen=True, slots=True)
class OpenLoopSender:
    """One that sends."""

    process: "subprocess.Popen[str]"
    plan: Plan

    def answers(self) -> Answers:
        """The results of the deliveries; waits for the last."""
        told, _ = self.process.communicate(timeout=self.plan.due_s[-1] + self.plan.patience_s + _BESIDES_S)
        assert self.process.returncode == 0, "the sender failed; it says above why"
        return Answers(**json.loads(told))


@contextmanager
def sending(plan: Plan, folder: Path) -> Iterator[OpenLoopSender]:
    """Begin; inside the context its clock runs."""
    file = folder / "plan.json"
    file.write_text(json.dumps(asdict(plan)))
    argv = (sys.executable, "-m", "tests.bench.openloop", str(file))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == BEGUN, "the sender did not begin; it says above why"
            yield OpenLoopSender(process, plan)
        finally:
            process.kill()


def send(plan: Plan, folder: Path) -> Answers:
    """Send, and wait for all answers."""
    with sending(plan, folder) as sender:
        return sender.answers()
