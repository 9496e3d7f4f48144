"""`make drill`: makes ten faults for somebody on call who does not know which, and shows what that person would see.

A folder of each fault, named by a letter, gets the pictures of the boards and the notices of Alertmanager with their
runbooks, as they stand when the fault has lasted a minute and a half (an hour and a half at the scale). The order is
random. The names of the faults go into a file beside, which the person on call does not open; a drill that was
interrupted goes on with the faults that are not in this file.
"""

import argparse
import random
import shutil
import string
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from deploy.boards import pictures
from deploy.boards.asked import Database, ask
from deploy.boards.faults import HOUR_OF_A_MINUTE, SCALE, Faults
from deploy.boards.firing import watched
from deploy.boards.receiver import Notice, Receiver
from deploy.boards.workload import Phase
from services.adapters.process.clock import now_us
from services.cli.local.up import interruptible
from services.cli.show import say

ANSWERS: Final = "answers.txt"
NOTICES: Final = "alerts.md"

_BEFORE_S: Final = 45.0
_FAULT_S: Final = 90.0
"""Seconds on the pictures: before the fault, and of the fault."""
_LOADED_S: Final = 30.0
"""Seconds until the load's first tenants are made."""
_QUIET_S: Final = 60.0
"""Longest wait after a fault until no alert fires."""
_WINDOW_S: Final = 6.0
_SPOOL_MIB: Final = 32


class Drills(Faults):
    """The faults of a drill that no alert of its own has to fire."""

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Fills the disk of the spool while the brokers stand still."""
        filler = self.stack.folders.spool / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            with self.stopped("kafka"):
                yield
        finally:
            filler.unlink()

    @contextmanager
    def storm_of_installs(self) -> Iterator[None]:
        """Installs 500 tenants within a minute."""
        self._storm()
        yield


class Drill(NamedTuple):
    """A fault of the drill.

    Attributes:
        name: The cause, as the person on call has to name it.
        make: Returns the context in which the fault is there.
    """

    name: str
    make: Callable[[Drills], AbstractContextManager[None]]


DRILLS: Final = (
    Drill("the CRM is away", lambda on: on.at("crm", "down")),
    Drill("the registry (PostgreSQL) stands still", lambda on: on.stopped("postgres")),
    Drill("the ledger ends over and over at unreadable records in a row", Drills.unreadable_in_a_row),
    Drill("customers' CRM secrets are wrong", Drills.wrong_secrets),
    Drill("a storm of installs, nothing is broken", Drills.storm_of_installs),
    Drill("the sender signs with a secret that the endpoint does not know", Drills.wrong_endpoint_secret),
    Drill("Kafka is slow", Drills.slow_kafka),
    Drill("the disk of the spool is full, and Kafka stands still", Drills.full_disk),
    Drill("Genesys' API refuses our credentials (401)", lambda on: on.at("genesys", "unauthorized")),
    Drill("single unreadable records", Drills.unreadable),
)
"""The faults. The one after which the ledger does not go on comes last, whatever the order."""

_LAST: Final = Drills.unreadable_in_a_row


def run(arguments: Sequence[str]) -> int:
    """Runs the drill; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.boards --drill", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of what the person on call sees; is made")
    parser.add_argument("--only", default="", help="make the faults with this text in their names")
    parser.add_argument("--seed", type=int, default=None, help="order of the faults")
    asked = parser.parse_args(arguments)
    asked.folder.mkdir(parents=True, exist_ok=True)
    state = Path(tempfile.mkdtemp(prefix="lifecycle-drill-"))
    # PostgreSQL runs as a second user where this process is root; that user must be able to enter.
    state.chmod(0o711)
    settings = {**HOUR_OF_A_MINUTE, "SPOOL_MAX_BYTES": str(1 << 30)}
    answers = asked.folder / ANSWERS
    done = answers.read_text(encoding="utf-8").splitlines() if answers.exists() else []
    names = {line.partition(": ")[2] for line in done}
    chosen = [drill for drill in DRILLS if asked.only in drill.name and drill.name not in names]
    letters = string.ascii_uppercase[len(done) :]
    with (
        interruptible(),
        _small_disk(state / "spool"),
        watched(state, settings) as (built, receiver, database),
    ):
        drills = Drills(built)
        with drills.load():
            time.sleep(_LOADED_S)
            for letter, drill in zip(letters, shuffled(chosen, asked.seed), strict=False):
                _until_quiet(receiver)
                time.sleep(_BEFORE_S)
                say(f"fault {letter} ...")
                begin_s = now_us() / 1e6
                with drill.make(drills):
                    time.sleep(max(0.0, begin_s + _FAULT_S - now_us() / 1e6))
                    fault = _show(asked.folder / letter, database, receiver, begin_s)
                with answers.open("a", encoding="utf-8") as file:
                    file.write(f"{letter}: {drill.name}\n")
                if fault:
                    say(f"the pictures of {letter} were not drawn: {fault}")
                    return 1
    shutil.rmtree(state, ignore_errors=True)
    say(f"see {asked.folder}/A and so on; the faults' names stand in {answers}")
    return 0


