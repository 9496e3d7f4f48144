"""The ledger loses and doubles no record while workers and broker are killed and paused: the short form."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.engines.kafka import KafkaBroker
from tests.faults.chaos import SHORT, own_broker, unleash
from tests.faults.lifecycles import Lifecycles

pytestmark = [pytest.mark.engines, pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    with own_broker(tmp_path_factory.mktemp("broker")) as own:
        yield own


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_kills_of_ledger_and_broker_change_no_published_record(seed: int, broker: KafkaBroker, tmp_path: Path) -> None:
    subject = Lifecycles(broker.bootstrap, f"s{seed}-", SHORT.session_s, tmp_path)
    run = unleash(subject, [broker], tmp_path, seed, SHORT)
    print(run)
    assert run.clean, str(run)
