"""Creates the topics of the table on a cluster, and says where the cluster differs from it."""

from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without `as`
    ConfigResource,
    NewTopic,
    ResourceType,
)

from schemas.topics import TOPICS, named
from services.adapters import clients
from services.adapters.kafka import KafkaError


@dataclass(frozen=True, slots=True)
class Plan:
    """What `apply` would do, and what nobody may do silently.

    Attributes:
        create: Topics to make.
        configure: Topic to the settings that differ.
        conflicts: Sentences: a partition count that is not the table's, which would move keys.
    """

    create: tuple[str, ...]
    configure: dict[str, dict[str, str]] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()


def _config(topic_config: dict[str, str], replication: int) -> dict[str, str]:
    return topic_config | {"min.insync.replicas": str(max(1, replication - 1))}


def plan(config: dict[str, Any], *, prefix: str, partitions: int, replication: int, timeout_s: float = 10.0) -> Plan:
    """Compare the cluster with the table. Blocks.

    Raises:
        KafkaError: no broker answers.
    """
    admin = clients.admin(config)
    try:
        present = admin.list_topics(timeout=timeout_s).topics
    except KafkaException as error:
        raise KafkaError(error.args[0].name()) from None
    wanted = {named(topic, prefix): topic for topic in TOPICS}
    found = [name for name in wanted if name in present]
    conflicts = tuple(
        f"{name} has {len(present[name].partitions)} partitions, not {partitions}: the count is frozen"
        for name in found
        if len(present[name].partitions) != partitions
    )
    differs = {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in found]
    for resource, future in (admin.describe_configs(resources) if resources else {}).items():
        actual = future.result(timeout_s)
        want = _config(wanted[resource.name].config, replication)
        odd = {n: v for n, v in want.items() if n not in actual or actual[n].value != v}
        if odd:
            differs[resource.name] = odd
    return Plan(tuple(name for name in wanted if name not in present), differs, conflicts)


def apply(config: dict[str, Any], *, prefix: str, partitions: int, replication: int, timeout_s: float = 30.0) -> Plan:
    """Create what is missing; existing topics are left as they are. Blocks.

    Raises:
        KafkaError: no broker answers, or a topic could not be made (named in the reason).
    """
    todo = plan(config, prefix=prefix, partitions=partitions, replication=replication)
    wanted = {named(topic, prefix): topic for topic in TOPICS}
    new = [
        NewTopic(name, partitions, replication, config=_config(wanted[name].config, replication))
        for name in todo.create
    ]
    admin = clients.admin(config)  # it must outlive its answers
    for name, future in (admin.create_topics(new) if new else {}).items():
        try:
            future.result(timeout_s)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise KafkaError(f"{name}: {error.args[0].str()}") from None
    return todo
