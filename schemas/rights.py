"""The least rights of each service on a cluster with ACLs, derived from the topic table.

Rule: who writes and who reads a topic stands in `schemas.topics` alone. What is added here follows from how a service
asks: settings of topics, consumer groups, and the operator who makes the topics. In Kafka Read and Write imply
Describe, so Describe is a right of its own only where neither is given.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.topics import LEDGER_APP, LOOKS_GROUP, PROVISIONER_GROUP, TOPICS, Topic, named


class Service(StrEnum):
    """Those that log in to Kafka as a principal of their own."""

    INGRESS = "ingress"
    LEDGER = "ledger"
    PROVISIONER = "provisioner"
    RECONCILER = "reconciler"
    OPERATOR = "operator"
    """The program `lifecycle` in an operator's hands."""


class Resource(StrEnum):
    """What a right is on, in the words of `kafka-acls`."""

    TOPIC = "topic"
    GROUP = "group"


class Operation(StrEnum):
    """What is allowed, in the words of `kafka-acls`."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One operation on one resource, whose name is literal and has the prefix of the installation."""

    resource: Resource
    name: str
    operation: Operation

    def __str__(self) -> str:
        """As a refusal names it: `Write on topic lifecycle.events`."""
        return f"{self.operation} on {self.resource} {self.name}"


_GROUPS: Final = {Service.LEDGER: LEDGER_APP, Service.PROVISIONER: PROVISIONER_GROUP}
"""The consumer group that a service joins."""

_LOOKS: Final = frozenset(Service) - {Service.INGRESS}
"""Services that read without a group too."""

_COMPARES_READ: Final = frozenset({Service.LEDGER, Service.RECONCILER})
"""All compare the settings of the topics that they write with the table; these also of those that they read."""


def rights(service: Service, prefix: str = "") -> tuple[Right, ...]:
    """Everything that a service must be allowed, topics in the order of the journey.

    Args:
        service: Whose.
        prefix: Of the installation.
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
    if service is Service.OPERATOR:  # `topics plan` and `topics apply`
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
