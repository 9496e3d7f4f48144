"""Errors of a broker that pass without help, and errors after which a consumer must stop reading."""

import confluent_kafka
import pytest

from schemas.rights import Operation, Resource, Right
from services.adapters.kafka.group_consumer import OffsetLoss, call_librdkafka, fault_of
from services.adapters.kafka.producer import AccessDenied, KafkaError

PASSING = ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT", "_MAX_POLL_EXCEEDED", "NOT_COORDINATOR")
LASTING = (
    "TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED",
    "SASL_AUTHENTICATION_FAILED", "_AUTHENTICATION", "_SSL", "_FENCED", "FENCED_INSTANCE_ID",
    "UNKNOWN_TOPIC_OR_PART", "INVALID_GROUP_ID", "UNSUPPORTED_VERSION",
)  # fmt: skip

NEEDED = (
    Right(Resource.TOPIC, "lifecycle.desired", Operation.READ),
    Right(Resource.GROUP, "lifecycle-provisioner", Operation.READ),
)


def _error(name: str) -> confluent_kafka.KafkaError:
    return confluent_kafka.KafkaError(getattr(confluent_kafka.KafkaError, name))


@pytest.mark.parametrize("name", PASSING)
def test_errors_that_the_client_mends_itself_are_no_fault(name: str) -> None:
    assert fault_of(_error(name)) is None


@pytest.mark.parametrize("name", LASTING)
def test_errors_that_need_an_operator_are_faults_with_their_name(name: str) -> None:
    fault = fault_of(_error(name), *NEEDED)
    assert isinstance(fault, KafkaError)
    assert fault.code == name


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("TOPIC_AUTHORIZATION_FAILED", "Read on topic lifecycle.desired"),
        ("GROUP_AUTHORIZATION_FAILED", "Read on group lifecycle-provisioner"),
    ],
)
def test_a_missing_right_is_named_with_the_remedy(name: str, missing: str) -> None:
    fault = fault_of(_error(name), *NEEDED)
    assert isinstance(fault, AccessDenied)
    assert missing in fault.reason
    assert "`lifecycle topics acls`" in fault.reason

    def refused() -> None:
        raise confluent_kafka.KafkaException(_error(name))

    with pytest.raises(AccessDenied) as denied:
        call_librdkafka(refused, *NEEDED)
    assert denied.value.reason == fault.reason


@pytest.mark.parametrize("name", ["_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"])
def test_an_offset_outside_the_log_is_a_loss(name: str) -> None:
    assert isinstance(fault_of(_error(name)), OffsetLoss)


def test_a_fatal_error_is_named_by_its_cause() -> None:
    fault = fault_of(confluent_kafka.KafkaError(confluent_kafka.KafkaError._FATAL, "fenced by another", fatal=True))
    assert isinstance(fault, KafkaError)
    assert fault.reason == "fenced by another"
