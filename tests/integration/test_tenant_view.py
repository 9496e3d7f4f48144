"""The view of all tenants, read from a real topic."""

from contextlib import closing

import pytest

from schemas import codec
from schemas.codec import Message
from schemas.tenant import Tenant
from schemas.topics import TENANTS, named
from services.adapters.kafka import topics
from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.tenant_view import TenantView, read
from tests.faults import records
from tests.support.genesys_worlds import key_of, tenant

pytestmark = pytest.mark.engines


@pytest.fixture
def config(kafka_bootstrap: str, topic_prefix: str) -> dict[str, str]:
    made = {"bootstrap.servers": kafka_bootstrap}
    topics.apply(made, prefix=topic_prefix, partitions=4, replication=1)
    return made


def write(config: dict[str, str], prefix: str, *given: Tenant | bytes) -> None:
    producer = records.producer(config["bootstrap.servers"])
    for one in given:
        message = (
            Message(b"k", one)
            if isinstance(one, bytes)
            else codec.encode(one, key=one.key, ce_id=str(one.version), source="/test", at_us=one.updated_at)
        )
        producer.produce(named(TENANTS, prefix), message.value, message.key, headers=list(message.headers))
    assert producer.flush(30) == 0


def test_the_greatest_version_of_a_key_counts_in_any_order(config: dict[str, str], topic_prefix: str) -> None:
    write(config, topic_prefix, tenant(1, version=7), tenant(1, version=3), tenant(2, version=1))
    found = read(config, topic_prefix)
    assert {key: one.version for key, one in found.items()} == {key_of(1): 7, key_of(2): 1}


def test_a_view_catches_up_with_newer_records(config: dict[str, str], topic_prefix: str) -> None:
    with closing(TenantView(config, topic_prefix)) as view:
        assert view.catch_up(30.0) == {}
        for version in (1, 2, 3):
            write(config, topic_prefix, tenant(1, version=version))
            assert view.catch_up(30.0)[key_of(1)].version == version


def test_unreadable_records_are_left_out_and_counted(config: dict[str, str], topic_prefix: str) -> None:
    write(config, topic_prefix, b"{", tenant(1))
    with closing(TenantView(config, topic_prefix)) as view:
        assert set(view.catch_up(30.0)) == {key_of(1)}
        assert view.unreadable == 1


def test_a_view_without_its_topic_or_after_its_end_is_an_error(kafka_bootstrap: str, topic_prefix: str) -> None:
    view = TenantView({"bootstrap.servers": kafka_bootstrap}, topic_prefix)
    with pytest.raises(KafkaError, match="no such topic"):
        view.catch_up(10.0)
    view.close()
    with pytest.raises(KafkaError, match="closed"):
        view.catch_up(10.0)


def test_a_view_without_a_broker_is_an_error() -> None:
    with pytest.raises(KafkaError):
        read({"bootstrap.servers": "127.0.0.1:9", "log_level": 0}, "", timeout_s=2.0)
