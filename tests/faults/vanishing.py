"""Three tenths of all integrations vanish at once, by listing or by webhooks: the brake holds until approved.

    python -m tests.faults.vanishing [--only listing]

Judged are: no destructive call before the approval, beyond the five that webhooks may remove; the values behind the
alerts LifecycleBrakeEngaged and LifecycleRemovalsBraked; a plan that names the vanished and nobody else; a wrong word,
a second use of the word and a word for a larger set do nothing; the right word releases exactly that set. Ends with 1
when something was otherwise.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from schemas.values import EventType, Key
from services import engines
from services.cli.exits import Exit
from services.cli.show import say
from tests.faults.lives import CONFIGURATION, settle
from tests.faults.lives_judge import unequal
from tests.support.eventually import eventually
from tests.support.life_world import LifeWorld, life_world

SETTINGS: Final = {
    "RECONCILE_INTERVAL_S": "3",
    "RECONCILE_SECOND_LOOK_S": "1",
    "RECONCILE_AUDIT_INTERVAL_S": "1",
    "SIMULATOR_RATE_PER_MINUTE": "6000",
    "LIFECYCLE_OPERATOR": "operator",
}
SIZE: Final = (4, 10)
"""Organisations, and integrations of each."""
REMOVE_LEAST: Final = 5
"""Removals that need no approval, of so few tenants."""
_SHARE: Final = 0.3
_HOLDS_S: Final = 10.0
"""Seconds, several runs long, in which the brake must not give way."""


def by_listing(world: LifeWorld, keys: Sequence[Key]) -> None:
    """Removes three tenths of the integrations silently, and plays the operator.

    Raises:
        AssertionError: something was otherwise than it must be; the text says what.
    """
    gone = sorted(keys[: int(len(keys) * _SHARE)])
    _remove(world, gone)
    eventually(lambda: world.metric("reconciler", "lifecycle_reconciler_brake_engaged") == 1, 60)
    held_s = time.monotonic() + _HOLDS_S
    eventually(lambda: time.monotonic() > held_s and _word(world) != "", 60)
    _untouched(world)
    found = _plan(world)
    assert sorted(line["key"] for line in found["plan"] if line["action"] == "remove") == gone, found
    word = _word(world)
    status, _, errors = world.lifecycle("reconcile", "--now", "--approve", "0" * len(word))
    assert status == Exit.UNUSABLE, errors
    # One more is gone: the word is for another set by now.
    _remove(world, keys[-1:])
    eventually(lambda: _word(world) not in {"", word}, 60)
    status, _, errors = world.lifecycle("reconcile", "--now", "--approve", word)
    assert status == Exit.UNUSABLE, errors
    _untouched(world)
    status, _, errors = world.lifecycle("reconcile", "--now", "--approve", _word(world))
    assert status == Exit.OK, errors
    eventually(lambda: not unequal(world), 120)
    assert {call["key"] for call in _destructive(world)} == {*gone, keys[-1]}
    eventually(lambda: world.metric("reconciler", "lifecycle_reconciler_brake_engaged") == 0, 30)
    # Used: the word is of no set any more.
    status, _, errors = world.lifecycle("reconcile", "--now", "--approve", word)
    assert status == Exit.UNUSABLE, errors


def by_webhooks(world: LifeWorld, keys: Sequence[Key]) -> None:
    """Tells of three tenths of the integrations that they were uninstalled, and plays the operator.

    Raises:
        AssertionError: something was otherwise than it must be; the text says what.
    """
    gone = sorted(keys[: int(len(keys) * _SHARE)])
    for key in gone:
        state = world.change(key, EventType.UNINSTALLED, CONFIGURATION, enabled=True)
        assert world.webhook(key, state, {}).answer.startswith("200")
    eventually(lambda: _braked(world) == len(gone) - REMOVE_LEAST, 60)
    held_s = time.monotonic() + _HOLDS_S
    eventually(lambda: time.monotonic() > held_s, 60)
    torn = {call["key"] for call in _destructive(world)}
    assert len(torn) == REMOVE_LEAST, torn
    found = _held(world)
    assert found["keys"] == sorted(set(gone) - torn), found
    status, _, errors = world.lifecycle("reconcile", "--now", "--approve", "0" * len(found["digest"]))
    assert status == Exit.UNUSABLE, errors
    # One more is gone: the digest is of another set by now.
    state = world.change(keys[-1], EventType.UNINSTALLED, CONFIGURATION, enabled=True)
    assert world.webhook(keys[-1], state, {}).answer.startswith("200")
    eventually(lambda: _held(world)["digest"] != found["digest"], 60)
    status, _, errors = world.lifecycle("reconcile", "--now", "--approve", found["digest"])
    assert status == Exit.UNUSABLE, errors
    assert {call["key"] for call in _destructive(world)} == torn, "destroyed without an approval"
    digest = _held(world)["digest"]
    status, _, errors = world.lifecycle("reconcile", "--now", "--approve", digest)
    assert status == Exit.OK, errors
    eventually(lambda: not unequal(world), 120)
    assert {call["key"] for call in _destructive(world)} == {*gone, keys[-1]}
    eventually(lambda: _braked(world) == 0, 60)
    # Used: the digest is of no set any more.
    status, _, errors = world.lifecycle("reconcile", "--now", "--approve", digest)
    assert status == Exit.UNUSABLE, errors


def _braked(world: LifeWorld) -> float:
    """Returns the value that the alert LifecycleRemovalsBraked compares."""
    return world.metric("provisioner", "lifecycle_provisioner_held_removals", why="brake")


def _held(world: LifeWorld) -> dict[str, Any]:
    """Returns keys and digest of the removals that the provisioner holds."""
    _, output, errors = world.lifecycle("reconcile", "--report", "--json")
    assert output, errors
    found: dict[str, Any] = json.loads(output)["held_removals"]
    return found


def _remove(world: LifeWorld, keys: Sequence[Key]) -> None:
    for key in keys:
        world.change(key, EventType.UNINSTALLED, CONFIGURATION, enabled=True)


def _plan(world: LifeWorld) -> dict[str, Any]:
    _, output, errors = world.lifecycle("reconcile", "--dry-run", "--json")
    assert output, errors
    found: dict[str, Any] = json.loads(output)
    return found


def _word(world: LifeWorld) -> str:
    """Returns the word that approves the present plan; empty while there is none."""
    return str((_plan(world)["stopped"] or {}).get("approval") or "")


def _untouched(world: LifeWorld) -> None:
    assert _destructive(world) == [], "destroyed without an approval"


def _destructive(world: LifeWorld) -> list[dict[str, Any]]:
    calls = world.client.get(f"{world.stack.simulator}/calls").raise_for_status().json()
    return [call for call in calls if call["verb"] == "delete" and call["outcome"] in {"done", "lost"}]


ROADS: Final[Mapping[str, Any]] = {"listing": by_listing, "webhooks": by_webhooks}


def main(arguments: Sequence[str]) -> int:
    """Plays every road, or one; 1 when something was otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(ROADS))
    given = parser.parse_args(arguments)
    clean = True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-vanishing-")))
        folder.chmod(0o711)
        running = stack.enter_context(engines.running(folder, dict(os.environ)))
        for name, road in ROADS.items():
            if given.only not in {None, name}:
                continue
            with life_world(folder / name, running.kafka_bootstrap, running.database_url, **SETTINGS) as world:
                try:
                    road(world, settle(world, *SIZE))
                    say(f"{name}: {road.__doc__.partition('.')[0]}: as it must be")
                except AssertionError as error:
                    clean = False
                    say(f"    WRONG: {name}: {error}")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
