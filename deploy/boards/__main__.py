"""`make boards`: runs real services through a day with faults, asks a real Prometheus for every panel, and draws.

Prints the panels that were checked, the queries that stayed empty and the metrics that nobody uses; ends with 1 if one
of them is unexplained. `--no-pictures` leaves docs/boards alone; `--storm 50 --storm-s 10` makes the storm smaller.
`--alerts` fires every alert instead (deploy/boards/firing.py); `--drill FOLDER` makes faults for somebody who does not
know which (deploy/boards/drill.py).
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx2

from deploy.boards import drill, firing, pictures
from deploy.boards.asked import Answered, Database, ask, rules_in, unused
from deploy.boards.workload import ENVIRONMENT, STORM, STORM_S, Workload
from services.adapters.process.clock import now_us
from services.cli import environment
from services.cli.demo.demo import isolated_environment
from services.cli.local import observe
from services.cli.local.stack import stack
from services.cli.local.up import interruptible
from services.cli.show import Download, say

PICTURES: Final = Path(__file__).parents[2] / "docs" / "boards"
SCRAPE_S: Final = 1.0
WINDOW_S: Final = 6.0
"""Seconds of a window for rates, more than four scrapes."""


def main(arguments: Sequence[str]) -> int:
    """Runs the check; returns the exit status."""
    asked = _arguments(arguments)
    folder = Path(tempfile.mkdtemp(prefix="lifecycle-boards-"))
    # PostgreSQL runs as a second user where this process is root; that user must be able to enter.
    folder.chmod(0o711)
    environ = {**isolated_environment(environment.process()), **ENVIRONMENT}
    with interruptible(), stack(folder, environ, report=say, progress=Download(), scrape_s=SCRAPE_S) as built:
        assert built.prometheus is not None
        begin_s = now_us() / 1e6
        workload = Workload(built, storm=asked.storm, storm_s=asked.storm_s, say=lambda name: say(f"phase: {name}"))
        workload.run()
        end_s = now_us() / 1e6
        with httpx2.Client(timeout=60, trust_env=False) as client:
            database = Database(built.prometheus.url, client)
            answers = list(ask(database, begin_s, end_s, WINDOW_S))
            exported = database.exported()
            fired = database.alerts_fired(begin_s, end_s)
    rules = rules_in(observe.RULES)
    faults = report(answers, unused(exported, rules))
    say(f"alerts that fired: {', '.join(sorted(fired)) or 'none'}")
    if asked.json:
        asked.json.write_text(json.dumps(pictures.data(answers, workload.phases), indent=1), encoding="utf-8")
    if asked.pictures and (fault := pictures.draw(pictures.data(answers, workload.phases), PICTURES)):
        say(f"the pictures were NOT drawn: {fault}")
        faults += 1
    shutil.rmtree(folder, ignore_errors=True)
    return 1 if faults else 0


def report(answers: Sequence[Answered], unused_metrics: Sequence[str]) -> int:
    """Prints the result of the check; returns the number of unexplained faults."""
    errors = [(each, error) for each in answers for error in each.errors]
    unplayed = [each for each in answers if each.panel.not_played and not each.errors]
    stale = [each for each in unplayed if not each.is_empty]
    empty = [each for each in answers if each.is_empty and not each.errors and not each.panel.not_played]
    for each, error in errors:
        say(f"REFUSED  {each.board.title}: {each.panel.title}: {error}")
    for each in empty:
        healthy = each.panel.empty_when_healthy
        why = f"declared empty while {healthy}, and empty with faults too" if healthy else "no samples"
        say(f"EMPTY    {each.board.title}: {each.panel.title}: {why}")
    for each in unplayed:
        say(f"UNTRIED  {each.board.title}: {each.panel.title}: {each.panel.not_played}")
    for each in stale:
        say(f"TRIED    {each.board.title}: {each.panel.title}: has samples, though declared as not played")
    for name in unused_metrics:
        say(f"UNUSED   {name}: on no board and in no rule")
    queries = sum(len(each.panel.queries) for each in answers)
    say(
        f"{len(answers)} panels with {queries} queries checked, {len(errors)} refused, {len(empty)} empty, "
        f"{len(unplayed)} untried, {len(unused_metrics)} metrics unused"
    )
    return len(errors) + len(empty) + len(stale) + len(unused_metrics)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.boards", description=__doc__)
    parser.add_argument("--storm", type=int, default=STORM, help="installs of the storm")
    parser.add_argument("--storm-s", type=float, default=STORM_S, help="seconds of the storm")
    parser.add_argument("--json", type=Path, help="file for the data of the pictures")
    parser.add_argument("--no-pictures", dest="pictures", action="store_false", help="leave docs/boards alone")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    others = {"--alerts": firing.run, "--drill": drill.run}
    first, *rest = sys.argv[1:] or [""]
    sys.exit(others[first](rest) if first in others else main(sys.argv[1:]))
