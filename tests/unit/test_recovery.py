"""What is still known of a key when its row is older than what was said from it."""

import pytest

from schemas.outcome import Direction, Outcome, State
from schemas.saga import Journal, Life, Phase, Presence, StepLog, Sweep
from schemas.tenant import Stage, Tenant
from services.core.recovery import Told, in_doubt, is_older, recovered, told
from services.core.saga import Plans
from tests.saga_world import KEY, STEPS, Wishes, plan

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


@pytest.mark.parametrize(
    ("said", "view", "generation", "ended"),
    [
        (None, None, 0, False),
        (outcome(3, 2, "up", "done"), None, 2, False),
        (outcome(3, 2, "down", "done"), None, 2, True),
        (outcome(3, 2, "down", "failed"), None, 2, False),
        (outcome(3, 2, "up", "rolled_back"), None, 2, True),
        (outcome(3, 2, "up", "held", "tenant_conflict"), None, 2, True),
        (outcome(3, 2, "down", "held", "install_unknown"), None, 2, False),
        (None, tenant(4, Stage.ACTIVE), 4, False),
        (None, tenant(4, Stage.DEPROVISIONED), 4, True),
        (None, tenant(4, Stage.DEPROVISIONING_FAILED), 4, False),
        (outcome(3, 4, "down", "done"), tenant(4, Stage.ACTIVE), 4, True),
        (outcome(3, 3, "down", "done"), tenant(4, Stage.ACTIVE), 4, False),
    ],
)
def test_the_newest_life_and_whether_it_is_over(
    said: Outcome | None, view: Tenant | None, generation: int, *, ended: bool
) -> None:
    found = told(said, view)
    assert (found.generation, found.ended, found.seq) == (generation, ended, said.seq if said else 0)


def test_a_row_is_older_when_more_was_said_or_lived() -> None:
    said = Told(5, 2, False, None, {})
    assert [is_older(seq, life, said) for seq, life in ((5, 2), (6, 3), (4, 2), (5, 1))] == [False, False, True, True]


def test_a_life_that_the_row_never_knew_is_adopted_in_doubt_and_the_one_before_is_looked_up_again() -> None:
    wishes = Wishes()
    wishes.installed(size="7")
    log = StepLog(n=3, inputs={"configuration": {"crmEndpoint": "https://old"}}, there=Presence.PRESENT)
    before = Life(generation=1, plan=PLANS.current.digest, tenant_id="acme", steps={"crm": log})
    row = Journal(phase=Phase.ACTIVE, generation=1, life=before, seq=2, lines=9)
    after = recovered(row, wishes.uninstalled(), told(None, tenant(3, Stage.ACTIVE)), PLANS, NOW_US)
    assert (after.phase, after.generation, after.seq, after.lines, after.target) == (
        Phase.ACTIVE,
        3,
        FLOOR,
        FLOOR,
        None,
    )
    assert after.life is not None
    assert (after.life.generation, after.life.tenant_id, list(after.life.steps)) == (3, "acme", list(STEPS))
    assert {log.there for log in after.life.steps.values()} == {Presence.MAYBE}
    # Where its endpoint is, the view says.
    assert after.life.steps["crm"].inputs["configuration"]["crmEndpoint"] == "https://v"
    assert [sweep.life.generation for sweep in after.sweeps] == [1]
    assert after.sweeps[0].life.steps["crm"].n == FLOOR


def test_what_is_looked_up_again_uses_no_number_twice() -> None:
    ended = Life(generation=1, plan=PLANS.current.digest, tenant_id="acme", steps={"crm": StepLog(n=4)})
    after = in_doubt(Journal(generation=1, sweeps=(Sweep(due_at=0, life=ended),)), PLANS, NOW_US)
    assert after.sweeps[0].life.steps["crm"].n == FLOOR
    assert (after.phase, after.seq) == (Phase.EMPTY, FLOOR)
