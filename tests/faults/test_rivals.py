"""Two reconcilers, webhooks and runs by hand race over the same keys; judged by the calls that reached the systems."""

from pathlib import Path

import pytest

from tests.faults.rivals import SETTINGS, called_twice, race, rival_reconciler
from tests.support.life_world import life_world

pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]


def test_the_judge_tells_a_second_intent_from_a_repeat() -> None:
    call = {"key": "k", "generation": 1, "system": "crm", "verb": "create", "idempotency_key": "a"}
    assert called_twice([call, call, {**call, "verb": "delete", "idempotency_key": "b"}]) == {}
    assert called_twice([call, {**call, "generation": 2, "idempotency_key": "c"}]) == {}
    assert called_twice([call, {**call, "idempotency_key": "d"}]).keys() == {"k"}


@pytest.mark.long
def test_two_reconcilers_webhooks_and_runs_by_hand_end_alike_and_call_no_system_twice(
    kafka_bootstrap: str, database_admin_url: str, tmp_path: Path
) -> None:
    with (
        life_world(tmp_path / "up", kafka_bootstrap, database_admin_url, **SETTINGS) as world,
        rival_reconciler(world) as rival,
    ):
        faults, stories = race(world, rival, 24)
        assert faults == {}, "\n".join(stories)
