"""The state of a key when its registry row is older than its published outcomes."""

from functools import reduce

import pytest

from schemas.outcome import Direction, Outcome, State
from schemas.saga import Journal, Life, OrphanCheck, Phase, Presence, StepLog, StepState
from schemas.tenant import Stage, Tenant
from services.core.saga.calls import Done
from services.core.saga.intents import decide
from services.core.saga.moves import LookUp, Undo
from services.core.saga.next_move import Plans
from services.core.saga.plan import parse
from services.core.saga.recovery import KnownOfKey, is_older, recovered, with_placeholder_tenant, with_record
from services.core.saga.removal import begins_destruction
from services.core.saga.results import settle
from services.provisioner.kinds import TRAITS
from tests.support.saga_world import KEY, PLAN_TEXT, STEPS, DesiredVersions, plan

NOW_US = 1_790_000_000_000_000
FLOOR = NOW_US // 1_000_000
PLANS = Plans(plan())


def outcome(seq: int, generation: int, direction: str, state: str, reason: str | None = None) -> Outcome:
    return Outcome(
        key=KEY, seq=seq, desired_version=seq, generation=generation, direction=Direction(direction),
        state=State(state), reason=reason, at=NOW_US,
    )  # fmt: skip


def tenant(generation: int, stage: Stage) -> Tenant:
    return Tenant(
        key=KEY, version=1, tenant_id="acme", installed=True, enabled=True, configuration={"crmEndpoint": "https://v"},
        configuration_mac=None, stage=stage, reason=None, flags=(), revision=1, generation=generation, recheck_at=None,
        updated_at=NOW_US,
    )  # fmt: skip


UP_DONE = ("up", "done")


@pytest.mark.parametrize(
    ("said", "generation", "ended", "whole"),
    [
        ([], 0, False, False),
        ([outcome(3, 2, *UP_DONE)], 2, False, True),
        ([outcome(3, 2, *UP_DONE), outcome(4, 2, "up", "working")], 2, False, True),
        ([outcome(3, 2, *UP_DONE), outcome(4, 2, "down", "done")], 2, True, True),
        ([outcome(3, 2, *UP_DONE), outcome(4, 2, "down", "done"), outcome(5, 3, "up", "working")], 3, False, False),
        ([outcome(3, 2, "down", "working", "removal_braked")], 2, False, True),
        ([outcome(3, 2, "down", "failed")], 2, False, False),
        ([outcome(3, 2, "up", "rolled_back")], 2, True, False),
        ([outcome(3, 2, "up", "held", "tenant_conflict")], 2, True, False),
        ([outcome(3, 2, "down", "held", "install_unknown")], 2, False, False),
        ([tenant(4, Stage.ACTIVE)], 4, False, True),
        ([tenant(4, Stage.DEPROVISIONED)], 4, True, False),
        ([tenant(4, Stage.DEPROVISIONING)], 4, False, True),
        ([outcome(3, 4, "up", "working"), tenant(4, Stage.DEPROVISIONING)], 4, False, True),
        ([tenant(4, Stage.DEPROVISIONING_FAILED)], 4, False, False),
        ([outcome(3, 4, "up", "working"), tenant(4, Stage.ACTIVE)], 4, False, True),
        ([outcome(3, 4, "down", "done"), tenant(4, Stage.ACTIVE)], 4, True, True),
        ([outcome(3, 3, "down", "done"), tenant(4, Stage.ACTIVE)], 4, False, True),
    ],
)
@pytest.mark.parametrize("turned", [False, True], ids=["outcomes first", "the view first"])
def test_the_newest_generation_is_known_with_its_end_and_completeness(
    said: list[Outcome | Tenant], generation: int, *, ended: bool, whole: bool, turned: bool
) -> None:
    found = reduce(with_record, sorted(said, key=lambda one: isinstance(one, Tenant) is not turned), KnownOfKey())
    assert (found.generation, found.ended, found.whole) == (generation, ended, whole)


def test_a_row_is_older_if_a_greater_seq_or_generation_was_published() -> None:
    said = KnownOfKey(5, 2)
    assert [is_older(seq, life, said) for seq, life in ((5, 2), (6, 3), (4, 2), (5, 1))] == [False, False, True, True]


