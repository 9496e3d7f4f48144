"""Creates the topics of the table on a cluster, and says where the cluster differs from it.

Rule: what is said to do about a difference never destroys a record. A partition count never changes: keys would
change their partition. A topic is to be deleted only when it has never held a record.
"""

from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without `as`
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from schemas.rights import Operation, Resource, Right
from schemas.topics import TOPICS, named
from services.adapters.kafka import clients, offsets
from services.adapters.kafka.producer import KafkaError, fault, is_denial
from services.adapters.kafka.topic_description import describe


@dataclass(frozen=True, slots=True)
class TopicChanges:
    """What `apply` would do, and what nobody may do silently.

    Attributes:
        create: Topics to make.
        configure: Topic to the settings that differ.
        conflicts: Sentences: a partition count that is not the table's, and what to do. While there is one, nothing is
            created: the topics that are there may have the right count, and the setting the wrong one.
    """

    create: tuple[str, ...]
    configure: dict[str, dict[str, str]] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()


def _config(topic_config: dict[str, str], replication: int) -> dict[str, str]:
    return topic_config | {"min.insync.replicas": str(max(1, replication - 1))}


_IN_IT: Final = "do not delete it, acknowledged deliveries may be in it"
_KEEP: Final = (
    f"{_IN_IT}. Go on with the count that it has: TOPIC_PARTITIONS={{count}} for every service and for this command"
)
_REMAKE: Final = (
    "stop every service, since a running one may just now have a delivery acknowledged into it, run this again, and"
    " delete it (`kafka-topics --delete --topic {name}`) if this still says so; it is created as it should be"
)
_COPY: Final = (
    f"{_IN_IT}. Stop every service, and copy its records by their key into a topic of {{count}} partitions first"
)
_AT_LEAST: Final = frozenset({"retention.ms", "max.message.bytes", "min.compaction.lag.ms"})
"""Settings of which more is no fault: to set them down to the table would destroy or refuse records."""


def _suffices(name: str, have: str, want: str) -> bool:
    if name in _AT_LEAST:
        return int(have) < 0 or int(have) >= int(want)
    return have == want


def _conflicts(config: dict[str, Any], counts: Mapping[str, int], wanted: int, timeout_s: float) -> tuple[str, ...]:
    """What is wrong with the partition counts, and a way on that keeps every record."""
    places = [(name, number) for name, count in counts.items() for number in range(count)]
    with offsets.OffsetReader(config, next(iter(counts))) as asker:
        spans = asker.spans(places, timeout_s)
    written = {name for (name, _), span in spans.items() if span.end > 0}
    kept = {counts[name] for name in written}
    right = kept.copy().pop() if len(kept) == 1 else wanted
    told = []
    for name, count in counts.items():
        have = "1 partition" if count == 1 else f"{count} partitions"
        if name not in written:
            if count != right:
                told.append(f"{name} has {have} and has never held a record: {_REMAKE.format(name=name)}")
        elif len(kept) > 1 and count != wanted:
            told.append(f"{name} has {have}, not {wanted}, and holds records: {_COPY.format(count=wanted)}")
        elif len(kept) == 1 and count != wanted:
            told.append(f"{name} has {have}, not {wanted}, and holds records: {_KEEP.format(count=count)}")
    return tuple(told)


def plan(
    config: dict[str, Any], *, prefix: str, partitions: int, replication: int, timeout_s: float = 10.0
) -> TopicChanges:
    """Compare the cluster with the table. Blocks.

    Raises:
        KafkaError: no broker answers, or a right is missing.
    """
    with clients.admin(config) as admin:
        return _plan(admin, config, prefix, partitions, replication, timeout_s)


def _plan(
    admin: AdminClient, config: dict[str, Any], prefix: str, partitions: int, replication: int, timeout_s: float
) -> TopicChanges:
    wanted = {named(topic, prefix): topic for topic in TOPICS}
    # Asked for one by one: in a list of all, a topic that we may not see would be one that is not there.
    present = describe(config, wanted, timeout_s)
    found = [name for name in wanted if name in present]
    counts = {name: present[name].partitions for name in found}
    conflicts = _conflicts(config, counts, partitions, timeout_s) if set(counts.values()) - {partitions} else ()
    differs = {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in found]
    for resource, future in (admin.describe_configs(resources) if resources else {}).items():
        right = Right(Resource.TOPIC, resource.name, Operation.DESCRIBE_CONFIGS)
        actual = _answered(right, future, timeout_s)
        want = _config(wanted[resource.name].config, replication)
        odd = {n: v for n, v in want.items() if n not in actual or not _suffices(n, actual[n].value, v)}
        if odd:
            differs[resource.name] = odd
    return TopicChanges(tuple(name for name in wanted if name not in present), differs, conflicts)


def _answered(right: Right, future: "Future[Any]", timeout_s: float) -> Any:
    """What a broker answers about one topic.

    Raises:
        KafkaError: it does not, or the principal has not the right.
    """
    try:
        return future.result(timeout_s)
    except KafkaException as error:
        raise fault(error.args[0], right) from None
    except TimeoutError:
        raise KafkaError(f"{right}: no answer within {timeout_s:g} s") from None


def apply(
    config: dict[str, Any], *, prefix: str, partitions: int, replication: int, timeout_s: float = 10.0
) -> TopicChanges:
    """Create what is missing, unless there is a conflict; existing topics are left as they are. Blocks.

    Returns:
        What was created; and what differs, which is left to an operator.

    Raises:
        KafkaError: no broker answers, or a topic could not be made (named in the reason).
    """
    todo = plan(config, prefix=prefix, partitions=partitions, replication=replication)
    if todo.conflicts:
        return replace(todo, create=())
    wanted = {named(topic, prefix): topic for topic in TOPICS}
    new = [
        NewTopic(name, partitions, replication, config=_config(wanted[name].config, replication))
        for name in todo.create
    ]
    with clients.admin(config) as admin:
        asked = admin.create_topics(new) if new else {}
        wait(asked.values(), timeout_s)
    for name, future in asked.items():
        try:
            future.result(0)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                if is_denial(error.args[0]):
                    raise fault(error.args[0], Right(Resource.TOPIC, name, Operation.CREATE)) from None
                raise KafkaError(f"{name}: {error.args[0].str()}") from None
        except TimeoutError:
            raise KafkaError(f"Create on topic {name}: no answer within {timeout_s:g} s") from None
    return todo
