"""On a broker that creates topics on request, which is Kafka's default, no client of this project creates any."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas.codec import Message
from schemas.topics import DEAD_LETTERS, RECEIVED, TENANTS, TOPICS
from services.adapters.kafka import reader, tenant_view, topics
from services.adapters.kafka.audit_trail import AuditTrail
from services.adapters.kafka.group_consumer import Consumer
from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.producer import Producer as OurProducer
from services.adapters.tables.exits import WorkerExit
from services.engines import child_process
from services.engines.kafka import KafkaBroker
from tests.faults import records
from tests.faults.counted import Counted
from tests.support.eventually import eventually
from tests.support.ingress_process import Ingress, body, ingress, key, make_topics
from tests.support.ledger_process import keyring
from tests.support.own_broker import AUTO_CREATE, drop, own_broker, topics_of
from tests.unit.test_cli_commands import lifecycle

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    with own_broker(tmp_path_factory.mktemp("auto"), **AUTO_CREATE) as started:
        yield started


@pytest.fixture(autouse=True)
def _nothing_is_left(broker: KafkaBroker) -> Iterator[None]:
    yield
    drop(broker, *topics_of(broker))


def _kafka_said(running: Ingress) -> str:
    said: str = running.get("/readyz").said["checks"]["kafka"]
    return said


def made_by_asking(broker: KafkaBroker, *names: str) -> None:
    """Creates topics as a foreign program does by asking for them: one partition, the broker's settings."""
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for name in names:
        producer.list_topics(name, timeout=20)
    eventually(lambda: topics_of(broker) >= set(names))


def test_an_ingress_without_topics_takes_nothing_and_creates_nothing(broker: KafkaBroker, tmp_path: Path) -> None:
    with ingress(broker.bootstrap, "", tmp_path) as running:
        eventually(lambda: f"{RECEIVED.name}: no such topic" in _kafka_said(running))
        assert running.get("/readyz").status == 503
        assert {running.post(body()).status for _ in range(3)} == {503}
        assert running.post(body(event="upgraded")).status == 503
        assert topics_of(broker) == set()
        make_topics(broker.bootstrap, "")
        eventually(lambda: running.get("/readyz").status == 200)
        assert running.post(body()).status == 200
        assert running.post(body(event="upgraded")).status == 200


def test_a_topic_created_with_broker_defaults_takes_no_delivery(broker: KafkaBroker, tmp_path: Path) -> None:
    made_by_asking(broker, RECEIVED.name, DEAD_LETTERS.name)
    with ingress(broker.bootstrap, "", tmp_path) as running:
        said = eventually(lambda: _kafka_said(running))
        assert f"{RECEIVED.name} is not as the table says" in said
        assert "message.timestamp.type is CreateTime, not LogAppendTime" in said
        assert running.get("/readyz").status == 503
        assert running.post(body()).status == 503
        assert running.post(body(event="upgraded")).status == 503
    assert sum(records.end_offsets(broker.bootstrap, RECEIVED.name, 1)) == 0
    assert sum(records.end_offsets(broker.bootstrap, DEAD_LETTERS.name, 1)) == 0


