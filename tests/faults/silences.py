"""Genesys falls silent or lies, for hours scaled to seconds: nothing is destroyed, the alert stands, and all converges.

    python -m tests.faults.silences [--only foreign] [--hour-s 5]

In each story integrations are installed, changed and removed in Genesys while nobody tells of it: all webhooks and
hints are lost, and the API is away, empty, not whole, of another organisation, or refuses us. Judged are: no
destructive call meanwhile; the value behind the alert LifecycleGenesysUnread stays above its limit; within 120 s after
the next whole run everything is as in Genesys. Ends with 1 when something was otherwise.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

from schemas.values import EventType, Key
from services import engines
from services.cli.show import say
from tests.faults.lives import CONFIGURATION, HEALED_S, settle
from tests.faults.lives_judge import unequal
from tests.support.life_world import UNBRAKED, LifeWorld, life_world

SETTINGS: Final[dict[str, str]] = {
    **UNBRAKED,
    "RECONCILE_SECOND_LOOK_S": "1",
    "RECONCILE_AUDIT_INTERVAL_S": "1",
    "SIMULATOR_RATE_PER_MINUTE": "6000",
}
UNREAD_LIMIT: Final = 0.5
"""Part of the organisations above which the alert LifecycleGenesysUnread is on its way."""
SIZE: Final = (6, 4)
"""Organisations, and integrations of each."""
_REMOVED = 4


@dataclass(frozen=True, slots=True)
class Silence:
    """A story.

    Attributes:
        hours: How long it lasts, hours.
        faults: The faults of the API.
        foreign: True if each organisation's file has the credentials of another one.
    """

    hours: float
    faults: tuple[Mapping[str, str], ...] = ()
    foreign: bool = False


STORIES: Final[Mapping[str, Silence]] = {
    "all-lost": Silence(1, ({"fault": "down"},)),
    "down": Silence(3, ({"fault": "down"},)),
    "empty": Silence(3, ({"fault": "empty"},)),
    "missing-page": Silence(3, ({"fault": "missing_page"},)),
    "unauthorized": Silence(3, ({"fault": "unauthorized"},)),
    "foreign": Silence(3, foreign=True),
}


@dataclass(slots=True)
class SilenceResult:
    """Result of a story.

    Attributes:
        unread: Least part of the organisations that was unread from the second run of the story on.
        healed_s: Seconds from healing until everything was as in Genesys.
        faults: What was otherwise than it must be.
    """

    unread: float = 0.0
    healed_s: float = 0.0
    faults: list[str] = field(default_factory=list)


def play(world: LifeWorld, keys: Sequence[Key], silence: Silence, hour_s: float) -> SilenceResult:
    """Plays a story in a world whose integrations are settled; leaves the world whole.

    Args:
        world: The installation.
        keys: The integrations of `settle` that are still installed.
        silence: The story.
        hour_s: Length of a scaled hour, seconds; a whole run follows each of these.
    """
    result = SilenceResult()
    before = _destructive(world)
    with _foreign_files(world) if silence.foreign else ExitStack():
        for fault in silence.faults:
            world.fault({"system": "genesys", **fault})
        began_s = time.monotonic()
        _change_in_silence(world, keys)
        # A run that began before the silence says nothing of it.
        world.until_runs(2)
        result.unread = _unread(world)
        while time.monotonic() - began_s < silence.hours * hour_s:
            time.sleep(0.5)
            result.unread = min(result.unread, _unread(world))
        torn = _destructive(world) - before
    world.heal()
    if torn:
        result.faults.append(f"{torn} destructive calls while nothing was known")
    if result.unread <= UNREAD_LIMIT:
        result.faults.append(f"LifecycleGenesysUnread would not fire: {result.unread:.0%} of the organisations unread")
    result.healed_s = _healed(world, result.faults)
    return result


def _change_in_silence(world: LifeWorld, keys: Sequence[Key]) -> None:
    """Removes, disables and changes some, and installs others; nobody is told."""
    for key in keys[:_REMOVED]:
        world.change(key, EventType.UNINSTALLED, CONFIGURATION, enabled=True)
    for key in keys[_REMOVED : 2 * _REMOVED]:
        world.change(key, EventType.DISABLED, CONFIGURATION, enabled=False)
    for number, key in enumerate(keys[2 * _REMOVED : 3 * _REMOVED]):
        told = CONFIGURATION | {"syncInterval": f"PT{number + 10}M"}
        world.change(key, EventType.CONFIGURATION_UPDATED, told, enabled=True)
    for key in keys[:_REMOVED]:
        new = f"{key.partition(':')[0]}:{uuid4()}"
        world.change(new, EventType.INSTALLED, CONFIGURATION, enabled=True)


def _healed(world: LifeWorld, faults: list[str]) -> float:
    began_s = time.monotonic()
    world.until_runs(2)
    run_s = time.monotonic() - began_s
    while (left := unequal(world)) and time.monotonic() - began_s <= run_s + HEALED_S:
        time.sleep(1)
    faults += [f"{key}: {text}" for key, text in left.items()]
    return time.monotonic() - began_s


@contextmanager
def _foreign_files(world: LifeWorld) -> Iterator[None]:
    """Every organisation's file has the client of the next organisation meanwhile."""
    files = sorted(world.stack.folders.orgs.glob("*.json"))
    texts = [path.read_text() for path in files]
    ids = [path.stem for path in files]
    for path, text, own, other in zip(files, [*texts[1:], texts[0]], ids, [*ids[1:], ids[0]], strict=True):
        path.write_text(text.replace(other, own))
    try:
        yield
    finally:
        for path, text in zip(files, texts, strict=True):
            path.write_text(text)


def _unread(world: LifeWorld) -> float:
    """Returns the value that the alert LifecycleGenesysUnread compares."""
    name = "lifecycle_reconciler_organisations"
    unread, of = world.metric("reconciler", name, result="unanswered"), world.metric("reconciler", name)
    return unread / of if of else 0.0


def _destructive(world: LifeWorld) -> int:
    calls = world.client.get(f"{world.stack.simulator}/calls").raise_for_status().json()
    return sum(call["verb"] == "delete" and call["outcome"] in {"done", "lost"} for call in calls)


def main(arguments: Sequence[str]) -> int:
    """Plays every story, or one; 1 when something was otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(STORIES))
    parser.add_argument("--hour-s", type=float, default=5.0, help="length of a scaled hour, seconds")
    given = parser.parse_args(arguments)
    clean = True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-silences-")))
        folder.chmod(0o711)
        running = stack.enter_context(engines.running(folder, dict(os.environ)))
        for name, silence in STORIES.items():
            if given.only not in {None, name}:
                continue
            chosen = SETTINGS | {"RECONCILE_INTERVAL_S": str(given.hour_s)}
            with life_world(folder / name, running.kafka_bootstrap, running.database_url, **chosen) as world:
                result = play(world, settle(world, *SIZE), silence, given.hour_s)
            say(
                f"{name}: {silence.hours:g} h; at least {result.unread:.0%} unread; "
                f"as in Genesys {result.healed_s:.0f} s after"
            )
            for fault in result.faults[:10]:
                say(f"    WRONG: {fault}")
            clean = clean and not result.faults
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
