"""The word by which a waiting saga is counted, for each way to wait."""

import pytest

from schemas.saga import Journal, Life, Phase, Standstill, StepLog, StepVerdict
from services.core.saga.intents import decide
from services.core.saga.moves import Wait
from services.core.saga.why import SagaWhy, Standing, standing
from tests.support.saga_world import DesiredVersions, MemoryRunner, Mode, OutsideSystems

NOW_US = 9_000_000


def journal(verdict: StepVerdict, phase: Phase = Phase.CREATING) -> Journal:
    life = Life(generation=1, plan="f" * 64, tenant_id="acme", steps={"crm": StepLog(n=1, verdict=verdict)})
    return Journal(phase=phase, life=life, phase_began_at=5_000_000, standstill=Standstill(step="crm", since=7_000_000))


@pytest.mark.parametrize(
    ("verdict", "reason", "why"),
    [
        (StepVerdict.RETRYABLE, "retrying", SagaWhy.RETRYING),
        (StepVerdict.UNKNOWN, "retrying", SagaWhy.RETRYING),
        (StepVerdict.REFUSED, "retrying", SagaWhy.RETRYING),
        (StepVerdict.OPERATOR_REFUSED, "retrying", SagaWhy.OPERATOR_REFUSED),
        (StepVerdict.CONTRADICTED, "retrying", SagaWhy.CONTRADICTED),
        (StepVerdict.DONE, "system_away", SagaWhy.SYSTEM_AWAY),
        (StepVerdict.DONE, "system_refuses", SagaWhy.OPERATOR_REFUSED),
    ],
)
def test_a_saga_in_trouble_stands_since_its_standstill(verdict: StepVerdict, reason: str, why: SagaWhy) -> None:
    wait = Wait(NOW_US + 1, reason, "crm")
    assert standing(journal(verdict), DesiredVersions().installed(), wait, NOW_US) == Standing(why, 7_000_000)


def test_a_held_version_stands_since_its_delivery() -> None:
    wanted = DesiredVersions().installed()
    for reason, why in (("tenant_conflict", SagaWhy.TENANT_CONFLICT), ("tenant_unknown", SagaWhy.TENANT_UNKNOWN)):
        assert standing(Journal(), wanted, Wait(NOW_US, reason), NOW_US) == Standing(why, wanted.received_at)


@pytest.mark.parametrize(
    ("phase", "reason", "found"),
    [
        (Phase.REMOVING, "grace", Standing(SagaWhy.GRACE, 5_000_000)),
        (Phase.CREATING, "", Standing(SagaWhy.DUE)),
        (Phase.ACTIVE, "", Standing(SagaWhy.REST)),
        (Phase.ACTIVE, "install_unknown", Standing(SagaWhy.REST)),
    ],
)
def test_a_saga_without_trouble_is_counted_by_its_phase_or_wait(phase: Phase, reason: str, found: Standing) -> None:
    assert (
        standing(journal(StepVerdict.DONE, phase), DesiredVersions().installed(), Wait(NOW_US, reason), NOW_US) == found
    )


def test_a_rolled_back_saga_stands_since_its_rollback() -> None:
    worker = MemoryRunner(OutsideSystems(modes=[Mode.WELL, Mode.REFUSED]), DesiredVersions().installed())
    worker.run()
    turn = decide(worker.plans, worker.journal, worker.desired, worker.now_us)
    assert isinstance(turn.move, Wait)
    found = standing(turn.journal, worker.desired, turn.move, worker.now_us)
    assert found == Standing(SagaWhy.ROLLED_BACK, worker.last.at)
