"""What a cluster says of its topics: partition count, identity, clock. A topic made anew has another identity."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]  # re-exported without `as`

from services.adapters import clients
from services.adapters.kafka import KafkaError


@dataclass(frozen=True, slots=True)
class Described:
    """One topic as it is."""

    partitions: int
    identity: str


def describe(config: dict[str, Any], names: Collection[str], timeout_s: float = 10.0) -> dict[str, Described]:
    """Ask the cluster; a topic that does not exist is absent from the answer. Blocks.

    Raises:
        KafkaError: no broker answers, or it refuses.
        Unusable: librdkafka does not know a setting, or not its value.
    """
    admin = clients.admin(config)
    found = {}
    for name, future in admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s).items():
        try:
            topic = future.result(timeout_s + 5)
        except KafkaException as error:
            if error.args[0].name() == "UNKNOWN_TOPIC_OR_PART":
                continue
            raise KafkaError(error.args[0].name()) from None
        found[name] = Described(len(topic.partitions), str(topic.topic_id))
    return found


def stamped_by_broker(config: dict[str, Any], name: str, timeout_s: float = 10.0) -> bool:
    """Whether the time of the topic's records is when the broker appended them (LogAppendTime). Blocks.

    Raises:
        KafkaError: no broker answers, or it refuses.
        Unusable: librdkafka does not know a setting, or not its value.
    """
    admin = clients.admin(config)
    (future,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)], request_timeout=timeout_s).values()
    try:
        kind: str = future.result(timeout_s + 5)["message.timestamp.type"].value
    except KafkaException as error:
        raise KafkaError(error.args[0].name()) from None
    return kind == "LogAppendTime"
