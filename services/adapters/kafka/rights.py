"""Asks the cluster for the rights of this process, and names a missing right before a request fails.

Rule: a right is missing only if the cluster lists the allowed operations and the list lacks the right. A cluster that
does not answer, or does not list the operations, proves nothing.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, Self

from confluent_kafka import KafkaException, TopicCollection

from schemas.rights import Operation, Resource, Right, Service, rights
from services.adapters.kafka import clients
from services.adapters.kafka.producer import AccessDenied, KafkaError, Producer, is_denial, missing_rights_text
from services.adapters.process.logs import Logger
from services.adapters.process.settings import KafkaSettings

_START_TIMEOUT_S: Final = 10.0
_LOOK_TIMEOUT_S: Final = 2.0
"""Time limits of one question, in seconds: at the start of a process, and at work, where a stop waits for the
answer."""

_PAUSE_WHILE_MISSING_S: Final = 2.0
_PAUSE_S: Final = 5.0
"""Seconds between two looks: while rights are missing, and otherwise."""

_GROUPS_FIRST_S: Final = 5.0
_GROUPS_MOST_S: Final = 300.0
"""Seconds from a question about groups to the next while a coordinator is silent: the first time, and at most."""

_A_GROUP: Final = f"on {Resource.GROUP} "
_UNASKED: Final = "not asked yet"
_TIMED_OUT: Final = "_TIMED_OUT"
_NO_EVIDENCE: Final = frozenset({"UNKNOWN_TOPIC_OR_PART", "GROUP_ID_NOT_FOUND", "LEADER_NOT_AVAILABLE"})
"""Codes that say nothing about rights: the cluster lists no operations of a missing resource."""
_NO_COORDINATOR: Final = clients.COORDINATORLESS | {_TIMED_OUT}
"""Codes of a group without a coordinator that answers. The cluster has just answered about topics, so a time-out is no
error: a new cluster has no coordinators until the topic of the group offsets is made."""


class Cluster:
    """Asks for the rights of one principal. Blocks; use from one thread at a time."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Prepares the client; the first question connects.

        Args:
            config: librdkafka's connection settings.

        Raises:
            Unusable: librdkafka does not accept the name or the value of a setting.
        """
        name = config.get("sasl.username")
        self._principal = f"User:{name}" if name else "the principal of this client"
        self._admin = clients.admin(dict(config))
        self.groups_answered: bool | None = None
        """True if every coordinator answered the last call of `missing`; None if that call asked no coordinator."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the client."""
        clients.close(self._admin)

    def missing(
        self, service: Service, prefix: str, timeout_s: float = _START_TIMEOUT_S, *, ask_groups: bool = True
    ) -> tuple[Right, ...]:
        """Returns the rights of a service that the principal lacks, in the order of the rights table.

        Args:
            service: The service.
            prefix: Prefix of the installation's topics and groups.
            timeout_s: Time limit of each question.
            ask_groups: False: rights on groups are not asked, and do not count as missing.

        Raises:
            KafkaError: No broker answers.
        """
        self.groups_answered = None
        wanted = rights(service, prefix)
        topics, groups = (
            list(dict.fromkeys(right.name for right in wanted if right.resource is resource)) for resource in Resource
        )
        answers = self._admin.describe_topics(
            TopicCollection(topics), include_authorized_operations=True, request_timeout=timeout_s
        )
        allowed = {(Resource.TOPIC, name): _allowed(future, timeout_s) for name, future in answers.items()}
        if groups and ask_groups:
            # Asked only after the answer about topics, so never while no broker answers: librdkafka 2.16 aborts the
            # process if a coordinator goes away during this question ("rd_kafka_enq_once_del_source_return").
            self.groups_answered = False
            answers = self._admin.describe_consumer_groups(
                groups, include_authorized_operations=True, request_timeout=timeout_s
            )
            of_groups = _allowed_of_groups(answers, timeout_s)
            self.groups_answered = len(of_groups) == len(groups)
            allowed |= {(Resource.GROUP, name): found for name, found in of_groups.items()}
        return tuple(right for right in wanted if _is_missing(right, allowed.get((right.resource, right.name))))

    def refusal(self, missing: Iterable[Right]) -> str:
        """Returns one sentence with the missing rights and the remedy; an empty text if none is missing."""
        named = ", ".join(map(str, missing))
        return missing_rights_text(named, self._principal) if named else ""

    def require(self, service: Service, prefix: str) -> None:
        """Returns if the principal has every right of a service; otherwise raises.

        Raises:
            AccessDenied: Names every missing right.
            KafkaError: No broker answers.
        """
        if refusal := self.refusal(self.missing(service, prefix)):
            raise AccessDenied(refusal)