def test_a_wrong_partition_count_is_seen_by_the_setting_or_by_the_other_topic(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    right = {"message.timestamp.type": "LogAppendTime"}
    records.create(broker.bootstrap, {RECEIVED.name: right}, 1)
    records.create(broker.bootstrap, {DEAD_LETTERS.name: DEAD_LETTERS.config}, 4)
    with ingress(broker.bootstrap, "", tmp_path) as running:
        assert "1 partition, not 4" in eventually(lambda: _kafka_said(running))
        assert running.post(body()).status == 503
    with ingress(broker.bootstrap, "", tmp_path, TOPIC_PARTITIONS="12") as running:
        assert "1 partition, not 12" in eventually(lambda: _kafka_said(running))


@pytest.mark.long
def test_deliveries_are_spooled_when_a_topic_is_recreated_with_other_settings(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    make_topics(broker.bootstrap, "")
    with ingress(broker.bootstrap, "", tmp_path, SPOOL_DIR=str(tmp_path / "spool")) as running:
        assert running.post(body()).said == {"status": "queued"}
        drop(broker, RECEIVED.name)
        made_by_asking(broker, RECEIVED.name)
        eventually(lambda: "is not as the table says" in _kafka_said(running))
        kept = body()
        assert running.post(kept).said == {"status": "spooled"}
        assert sum(records.end_offsets(broker.bootstrap, RECEIVED.name, 1)) == 0
        drop(broker, RECEIVED.name)
        make_topics(broker.bootstrap, "")
        eventually(lambda: sum(records.end_offsets(broker.bootstrap, RECEIVED.name, 4)) == 1, 60)
        eventually(lambda: running.post(body()).said == {"status": "queued"})
        assert key(kept).encode() in {record.key() for record in running.records(RECEIVED)}


def test_no_client_creates_a_topic_by_asking_for_it(broker: KafkaBroker, tmp_path: Path) -> None:
    config = {"bootstrap.servers": broker.bootstrap, "log_level": 0}
    for read in (
        lambda: list(reader.present_records(config, [RECEIVED.name])),
        lambda: reader.last_per_partition(config, RECEIVED.name),
        lambda: tenant_view.read(config, "", timeout_s=5),
    ):
        with pytest.raises(KafkaError, match="no such topic"):
            read()
    plan = topics.plan(config, prefix="", partitions=4, replication=1)
    assert set(plan.create) == {topic.name for topic in TOPICS}
    assert topics_of(broker) == set()


async def _read(consumer: Consumer) -> None:
    for _ in range(20):
        await consumer.batch(10, 0.5)


async def test_producer_group_and_audit_trail_create_no_topic(broker: KafkaBroker) -> None:
    config = {"bootstrap.servers": broker.bootstrap, "log_level": 0}
    producer = OurProducer(config, linger_ms=1, timeout_ms=2_000)
    with pytest.raises(KafkaError):
        await producer.send_and_wait(RECEIVED.name, Message(b"k", b"v"))
    await producer.close(5)
    consumer = Consumer(config, topic=TENANTS.name, group="g", member=None, session_timeout_s=6)
    with pytest.raises(KafkaError, match="UNKNOWN_TOPIC_OR_PART"):
        await _read(consumer)
    assert not await consumer.has_committed()
    await consumer.close()
    with pytest.raises(KafkaError, match="no such topic"):
        await AuditTrail(dict(config), "audit", timeout_s=5).records_of("k", None)
    assert topics_of(broker) == set()


def test_services_and_commands_create_no_topic(broker: KafkaBroker, tmp_path: Path) -> None:
    environ = {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap, "KEYRING_FILE": str(keyring(tmp_path / "keyring.json"))}
    done = lifecycle("ledger", cwd=tmp_path, **environ)
    assert (done.returncode, "no such topic" in done.stderr) == (2, True)
    for command in (("topics", "plan"), ("tenants", "list"), ("doctor",), ("reconcile", "--now")):
        assert lifecycle(*command, cwd=tmp_path, **environ).returncode != 0
    assert topics_of(broker) == set()


def test_a_table_worker_does_not_recreate_a_deleted_changelog(broker: KafkaBroker, tmp_path: Path) -> None:
    counted = Counted(broker.bootstrap, "", 3.0)
    counted.prepare()
    drop(broker, "chaos-seen-changelog")
    worker = child_process.start(
        counted.worker(tmp_path / "disk").argv, env=dict(os.environ), log_path=tmp_path / "worker.log"
    )
    assert worker.wait(60) == WorkerExit.METADATA, child_process.last_lines(worker.log_path)
    assert "chaos-seen-changelog" not in topics_of(broker)
