"""Measures the backlog of a consumer group: the uncommitted records of its topics, and the members at work.

Rule: a question joins no group and commits nothing.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaException

from services.adapters.kafka import clients, offsets
from services.adapters.kafka.producer import KafkaError

T = TypeVar("T")

_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Backlog:
    """The backlog of a consumer group.

    Attributes:
        members: Number of consumers at work.
        known: True if the group has committed an offset.
        waiting: Number of records that the group has not committed.
        late: Number of waiting records appended before the time in the question.
    """

    members: int
    known: bool
    waiting: int
    late: int


def backlog(
    config: Mapping[str, Any], group: str, topics: Mapping[str, Sequence[int]], *, since_us: int, timeout_s: float
) -> Backlog:
    """Compares the offsets of a group with the ends of its topics. Blocks.

    Args:
        config: librdkafka's connection settings.
        group: Full name.
        topics: Full name to the numbers of the partitions.
        since_us: Records appended before this time (microseconds UTC) count as late.
        timeout_s: Time limit of each question.

    Raises:
        KafkaError: The cluster does not answer, or a right is missing; the text names the right.
    """
    partition_ids = [(topic, number) for topic, numbers in topics.items() for number in numbers]
    committed = ask_coordinator(
        group, lambda left_s: offsets.committed(config, group, partition_ids, left_s), timeout_s
    )
    members = ask_coordinator(group, lambda left_s: _members(config, group, left_s), timeout_s)
    if not partition_ids:
        return Backlog(members, known=False, waiting=0, late=0)
    with offsets.OffsetReader(config, next(iter(topics))) as offset_reader:
        spans = offset_reader.spans(partition_ids, timeout_s)
        since = offset_reader.since(partition_ids, since_us, timeout_s)
    waiting = late = 0
    for partition_id, span in spans.items():
        position = max(span.first, committed.get(partition_id, -1))
        waiting += max(0, span.end - position)
        # -1: no record was appended since then, so every waiting record is late.
        late += max(0, (since[partition_id] if since[partition_id] >= 0 else span.end) - position)
    return Backlog(members, bool(committed), waiting, late)


def ask_coordinator(group: str, ask: Callable[[float], T], timeout_s: float) -> T:
    """Returns the answer of a group's coordinator; asks again while the group has none.

    librdkafka's admin client looks a coordinator up and then asks: a group can lose the coordinator between the two
    (seen on a cluster that had just started). librdkafka does not look again.

    Args:
        group: Full name.
        ask: Asks once, within a number of seconds.
        timeout_s: Time limit of all questions.

    Raises:
        KafkaError: As `backlog`.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return ask(max(_PAUSE_S, deadline_s - time.monotonic()))
        except TimeoutError:
            raise KafkaError(f"{_right(group)}: no answer within {timeout_s:g} s") from None
        except KafkaException as error:
            name = error.args[0].name()
            if name not in clients.COORDINATORLESS or time.monotonic() > deadline_s:
                raise KafkaError(f"{_right(group)}: {name}") from None
        time.sleep(_PAUSE_S)


def _members(config: Mapping[str, Any], group: str, timeout_s: float) -> int:
    with clients.admin(dict(config)) as admin:
        (described,) = admin.describe_consumer_groups([group], request_timeout=timeout_s).values()
        return len(described.result(timeout_s).members)


def _right(group: str) -> str:
    return f"Describe on group {group}"
