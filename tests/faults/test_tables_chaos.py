"""Tables lose nothing and double nothing while workers and broker are killed and paused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.engines.kafka import Kafka
from tests.faults.chaos import SHORT, own_broker, unleash
from tests.faults.counted import Counted

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with own_broker(tmp_path_factory.mktemp("broker")) as own:
        yield own


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_every_delivery_is_counted_once_whatever_is_killed_or_paused(seed: int, broker: Kafka, tmp_path: Path) -> None:
    run = unleash(Counted(broker.bootstrap, f"s{seed}-", SHORT.session_s), [broker], tmp_path, seed, SHORT)
    print(run)
    assert run.clean, str(run)