def notices(told: Sequence[Notice], begin_s: float, end_s: float) -> str:
    """Returns the alerts that fire at `end_s`, or ended after `begin_s`, as Markdown.

    Args:
        told: All notices in the order of their arrival.
        begin_s: Begin of the shown time, seconds since 1970.
        end_s: End of the shown time.
    """
    first: dict[tuple[tuple[str, str], ...], Notice] = {}
    last: dict[tuple[tuple[str, str], ...], Notice] = {}
    for each in told:
        name = tuple(sorted(each.labels.items()))
        last[name] = each
        if each.status == "firing":
            first.setdefault(name, each)
        if each.status == "resolved" and each.at_s < begin_s:
            first.pop(name, None)
    lines = [f"Alerts at {_clock(end_s)} (a minute here is an hour: every time is divided by {SCALE}).", ""]
    for name, each in sorted(first.items(), key=lambda one: one[1].at_s):
        now = last[name]
        ended = f", resolved at {_clock(now.at_s)}" if now.status == "resolved" else ", fires"
        labels = ", ".join(f"{label}={value}" for label, value in name if label not in {"alertname", "severity"})
        lines += [
            f"## {each.alert} ({each.severity}), since {_clock(each.at_s)}{ended}",
            f"- labels: {labels}",
            *(f"- {title}: {text}" for title, text in sorted(now.annotations.items(), reverse=True)),
            "",
        ]
    return "\n".join(lines if first else [*lines, "No alert fires."]) + "\n"


def _show(folder: Path, database: Database, receiver: Receiver, begin_s: float) -> str:
    """Writes the pictures and the notices of now; returns the fault of the drawing, or an empty text."""
    end_s, before_s = now_us() / 1e6, begin_s - _BEFORE_S
    shown = list(ask(database, before_s, end_s, _WINDOW_S, SCALE))
    window = Phase(f"from {_clock(before_s)} to {_clock(end_s)}", before_s, end_s)
    fault = pictures.draw(pictures.data(shown, [window], clock=True, scale=SCALE), folder)
    (folder / NOTICES).write_text(notices(receiver.notices(), before_s, end_s), encoding="utf-8")
    return fault


def shuffled(chosen: Sequence[Drill], seed: int | None) -> list[Drill]:
    """Returns the faults in a random order; the fault after which the ledger does not go on comes last."""
    drills = list(chosen)
    random.Random(seed).shuffle(drills)  # noqa: S311 - an order, no secret
    return sorted(drills, key=lambda drill: drill.make is _LAST)


def _until_quiet(receiver: Receiver) -> None:
    """Waits until no alert fires, or for as long as budgets of a whole day need not be waited for."""
    end = time.monotonic() + _QUIET_S
    while time.monotonic() < end:
        last = {tuple(sorted(each.labels.items())): each.status for each in receiver.notices()}
        if "firing" not in last.values():
            return
        time.sleep(1)


def _clock(at_s: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(at_s))


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """Mounts a small disk of its own for the spool; needs root."""
    folder.mkdir(mode=0o700)
    subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={_SPOOL_MIB}m,mode=700", "spool", str(folder)), check=True)
    try:
        yield
    finally:
        subprocess.run(("umount", str(folder)), check=False)
