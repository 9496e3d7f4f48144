"""Looks at topics as a producer needs them: are they there, how are they set, and does each leader answer from here?

Rule: a look creates nothing and writes nothing. Metadata comes from any broker; whether a record would be taken only
the leaders know, so each is asked where its partition ends.
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
_CONFIG_EVERY: Final = 15
"""Looks between two questions for settings: they change seldom, and a look is every few seconds."""


@dataclass(frozen=True, slots=True)
class TopicCondition:
    """One topic as its cluster has it.

    Attributes:
        partitions: How many.
        config: Its settings; None where they may not be read.
        replicas: Of each partition, how many are in sync, and how many there are.
        leaderless: Partitions without a leader.
        may_write: False: this principal may not.
    """

    partitions: int
    config: Mapping[str, str] | None
    replicas: tuple[tuple[int, int], ...]
    leaderless: tuple[int, ...]
    may_write: bool


class TopicWatcher:
    """Asks about the same topics again and again. Use from one thread at a time."""

    def __init__(
        self, config: dict[str, Any], names: Collection[str], *, timeout_s: float, only_read: Collection[str] = ()
    ) -> None:
        """Prepare; the first look connects.

        Args:
            config: librdkafka's connection settings.
            names: Full names of topics.
            timeout_s: Of each of four questions.
            only_read: Those of the names that nothing is written to.

        Raises:
            Unusable: librdkafka does not know a setting, or not its value.
        """
        self._config = config
        self._where = config["bootstrap.servers"]
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
        """Let the client go; nobody looks any more."""
        clients.close(self._admin)

    def look(self) -> dict[str, TopicCondition]:
        """Returns the topics that are there. Blocks.

        Raises:
            KafkaError: no broker answers, or the answer is no.
        """
        futures = self._admin.describe_topics(
            TopicCollection(self._names), request_timeout=self._timeout_s, include_authorized_operations=True
        )
        found = {name: one for name, future in futures.items() if (one := self._answer(name, future)) is not None}
        # A topic that was made anew has settings of its own.
        identities = {name: str(one.topic_id) for name, one in found.items()}
        if self._looks % _CONFIG_EVERY == 0 or identities != self._identities:
            self._configs = self._ask_configs(found)
            self._identities = identities
        self._looks += 1
        return {name: _topic(one, self._configs.get(name)) for name, one in found.items()}

    def silent(self, topics: Mapping[str, TopicCondition]) -> dict[tuple[str, int], str]:
        """Returns why the leader of a partition does not answer, for each that does not. Blocks."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {
            TopicPartition(name, number): latest
            for name, topic in topics.items()
            for number in range(topic.partitions)
            if number not in topic.leaderless
        }
        if not asked:
            return {}
        answers = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=self._timeout_s
        )
        wait(answers.values(), 2 * self._timeout_s)
        found: dict[tuple[str, int], str] = {}
        for place, future in answers.items():
            try:
                future.result(0)
            except KafkaException as error:
                found[place.topic, place.partition] = (
                    f"its leader does not answer ({error.args[0].name()}); is the "
                    "address that the broker advertises (advertised.listeners) reachable from here?"
                )
            except TimeoutError:
                found[place.topic, place.partition] = "its leader does not answer"
        return found

    def _answer(self, name: str, future: Any) -> Any:
        try:
            return future.result(2 * self._timeout_s)
        except KafkaException as error:
            if error.args[0].name() in _ABSENT:
                return None
            if is_denial(error.args[0]):
                implied_by = Operation.READ if name in self._only_read else Operation.WRITE
                raise fault(error.args[0], Right(Resource.TOPIC, name, implied_by)) from None
            raise self._silence() from None
        except TimeoutError:
            raise self._silence() from None

    def _silence(self) -> KafkaError:
        """Who does not answer: the address we were given, or those that it sends us on to."""
        try:
            with clients.admin(self._config) as admin:
                named = admin.list_topics(timeout=self._timeout_s).brokers.values()
        except KafkaException as error:
            return KafkaError(f"no broker answers at {self._where} ({error.args[0].name()})")
        addresses = ", ".join(sorted(f"{broker.host}:{broker.port}" for broker in named))
        return KafkaError(
            f"{self._where} answers and sends us on to {addresses}, which does not answer in time; is what the brokers "
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
                    raise self._silence() from None
                found[resource.name] = None
            except TimeoutError:
                raise self._silence() from None
            else:
                found[resource.name] = {name: str(entry.value) for name, entry in entries.items()}
        return found


def _topic(described: Any, config: Mapping[str, str] | None) -> TopicCondition:
    operations = described.authorized_operations
    return TopicCondition(
        partitions=len(described.partitions),
        config=config,
        replicas=tuple((len(one.isr), len(one.replicas)) for one in described.partitions),
        leaderless=tuple(one.id for one in described.partitions if one.leader is None),
        may_write=operations is None or AclOperation.WRITE in operations,
    )
