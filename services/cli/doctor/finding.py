"""What a check says: well, a fault with what to do about it, or not looked at, why, and what would let it look."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum

from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.reach import Reached
from services.adapters.process.settings import Settings, Unusable


class Health(StrEnum):
    """What a check found."""

    WELL = "well"
    FAULT = "fault"
    SKIPPED = "not looked at"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; made by `well`, `fault` and `skipped`, so that what is not well has a cure.

    Attributes:
        what: What was looked at.
        health: What was found.
        detail: In words, without a secret.
        cure: What to do; empty where nothing has to be done.
    """

    what: str
    health: Health
    detail: str
    cure: str = ""


def well(what: str, detail: str) -> Finding:
    """All is as it should be."""
    return Finding(what, Health.WELL, detail)


def fault(what: str, detail: str, cure: str) -> Finding:
    """Something is not as it should be."""
    return Finding(what, Health.FAULT, detail, cure)


def skipped(what: str, detail: str, cure: str) -> Finding:
    """Nothing is known; `cure` is what would let the check look."""
    return Finding(what, Health.SKIPPED, detail, cure)


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What every check is given.

    Attributes:
        settings: Of an operator's command.
        services: Name to base URL of the running services that are known.
        known_by: How they are known, in words.
        cluster: What Kafka says of itself, once it has; its error is a KafkaError or an Unusable.
        now_us: The clock.
        unread: Names of settings that cannot be used; they count as absent.
    """

    settings: Settings
    services: Mapping[str, str]
    known_by: str
    now_us: Callable[[], int]
    unread: frozenset[str] = frozenset()
    cluster: "Future[Reached]" = field(default_factory=Future)

    def absent(self, name: str) -> str:
        """How a setting that is missing is told."""
        return f"{name} cannot be used" if name in self.unread else f"{name} is not set"

    def kafka(self) -> Reached:
        """The cluster; blocks until Kafka has answered, or has not.

        Raises:
            NoKafka: it does not serve us.
        """
        try:
            return self.cluster.result()
        except (KafkaError, Unusable) as error:
            raise NoKafka from error


class NoKafka(Exception):
    """A check needs Kafka, which does not serve us: the check `kafka` says why."""


Look = Callable[[CheckContext], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One look.

    Attributes:
        name: Of its findings, where it cannot give them itself.
        look: Yields what it finds; may raise.
        limit_s: After this it counts as unanswered; the others do not wait for it.
    """

    name: str
    look: Look
    limit_s: float = 12.0
