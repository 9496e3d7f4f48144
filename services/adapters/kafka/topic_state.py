"""Checks the conditions of a producer: topics exist, settings fit, and the leader of each partition answers from here.

Any broker returns the metadata, but only the leader of a partition can take a record, and the address that the leader
advertises may be unreachable from this machine. So every leader is asked for the end of its partitions.

Rule: a look creates nothing and writes nothing.
"""

from collections.abc import Collection, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any, Final, Self

from confluent_kafka import IsolationLevel, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without `as`
    AclOperation,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from schemas.rights import Operation, Resource, Right
from services.adapters.kafka import clients
from services.adapters.kafka.producer import KafkaError, fault, is_denial

_ABSENT: Final = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})
_LOOKS_PER_CONFIG: Final = 15
"""Looks per question for the settings: settings change seldom, and a look takes place every few seconds."""


@dataclass(frozen=True, slots=True)
class TopicCondition:
    """The state of one topic on its cluster.

    Attributes:
        partitions: Number of partitions.
        config: Settings of the topic; None if the principal may not read the settings.
        replicas: For each partition the number of in-sync replicas and the number of replicas.
        leaderless: Partitions without a leader.
        may_write: False: the principal may not write the topic.
    """

    partitions: int
    config: Mapping[str, str] | None
    replicas: tuple[tuple[int, int], ...]
    leaderless: tuple[int, ...]
    may_write: bool


class TopicWatcher:
    """Looks at a fixed set of topics again and again. Use from one thread at a time."""

    def __init__(
        self, config: dict[str, Any], names: Collection[str], *, timeout_s: float, only_read: Collection[str] = ()
    ) -> None:
        """Prepares the client; the first look connects.

        Args:
            config: librdkafka's connection settings.
            names: Full names of the topics.
            timeout_s: Time limit of each of the four questions.
            only_read: Names of topics that this service never writes.

        Raises:
            Unusable: librdkafka does not accept the name or the value of a setting.
        """
        self._config = config
        self._hosts = config["bootstrap.servers"]
        self._admin = clients.admin(config)
        self._names = list(names)
        self._timeout_s = timeout_s
        self._only_read = only_read
        self._looks = 0
        self._configs: dict[str, Mapping[str, str] | None] = {}
        self._identities: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the client."""
        clients.close(self._admin)

    def look(self) -> dict[str, TopicCondition]:
        """Returns the topics that exist. Blocks.

        Raises:
            KafkaError: No broker answers, or the cluster refuses the request.
        """
        futures = self._admin.describe_topics(
            TopicCollection(self._names), request_timeout=self._timeout_s, include_authorized_operations=True
        )
        found = {
            name: description
            for name, future in futures.items()
            if (description := self._described(name, future)) is not None
        }
        # A topic that was made anew has new settings, so the settings are asked again at once.
        identities = {name: str(description.topic_id) for name, description in found.items()}
        if self._looks % _LOOKS_PER_CONFIG == 0 or identities != self._identities:
            self._configs = self._ask_configs(found)
            self._identities = identities
        self._looks += 1
        return {name: _condition(description, self._configs.get(name)) for name, description in found.items()}

    def silent_partitions(self, topics: Mapping[str, TopicCondition]) -> dict[tuple[str, int], str]:
        """Returns the partitions with a silent leader, and the reason for each. Blocks."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        requests = {
            TopicPartition(name, number): latest
            for name, topic in topics.items()
            for number in range(topic.partitions)
            if number not in topic.leaderless
        }
        if not requests:
            return {}
        answers = self._admin.list_offsets(
            requests, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=self._timeout_s
        )
        wait(answers.values(), 2 * self._timeout_s)
        found: dict[tuple[str, int], str] = {}
        for asked, future in answers.items():
            try:
                future.result(0)
            except KafkaException as error:
                found[asked.topic, asked.partition] = (
                    f"its leader does not answer ({error.args[0].name()}); is the "
                    "address that the broker advertises (advertised.listeners) reachable from here?"
                )
            except TimeoutError:
                found[asked.topic, asked.partition] = "its leader does not answer"
        return found

    def _described(self, name: str, future: Any) -> Any:
        try:
            return future.result(2 * self._timeout_s)
        except KafkaException as error:
            if error.args[0].name() in _ABSENT:
                return None
            if is_denial(error.args[0]):
                # Describe is implied by Read and by Write; the sentence names the right that this service should have.
                implied_by = Operation.READ if name in self._only_read else Operation.WRITE
                raise fault(error.args[0], Right(Resource.TOPIC, name, implied_by)) from None
            raise self._unreachable() from None
        except TimeoutError:
            raise self._unreachable() from None

    def _unreachable(self) -> KafkaError:
        """Returns the error for a silent cluster, with the bootstrap address or the advertised addresses."""
        try:
            with clients.admin(self._config) as admin:
                brokers = admin.list_topics(timeout=self._timeout_s).brokers.values()
        except KafkaException as error:
            return KafkaError(f"no broker answers at {self._hosts} ({error.args[0].name()})")
        addresses = ", ".join(sorted(f"{broker.host}:{broker.port}" for broker in brokers))
        return KafkaError(
            f"{self._hosts} answers and sends us on to {addresses}, which does not answer in time; is what the brokers "
            "advertise (advertised.listeners) reachable from here?"
        )

    def _ask_configs(self, names: Collection[str]) -> dict[str, Mapping[str, str] | None]:
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        found: dict[str, Mapping[str, str] | None] = {}
        for resource, future in self._admin.describe_configs(resources, request_timeout=self._timeout_s).items():
            try:
                entries = future.result(2 * self._timeout_s)
            except KafkaException as error:
                if not is_denial(error.args[0]):
                    raise self._unreachable() from None
                found[resource.name] = None
            except TimeoutError:
                raise self._unreachable() from None
            else:
                found[resource.name] = {name: str(entry.value) for name, entry in entries.items()}
        return found


def _condition(described: Any, config: Mapping[str, str] | None) -> TopicCondition:
    # None: the cluster does not list the operations; writing then counts as allowed.
    operations = described.authorized_operations
    return TopicCondition(
        partitions=len(described.partitions),
        config=config,
        replicas=tuple((len(partition.isr), len(partition.replicas)) for partition in described.partitions),
        leaderless=tuple(partition.id for partition in described.partitions if partition.leader is None),
        may_write=operations is None or AclOperation.WRITE in operations,
    )
