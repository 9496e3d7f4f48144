"""The short form of lives, silences and vanishing in this folder (the long forms: `make faults`)."""

from pathlib import Path

import pytest

from tests.faults import silences, vanishing
from tests.faults.lives import play, settle
from tests.faults.lives_plan import LifeSize, plan
from tests.support.life_world import life_world

pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]

SHORT = LifeSize(orgs=4, integrations=24, day_s=15.0, second_look_s=1.0)


def test_a_plan_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    size = LifeSize()
    assert plan(7, size) == plan(7, size)
    assert plan(7, size) != plan(8, size)
    assert len({change.key for change in plan(7, size).changes}) == size.integrations


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_a_short_day_before_a_hostile_genesys_tears_nobody_down_wrongly(
    seed: int, kafka_bootstrap: str, database_admin_url: str, tmp_path: Path
) -> None:
    result, stories = play(seed, SHORT, tmp_path / "up", kafka_bootstrap, database_admin_url)
    assert result.faults == {}, "\n".join(stories)
    assert result.verdict.teardowns > 0


@pytest.mark.long
@pytest.mark.parametrize("story", ["empty", "foreign"])
def test_a_silence_destroys_nothing_and_the_alert_stands(
    story: str, kafka_bootstrap: str, database_admin_url: str, tmp_path: Path
) -> None:
    settings = silences.SETTINGS | {"RECONCILE_INTERVAL_S": "2"}
    with life_world(tmp_path / "up", kafka_bootstrap, database_admin_url, **settings) as world:
        assert silences.play(world, settle(world, *silences.SIZE), silences.STORIES[story], 2.0).faults == []


@pytest.mark.long
@pytest.mark.parametrize("road", sorted(vanishing.ROADS))
def test_a_third_that_vanishes_waits_for_an_operator(
    road: str, kafka_bootstrap: str, database_admin_url: str, tmp_path: Path
) -> None:
    with life_world(tmp_path / "up", kafka_bootstrap, database_admin_url, **vanishing.SETTINGS) as world:
        vanishing.ROADS[road](world, settle(world, *vanishing.SIZE))
