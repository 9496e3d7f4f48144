"""How far a consumer group is behind its topics, asked of the cluster: whether anybody of it is at work, too.

Rule: asking joins no group and commits nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from services.adapters.kafka import clients
from services.adapters.kafka.offsets import OffsetReader, PartitionId
from services.adapters.kafka.producer import KafkaError


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
    places = [(topic, number) for topic, numbers in topics.items() for number in numbers]
    committed = _committed(config, group, places, timeout_s)
    members = _members(config, group, timeout_s)
    if not places:
        return Backlog(members, known=False, waiting=0, late=0)
    with OffsetReader(config, next(iter(topics))) as asker:
        spans = asker.spans(places, timeout_s)
        since = asker.since(places, since_us, timeout_s)
    waiting = late = 0
    for place, span in spans.items():
        at = max(span.first, committed.get(place, -1))
        waiting += max(0, span.end - at)
        # No record since then has no offset: everything there is older.
        late += max(0, (since[place] if since[place] >= 0 else span.end) - at)
    return Backlog(members, bool(committed), waiting, late)


def _committed(
    config: Mapping[str, Any], group: str, places: Sequence[PartitionId], timeout_s: float
) -> dict[PartitionId, int]:
    """Returns the next offset of each partition that the group has committed one for.

    Asked by a reader of that group, which joins only when it subscribes. The admin client ends the process where the
    coordinator is just loading the group (librdkafka 2.16, issue 5040: SIGSEGV).
    """
    consumer = clients.consumer({**config, "log_level": 0}, group_id=group)
    try:
        found = consumer.committed([TopicPartition(*place) for place in places], timeout=timeout_s)
    except KafkaException as error:
        raise _refused(group, error) from None
    finally:
        consumer.close()
    return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}


def _members(config: Mapping[str, Any], group: str, timeout_s: float) -> int:
    with clients.admin(dict(config)) as admin:
        (described,) = admin.describe_consumer_groups([group], request_timeout=timeout_s).values()
        try:
            return len(described.result(timeout_s).members)
        except KafkaException as error:
            raise _refused(group, error) from None
        except TimeoutError:
            raise KafkaError(f"{_right(group)}: no answer within {timeout_s:g} s") from None


def _refused(group: str, error: KafkaException) -> KafkaError:
    return KafkaError(f"{_right(group)}: {error.args[0].name()}")


def _right(group: str) -> str:
    return f"Describe on group {group}"