def test_an_unknown_generation_is_adopted_in_doubt_and_the_former_one_looked_up() -> None:
    versions = DesiredVersions()
    told = with_record(
        reduce(with_record, [tenant(3, Stage.ACTIVE)], KnownOfKey()), versions.configured(crmEndpoint="https://since")
    )
    log = StepLog(n=3, inputs={"configuration": {"crmEndpoint": "https://old"}}, state=StepState.PRESENT)
    before = Life(generation=1, plan=PLANS.current.digest, tenant_id="acme", steps={"crm": log})
    row = Journal(phase=Phase.ACTIVE, generation=1, life=before, seq=2, lines=9)
    after = recovered(row, versions.uninstalled(), told, PLANS, NOW_US)
    assert (after.phase, after.generation, after.target) == (Phase.ACTIVE, 3, None)
    assert (after.seq, after.lines) == (FLOOR, FLOOR)
    assert after.life is not None
    assert (after.life.generation, after.life.tenant_id, list(after.life.steps)) == (3, "acme", list(STEPS))
    assert {log.presence for log in after.life.steps.values()} == {Presence.MAYBE}
    # Uninstalled, it has no configuration any more: where its connection is, an earlier version says, or the view.
    assert after.life.steps["crm"].inputs["configuration"]["crmEndpoint"] == "https://since"
    assert after.life.steps["crm"].locations == ("https://v", "https://since")
    assert after.life.steps["schema"].inputs["configuration"] == {}, "what a step does not use it is not given"
    assert [check.life.generation for check in after.orphan_checks] == [1]
    assert after.orphan_checks[0].life.steps["crm"].n == FLOOR


def test_a_recovered_step_may_be_at_every_known_location() -> None:
    versions = DesiredVersions()
    wanted = versions.installed(crmEndpoint="https://z")
    told = with_record(KnownOfKey(9, 1, whole=True), versions.configured(crmEndpoint="https://y"))
    log = StepLog(n=1, location="https://x", state=StepState.PRESENT)
    life = Life(generation=1, plan=PLANS.current.digest, tenant_id="acme", steps={"crm": log}, last_applied=wanted)
    row = Journal(phase=Phase.ACTIVE, generation=1, life=life, seq=2)
    after = recovered(row, wanted, told, PLANS, NOW_US)
    assert after.life is not None
    assert after.life.steps["crm"].locations == ("https://x", "https://y", "https://z")
    assert after.life.last_applied == wanted


@pytest.mark.parametrize(("whole", "phase"), [(True, Phase.ACTIVE), (False, Phase.CREATING)])
def test_only_a_generation_that_was_never_complete_may_be_compensated(*, whole: bool, phase: Phase) -> None:
    after = recovered(Journal(), DesiredVersions().installed(), KnownOfKey(9, 1, whole=whole), PLANS, NOW_US)
    assert (after.phase, after.generation) == (phase, 1)


def test_a_held_teardown_whose_completion_is_no_longer_told_is_asked_for_after_a_recovery() -> None:
    versions = DesiredVersions()
    versions.installed()
    gone = versions.uninstalled()
    told = reduce(with_record, [outcome(3, 1, "down", "working", "removal_braked")], KnownOfKey())
    journal = recovered(Journal(), gone, told, PLANS, NOW_US)
    looked_up = decide(PLANS, journal, gone, NOW_US)
    assert isinstance(looked_up.move, LookUp)
    journal = settle(looked_up.journal, looked_up.move, Done({}), NOW_US, PLANS.pace)
    turn = decide(PLANS, journal, gone, NOW_US)
    assert isinstance(turn.move, Undo)
    assert begins_destruction(journal, turn.journal, turn.move)


def test_steps_of_a_plan_that_cannot_be_carried_out_are_not_forgotten() -> None:
    life = Life(generation=1, plan="f" * 64, tenant_id="acme", steps={"gone": StepLog(n=1, state=StepState.PRESENT)})
    shorter = Plans(parse(PLAN_TEXT, kinds=TRAITS, settings={}))
    on = recovered(
        Journal(phase=Phase.ACTIVE, generation=1, life=life, target=DesiredVersions().installed()),
        DesiredVersions().installed(), KnownOfKey(), shorter, NOW_US,
    )  # fmt: skip
    assert on.life is not None
    assert list(on.life.steps) == ["gone"]
    over = recovered(
        Journal(phase=Phase.ACTIVE, generation=1, life=life),
        DesiredVersions().installed(),
        KnownOfKey(9, 2),
        shorter,
        NOW_US,
    )
    assert list(over.orphan_checks[0].life.steps) == ["gone"]


def test_a_repeated_look_up_uses_no_intent_number_twice() -> None:
    ended = Life(generation=1, plan=PLANS.current.digest, tenant_id="acme", steps={"crm": StepLog(n=4)})
    row = Journal(generation=1, orphan_checks=(OrphanCheck(due_at=0, life=ended),))
    after = recovered(row, DesiredVersions().installed(), KnownOfKey(), PLANS, NOW_US)
    assert after.orphan_checks[0].life.steps["crm"].n == FLOOR
    assert (after.phase, after.seq) == (Phase.EMPTY, FLOOR)


def test_an_adopted_life_takes_no_tenant_id_of_another_key() -> None:
    adopted = recovered(Journal(), DesiredVersions().installed(), KnownOfKey(9, 1), PLANS, NOW_US)
    named = with_placeholder_tenant(adopted, KEY)
    assert named.life is not None
    assert named.life.tenant_id == f"unknown.{KEY.partition(':')[2]}"
