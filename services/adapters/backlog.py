"""How far a consumer group is behind its topics, asked of the cluster: whether anybody of it is at work, too.

Rule: asking joins no group and commits nothing.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # re-exported without `as`

from services.adapters import clients
from services.adapters.kafka import KafkaError


@dataclass(frozen=True, slots=True)
class Backlog:
    """A group beside its topics.

    Attributes:
        members: Consumers of the group that are at work.
        known: The group has committed an offset.
        waiting: Records that it has not committed.
        late: Those of them that are older than was asked.
    """

    members: int
    known: bool
    waiting: int
    late: int


def backlog(
    config: Mapping[str, Any], group: str, topics: Mapping[str, Sequence[int]], *, since_us: int, timeout_s: float
) -> Backlog:
    """Compare a group's offsets with the ends of its topics. Blocks.

    Args:
        config: librdkafka's connection settings.
        group: Full name.
        topics: Full name to the numbers of the partitions.
        since_us: Records appended before this are late.
        timeout_s: Of each question.

    Raises:
        KafkaError: the cluster does not answer, or a right is missing, which is named.
    """
    with clients.admin(dict(config)) as admin:
        return _backlog(admin, group, topics, since_us, timeout_s)


def _backlog(
    admin: AdminClient, group: str, topics: Mapping[str, Sequence[int]], since_us: int, timeout_s: float
) -> Backlog:
    (described,) = admin.describe_consumer_groups([group], request_timeout=timeout_s).values()
    (listed,) = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group)], request_timeout=timeout_s
    ).values()
    members = len(_answered(f"Describe on group {group}", described, timeout_s).members)
    offsets = _answered(f"Describe on group {group}", listed, timeout_s).topic_partitions
    committed = {(place.topic, place.partition): place.offset for place in offsets if place.offset >= 0}
    places = [(topic, number) for topic, numbers in topics.items() for number in numbers]
    first = _offsets(admin, places, OffsetSpec.earliest(), timeout_s)  # type: ignore[no-untyped-call]
    end = _offsets(admin, places, OffsetSpec.latest(), timeout_s)  # type: ignore[no-untyped-call]
    fresh = _offsets(admin, places, OffsetSpec.for_timestamp(since_us // 1000), timeout_s)
    waiting = late = 0
    for place in places:
        at = max(first[place], committed.get(place, -1))
        waiting += max(0, end[place] - at)
        # No record since then has no offset: everything there is older.
        late += max(0, (fresh[place] if fresh[place] >= 0 else end[place]) - at)
    return Backlog(members, any(place in committed for place in places), waiting, late)


def _offsets(
    admin: AdminClient, places: Sequence[tuple[str, int]], which: OffsetSpec, timeout_s: float
) -> dict[tuple[str, int], int]:
    asked = {TopicPartition(*place): which for place in places}
    told = admin.list_offsets(asked, request_timeout=timeout_s)
    return {
        (place.topic, place.partition): _answered(f"Describe on topic {place.topic}", answer, timeout_s).offset
        for place, answer in told.items()
    }


def _answered(right: str, answer: "Future[Any]", timeout_s: float) -> Any:
    try:
        return answer.result(timeout_s)
    except KafkaException as error:
        raise KafkaError(f"{right}: {error.args[0].name()}") from None
    except TimeoutError:
        raise KafkaError(f"{right}: no answer within {timeout_s:g} s") from None
