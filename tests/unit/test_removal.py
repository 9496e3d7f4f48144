"""A teardown is asked for once, before its first delete; held there it has destroyed nothing, and can be revived."""

from itertools import pairwise

import pytest

from schemas.genesys import Integration
from schemas.outcome import Direction, State
from schemas.saga import Phase
from schemas.saga_row import SagaRow
from schemas.tenant import Desired
from services.core.saga.calls import Verb
from services.core.saga.graces import first_delete_us, graces_of
from services.core.saga.intents import decide
from services.core.saga.next_move import HELD_US
from services.core.saga.removal import GenesysSays, genesys_says, held_by
from services.core.saga.retry import RetryEnd, decide_retry
from services.core.saga.view import view_of
from services.core.unwell import (
    GENESYS_SAYS_INSTALLED,
    GENESYS_UNREAD,
    GRACE,
    HELD_REMOVALS,
    REMOVAL_BRAKED,
    REMOVAL_REFUSED,
)
from tests.support.saga_world import STEPS, DesiredVersions, MemoryRunner, Mode, OutsideSystems

KEY_BYTES = b"k" * 40


def active() -> tuple[OutsideSystems, DesiredVersions, MemoryRunner]:
    """A tenant that was made."""
    world, versions = OutsideSystems(), DesiredVersions()
    worker = MemoryRunner(world, versions.installed())
    worker.run()
    assert worker.phase is Phase.ACTIVE
    return world, versions, worker


def test_a_teardown_is_asked_for_once_however_often_its_worker_dies() -> None:
    _, versions, worker = active()
    worker.world.modes = [Mode.LOST_WITHOUT, Mode.RETRYABLE, Mode.LOST_WITH_EFFECT]
    worker.crashes = frozenset(range(worker.marks + 2, worker.marks + 30, 3))
    worker.run([(0, versions.uninstalled())])
    assert (worker.phase, worker.first_deletes) == (Phase.EMPTY, 1)


def test_what_was_never_active_is_not_asked_for() -> None:
    versions = DesiredVersions()
    worker = MemoryRunner(OutsideSystems(modes=[Mode.WELL, Mode.WELL, Mode.REFUSED]), versions.installed())
    worker.run()
    assert worker.last.state is State.ROLLED_BACK
    worker.run([(0, versions.uninstalled())])
    assert (worker.last.direction, worker.last.state, worker.first_deletes) == (Direction.DOWN, State.DONE, 0)


def test_tokens_that_are_issued_anew_are_no_removal_and_a_later_one_is_asked_for() -> None:
    world, versions, worker = active()
    worker.run([(0, versions.reinstalled())])
    assert "tokens" in world.made(Verb.DELETE)
    assert worker.first_deletes == 0
    worker.run([(0, versions.uninstalled())])
    assert worker.first_deletes == 1


def revoking() -> tuple[DesiredVersions, MemoryRunner]:
    """A reinstalled tenant whose revocation of the former tokens has no answer."""
    world, versions, worker = active()
    # Of the first try and of the look-ups: the revocation stays open.
    world.modes = [Mode.LOST_WITHOUT] * 9
    worker.until_us = worker.now_us
    worker.run([(0, versions.reinstalled())])
    assert worker.phase is Phase.UPDATING
    assert "tokens" in world.made(Verb.DELETE)
    world.modes, worker.until_us = [], 10**18
    return versions, worker


def test_a_lost_revocation_of_tokens_is_no_first_delete_of_a_later_teardown() -> None:
    versions, worker = revoking()
    worker.run([(0, versions.uninstalled())])
    assert (worker.phase, worker.first_deletes) == (Phase.EMPTY, 1)


def test_a_teardown_with_a_lost_revocation_is_held_and_revived_as_any_other() -> None:
    versions, worker = revoking()
    worker.holds, worker.until_us = [REMOVAL_BRAKED] * 9, worker.now_us
    worker.run([(0, versions.uninstalled())])
    assert (worker.phase, worker.last.reason) == (Phase.REMOVING, REMOVAL_BRAKED)
    worker.until_us = 10**18
    worker.run([(0, versions.installed())])
    assert (worker.phase, worker.journal.generation, worker.first_deletes) == (Phase.ACTIVE, 1, 0)


def test_a_clock_set_back_makes_no_revocation_the_first_delete_of_a_teardown() -> None:
    versions, worker = revoking()
    worker.run()
    assert worker.phase is Phase.ACTIVE
    # A revocation was tried in vain, by a clock that was ahead of the present one.
    life = worker.journal.life
    assert life is not None
    ahead = life.steps["tokens"].model_copy(update={"verb": Verb.DELETE.value, "at": worker.now_us + 10_000_000})
    changed = life.model_copy(update={"steps": life.steps | {"tokens": ahead}})
    worker.stored = worker.journal.model_copy(update={"life": changed}).model_dump_json()
    worker.holds, worker.until_us = [REMOVAL_BRAKED] * 2, worker.now_us + 3 * HELD_US
    worker.run([(0, versions.uninstalled())])
    assert (worker.phase, worker.first_deletes) == (Phase.EMPTY, 1)


