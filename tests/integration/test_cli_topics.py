"""`lifecycle topics apply` against a real cluster."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from schemas.topics import EVENTS, RECEIVED, TOPICS, Topic, named
from tests.faults import records
from tests.support.own_broker import set_to
from tests.unit.test_cli_commands import lifecycle

pytestmark = pytest.mark.engines


def test_a_second_apply_has_nothing_to_do(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> None:
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
        "TOPIC_PREFIX": topic_prefix,
        "TOPIC_PARTITIONS": "1",
        "TOPIC_REPLICATION": "1",
    }
    first, second = (lifecycle("topics", "apply", cwd=tmp_path, **environ) for _ in range(2))
    assert first.stdout.startswith("created: ")
    assert (second.returncode, second.stdout) == (0, "nothing to do: every topic is there\n")


@dataclass
class PrefixedTopics:
    """Topics of one prefix, and the command on them."""

    bootstrap: str
    prefix: str
    folder: Path

    def run(self, command: str, partitions: int) -> subprocess.CompletedProcess[str]:
        environ = {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "TOPIC_PREFIX": self.prefix,
            "TOPIC_PARTITIONS": str(partitions),
            "TOPIC_REPLICATION": "1",
        }
        return lifecycle("topics", command, cwd=self.folder, **environ)

    def make(self, topic: Topic, partitions: int, *, written: bool = False) -> str:
        name = named(topic, self.prefix)
        records.create(self.bootstrap, {name: topic.config}, partitions)
        if written:
            producer = records.producer(self.bootstrap)
            producer.produce(name, value=b"acknowledged")
            assert producer.flush(30) == 0
        return name

    def names(self) -> set[str]:
        names = AdminClient({"bootstrap.servers": self.bootstrap}).list_topics(timeout=20).topics
        return {name for name in names if name.startswith(self.prefix)}


@pytest.fixture
def cluster(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> PrefixedTopics:
    return PrefixedTopics(kafka_bootstrap, topic_prefix, tmp_path)


def test_no_advice_deletes_a_topic_that_holds_deliveries(cluster: PrefixedTopics) -> None:
    received = cluster.make(RECEIVED, 1, written=True)
    done = cluster.run("apply", 2)
    assert done.returncode == 1
    assert f"{received} has 1 partition, not 2, and holds records: do not delete it" in done.stderr
    assert "TOPIC_PARTITIONS=1" in done.stderr
    assert "--delete" not in done.stderr
    assert cluster.names() == {received}, "with topics of another count beside it the way on would be closed"
    assert cluster.run("apply", 1).returncode == 0
    assert len(cluster.names()) == len(TOPICS)
    assert records.end_offsets(cluster.bootstrap, received, 1) == [1]


def test_an_empty_topic_with_another_partition_count_should_be_recreated(cluster: PrefixedTopics) -> None:
    received, events = cluster.make(RECEIVED, 1), cluster.make(EVENTS, 2, written=True)
    done = cluster.run("apply", 2)
    assert done.returncode == 1
    assert f"{received} has 1 partition and has never held a record: stop every service" in done.stderr
    assert f"delete it (`kafka-topics --delete --topic {received}`) if this still says so" in done.stderr
    assert events not in done.stderr


def test_empty_topics_should_be_recreated_beside_a_topic_with_deliveries(cluster: PrefixedTopics) -> None:
    received, events = cluster.make(RECEIVED, 1, written=True), cluster.make(EVENTS, 2)
    said = cluster.run("apply", 2).stderr
    assert f"{received} has 1 partition, not 2, and holds records: do not delete it" in said
    assert f"{events} has 2 partitions and has never held a record: stop every service" in said


def test_no_advice_deletes_a_topic_when_topics_of_two_counts_hold_records(cluster: PrefixedTopics) -> None:
    received, events = cluster.make(RECEIVED, 1, written=True), cluster.make(EVENTS, 2, written=True)
    said = cluster.run("apply", 2).stderr
    assert f"{received} has 1 partition, not 2, and holds records: do not delete it" in said
    assert "copy its records by their key into a topic of 2 partitions first" in said
    assert events not in said
    assert "--delete" not in said


def test_a_differing_topic_setting_is_reported_with_the_command_that_mends_it(cluster: PrefixedTopics) -> None:
    assert cluster.run("apply", 1).returncode == 0
    received = named(RECEIVED, cluster.prefix)
    set_to(cluster.bootstrap, received, "message.timestamp.type", "CreateTime")
    done = cluster.run("apply", 1)
    assert done.returncode == 0, "what is left to an operator keeps nobody from starting"
    assert cluster.run("plan", 1).returncode == 1
    assert f"kafka-configs --alter --topic {received} --add-config message.timestamp.type=LogAppendTime" in done.stderr


def test_a_longer_retention_than_the_table_is_accepted(cluster: PrefixedTopics) -> None:
    assert cluster.run("apply", 1).returncode == 0
    set_to(cluster.bootstrap, named(RECEIVED, cluster.prefix), "retention.ms", "-1")
    done = cluster.run("plan", 1)
    assert (done.returncode, "retention" in done.stdout + done.stderr) == (0, False)
