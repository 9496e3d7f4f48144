"""A rehearsal makes the calls that the saga then makes, in the same order, and calls nobody itself."""

from collections.abc import Callable
from typing import Any

import pytest

from schemas.saga import Phase
from schemas.tenant import Desired
from services.core.saga.calls import Verb
from services.core.saga.next_move import Plans
from services.core.saga.rehearsal import Rehearsal, new_life, rehearse
from tests.support.saga_world import DesiredVersions, MemoryRunner, Mode, OutsideSystems, plan

CHANGES: list[tuple[str, Callable[[DesiredVersions], Desired]]] = [
    ("nothing new", lambda versions: versions.now),
    ("configured", lambda versions: versions.configured(crmEndpoint="https://y.salesforce.com")),
    ("disabled", lambda versions: versions.switched(enabled=False)),
    ("uninstalled", lambda versions: versions.uninstalled()),
    ("installed anew", lambda versions: versions.reinstalled()),
]


def _calls(rehearsal: Rehearsal) -> list[tuple[str, Verb]]:
    return [(call.move.step.name, call.verb) for call in rehearsal.calls]


def _runner(versions: DesiredVersions, **given: Any) -> MemoryRunner:
    return MemoryRunner(OutsideSystems(**given), versions.now)


def _made_next(runner: MemoryRunner, wanted: Desired) -> list[tuple[str, Verb]]:
    """The calls of the runner for a version, those of orphan checks left out."""
    runner.world.calls.clear()
    generation = runner.journal.generation or 1
    runner.desired = wanted
    runner.until_us = runner.now_us + 30_000_000
    runner.run()
    return [(step, verb) for step, verb, of, _ in runner.world.calls if of == generation]


def test_an_install_is_rehearsed_as_it_is_made() -> None:
    versions = DesiredVersions()
    versions.installed()
    runner = _runner(versions)
    rehearsal = rehearse(Plans(plan()), runner.journal, versions.now, runner.now_us)
    assert not runner.world.calls
    assert (rehearsal.phase, rehearsal.generation, rehearsal.ends) == (Phase.CREATING, 1, "")
    assert _calls(rehearsal) == _made_next(runner, versions.now)


@pytest.mark.parametrize("change", [change for _, change in CHANGES], ids=[name for name, _ in CHANGES])
def test_a_change_is_rehearsed_as_it_is_made(change: Callable[[DesiredVersions], Desired]) -> None:
    versions = DesiredVersions()
    versions.installed()
    runner = _runner(versions)
    runner.run()
    wanted = change(versions)
    rehearsal = rehearse(Plans(plan()), runner.journal, wanted, runner.now_us)
    assert _calls(rehearsal) == _made_next(runner, wanted)


@pytest.mark.parametrize("at", range(6))
def test_a_lost_answer_is_rehearsed_with_its_look_up(at: int) -> None:
    versions = DesiredVersions()
    versions.installed()
    runner = _runner(versions, modes=[Mode.WELL] * at + [Mode.LOST_WITH_EFFECT])
    runner.until_us = 0
    runner.run()
    rehearsal = rehearse(Plans(plan()), runner.journal, versions.now, runner.now_us)
    assert rehearsal.calls[0].verb is Verb.READ
    assert _calls(rehearsal) == _made_next(runner, versions.now)


def test_a_rehearsal_changes_no_journal() -> None:
    versions = DesiredVersions()
    versions.installed()
    runner = _runner(versions)
    runner.run()
    stored = runner.stored
    rehearse(Plans(plan()), runner.journal, versions.uninstalled(), runner.now_us)
    assert runner.stored == stored
    assert rehearse(Plans(plan()), new_life(runner.journal), versions.installed(), runner.now_us).generation == 2


def test_missing_names_are_named_by_step_and_every_later_call_is_shown() -> None:
    text = "".join(
        f'[[step]]\nname = "{name}"\nkind = "http"\nundo = "reverse"\nurl = "{{configuration.{name}.url}}"\n'
        for name in ("a", "b", "c")
    )
    versions = DesiredVersions()
    versions.installed(b={"url": "https://b.salesforce.com"})
    rehearsal = rehearse(Plans(plan(text)), MemoryRunner(OutsideSystems(), versions.now).journal, versions.now, 1)
    assert rehearsal.missing == {"a": ("configuration.a.url",), "c": ("configuration.c.url",)}
    assert [(call.move.step.name, call.missing) for call in rehearsal.calls] == [
        ("a", ("configuration.a.url",)), ("b", ()), ("c", ("configuration.c.url",)),
    ]  # fmt: skip


def test_a_held_version_ends_the_rehearsal_with_its_reason() -> None:
    versions = DesiredVersions()
    versions.installed(tenant_id=None)
    rehearsal = rehearse(Plans(plan()), _runner(versions).journal, versions.now, 1)
    assert (rehearsal.calls, rehearsal.ends) == ((), "tenant_unknown")


def test_a_rolled_back_tenant_is_rehearsed_with_its_next_try() -> None:
    versions = DesiredVersions()
    versions.installed()
    runner = _runner(versions, modes=[Mode.WELL, Mode.REFUSED])
    runner.run()
    assert runner.phase is Phase.ROLLED_BACK
    rehearsal = rehearse(Plans(plan()), runner.journal, versions.now, runner.now_us)
    assert (rehearsal.phase, rehearsal.generation) == (Phase.CREATING, 2)
    assert rehearsal.calls[0].waits_for == "rolled_back"
    assert rehearsal.calls[0].wait_us > 0
