"""Settings of librdkafka that an operator may give; every other one is refused by name."""

import json

import pytest

from services.adapters.process.client_settings import faults
from services.adapters.process.environment import read
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import Settings

SAFE = {
    "security.protocol": "sasl_ssl", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "u", "sasl.password": "p",
    "ssl.ca.location": "/ca.pem", "socket.keepalive.enable": "true", "client.id": "me", "client.rack": "a",
    "compression.type": "zstd", "reconnect.backoff.max.ms": "1000", "metadata.max.age.ms": "60000", "log_level": "6",
}  # fmt: skip
REFUSED = (
    "partition.assignment.strategy", "group.protocol", "group.id", "group.instance.id", "enable.auto.commit",
    "enable.auto.offset.store", "auto.offset.reset", "isolation.level", "enable.partition.eof", "acks",
    "enable.idempotence", "transactional.id", "partitioner", "allow.auto.create.topics", "bootstrap.servers",
    "message.timeout.ms", "message.max.bytes", "max.poll.interval.ms", "session.timeout.ms", "fetch.max.bytes",
    "max.in.flight.requests.per.connection", "retries", "linger.ms", "group.remote.assignor",
)  # fmt: skip


def test_settings_of_the_connection_to_a_broker_are_accepted() -> None:
    assert faults(SAFE) == []


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_reserved_for_the_service_is_refused_with_the_reason(name: str) -> None:
    (said,) = faults({name: "x-value"})
    assert said.startswith(f"{name}: may not be set: ")
    assert "x-value" not in said


def test_an_unknown_setting_is_refused_with_the_nearest() -> None:
    assert faults({"sasl_mechanism": "PLAIN"}) == [
        "sasl_mechanism: is no setting that is known here; did you mean sasl.mechanism?"
    ]
    (said,) = faults({"no.such.setting": "hush"})
    assert "security.protocol, ssl.*" in said
    assert "hush" not in said


def test_every_fault_is_reported_in_a_line_of_its_own() -> None:
    given = {"group.protocol": "consumer", "acks": "1", "client.id": "me"}
    with pytest.raises(Unusable) as raised:
        read({"KAFKA_CONFIG": json.dumps(given), "KAFKA_BOOTSTRAP_SERVERS": "b:1", "TOPIC_PARTITIONS": "0"}, Settings)
    lines = str(raised.value).splitlines()
    assert [line.partition(" may")[0] for line in lines if line.startswith("KAFKA_CONFIG")] == [
        "KAFKA_CONFIG: acks:", "KAFKA_CONFIG: group.protocol:",
    ]  # fmt: skip
    assert any(line.startswith("TOPIC_PARTITIONS: ") for line in lines)


@pytest.mark.parametrize("text", ['{"client.id": 7}', "{", "[1]", '"x"'])
def test_kafka_config_that_is_no_object_of_strings_is_refused(text: str) -> None:
    with pytest.raises(Unusable, match="KAFKA_CONFIG"):
        read({"KAFKA_CONFIG": text}, Settings)
