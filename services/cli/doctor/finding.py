"""The findings of a check: well; a fault with a remedy; not looked at, with reason and remedy."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum

from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.reach import Reached
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import Settings


class Health(StrEnum):
    """The verdict of a finding."""

    WELL = "well"
    FAULT = "fault"
    SKIPPED = "not looked at"


@dataclass(frozen=True, slots=True)
class Finding:
    """A result of a check; created by `well`, `fault` and `skipped`: every result but `well` has a remedy.

    Attributes:
        what: The subject of the check.
        health: The verdict.
        detail: The verdict in words, without a secret.
        cure: The remedy; empty if nothing needs to be done.
    """

    what: str
    health: Health
    detail: str
    cure: str = ""


def well(what: str, detail: str) -> Finding:
    """Returns a finding without a fault."""
    return Finding(what, Health.WELL, detail)


def fault(what: str, detail: str, cure: str) -> Finding:
    """Returns a finding of a fault, with a remedy."""
    return Finding(what, Health.FAULT, detail, cure)


def skipped(what: str, detail: str, cure: str) -> Finding:
    """Returns a finding of a check without a result; `cure` enables the check."""
    return Finding(what, Health.SKIPPED, detail, cure)


@dataclass(frozen=True, slots=True)
class CheckContext:
    """The input of every check.

    Attributes:
        settings: The settings of an operator's command.
        services: The running services: name to base URL.
        services_source: The source of the URLs, in words: `SERVICE_URLS` or `lifecycle up`.
        now_us: Returns the time, in microseconds since 1970.
        unusable: Names of the settings with a fault, treated as absent.
        cluster: The description of the Kafka cluster, once Kafka has answered; fails with a KafkaError or an Unusable.
    """

    settings: Settings
    services: Mapping[str, str]
    services_source: str
    now_us: Callable[[], int]
    unusable: frozenset[str] = frozenset()
    cluster: "Future[Reached]" = field(default_factory=Future)

    def missing_text(self, name: str) -> str:
        """Returns the words for a missing setting: not set, or not usable."""
        return f"{name} cannot be used" if name in self.unusable else f"{name} is not set"

    def kafka(self) -> Reached:
        """Returns the description of the cluster; blocks until Kafka has answered or failed.

        Raises:
            NoKafka: Kafka does not serve us.
        """
        try:
            return self.cluster.result()
        except (KafkaError, Unusable) as error:
            raise NoKafka from error


class NoKafka(Exception):
    """A check needs Kafka, and Kafka does not serve us; the finding of the check `kafka` names the reason."""


CheckFunction = Callable[[CheckContext], Iterator[Finding]]
"""A check: yields findings; may block, and may raise."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check, under a name and a time limit.

    Attributes:
        name: The subject of a finding made on behalf of the check: timeout, exception, no Kafka.
        run: Yields the findings; may raise.
        limit_s: Seconds, counted from the start of all checks, until the check counts as hanging.
    """

    name: str
    run: CheckFunction
    limit_s: float = 12.0
