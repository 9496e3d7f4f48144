"""Creates the topics of the topic table on a cluster, and reports the differences between cluster and table.

Rules:
- No advice in a message destroys a record. Only a topic without any record since its creation may be deleted.
- A partition count never changes, because the keys would move to different partitions.
- Existing topics are left unchanged; an operator changes settings.
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
    """The changes that `apply` would make, and the differences left to an operator.

    Attributes:
        create: Names of the topics to create.
        configure: Topic to the settings that differ.
        conflicts: One sentence per topic with a wrong partition count, with the remedy. While a conflict exists, no
            topic is created: the existing topics may have the right count, and TOPIC_PARTITIONS the wrong one.
    """

    create: tuple[str, ...]
    configure: dict[str, dict[str, str]] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()


def _config(topic_config: dict[str, str], replication: int) -> dict[str, str]:
    # One replica may be away without stopping the producers, which wait for all in-sync replicas.
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
"""Settings with a lower limit. A greater value is no difference: lowering it would destroy or refuse records."""


def _suffices(name: str, actual: str, want: str) -> bool:
    """True if the actual value of a setting satisfies the table."""
    if name in _AT_LEAST:
        # A negative value means unlimited (`retention.ms=-1`).
        return int(actual) < 0 or int(actual) >= int(want)
    return actual == want


def _conflicts(config: dict[str, Any], counts: Mapping[str, int], wanted: int, timeout_s: float) -> tuple[str, ...]:
    """Returns one sentence per topic with a wrong partition count, with a remedy that keeps every record."""
    partition_ids = [(name, number) for name, count in counts.items() for number in range(count)]
    with offsets.OffsetReader(config, next(iter(counts))) as offset_reader:
        spans = offset_reader.spans(partition_ids, timeout_s)
    # An end above 0 means that the topic has held a record, even if retention has removed all records since.
    written = {name for (name, _), span in spans.items() if span.end > 0}
    counts_of_written = {counts[name] for name in written}
    # If all written topics agree, their count is right and the setting is wrong.
    right = counts_of_written.copy().pop() if len(counts_of_written) == 1 else wanted
    sentences = []
    for name, count in counts.items():
        count_text = "1 partition" if count == 1 else f"{count} partitions"
        if name not in written:
            if count != right:
                sentences.append(f"{name} has {count_text} and has never held a record: {_REMAKE.format(name=name)}")
        elif len(counts_of_written) > 1 and count != wanted:
            sentences.append(f"{name} has {count_text}, not {wanted}, and holds records: {_COPY.format(count=wanted)}")
        elif len(counts_of_written) == 1 and count != wanted:
            sentences.append(f"{name} has {count_text}, not {wanted}, and holds records: {_KEEP.format(count=count)}")
    return tuple(sentences)


def plan(
    config: dict[str, Any], *, prefix: str, partitions: int, replication: int, timeout_s: float = 10.0
) -> TopicChanges:
    """Compares the cluster with the topic table. Blocks.

    Raises:
        KafkaError: No broker answers, or a right is missing.
    """
    with clients.admin(config) as admin:
        return _plan(admin, config, prefix, partitions, replication, timeout_s)


def _plan(
    admin: AdminClient, config: dict[str, Any], prefix: str, partitions: int, replication: int, timeout_s: float
) -> TopicChanges:
    wanted = {named(topic, prefix): topic for topic in TOPICS}
    # Described by name: a list of all topics omits the topics that the principal may not see.
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
        differing = {n: v for n, v in want.items() if n not in actual or not _suffices(n, actual[n].value, v)}
        if differing:
            differs[resource.name] = differing
    return TopicChanges(tuple(name for name in wanted if name not in present), differs, conflicts)


def _answered(right: Right, future: "Future[Any]", timeout_s: float) -> Any:
    """Returns the answer of a broker about one topic.

    Raises:
        KafkaError: No answer in time, or the right is missing.
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
    """Creates the missing topics, unless a conflict exists; leaves existing topics unchanged. Blocks.

    Returns:
        The created topics, and the differences left to an operator.

    Raises:
        KafkaError: No broker answers, or a topic could not be created; the reason names the topic.
    """
    changes = plan(config, prefix=prefix, partitions=partitions, replication=replication, timeout_s=timeout_s)
    if changes.conflicts:
        return replace(changes, create=())
    wanted = {named(topic, prefix): topic for topic in TOPICS}
    new = [
        NewTopic(name, partitions, replication, config=_config(wanted[name].config, replication))
        for name in changes.create
    ]
    with clients.admin(config) as admin:
        requests = admin.create_topics(new) if new else {}
        wait(requests.values(), timeout_s)
    for name, future in requests.items():
        try:
            future.result(0)
        except KafkaException as error:
            # A second `apply` may have created the topic since the comparison.
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                if is_denial(error.args[0]):
                    raise fault(error.args[0], Right(Resource.TOPIC, name, Operation.CREATE)) from None
                raise KafkaError(f"{name}: {error.args[0].str()}") from None
        except TimeoutError:
            raise KafkaError(f"Create on topic {name}: no answer within {timeout_s:g} s") from None
    return changes
