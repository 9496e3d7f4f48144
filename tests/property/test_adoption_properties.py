"""Whatever follows an adoption: nothing that exists is made a second time, and the saga ends as desired."""

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.saga import Phase
from services.core.saga.calls import Verb
from tests.property.test_saga_converges import CRASHES, MAKES, MODES, STORIES
from tests.support.adopted_saga import BASE, adopted, versions, world
from tests.support.examples import examples
from tests.support.saga_world import STEPS


@given(story=STORIES, modes=MODES, crashes=CRASHES)
@settings(max_examples=examples(200), deadline=None)
def test_an_adopted_life_ends_as_desired_with_each_resource_once(
    story: list[tuple[int, str, int]], modes: list[str], crashes: frozenset[int]
) -> None:
    runner, told = adopted(world()), versions()
    first = told.installed()
    runner.desired = first
    runner.run()
    assert (runner.phase, runner.world.calls) == (Phase.ACTIVE, [])
    runner.world.modes, runner.crashes = list(modes), frozenset(runner.marks + mark for mark in crashes)  # type: ignore[arg-type]
    at, coming = runner.marks, []
    for gap, what, number in story:
        at += gap
        coming.append((at, MAKES[what](told, number)))
    runner.run(coming)
    # The small world refuses by itself a second create of what exists.
    if runner.phase in {Phase.EMPTY, Phase.ROLLED_BACK}:
        assert runner.world.there == {}
    runner.world.modes.clear()
    last = told.configured(size="9") if told.now.installed else told.change()
    runner.run([(0, last)])
    assert (runner.last.desired_version, runner.last.state.value) == (last.version, "done")
    assert runner.world.steps() == (list(STEPS) if last.installed else [])
    assert runner.journal.orphan_checks == ()


@given(
    before=st.lists(st.tuples(st.sampled_from(["installed", "uninstalled"]), st.integers(1, 500)), max_size=4),
    after=st.booleans(),
)
@settings(max_examples=examples(100), deadline=None)
def test_events_from_before_the_file_that_arrive_before_the_ledger_is_told_change_nothing(
    before: list[tuple[str, int]], *, after: bool
) -> None:
    """Between row and observation any version may come of events that are older than the file."""
    runner, told = adopted(world()), versions()
    for what, age_us in sorted(before, key=lambda one: -one[1]):
        told.at_us = BASE.told_us - age_us
        runner.desired = MAKES[what](told, 0)
        runner.run()
    assert {verb for _, verb, _, _ in runner.world.calls} <= {Verb.UPDATE}, "an install may bring other settings"
    assert (runner.phase, runner.world.steps()) == (Phase.ACTIVE, list(STEPS))
    told.at_us = BASE.told_us
    runner.desired = told.installed()
    runner.run()
    assert (runner.phase, runner.last.state.value) == (Phase.ACTIVE, "done")
    assert not {Verb.CREATE} & {verb for _, verb, _, _ in runner.world.calls}
    if after:
        runner.desired = told.uninstalled()
        runner.run()
        assert (runner.phase, runner.world.there) == (Phase.EMPTY, {})
