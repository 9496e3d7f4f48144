"""The short form of tests/faults/outages.py: four kinds of trouble, each at another system, ten seconds each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.outages import environment, play
from tests.support.provisioner_process import end
from tests.support.provisioner_stage import Stage, staged


@pytest.fixture
def stage(kafka_bootstrap: str, topic_prefix: str, database_url: str, tmp_path: Path) -> Iterator[Stage]:
    with staged(kafka_bootstrap, topic_prefix, database_url, tmp_path) as made:
        yield made


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("system", "fault"),
    [
        pytest.param("middleware", "unauthorized", marks=pytest.mark.long),
        pytest.param("crm", "error", marks=pytest.mark.long),
        pytest.param("tokens", "down", marks=pytest.mark.long),
        pytest.param("schemas", "unauthorized", marks=pytest.mark.long),
    ],
)
def test_an_outage_of_one_system_rolls_no_tenant_back(stage: Stage, system: str, fault: str) -> None:
    process = stage.scene.start(**environment(180.0))
    told = play(stage, system, fault, outage_s=10.0, tenants=18)
    # How fast a wrong secret is compensated is judged on a quiet machine, in `make faults`.
    assert [text for text in told.faults if "wrong secret" not in text] == []
    assert end(process) == 0
