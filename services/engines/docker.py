"""Kafka and PostgreSQL as Docker containers, from the official images, in the versions that the packages have.

Rule: this module runs only under `LIFECYCLE_ENGINES=docker`, and testcontainers is imported only then. The reaper
container of testcontainers removes the containers after the death of this process. With the reaper disabled
(TESTCONTAINERS_RYUK_DISABLED) a killed process leaves its containers behind.

Trap: a broker must advertise the host port that Docker maps, and Docker chooses the port at the start of the container.
So the container starts with a shell that waits for a file. After the start this module copies the file, a script that
sets the advertised listener and runs the broker, into the container.
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
_CLIENT_PORT, _CONTROLLER_PORT, _SESSION_PORT = 9092, 9093, 5432
_SCRIPT = "/tmp/lifecycle-start.sh"  # noqa: S108 - inside the container
_WAIT_FOR_SCRIPT = f"while [ ! -f {_SCRIPT} ]; do sleep 0.1; done; exec sh {_SCRIPT}"
_BROKER_SETTINGS = SETTINGS | {
    "controller.quorum.voters": f"1@localhost:{_CONTROLLER_PORT}",
    "listeners": f"PLAINTEXT://:{_CLIENT_PORT},CONTROLLER://:{_CONTROLLER_PORT}",
}
"""Settings of the local broker, changed for the image: the image reads each setting from a variable `KAFKA_…`, and
formats its storage for a quorum of static voters."""


@dataclass(slots=True)
class DockerKafka:
    """A Kafka broker in a container. The data is lost at the stop."""

    _container: Any = None
    bootstrap: str = ""
    """`host:port` for clients; empty before the start."""

    def start(self) -> None:
        """Starts the container and waits until the broker answers.

        Raises:
            EngineError: No Docker engine answers, or the image cannot be pulled.
            StartError: The broker did not answer within `_READY_S` seconds.
        """
        container = (
            _container(KAFKA_IMAGE).with_exposed_ports(_CLIENT_PORT).with_command(["sh", "-c", _WAIT_FOR_SCRIPT])
        )
        for name, value in _BROKER_SETTINGS.items():
            container.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
        self._container = _started(container, KAFKA_IMAGE)
        # Only now is the mapped port known; the shell of the container still waits for the script.
        self.bootstrap = _address(container, _CLIENT_PORT)
        advertise = f"export KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://{self.bootstrap}"
        container.copy_into_container(f"{advertise}\nexec /etc/kafka/docker/run\n".encode(), _SCRIPT)
        if not until(lambda: kafka_answers(self.bootstrap), _READY_S, pause_s=0.5):
            self.stop()
            raise StartError(f"{KAFKA_IMAGE} did not answer on {self.bootstrap} in {_READY_S} s")

    def stop(self) -> None:
        """Stops and removes the container. Does nothing before the start."""
        if self._container is not None:
            self._container.stop()
        self._container = None


@dataclass(slots=True)
class DockerPostgres:
    """A PostgreSQL server in a container. The data is lost at the stop."""

    _password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    _container: Any = None
    _address: str = ""

    @property
    def url(self) -> str:
        """The superuser's URL for the database `lifecycle`; valid only after `start`."""
        return self._url(DATABASE)

    def start(self) -> None:
        """Starts the container, waits until the server answers, and creates the database `lifecycle`.

        Raises:
            EngineError: No Docker engine answers, or the image cannot be pulled.
            StartError: The server did not answer within `_READY_S` seconds.
        """
        container = _container(POSTGRES_IMAGE).with_exposed_ports(_SESSION_PORT)
        # A password of this run alone: Docker maps the port on all addresses of the machine.
        container.with_env("POSTGRES_USER", ROLE).with_env("POSTGRES_PASSWORD", self._password)
        self._container = _started(container, POSTGRES_IMAGE)
        self._address = _address(container, _SESSION_PORT)
        if not until(lambda: postgres_answers(self._url("postgres")), _READY_S, pause_s=0.5):
            self.stop()
            raise StartError(f"{POSTGRES_IMAGE} did not answer on {self._address} in {_READY_S} s")
        make_database(self._url("postgres"), DATABASE)

    def stop(self) -> None:
        """Stops and removes the container. Does nothing before the start."""
        if self._container is not None:
            self._container.stop()
        self._container = None

    def _url(self, database: str) -> str:
        return f"postgresql://{ROLE}:{self._password}@{self._address}/{database}"


def _address(container: Any, port: int) -> str:
    """Returns the `host:port` that Docker maps to a port of a running container."""
    return f"{container.get_container_host_ip()}:{container.get_exposed_port(port)}"


def _container(image: str) -> Any:
    """Returns a container that is not started yet.

    Raises:
        EngineError: testcontainers is not installed, or its constructor found no usable Docker engine.
    """
    try:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - only when it was chosen
    except ImportError as error:
        raise EngineError(f"LIFECYCLE_ENGINES=docker needs the package testcontainers: {error}") from error
    try:
        return DockerContainer(image)
    except Exception as error:
        raise _unusable(image, error) from error


def _started(container: Any, image: str) -> Any:
    """Starts a container and returns the container.

    Raises:
        EngineError: No Docker engine answers, or the image cannot be pulled.
    """
    try:
        return container.start()
    except Exception as error:  # docker, requests and testcontainers raise errors without a common type
        raise _unusable(image, error) from error


def _unusable(image: str, error: Exception) -> EngineError:
    return EngineError(
        f"LIFECYCLE_ENGINES=docker, but {image} cannot be run: {error}. Start a Docker engine that can pull it "
        f"(DOCKER_HOST names one), or unset LIFECYCLE_ENGINES to use the engines that come as packages, "
        f"or set KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL."
    )
