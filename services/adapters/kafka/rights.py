"""Asks the cluster what this process may do, so that a missing right is named before anything fails for want of it.

Rule: a right counts as missing only where the cluster says what is allowed and leaves it out. A cluster that does not
say, or does not answer, is no evidence.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, Self

from confluent_kafka import KafkaException, TopicCollection

from schemas.rights import Operation, Resource, Right, Service, rights
from services.adapters.kafka import clients
from services.adapters.kafka.producer import AccessDenied, KafkaError, Producer, is_denial, not_allowed
from services.adapters.process.logs import Logger
from services.adapters.process.settings import Settings

_ASK_S: Final = 10.0
_LOOK_S: Final = 2.0
"""How long a question may take: to whom the process is starting, and to whom it must be able to stop."""

_AGAIN_S: Final = 2.0
_SELDOM_S: Final = 5.0
"""Between two looks: while rights are missing, and while none is."""

_A_GROUP: Final = f"on {Resource.GROUP} "
_UNASKED: Final = "not asked yet"
_TIMED_OUT: Final = "_TIMED_OUT"
_NO_EVIDENCE: Final = frozenset({
    "UNKNOWN_TOPIC_OR_PART", "GROUP_ID_NOT_FOUND", "LEADER_NOT_AVAILABLE",
    "NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS",
})  # fmt: skip
"""Of what does not exist nothing is said; a cluster that has just started has no coordinators for a moment."""


class Cluster:
    """What one principal may do on a cluster; blocking, from one thread at a time."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Prepare; the first question connects.

        Args:
            config: librdkafka's connection settings.

        Raises:
            Unusable: librdkafka does not know a setting, or not its value.
        """
        name = config.get("sasl.username")
        self._principal = f"User:{name}" if name else "the principal of this client"
        self._admin = clients.admin(dict(config))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the client go; nobody asks any more."""
        clients.close(self._admin)

    def missing(
        self, service: Service, prefix: str, timeout_s: float = _ASK_S, *, ask_groups: bool = True
    ) -> tuple[Right, ...]:
        """The rights of a service that the principal has not, in the order of the table.

        Raises:
            KafkaError: no broker answers.
        """
        wanted = rights(service, prefix)
        topics, groups = (
            list(dict.fromkeys(one.name for one in wanted if one.resource is resource)) for resource in Resource
        )
        told = self._admin.describe_topics(
            TopicCollection(topics), include_authorized_operations=True, request_timeout=timeout_s
        )
        allowed = {(Resource.TOPIC, name): _allowed(answer, timeout_s) for name, answer in told.items()}
        if groups and ask_groups:
            # After the topics, so never while no broker answers: librdkafka 2.16 aborts the process when a coordinator
            # goes away under this question ("rd_kafka_enq_once_del_source_return").
            told = self._admin.describe_consumer_groups(
                groups, include_authorized_operations=True, request_timeout=timeout_s
            )
            allowed |= {(Resource.GROUP, name): _allowed_of_group(answer, timeout_s) for name, answer in told.items()}
        return tuple(one for one in wanted if _is_missing(one, allowed.get((one.resource, one.name))))

    def refusal(self, missing: Iterable[Right]) -> str:
        """One sentence that names them, and the remedy; empty text when none is missing."""
        named = ", ".join(map(str, missing))
        return not_allowed(named, self._principal) if named else ""

    def require(self, service: Service, prefix: str) -> None:
        """Return when the principal has every right of a service.

        Raises:
            Denied: it has not; every missing one is named.
            KafkaError: no broker answers.
        """
        if refusal := self.refusal(self.missing(service, prefix)):
            raise AccessDenied(refusal)


class RightsWatch:
    """Looks again and again what a service lacks, for its `/readyz` and its log."""

    def __init__(
        self, settings: Settings, service: Service, log: Logger, spared: Collection[Operation] = frozenset()
    ) -> None:
        """Prepare.

        Args:
            settings: Of the process.
            service: Whose rights.
            log: Told once of each state.
            spared: Operations without which the service does all its work.

        Raises:
            Unusable: no brokers are named, or librdkafka does not know a setting.
        """
        self._cluster = Cluster(settings.kafka)
        self._service, self._prefix, self._log = service, settings.topic_prefix, log
        self._spared = spared
        self.fault = _UNASKED
        """Names every missing right that the service needs; empty text when none is known to be missing."""
        self.note = ""
        """Names every other missing right."""

    async def first(self) -> None:
        """Look once, before there is work."""
        await self._look()

    async def run(self, producer: Producer) -> None:
        """Look until the producer has failed for good though no right is missing.

        A producer that may write nowhere when it starts never writes again, also when it may by then: the process has
        to be started anew.
        """
        while self.fault or not producer.fatal:
            await self._look()
            await asyncio.sleep(_AGAIN_S if self.fault or producer.fatal else _SELDOM_S)
        self._log.critical("the producer has failed for good", why=producer.fatal)

    async def _look(self) -> None:
        try:
            # At work a group's refusal is told by its reader; asked again is only what was found missing.
            ask = partial(
                self._cluster.missing, ask_groups=self.fault == _UNASKED or _A_GROUP in self.fault + self.note
            )
            missing = await asyncio.to_thread(ask, self._service, self._prefix, _LOOK_S)
        except KafkaError:
            self.fault = "" if self.fault == _UNASKED else self.fault  # others say that Kafka is away
            return
        fault, note = (
            self._cluster.refusal(right for right in missing if (right.operation in self._spared) is spared)
            for spared in (False, True)
        )
        for told, before in ((fault, self.fault), (note, self.note)):
            if told and told != before:
                self._log.error("rights are missing", why=told)
        if not missing and (self.note or self.fault not in {"", _UNASKED}):
            self._log.info("no right is missing any more")
        self.fault, self.note = fault, note


def _allowed(answer: "Future[Any]", timeout_s: float) -> frozenset[str] | None:
    """The operations that are allowed, in Kafka's words; None where the cluster does not say."""
    try:
        told = answer.result(timeout_s + 1).authorized_operations
    except KafkaException as error:
        if is_denial(error.args[0]):
            return frozenset()
        if error.args[0].name() in _NO_EVIDENCE:
            return None
        raise KafkaError(error.args[0].name()) from None
    except TimeoutError:
        raise KafkaError(_TIMED_OUT) from None
    return frozenset(operation.name for operation in told) if told else None


def _allowed_of_group(answer: "Future[Any]", timeout_s: float) -> frozenset[str] | None:
    """The operations that are allowed on a group; None where the cluster or its coordinator does not say.

    Reason: the cluster has just answered about topics, and a fresh one has no coordinators until the topic of the
    groups' offsets is made.
    """
    try:
        return _allowed(answer, timeout_s)
    except KafkaError as error:
        if error.code != _TIMED_OUT:
            raise
        return None


def _is_missing(right: Right, allowed: frozenset[str] | None) -> bool:
    # The names of our operations are those of the protocol, their values those of `kafka-acls`.
    return allowed is not None and right.operation.name not in allowed
