"""Kafka and PostgreSQL as containers, where a Docker engine answers: the same versions, from their own images.

Rule: used only when `LIFECYCLE_ENGINES=docker` says so, and testcontainers is imported only then. Its reaper container
removes these when we die; with the reaper disabled (TESTCONTAINERS_RYUK_DISABLED) a killed parent leaves them behind.
A broker must advertise the port that Docker maps, which is known only once the container runs: it waits for a script.
"""

import secrets
from dataclasses import dataclass, field
from typing import Any

from services.engines.errors import EngineError, StartError
from services.engines.jars import KAFKA
from services.engines.kafka import SETTINGS
from services.engines.postgres import DATABASE, ROLE
from services.engines.readiness import kafka_answers, make_database, postgres_answers, until

KAFKA_IMAGE = f"apache/kafka:{KAFKA}"
POSTGRES_IMAGE = "postgres:18"

_READY_S = 120
_CLIENTS, _QUORUM, _SESSIONS = 9092, 9093, 5432
_SCRIPT = "/tmp/lifecycle-start.sh"  # noqa: S108 - inside the container
_WAIT = f"while [ ! -f {_SCRIPT} ]; do sleep 0.1; done; exec sh {_SCRIPT}"
_BROKER = SETTINGS | {
    "controller.quorum.voters": f"1@localhost:{_QUORUM}",
    "listeners": f"PLAINTEXT://:{_CLIENTS},CONTROLLER://:{_QUORUM}",
}
"""The settings of the local broker; the image makes them of `KAFKA_…` variables and formats for static voters."""


@dataclass(slots=True)
class DockerKafka:
    """A broker in a container; it keeps nothing over a stop."""

    _container: Any = None
    bootstrap: str = ""
    """`host:port` for clients; known once it was started."""

    def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            EngineError: No Docker engine answers, or the image cannot be had.
            StartError: The broker did not answer in time.
        """
        container = _container(KAFKA_IMAGE).with_exposed_ports(_CLIENTS).with_command(["sh", "-c", _WAIT])
        for name, value in _BROKER.items():
            container.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
        self._container = _started(container, KAFKA_IMAGE)
        self.bootstrap = _address(container, _CLIENTS)
        advertise = f"export KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://{self.bootstrap}"
        container.copy_into_container(f"{advertise}\nexec /etc/kafka/docker/run\n".encode(), _SCRIPT)
        if not until(lambda: kafka_answers(self.bootstrap), _READY_S, pause_s=0.5):
            self.stop()
            raise StartError(f"{KAFKA_IMAGE} did not answer on {self.bootstrap} in {_READY_S} s")

    def stop(self) -> None:
        """Stop and remove the container."""
        if self._container is not None:
            self._container.stop()
        self._container = None


@dataclass(slots=True)
class DockerPostgres:
    """A server in a container; it keeps nothing over a stop."""

    _password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    _container: Any = None
    _address: str = ""

    @property
    def url(self) -> str:
        """The superuser's URL for the database `lifecycle`; known once it was started."""
        return self._url(DATABASE)

    def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            EngineError: No Docker engine answers, or the image cannot be had.
            StartError: The server did not answer in time.
        """
        container = _container(POSTGRES_IMAGE).with_exposed_ports(_SESSIONS)
        container.with_env("POSTGRES_USER", ROLE).with_env("POSTGRES_PASSWORD", self._password)
        self._container = _started(container, POSTGRES_IMAGE)
        self._address = _address(container, _SESSIONS)
        if not until(lambda: postgres_answers(self._url("postgres")), _READY_S, pause_s=0.5):
            self.stop()
            raise StartError(f"{POSTGRES_IMAGE} did not answer on {self._address} in {_READY_S} s")
        make_database(self._url("postgres"), DATABASE)

    def stop(self) -> None:
        """Stop and remove the container."""
        if self._container is not None:
            self._container.stop()
        self._container = None

    def _url(self, database: str) -> str:
        return f"postgresql://{ROLE}:{self._password}@{self._address}/{database}"


def _address(container: Any, port: int) -> str:
    return f"{container.get_container_host_ip()}:{container.get_exposed_port(port)}"


def _container(image: str) -> Any:
    try:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - only when it was chosen
    except ImportError as error:
        raise EngineError(f"LIFECYCLE_ENGINES=docker needs the package testcontainers: {error}") from error
    try:
        return DockerContainer(image)
    except Exception as error:
        raise _unusable(image, error) from error


def _started(container: Any, image: str) -> Any:
    try:
        return container.start()
    except Exception as error:
        raise _unusable(image, error) from error


def _unusable(image: str, error: Exception) -> EngineError:
    return EngineError(
        f"LIFECYCLE_ENGINES=docker, but {image} cannot be run: {error}. Start a Docker engine that can pull it "
        f"(DOCKER_HOST names one), or unset LIFECYCLE_ENGINES to use the engines that come as packages, "
        f"or set KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL."
    )
