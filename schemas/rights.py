"""The least Kafka ACLs of each service, derived from the topic table.

Rule: `schemas.topics` alone lists the writers and readers of a topic. This module adds the rights behind further
requests of the services: reading topic settings, joining or describing consumer groups, and creating topics (the
operator). In Kafka, Read and Write imply Describe, so Describe is a separate right only without Read and Write.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.topics import LEDGER_APP, LOOKS_GROUP, PROVISIONER_GROUP, RECONCILER_GROUP, TOPICS, Topic, named


class Service(StrEnum):
    """The Kafka principals of an installation."""

    INGRESS = "ingress"
    HINTS = "hints"
    """The reader of hints from a queue."""
    LEDGER = "ledger"
    PROVISIONER = "provisioner"
    RECONCILER = "reconciler"
    OPERATOR = "operator"
    """The commands of the program `lifecycle` that an operator runs."""


class Resource(StrEnum):
    """Type of the resource of a right, spelled as in `kafka-acls`."""

    TOPIC = "topic"
    GROUP = "group"


class Operation(StrEnum):
    """The allowed operation, spelled as in `kafka-acls`."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """An operation on a resource; the name is literal and includes the prefix of the installation."""

    resource: Resource
    name: str
    operation: Operation

    def __str__(self) -> str:
        """Returns the right as in error texts: `Write on topic lifecycle.events`."""
        return f"{self.operation} on {self.resource} {self.name}"


_GROUPS: Final = {
    Service.LEDGER: LEDGER_APP,
    Service.PROVISIONER: PROVISIONER_GROUP,
    Service.RECONCILER: RECONCILER_GROUP,
}
"""The consumer group of each service with a group."""

_LOOKS: Final = frozenset(Service) - {Service.INGRESS, Service.HINTS}
"""Services that also read topics outside a consumer group, and name `LOOKS_GROUP` for librdkafka."""

_COMPARES_READ: Final = frozenset({Service.LEDGER, Service.RECONCILER})
"""Services that compare the settings of the topics they read with the table; every service does so for writing."""


def rights(service: Service, prefix: str = "") -> tuple[Right, ...]:
    """Returns the rights of a service: first on topics, in the order of an event's journey, then on groups.

    Args:
        service: The service.
        prefix: Prefix of the installation's topics and groups.
    """
    on_topics = (
        Right(Resource.TOPIC, named(topic, prefix), operation)
        for topic in TOPICS
        for operation in _operations(service, topic)
    )
    on_groups = (Right(Resource.GROUP, prefix + group, operation) for group, operation in _on_groups(service))
    return (*on_topics, *on_groups)


def _operations(service: Service, topic: Topic) -> Iterator[Operation]:
    used = service in topic.readers or service in topic.writers
    if service in topic.readers:
        yield Operation.READ
    if service in topic.writers:
        yield Operation.WRITE
    # The operator's commands `topics plan` and `topics apply` describe and create every topic of the table.
    if service is Service.OPERATOR:
        if not used:
            yield Operation.DESCRIBE
        yield Operation.DESCRIBE_CONFIGS
        yield Operation.CREATE
    elif service in topic.writers or (used and service in _COMPARES_READ):
        yield Operation.DESCRIBE_CONFIGS


def _on_groups(service: Service) -> Iterator[tuple[str, Operation]]:
    if service in _GROUPS:
        yield _GROUPS[service], Operation.READ
    if service in _LOOKS:
        yield LOOKS_GROUP, Operation.DESCRIBE