def test_a_held_teardown_says_each_reason_once_and_goes_on_with_a_word() -> None:
    world, versions, worker = active()
    worker.holds = [REMOVAL_BRAKED, REMOVAL_BRAKED, REMOVAL_REFUSED, GENESYS_SAYS_INSTALLED, GENESYS_UNREAD]
    worker.run([(0, versions.uninstalled())])
    said = [(one.direction, one.state, one.reason) for one in worker.outcomes[-6:]]
    reasons = (REMOVAL_BRAKED, REMOVAL_REFUSED, GENESYS_SAYS_INSTALLED, GENESYS_UNREAD)
    assert said == [
        *((Direction.DOWN, State.WORKING, reason) for reason in reasons),
        (Direction.DOWN, State.WORKING, None),
        (Direction.DOWN, State.DONE, None),
    ]
    assert world.made(Verb.DELETE) == list(reversed(STEPS))
    assert [later.seq - earlier.seq for earlier, later in pairwise(worker.outcomes)] == [1] * (len(worker.outcomes) - 1)


def test_a_held_teardown_counts_from_its_release() -> None:
    _, versions, worker = active()
    worker.holds = [REMOVAL_BRAKED] * 60
    gone = versions.uninstalled()
    worker.run([(0, gone)])
    end = worker.converged[-1]
    assert end.at_us - (gone.received_at or 0) > 60 * 60_000_000
    assert end.at_us - end.since_us < 1_000_000
    once_more = versions.uninstalled()
    worker.run([(0, once_more)])
    assert worker.converged[-1].since_us == once_more.received_at, "nothing was there to be held"
    worker.run([(0, versions.installed())])
    again = versions.uninstalled()
    worker.run([(0, again)])
    assert worker.converged[-1].since_us == again.received_at, "the next one was not held"


@pytest.mark.parametrize("reason", HELD_REMOVALS)
def test_a_reinstall_revives_what_is_held(reason: str) -> None:
    world, versions, worker = active()
    worker.holds = [reason] * 9
    worker.until_us = worker.now_us
    worker.run([(0, versions.uninstalled())])
    assert worker.phase is Phase.REMOVING
    worker.until_us = 10**18
    worker.run([(0, versions.installed())])
    assert (worker.phase, worker.journal.generation) == (Phase.ACTIVE, 1)
    assert set(world.made(Verb.DELETE)) <= {"tokens"}
    assert worker.first_deletes == 0


def test_a_held_removal_is_shown_in_words_and_no_retry_releases_it() -> None:
    _, versions, worker = active()
    worker.holds = [REMOVAL_BRAKED] * 9
    worker.until_us = worker.now_us
    worker.run([(0, versions.uninstalled())])
    row = SagaRow("k", 2, "removing", 1, "acme", None, REMOVAL_BRAKED, None, 0.0, None, worker.journal)
    assert view_of(row).reason == "held: too many removals at once; an operator approves or refuses it"
    assert decide_retry(row, worker.journal, worker.desired, worker.now_us, KEY_BYTES).end is RetryEnd.HELD
    asked = SagaRow("k", 2, "removing", 1, "acme", None, GENESYS_UNREAD, None, 0.0, None, worker.journal)
    assert decide_retry(asked, worker.journal, worker.desired, worker.now_us, KEY_BYTES).end is not RetryEnd.HELD


def test_a_second_uninstall_leaves_a_held_teardown_as_it_is() -> None:
    _, versions, worker = active()
    worker.holds = [REMOVAL_BRAKED] * 9
    worker.until_us = worker.now_us
    worker.run([(0, versions.uninstalled())])
    began_us = worker.journal.phase_began_at
    worker.run([(0, versions.uninstalled())])
    turn = decide(worker.plans, worker.journal, worker.desired, worker.now_us)
    assert turn.journal.phase_began_at == began_us


