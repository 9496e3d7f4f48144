"""Any answers of the outside, crashes of the worker and new versions: the saga ends as desired, each resource once."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.saga import Phase
from schemas.tenant import Desired
from services.core.unwell import HELD_REMOVALS
from tests.support.examples import examples
from tests.support.saga_world import STEPS, DesiredVersions, MemoryRunner, Mode, OutsideSystems, ends

MAKES: dict[str, Callable[[DesiredVersions, int], Desired]] = {
    "installed": lambda versions, number: versions.installed(size=str(number)),
    "uninstalled": lambda versions, _: versions.uninstalled(),
    "configured": lambda versions, number: versions.configured(size=str(number)),
    "bad": lambda versions, number: versions.configured(bad=STEPS[2 + number]),
    "disabled": lambda versions, _: versions.switched(enabled=False),
    "enabled": lambda versions, _: versions.switched(enabled=True),
    "reinstalled": lambda versions, number: versions.reinstalled(size=str(number)),
    "other tenant": lambda versions, _: versions.change(tenant_id="other"),
}
STORIES = st.lists(
    st.tuples(st.integers(0, 25), st.sampled_from(list(MAKES)), st.integers(0, 3)), min_size=1, max_size=7
)
MODES = st.lists(st.sampled_from(list(Mode)), max_size=60)
CRASHES = st.frozensets(st.integers(1, 80), max_size=8)
BARS = st.lists(st.booleans(), max_size=40)
HOLDS = st.lists(st.sampled_from(HELD_REMOVALS), max_size=6)


def told_story(story: list[tuple[int, str, int]]) -> tuple[list[tuple[int, Desired]], DesiredVersions]:
    """A story as versions, each with the mark before which it comes; and the versions as they are in the end."""
    versions, told, at = DesiredVersions(), [], 0
    for gap, what, number in story:
        at += gap
        told.append((at, MAKES[what](versions, number)))
    return told, versions


@given(story=STORIES, modes=MODES, crashes=CRASHES, bars=BARS, holds=HOLDS, again=CRASHES)
@settings(max_examples=examples(300), deadline=None)
def test_a_saga_ends_as_desired_with_each_resource_once(
    story: list[tuple[int, str, int]],
    modes: list[Mode],
    crashes: frozenset[int],
    bars: list[bool],
    holds: list[str],
    again: frozenset[int],
) -> None:
    told, versions = told_story(story)
    world = OutsideSystems(modes=modes)
    worker = MemoryRunner(world, told[0][1], crashes=crashes, bars=bars, holds=holds, retries_before=again)
    worker.run(told)
    _agrees(worker, world)
    _is_counted_once(worker, crashes)
    # A tenant that was rolled back or refused is woken by one newer version in a world that is well again.
    world.modes.clear()
    last = versions.configured(size="9") if versions.now.installed else versions.change()
    worker.run([(0, last)])
    assert (worker.last.desired_version, worker.last.state.value) == (last.version, "done")
    if last.installed:
        assert world.steps() == list(STEPS)
        assert worker.phase is Phase.ACTIVE
        assert world.there["middleware", worker.journal.generation].configuration == {"size": "9"}
        assert all(resource.enabled == last.enabled for resource in world.there.values())
    else:
        assert world.there == {}
        assert worker.phase is Phase.EMPTY
    assert worker.journal.orphan_checks == ()


def _agrees(worker: MemoryRunner, world: OutsideSystems) -> None:
    """A journal at rest agrees with the outside systems and with the outcomes."""
    journal = worker.journal
    assert [said.seq for said in worker.outcomes] == list(range(1, len(worker.outcomes) + 1))
    assert worker.outcomes
    if journal.phase in {Phase.EMPTY, Phase.ROLLED_BACK}:
        assert world.there == {}
    if journal.phase is Phase.ACTIVE and worker.last.reason != "update_refused":
        assert world.steps() == list(STEPS)
    version, _, _, _ = ends(worker.outcomes)[-1]
    assert journal.phase in {Phase.EMPTY, Phase.ROLLED_BACK, Phase.ACTIVE}
    assert version == worker.desired.version


def _is_counted_once(worker: MemoryRunner, crashes: frozenset[int]) -> None:
    """A milestone of a version is met once, whatever was tried again; only a lost worker may look up again."""
    assert len({end.since_us for end in worker.converged}) == len(worker.converged)
    ended = [said for said in worker.outcomes if said.state.value == "done" and said.reason != "update_refused"]
    assert [(end.direction, end.at_us) for end in worker.converged] == [(said.direction, said.at) for said in ended]
    assert all(end.since_us <= end.at_us for end in worker.converged)
    if not crashes:
        assert len(set(worker.first_calls)) == len(worker.first_calls)


@given(story=STORIES, modes=MODES, crashes=CRASHES)
@settings(max_examples=examples(30), deadline=None)
def test_a_stored_journal_is_read_back_equal(
    story: list[tuple[int, str, int]], modes: list[Mode], crashes: frozenset[int]
) -> None:
    told, _ = told_story(story)
    worker = MemoryRunner(OutsideSystems(modes=modes), told[0][1], crashes=crashes)
    worker.run(told)
    assert worker.journal.model_dump_json() == worker.stored
