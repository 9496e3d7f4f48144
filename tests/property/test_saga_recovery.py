"""A registry restored from any earlier moment ends as desired, each resource once, and no resource is left over."""

import copy
from dataclasses import dataclass, field
from functools import reduce

from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.outcome import Direction, Outcome, State
from schemas.saga import Journal, Phase
from schemas.tenant import Desired, Tenant
from services.core.saga.intents import Turn
from services.core.saga.recovery import KnownOfKey, recovered, with_record
from tests.property.test_saga_converges import MODES, STORIES, told_story
from tests.support.examples import examples
from tests.support.saga_world import STEPS, MemoryRunner, Mode, OutsideSystems

NOW_US = 1_790_000_000_000_000
"""Later than any count: what goes on at the time in seconds is above it."""


@dataclass
class Moment:
    """The state at a commit."""

    stored: str
    world: OutsideSystems
    said: list[Outcome]
    desired: Desired
    known: set[str]


@dataclass
class Watched(MemoryRunner):
    """A worker each of whose commits is kept, with the world as it was."""

    moments: list[Moment] = field(default_factory=list)

    def _commit(self, turn: Turn) -> None:
        super()._commit(turn)
        world = copy.deepcopy(self.world)
        self.moments.append(Moment(self.stored, world, list(self.outcomes), self.desired, set(self.known)))


@given(story=STORIES, modes=MODES, backup=st.integers(0, 200), lost=st.integers(0, 200), then_modes=MODES)
@example(
    story=[(0, "installed", 0), (3, "installed", 1)],
    modes=[Mode.WELL, Mode.UNSHOWN, Mode.CONTRADICTED],
    backup=0,
    lost=0,
    then_modes=[],
)
@settings(max_examples=examples(400), deadline=None)
def test_a_restored_older_registry_ends_as_desired(
    story: list[tuple[int, str, int]], modes: list[Mode], backup: int, lost: int, then_modes: list[Mode]
) -> None:
    coming, versions = told_story(story)
    first = Watched(OutsideSystems(modes=modes), coming[0][1])
    first.run(coming)
    then = first.moments[backup % len(first.moments)]
    after = first.moments[max(backup % len(first.moments), lost % len(first.moments))]
    after.world.modes[:] = then_modes
    old = Journal.model_validate_json(then.stored)
    records: list[Outcome | Tenant | Desired] = [*after.said, *(desired for _, desired in coming)]
    told = reduce(with_record, records, KnownOfKey())
    again = MemoryRunner(after.world, versions.now, now_us=NOW_US, known=after.known)
    again.stored = recovered(old, versions.now, told, again.plans, NOW_US).model_dump_json()
    was_whole = Journal.model_validate_json(after.stored).phase in {Phase.ACTIVE, Phase.UPDATING, Phase.RESTORING}
    said_whole = any((one.direction, one.state) == (Direction.UP, State.DONE) for one in after.said)
    again.run()
    if (
        was_whole
        and said_whole
        and versions.now.installed
        and versions.now.uninstalled_at == after.desired.uninstalled_at
    ):
        assert again.phase is Phase.ACTIVE, "a tenant that was there is gone"
        assert again.journal.generation == Journal.model_validate_json(after.stored).generation
    if again.phase in {Phase.EMPTY, Phase.ROLLED_BACK}:
        assert after.world.there == {}
    if again.phase is Phase.ACTIVE and again.outcomes and again.last.reason != "update_refused":
        assert after.world.steps() == list(STEPS)
    after.world.modes.clear()
    last = versions.configured(size="9") if versions.now.installed else versions.change()
    again.run([(0, last)])
    assert (again.last.desired_version, again.last.state.value) == (last.version, "done")
    assert all(one.seq > (after.said[-1].seq if after.said else 0) for one in again.outcomes)
    if last.installed:
        assert after.world.steps() == list(STEPS)
        assert again.phase is Phase.ACTIVE
        assert after.world.there["middleware", again.journal.generation].configuration == {"size": "9"}
    else:
        assert after.world.there == {}
        assert again.phase is Phase.EMPTY
    assert again.journal.orphan_checks == ()