def test_a_removal_by_audits_meets_the_brake_after_its_grace_and_a_reinstall_ends_both_waits() -> None:
    world, versions, worker = active()

    def audited() -> Desired:
        return versions.change(installed=False, uninstalled_at=versions.at_us, remove_after_s=86_400)

    worker.until_us = worker.now_us
    worker.run([(0, audited())])
    assert (worker.last.reason, worker.holds, worker.first_deletes) == (GRACE, [], 0)
    grace_ends_us = worker.journal.remove_at
    worker.holds, worker.until_us = [REMOVAL_BRAKED] * 9, grace_ends_us
    worker.run()
    assert (worker.phase, worker.last.reason) == (Phase.REMOVING, REMOVAL_BRAKED)
    worker.run([(0, audited())])
    assert (worker.last.reason, worker.journal.remove_at) == (REMOVAL_BRAKED, grace_ends_us), "no second grace"
    worker.until_us = 10**18
    worker.run([(0, versions.installed())])
    assert (worker.phase, worker.journal.generation, worker.first_deletes) == (Phase.ACTIVE, 1, 0)
    assert set(world.made(Verb.DELETE)) <= {"tokens"}
    worker.holds, again_us = [], worker.now_us
    worker.run([(0, audited())])
    assert (worker.phase, worker.first_deletes) == (Phase.EMPTY, 1)
    assert worker.now_us - again_us >= 86_400_000_000, "another removal has a grace of its own"


PLAN = """
[[step]]
name = "middleware"
kind = "http"
undo = "reverse"

[[step]]
name = "tokens"
kind = "oauth"
undo = "reverse"
destroy_after = "P2D"

[[step]]
name = "later"
kind = "http"
undo = "reverse"
destroy_after = "P9D"

[[step]]
name = "note"
kind = "http"
undo = "nothing"
destroy_after = "P1D"
"""


def test_the_grace_of_the_step_that_is_undone_first_counts() -> None:
    graces = graces_of(PLAN)
    assert graces == {"middleware": 0, "tokens": 2 * 86_400, "later": 9 * 86_400}
    assert graces_of("[[step]]\nname = 'x'") == graces_of("[[") == {}
    _, versions, worker = active()
    day_us = 86_400_000_000
    assert first_delete_us(worker.journal, graces, 7) == 7 + 2 * day_us, "the life has no step of the name later"
    assert first_delete_us(worker.journal, {}, 7) == 7
    worker.holds, worker.until_us = [REMOVAL_BRAKED] * 9, worker.now_us
    worker.run([(0, versions.uninstalled())])
    assert first_delete_us(worker.journal, graces, 7) == worker.journal.phase_began_at + 2 * day_us
    worker.holds, worker.until_us = [], 10**18
    worker.run()
    assert first_delete_us(worker.journal, graces, 7) is None


def test_a_removal_by_audits_deletes_first_at_the_end_of_its_grace() -> None:
    _, versions, worker = active()
    worker.until_us = worker.now_us
    worker.run([(0, versions.change(installed=False, uninstalled_at=versions.at_us, remove_after_s=86_400))])
    assert first_delete_us(worker.journal, {}, worker.now_us) == worker.journal.remove_at > worker.now_us


def test_a_first_provisioning_that_never_ended_waits_for_no_approval() -> None:
    worker = MemoryRunner(OutsideSystems(modes=[Mode.WELL, Mode.REFUSED]), DesiredVersions().installed())
    worker.run()
    assert first_delete_us(worker.journal, {}, 7) is None


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (None, GenesysSays.GONE),
        ("DELETED", GenesysSays.GONE),
        ("ENABLED", GenesysSays.INSTALLED),
        ("DISABLED", GenesysSays.INSTALLED),
        ("RESTORED", GenesysSays.INSTALLED),
        ("ARCHIVED", GenesysSays.UNREAD),
        ("", GenesysSays.UNREAD),
    ],
)
def test_a_state_of_genesys_means_gone_installed_or_nothing(found: str | None, says: GenesysSays) -> None:
    assert genesys_says(None if found is None else Integration("i", found, None)) is says


@pytest.mark.parametrize("needs_answer", [False, True])
def test_a_contradiction_stands_until_genesys_says_gone(*, needs_answer: bool) -> None:
    def held(says: GenesysSays | None, *, is_contradicted: bool) -> GenesysSays | None:
        return held_by(says, is_contradicted=is_contradicted, needs_answer=needs_answer)

    for is_contradicted in (False, True):
        assert held(GenesysSays.GONE, is_contradicted=is_contradicted) is None
        assert held(GenesysSays.INSTALLED, is_contradicted=is_contradicted) is GenesysSays.INSTALLED
    assert held(GenesysSays.UNREAD, is_contradicted=True) is GenesysSays.INSTALLED
    assert held(None, is_contradicted=True) is GenesysSays.INSTALLED
    assert held(None, is_contradicted=False) is GenesysSays.UNREAD, "a question that is put off is no consent"
    assert held(GenesysSays.UNREAD, is_contradicted=False) == (GenesysSays.UNREAD if needs_answer else None)