class GroupQuestions:
    """Spaces the questions about groups, because each may abort the process (`Cluster.missing`).

    Groups are asked until every coordinator has answered: after 5 s, 10 s and so on, up to 5 min.
    """

    def __init__(self) -> None:
        """Makes the first question due at once."""
        self._answered = False
        self._due_s = float("-inf")
        self._pause_s = _GROUPS_FIRST_S

    def due(self, now_s: float) -> bool:
        """True if a question is due at `now_s`, seconds of the monotonic clock."""
        return not self._answered and now_s >= self._due_s

    def asked(self, now_s: float, *, answered: bool, lacking: bool) -> None:
        """Notes the end of a question.

        Args:
            now_s: Seconds of the monotonic clock.
            answered: True if every coordinator answered.
            lacking: True if the question was about a missing right, and not about a silent coordinator.
        """
        self._answered = answered
        if lacking:
            self._pause_s = _GROUPS_FIRST_S
        self._due_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, _GROUPS_MOST_S)


class RightsWatch:
    """Looks repeatedly for missing rights of a service, for its `/readyz` and its log."""

    def __init__(
        self, settings: KafkaSettings, service: Service, log: Logger, spared: Collection[Operation] = frozenset()
    ) -> None:
        """Prepares the client; the first look connects.

        Args:
            settings: Settings of the process.
            service: The service of this process.
            log: Gets one line per change of the missing rights.
            spared: Operations without which the service still works; if missing, `note` names the right instead of
                `fault`.

        Raises:
            Unusable: No brokers are named, or librdkafka does not accept a setting.
        """
        self._cluster, self._group_questions = Cluster(settings.kafka), GroupQuestions()
        self._service, self._prefix, self._log = service, settings.topic_prefix, log
        self._spared = spared
        self.fault = _UNASKED
        """Names every missing right that the service needs; empty if none is known to be missing."""
        self.note = ""
        """Names every other missing right."""

    async def look_once(self) -> None:
        """Looks once, before the work begins."""
        await self._look()

    async def run(self, producer: Producer) -> None:
        """Looks until the producer has failed for good while no right is missing; then returns.

        A producer that may write no topic at its start never writes again, even after the right is given. So the caller
        has to end the process, and a new process gets a new producer.
        """
        while self.fault or not producer.fatal:
            await self._look()
            await asyncio.sleep(_PAUSE_WHILE_MISSING_S if self.fault or producer.fatal else _PAUSE_S)
        self._log.critical("the producer has failed for good", why=producer.fatal)

    async def _look(self) -> None:
        # Groups are asked until their coordinators have answered, and later only if a right on a group was missing. At
        # work the reader of the group reports a refusal by itself.
        lacking = _A_GROUP in self.fault + self.note
        ask = partial(self._cluster.missing, ask_groups=lacking or self._group_questions.due(time.monotonic()))
        try:
            missing = await asyncio.to_thread(ask, self._service, self._prefix, _LOOK_TIMEOUT_S)
        except KafkaError:
            # Not a fault of rights: other checks of the service report that Kafka is away.
            self.fault = "" if self.fault == _UNASKED else self.fault
            return
        finally:
            if (answered := self._cluster.groups_answered) is not None:
                self._group_questions.asked(time.monotonic(), answered=answered, lacking=lacking)
        fault, note = (
            self._cluster.refusal(right for right in missing if (right.operation in self._spared) is spared)
            for spared in (False, True)
        )
        for sentence, before in ((fault, self.fault), (note, self.note)):
            if sentence and sentence != before:
                self._log.error("rights are missing", why=sentence)
        if not missing and (self.note or self.fault not in {"", _UNASKED}):
            self._log.info("no right is missing any more")
        self.fault, self.note = fault, note


def _allowed(future: "Future[Any]", timeout_s: float) -> frozenset[str] | None:
    """Returns the allowed operations by Kafka's names; None if the cluster does not list the operations.

    Raises:
        KafkaError: No answer in time, or an error that is not a refusal.
    """
    try:
        operations = future.result(timeout_s + 1).authorized_operations
    except KafkaException as error:
        if is_denial(error.args[0]):
            return frozenset()
        if error.args[0].name() in _NO_EVIDENCE:
            return None
        raise KafkaError(error.args[0].name()) from None
    except TimeoutError:
        raise KafkaError(_TIMED_OUT) from None
    return frozenset(operation.name for operation in operations) if operations else None


def _allowed_of_groups(answers: Mapping[str, "Future[Any]"], timeout_s: float) -> dict[str, frozenset[str] | None]:
    """Returns the allowed operations on each group as `_allowed`; a group without a coordinator's answer is absent.

    Raises:
        KafkaError: As `_allowed`.
    """
    found = {}
    for name, future in answers.items():
        try:
            found[name] = _allowed(future, timeout_s)
        except KafkaError as error:
            if error.code not in _NO_COORDINATOR:
                raise
    return found


def _is_missing(right: Right, allowed: frozenset[str] | None) -> bool:
    # An `Operation` has the name of the protocol (compared here) and the value of `kafka-acls` (printed).
    return allowed is not None and right.operation.name not in allowed
