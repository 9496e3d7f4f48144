"""What a cluster says of its topics: partition count and identity. A topic made anew has another identity."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, TopicCollection

from schemas.rights import Operation, Resource, Right
from services.adapters import clients
from services.adapters.kafka import fault


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
            raise fault(error.args[0], Right(Resource.TOPIC, name, Operation.DESCRIBE)) from None
        found[name] = Described(len(topic.partitions), str(topic.topic_id))
    return found
