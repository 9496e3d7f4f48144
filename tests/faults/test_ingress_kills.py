"""The ingress is killed under load and loses no delivery (long form: `python -m tests.faults.ingress_kills`)."""

from pathlib import Path

import pytest

from tests.faults.chaos import own_broker
from tests.faults.ingress_kills import Away, Cycle, play

pytestmark = [pytest.mark.engines, pytest.mark.long, pytest.mark.timeout(300)]

_PLAN = (
    Cycle(unborn_s=0.0, load_s=0.8),
    Cycle(unborn_s=0.0, load_s=2.2, away=Away.STOPPED, away_from_s=0.2, away_s=4.0),  # dies with a spool
    Cycle(unborn_s=0.7, load_s=0.4),  # a start dies with it in its hands
    Cycle(unborn_s=0.0, load_s=1.6, away=Away.KILLED, away_from_s=0.1, away_s=0.5),
    Cycle(unborn_s=0.0, load_s=0.5, away=Away.STOPPED, away_from_s=0.4, away_s=1.0),
    Cycle(unborn_s=0.0, load_s=1.0),
)


def test_every_delivery_answered_200_is_in_kafka_after_kills(tmp_path: Path) -> None:
    with own_broker(tmp_path / "engines") as kafka:
        run = play(kafka, tmp_path, _PLAN, seed=1)
    print(run)
    assert run.deviations == []
    assert run.verdict.said["queued"] > 0
    assert run.verdict.said["spooled"] > 0, "nothing was spooled: this run shows nothing of a spool"
