"""Each source alone: webhooks, hints, audits or listings tell of every change, and nothing else does.

    python -m tests.faults.sources [--only hints] [--installs 40]

Forty integrations are installed, then further ones are disabled, changed and removed; each has to be as in Genesys
through that one source. Prints the seconds from the change in Genesys to the record of `lifecycle.tenants` that says
`active`. Settings are as they ship, but for the table below; ends with 1 when something did not arrive.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final
from uuid import uuid4

from schemas.tenant import Stage
from schemas.values import EventType, Key
from services import engines
from services.cli.show import say
from tests.faults.lives import CONFIGURATION
from tests.faults.lives_judge import unequal
from tests.support.eventually import eventually
from tests.support.life_world import UNBRAKED, LifeWorld, life_world

_SILENT: Final = {"RECONCILE_INTERVAL_S": "3600", "RECONCILE_AUDIT_INTERVAL_S": "0", "RECONCILE_SECOND_LOOK_S": "30"}
SOURCES: Final[Mapping[str, Mapping[str, str]]] = {
    "webhooks": _SILENT,
    "hints": _SILENT,
    "audits": _SILENT | {"RECONCILE_AUDIT_INTERVAL_S": "60"},
    "listings": _SILENT | {"RECONCILE_INTERVAL_S": "60"},
}
"""Source to the settings that differ from those that ship. A second look of 30 s in place of 600 shortens
removals alone. Where listings are tried a whole run follows each minute in place of each hour."""
_SPREAD_S: Final[Mapping[str, float]] = {"webhooks": 20.0, "hints": 40.0, "audits": 90.0, "listings": 90.0}
"""Seconds over which the installs are spread: longer than a cycle of the source."""
CHANGED: Final = 5
"""Integrations that are disabled, and changed, and removed: so many of each. More removals at once meet the brake."""
_ORGS: Final = 4
ARRIVES_S: Final = 600.0
"""Longest wait: a key that was read is read again for hints and audits after 5 minutes."""


@dataclass(frozen=True, slots=True)
class SourceResult:
    """Result of one source.

    Attributes:
        installed_s: Seconds from each install to `active`, sorted.
        changed_s: Seconds until all disables, changes and removals had arrived.
        faults: Keys that are not as in Genesys, and why.
    """

    installed_s: list[float]
    changed_s: float
    faults: dict[Key, str]

    def row(self, source: str) -> str:
        """Returns a row of the table in docs/connect-genesys.md."""
        high = self.installed_s[int(len(self.installed_s) * 0.95) - 1]
        figures = (median(self.installed_s), high, self.installed_s[-1])
        return f"| {source} | " + " | ".join(f"{one:.1f} s" for one in figures) + f" | {self.changed_s:.0f} s |"


def play(world: LifeWorld, source: str, *, installs: int, spread_s: float, changed: int = CHANGED) -> SourceResult:
    """Plays the changes, told by one source alone.

    Args:
        world: With the settings of the source.
        source: A key of `SOURCES`.
        installs: Number of integrations to install.
        spread_s: Seconds over which the installs are spread, so that they meet a cycle at any point.
        changed: Integrations that are disabled, and changed, and removed: so many of each.
    """
    orgs = [str(uuid4()) for _ in range(_ORGS)]
    old = [f"{orgs[number % _ORGS]}:{uuid4()}" for number in range(3 * changed)]
    for key in old:
        state = world.change(key, EventType.INSTALLED, CONFIGURATION, enabled=True)
        world.webhook(key, state, {})
    eventually(lambda: not unequal(world), 120)
    world.until_runs() if source == "listings" else _sighted(world, old)
    news: dict[Key, int] = {}
    for number in range(installs):
        key = f"{orgs[number % _ORGS]}:{uuid4()}"
        news[key] = _tell(world, source, key, EventType.INSTALLED)
        time.sleep(spread_s / installs)
    _until_equal(world)
    took_s = [(_active_us(world, key) - at_us) / 1e6 for key, at_us in news.items()]
    began_s = time.monotonic()
    events = (EventType.DISABLED, EventType.CONFIGURATION_UPDATED, EventType.UNINSTALLED)
    for number, key in enumerate(old):
        _tell(world, source, key, events[number % 3])
    left = _until_equal(world)
    return SourceResult(sorted(took_s), time.monotonic() - began_s, left)


def _sighted(world: LifeWorld, keys: Sequence[Key]) -> None:
    """Waits until the reconciler has seen each key in a listing: before, an absence counts for nothing."""
    sights = world.stack.folders.of("reconciler") / "reconciler" / "sights.json"
    eventually(lambda: sights.exists() and all(key in sights.read_text() for key in keys), 60)


def _tell(world: LifeWorld, source: str, key: Key, event: EventType) -> int:
    """Makes a change, tells of it by the source alone, and returns its time, microseconds UTC."""
    configuration = CONFIGURATION | ({"syncInterval": "PT9M"} if event is EventType.CONFIGURATION_UPDATED else {})
    state = world.change(key, event, configuration, enabled=event is not EventType.DISABLED)
    if source == "webhooks":
        assert world.webhook(key, state, {}).answer.startswith("200")
    elif source == "hints":
        assert world.hint(key, state).answer.startswith("200")
    return state.after_us


def _until_equal(world: LifeWorld) -> dict[Key, str]:
    deadline_s = time.monotonic() + ARRIVES_S
    while (left := unequal(world)) and time.monotonic() < deadline_s:
        time.sleep(1)
    return left


def _active_us(world: LifeWorld, key: Key) -> int:
    """Returns the time of the first record that says `active`; far away for none."""
    return next((one.at_us for one in world.view.changes[key] if one.stage is Stage.ACTIVE), 1 << 62)


def main(arguments: Sequence[str]) -> int:
    """Plays every source, or one; 1 when something did not arrive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(SOURCES))
    parser.add_argument("--installs", type=int, default=40)
    given = parser.parse_args(arguments)
    rows, clean = [], True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-sources-")))
        folder.chmod(0o711)
        running = stack.enter_context(engines.running(folder, dict(os.environ)))
        for source, chosen in SOURCES.items():
            if given.only not in {None, source}:
                continue
            place = folder / source
            with life_world(place, running.kafka_bootstrap, running.database_url, **{**UNBRAKED, **chosen}) as world:
                result = play(world, source, installs=given.installs, spread_s=_SPREAD_S[source])
            rows.append(result.row(source))
            say(f"{source}: {', '.join(f'{one:.1f}' for one in result.installed_s)} s")
            for key, fault in list(result.faults.items())[:10]:
                say(f"    WRONG: {key}: {fault}")
            clean = clean and not result.faults
    say("\n".join(rows))
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
