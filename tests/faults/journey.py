"""Kills the ledger and the provisioner at random while organisations storm in, and judges what is left.

Run the long form with `python -m tests.faults.journey --seeds 10 --orgs 500`; a seed names its kills exactly, their
effect depends on the machine.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from services.cli.demo.demo import story_context
from services.cli.demo.scene import Scene
from services.cli.demo.stories.burst import burst
from services.cli.local.stack import Stack, stack
from services.cli.show import say

_VICTIMS = ("ledger", "provisioner")
_PAUSE_S = (0.3, 4.0)


@dataclass
class Killer:
    """Kills at random moments until it has killed enough, or is told that it is over."""

    built: Stack
    seed: int
    kills: int
    done: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        chance = random.Random(self.seed)
        while len(self.done) < self.kills and not self.over.wait(chance.uniform(*_PAUSE_S)):
            victim = chance.choice(_VICTIMS)
            try:
                os.kill(self.built.supervisor.pids()[victim], signal.SIGKILL)
            except ProcessLookupError:
                continue  # it is between two lives
            self.done.append(victim)


def play(seed: int, orgs: int, kills: int) -> list[str]:
    """One burst under kills; what was not as it should be. The state folder of a bad end is kept, and named."""
    state_dir = Path(tempfile.mkdtemp(prefix=f"lifecycle-kills-{seed}-"))
    state_dir.chmod(0o711)
    with stack(state_dir, dict(os.environ), report=say) as built, story_context(built, orgs) as where:
        scene, killer = Scene(where, f"k{seed}"), Killer(built, seed, kills)
        killing = threading.Thread(target=killer.run)
        killing.start()
        began = time.monotonic()
        try:
            burst(scene)
        finally:
            killer.over.set()
            killing.join()
        deviations = [*scene.deviations, *where.view.contradictions]
    took_s = time.monotonic() - began
    say(f"seed {seed}: {orgs} organisations, killed {', '.join(killer.done) or 'nobody'}: {took_s:.0f} s")
    if deviations:
        say(f"seed {seed}: state and logs are kept in {state_dir}")
    else:
        shutil.rmtree(state_dir)
    return deviations if killer.done else [*deviations, "nobody was killed: the burst was over too soon"]


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--orgs", type=int, default=500)
    parser.add_argument("--kills", type=int, default=8)
    asked = parser.parse_args()
    bad = 0
    for seed in range(asked.first, asked.first + asked.seeds):
        deviations = play(seed, asked.orgs, asked.kills)
        bad += bool(deviations)
        for text in deviations:
            say(f"seed {seed}: DEVIATION: {text}")
    say(f"{asked.seeds - bad} of {asked.seeds} seeds ended as they should")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
