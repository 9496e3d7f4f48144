"""Readiness means that a delivery would be accepted now, and the notes on Kafka are true."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.topics import RECEIVED, named
from services.engines.kafka import KafkaBroker
from services.engines.ports import free_ports
from tests.support.eventually import eventually
from tests.support.ingress_process import Ingress, body, ingress, make_topics
from tests.support.own_broker import own_broker, set_to

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker that answers, and tells everybody to go to an address where nobody listens."""
    (nowhere,) = free_ports(1)
    with own_broker(tmp_path_factory.mktemp("elsewhere")) as broker:
        make_topics(broker.bootstrap, "")
        broker.stop()
        broker.settings = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{nowhere}"}
        broker.start()
        yield broker


def _ready(running: Ingress) -> tuple[int, str]:
    reply = running.get("/readyz")
    return reply.status, reply.said["checks"]["kafka"]


@pytest.mark.long
def test_an_unreachable_advertised_listener_makes_the_ingress_unready(elsewhere: KafkaBroker, tmp_path: Path) -> None:
    with ingress(elsewhere.bootstrap, "", tmp_path) as running:
        eventually(lambda: "advertised.listeners" in _ready(running)[1])
        assert _ready(running)[0] == 503
        assert running.post(body()).status == 503


def test_with_a_spool_deliveries_are_taken_and_readiness_names_the_unreachable_listener(
    elsewhere: KafkaBroker, tmp_path: Path
) -> None:
    with ingress(elsewhere.bootstrap, "", tmp_path, SPOOL_DIR=str(tmp_path / "spool")) as running:
        eventually(lambda: "advertised.listeners" in _ready(running)[1])
        status, said = _ready(running)
        assert (status, said.endswith("deliveries go to the spool")) == (200, True)
        # A disk that takes longer than 0.4 s gives 503, and the sender tries again.
        taken = eventually(lambda: reply.said if (reply := running.post(body())).status == 200 else None)
        assert taken == {"status": "spooled"}


def test_a_smaller_record_limit_than_the_table_is_noted_and_the_ingress_is_ready(
    kafka_bootstrap: str, topic_prefix: str, tmp_path: Path
) -> None:
    make_topics(kafka_bootstrap, topic_prefix)
    set_to(kafka_bootstrap, named(RECEIVED, topic_prefix), "max.message.bytes", "300000")
    with ingress(kafka_bootstrap, topic_prefix, tmp_path) as running:
        said = eventually(lambda: running.get("/readyz").said)
        assert said["status"] == "ready"
        assert "max.message.bytes is 300000, less than" in said["notes"]["topics"]
        assert running.post(body()).status == 200
