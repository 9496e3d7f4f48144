"""Reads the partition count and the identity of topics. A topic that was deleted and made anew has a new identity."""

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
    """Partition count and identity of one topic.

    Attributes:
        partitions: Number of partitions.
        identity: The topic id, assigned by the cluster at the creation.
    """

    partitions: int
    identity: str


def describe(config: dict[str, Any], names: Collection[str], timeout_s: float = 10.0) -> dict[str, TopicIdentity]:
    """Returns the topics that exist; a missing topic is absent from the result. Blocks.

    Raises:
        KafkaError: No broker answers, or the cluster refuses the request.
        Unusable: librdkafka does not accept a setting.
    """
    with clients.admin(config) as admin:
        asked = admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s)
        # Waits a little longer than the request, so that librdkafka's own error arrives instead of a time-out of ours.
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
