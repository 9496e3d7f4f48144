"""What an ended life left outside is found by name, and removed by the saga's own orphan check alone."""

import pytest

from schemas.audit import OperatorAct
from schemas.saga import Journal, Life, Phase
from services.core.ledger.audit import is_genuine
from services.core.reconcile.orphans import seen_twice, sighted
from services.core.reconcile.three_views import Orphan
from services.core.saga.calls import Verb
from services.core.saga.ended_lives import (
    GENERATIONS_MOST,
    condemned,
    ended_lives,
    is_over,
    lookable,
    present_steps,
    with_life,
)
from services.core.saga.intents import life_of
from services.core.saga.moves import LookUp
from tests.support.saga_world import KEY, DesiredVersions, MemoryRunner, OutsideSystems, Resource, plan

MATERIAL = b"m" * 32
ACT = OperatorAct(by="Ada", reason="zombie", digest="0123456789abcdef", number=1)
LIFE = Life(generation=3, plan="p", tenant_id="acme")


def torn_down() -> MemoryRunner:
    """A key whose first life is over, with its orphan check done."""
    versions = DesiredVersions()
    runner = MemoryRunner(OutsideSystems(), versions.installed())
    runner.run()
    runner.desired = versions.uninstalled()
    runner.run()
    assert (runner.phase, runner.world.there, runner.journal.orphan_checks) == (Phase.EMPTY, {}, ())
    return runner


@pytest.mark.parametrize(("generation", "over"), [(0, False), (1, True), (2, True), (3, False), (4, False)])
def test_only_earlier_generations_are_over(generation: int, *, over: bool) -> None:
    assert is_over(Journal(phase=Phase.ACTIVE, generation=3, life=LIFE), generation) == over


def test_a_generation_with_an_orphan_check_of_its_own_is_left_to_it() -> None:
    journal = with_life(Journal(phase=Phase.EMPTY, generation=3), LIFE)
    assert [is_over(journal, generation) for generation in (1, 2, 3)] == [True, True, False]


def test_the_newest_ended_generations_are_looked_up_by_every_removable_step() -> None:
    journal = Journal(
        phase=Phase.ACTIVE, generation=GENERATIONS_MOST + 5, life=LIFE.model_copy(update={"generation": 25})
    )
    lives = ended_lives(journal, plan(), KEY)
    assert [life.generation for life in lives] == list(range(GENERATIONS_MOST + 4, 4, -1))
    assert set(lives[0].steps) == {step.name for step in lookable(plan())} == {
        "middleware", "crm", "schema", "subscriptions", "tokens",
    }  # fmt: skip
    assert life_of(with_life(journal, lives[0]), LookUp(24, plan().steps[1], 0)) == lives[0]


def test_a_step_without_a_url_has_no_resource_that_could_be_missing() -> None:
    runner = MemoryRunner(OutsideSystems(), DesiredVersions().installed())
    runner.run()
    life = runner.journal.life
    assert life is not None
    assert [step.name for step in present_steps(plan(), life)] == [step.name for step in lookable(plan())]
    nowhere = life.steps["crm"].model_copy(update={"location": None, "locations": ()})
    without = life.model_copy(update={"steps": {**life.steps, "crm": nowhere}})
    assert [step.name for step in present_steps(plan(), without)] == ["middleware", "schema", "subscriptions", "tokens"]


def test_a_late_create_of_an_ended_life_is_removed_once_an_operator_asks() -> None:
    runner = torn_down()
    runner.world.there["middleware", 1] = Resource({}, True, 0, "late")
    runner.run()
    assert runner.world.steps() == ["middleware"], "nobody looks by itself any more"
    asked = condemned(runner.journal, plan(), KEY, {1: ["middleware"]}, ACT, now_us=runner.now_us, material=MATERIAL)
    assert asked is not None
    assert (asked.line.id, asked.line.act) == (f"{KEY}/orphans_removal/{asked.journal.lines}", ACT)
    assert is_genuine(asked.line, [MATERIAL])
    before = len(runner.world.calls)
    runner.stored = asked.journal.model_dump_json()
    runner.run()
    assert runner.world.steps() == []
    calls = [(step, verb) for step, verb, _, _ in runner.world.calls[before:]]
    assert calls == [("middleware", Verb.READ), ("middleware", Verb.DELETE)]
    assert (runner.phase, runner.journal.orphan_checks) == (Phase.EMPTY, ())


def test_the_present_life_is_never_condemned() -> None:
    runner = torn_down()
    journal = runner.journal.model_copy(update={"generation": 3, "phase": Phase.ACTIVE, "life": LIFE})
    asked = condemned(journal, plan(), KEY, {1: ["crm"], 3: ["crm"]}, ACT, now_us=1, material=MATERIAL)
    assert asked is None


def test_an_orphan_counts_when_two_looks_have_seen_it() -> None:
    orphan, other = Orphan("org:a", 1, "schema"), Orphan("org:b", 1, "schema", removable=False)
    first, stored = sighted([orphan, other], {}, lambda _: True, 1_000)
    assert seen_twice(first, 1_599, 600) == ()
    again, stored = sighted([orphan, other], stored, lambda _: True, 1_600)
    assert [one.name for one in seen_twice(again, 1_600, 600)] == [orphan.name], "nobody can remove the other"
    _, without = sighted([], stored, lambda key: key == "org:a", 1_700)
    assert without == {other.name: 1_000}, "only looked-for orphans are forgotten"
    anew, _ = sighted([orphan], without, lambda _: True, 1_800)
    assert seen_twice(anew, 1_800, 600) == ()
