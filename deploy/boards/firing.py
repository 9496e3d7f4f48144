"""`make alerts-fire`: fires every alert by its fault, with real Prometheus and Alertmanager, at an hour a minute.

The first phase is a healthy hour, in which no alert may fire. Each further phase makes a fault, and its alerts have to
arrive at a receiver; an alert that another one holds back by design has to fire in Prometheus. Prints a table; ends
with 1 if an alert is missed. The result goes into docs/observability.md.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx2
import yaml

from deploy.boards import scaled
from deploy.boards.asked import Database, rules_in
from deploy.boards.faults import FAULTS, HOUR_OF_A_MINUTE, SCALE, UNFIRED, Expected, Fault, Faults
from deploy.boards.receiver import Notice, Receiver, alertmanager
from services.adapters.process.clock import now_us
from services.cli import environment
from services.cli.demo.demo import isolated_environment
from services.cli.local import observe
from services.cli.local.stack import Stack, stack
from services.cli.local.up import interruptible
from services.cli.local.wiring import HOST
from services.cli.show import Download, say
from services.engines.ports import free_ports
from services.engines.prometheus import Prometheus

ROUTES: Final = observe.RULES.parent / "alertmanager.yaml"
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "observability.md"
BEGIN: Final = "<!-- Written by `make alerts-fire`. -->\n"
END: Final = "<!-- The end of what `make alerts-fire` writes. -->\n"

_SCRAPE_S: Final = 1.0
_HEALTHY_S: Final = 90.0
"""Seconds of the healthy phase, an hour and a half at the scale."""
_QUIET_S: Final = 60.0
"""Longest wait before a phase until its alerts no longer fire."""
_LOOK_S: Final = 0.5
_PREFIX: Final = "Lifecycle"

Fired = dict[tuple[str, str], float]
"""First second since 1970 at which an alert fired, by name and severity."""


class Seen(NamedTuple):
    """An alert that was expected, and its arrival.

    Attributes:
        fault: Name of the fault.
        expected: The alert.
        after_s: Seconds from the begin of the fault to the arrival; None for an alert that was missed.
    """

    fault: str
    expected: Expected
    after_s: float | None


@dataclass(slots=True)
class Trial:
    """The run of all phases.

    Attributes:
        database: The Prometheus.
        receiver: The receiver of all notices.
        seen: What was expected, with the arrivals.
        faults_when_healthy: Alerts that fired without a fault.
    """

    database: Database
    receiver: Receiver
    seen: list[Seen] = field(default_factory=list)
    faults_when_healthy: list[tuple[str, str]] = field(default_factory=list)

    def healthy(self) -> None:
        """Waits for the healthy phase; notes whatever fires."""
        begin_s = now_us() / 1e6
        time.sleep(_HEALTHY_S)
        fired = self._fired(begin_s) | arrivals(self.receiver.notices(), begin_s)
        self.faults_when_healthy = sorted(fired)
        say(f"healthy for {_HEALTHY_S:.0f} s: {_names(self.faults_when_healthy) or 'no alert fired'}")

    def phase(self, fault: Fault, faults: Faults) -> None:
        """Makes a fault, waits until its alerts have arrived, and heals it."""
        wanted = {(each.alert, each.severity) for each in fault.expected}
        self._until_quiet(wanted)
        before = firing(self.receiver.notices())
        begin_s = now_us() / 1e6
        with fault.make(faults):
            end_s = begin_s + fault.limit_s
            while (found := self._seen(fault, begin_s)) and now_us() / 1e6 < end_s:
                if all(each.after_s is not None for each in found):
                    break
                time.sleep(_LOOK_S)
        self.seen += found
        for each in found:
            _say_seen(each)
        others = sorted(arrivals(self.receiver.notices(), begin_s).keys() - wanted - before)
        say(f"  {fault.name}: also {_names(others) or 'nothing'} ({now_us() / 1e6 - begin_s:.0f} s)")

    def _seen(self, fault: Fault, begin_s: float) -> list[Seen]:
        arrived, fired = arrivals(self.receiver.notices(), begin_s), self._fired(begin_s)
        found = []
        for each in fault.expected:
            # A held back alert may arrive nevertheless, before its cause is told.
            at_s = (fired if each.inhibited_by else arrived).get((each.alert, each.severity))
            found.append(Seen(fault.name, each, None if at_s is None else at_s - begin_s))
        return found

    def _fired(self, begin_s: float) -> Fired:
        found = self.database.over_time('ALERTS{alertstate="firing"}', begin_s, now_us() / 1e6, 1.0)
        fired: Fired = {}
        for labels, points in found:
            name = (labels["alertname"].removeprefix(_PREFIX), labels["severity"])
            fired[name] = min(points[0][0], fired.get(name, points[0][0]))
        return fired

    def _until_quiet(self, wanted: set[tuple[str, str]]) -> None:
        end = time.monotonic() + _QUIET_S
        while firing(self.receiver.notices()) & wanted and time.monotonic() < end:
            time.sleep(_LOOK_S)


def arrivals(notices: Sequence[Notice], begin_s: float) -> Fired:
    """Returns the first arrival of each alert that a receiver was told of since `begin_s`, at the route it belongs to.

    Args:
        notices: The notices in the order of their arrival.
        begin_s: Seconds since 1970.
    """
    found: Fired = {}
    for each in notices:
        if each.status == "firing" and each.at_s >= begin_s and each.route == each.severity:
            found.setdefault((each.alert.removeprefix(_PREFIX), each.severity), each.at_s)
    return found


def firing(notices: Sequence[Notice]) -> set[tuple[str, str]]:
    """Returns the alerts whose last notice for at least one set of labels says `firing`."""
    last = {tuple(sorted(each.labels.items())): each for each in notices}
    return {(each.alert.removeprefix(_PREFIX), each.severity) for each in last.values() if each.status == "firing"}


def table(seen: Sequence[Seen], day: str) -> str:
    """Returns the result as Markdown.

    Args:
        seen: The expected alerts with their arrivals.
        day: Day of the run.
    """
    head = f"Run on {day}; {len(seen)} arrivals, an hour a minute.\n\n"
    rows = ["| alert | severity | fault | seconds |", "|---|---|---|---|"]
    for fault, (alert, severity, inhibited_by), after_s in seen:
        name = f"[{_PREFIX}{alert}](runbooks/{_PREFIX}{alert}.md)"
        held = f" (held back by `{_PREFIX}{inhibited_by}`, seen in Prometheus)" if inhibited_by else ""
        spent = "missed" if after_s is None else f"{after_s:.0f}"
        rows.append(f"| {name} | {severity} | {fault}{held} | {spent} |")
    rows += [
        f"| [{_PREFIX}{alert}](runbooks/{_PREFIX}{alert}.md) | {severity} | none here: {reason} | |"
        for (alert, severity), reason in UNFIRED.items()
    ]
    return head + "\n".join(rows) + "\n"


def run(arguments: Sequence[str]) -> int:
    """Runs the trial; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.boards --alerts", description=__doc__)
    parser.add_argument("--only", default="", help="run the phases with this text in their names, and write nothing")
    asked = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="lifecycle-alerts-"))
    # PostgreSQL runs as a second user where this process is root; that user must be able to enter.
    folder.chmod(0o711)
    with interruptible(), watched(folder, HOUR_OF_A_MINUTE) as (built, receiver, database):
        trial = Trial(database, receiver)
        _run(trial, Faults(built), asked.only)
    missed = sum(each.after_s is None for each in trial.seen)
    say(f"{len(trial.seen)} alerts expected, {missed} missed, {len(trial.faults_when_healthy)} fired when healthy")
    if not asked.only:
        _write(table(trial.seen, datetime.fromtimestamp(now_us() / 1e6, UTC).date().isoformat()))
    if missed or trial.faults_when_healthy:
        say(f"logs and samples stay in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


@contextmanager
def watched(folder: Path, settings: Mapping[str, str]) -> Iterator[tuple[Stack, Receiver, Database]]:
    """Runs an installation, Prometheus and Alertmanager with every time scaled, and a receiver of the notices.

    Args:
        folder: State folder.
        settings: Settings of the services, by name.
    """
    environ = {**isolated_environment(environment.process()), **settings}
    receiver = Receiver()
    with (
        stack(folder, environ, report=say, progress=Download()) as built,
        receiver.running(),
        alertmanager(folder / "alertmanager", _routes(receiver.url)) as address,
        _prometheus(built, address) as database,
    ):
        yield built, receiver, database


def _run(trial: Trial, faults: Faults, only: str) -> None:
    with faults.load():
        if not only:
            trial.healthy()
        for fault in FAULTS:
            if only in fault.name:
                say(f"phase: {fault.name}")
                trial.phase(fault, faults)


def _routes(receiver: str) -> dict[str, Any]:
    return scaled.routes(yaml.safe_load(ROUTES.read_text(encoding="utf-8")), SCALE, receiver)


@contextmanager
def _prometheus(built: Stack, address: str) -> Iterator[Database]:
    """Runs Prometheus with the scaled rules; yields the database.

    Args:
        built: The installation that is scraped.
        address: `host:port` of Alertmanager.
    """
    folder = built.folders.top / "prometheus"
    folder.mkdir()
    files = []
    for file in sorted(observe.RULES.glob("*.yaml")):
        shorter = scaled.rules(yaml.safe_load(file.read_text(encoding="utf-8")), SCALE)
        files.append(folder / file.name)
        files[-1].write_text(yaml.safe_dump(shorter), encoding="utf-8")
    targets = {job: f"{HOST}:{port}" for job, port in asdict(built.ports).items() if job != "simulator_database"}
    log = built.folders.logs / "prometheus.log"
    prometheus = Prometheus(folder, log, free_ports(1)[0], targets, files, _SCRAPE_S, address)
    prometheus.start()
    try:
        with httpx2.Client(timeout=60, trust_env=False) as client:
            database = Database(prometheus.url, client)
            database.until_watching(len(targets))
            yield database
    finally:
        prometheus.stop(5.0)


def _write(text: str) -> None:
    """Puts the table into its document."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    DOCUMENT.write_text(before + BEGIN + text + END + rest.partition(END)[2], encoding="utf-8")


def _say_seen(seen: Seen) -> None:
    _, (alert, severity, inhibited_by), after_s = seen
    how = f"fired, held back by {inhibited_by}" if inhibited_by else "arrived"
    say(f"  {alert} ({severity}): " + ("MISSED" if after_s is None else f"{how} after {after_s:.1f} s"))


def _names(found: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{alert} ({severity})" for alert, severity in found)


def every_alert() -> set[tuple[str, str]]:
    """Returns name and severity of every alert in the rule files."""
    return {
        (rule["alert"].removeprefix(_PREFIX), rule["labels"]["severity"])
        for rule in rules_in(observe.RULES)
        if "alert" in rule
    }
