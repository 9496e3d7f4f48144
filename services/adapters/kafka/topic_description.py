"""What a cluster says of its topics: partition count and identity. A topic made anew has another identity."""

from collections.abc import Collection
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, TopicCollection

from schemas.rights import Operation, Resource, Right
from services.adapters.kafka import clients
from services.adapters.kafka.producer import KafkaError, fault


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """One topic as it is."""

    partitions: int
    identity: str


def describe(config: dict[str, Any], names: Collection[str], timeout_s: float = 10.0) -> dict[str, TopicIdentity]:
    """Ask the cluster; a topic that does not exist is absent from the answer. Blocks.

    Raises:
        KafkaError: no broker answers, or it refuses.
        Unusable: librdkafka does not know a setting, or not its value.
    """
    with clients.admin(config) as admin:
        asked = admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s)
        wait(asked.values(), timeout_s + 5)
    found = {}
    for name, future in asked.items():
        try:
            topic = future.result(0)
        except TimeoutError:
            raise KafkaError(f"{name}: no answer within {timeout_s:g} s") from None
        except KafkaException as error:
            if error.args[0].name() == "UNKNOWN_TOPIC_OR_PART":
                continue
            raise fault(error.args[0], Right(Resource.TOPIC, name, Operation.DESCRIBE)) from None
        found[name] = TopicIdentity(len(topic.partitions), str(topic.topic_id))
    return found
