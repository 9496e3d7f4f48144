"""Starts both engines at the same time and stops them at the end of one context.

Rule: every engine started here is stopped here, also after a failed start. A server named by the environment is used
and never stopped.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.engines import jars, java
from services.engines.choice import Engine, EngineSource, choose
from services.engines.docker import DockerKafka, DockerPostgres
from services.engines.kafka import KafkaBroker
from services.engines.postgres import Durability, PostgresServer

BOTH = frozenset(Engine)


@dataclass(frozen=True, slots=True)
class RunningEngines:
    """Engines that answer.

    Attributes:
        kafka: The broker started from packages, so that the caller can watch and restart the broker; None for any
            source but the packages.
        postgres: The server started from packages; None for any source but the packages.
        chosen: Source and version of each engine, as text for a person, without secrets.
    """

    kafka: KafkaBroker | None
    postgres: PostgresServer | None
    chosen: str
    _bootstrap: str | None
    _database_url: str | None

    @property
    def kafka_bootstrap(self) -> str:
        """`host:port[,…]` for Kafka clients. Fails if Kafka was not wanted."""
        assert self._bootstrap is not None, "Kafka was not asked for"
        return self._bootstrap

    @property
    def database_url(self) -> str:
        """The libpq URL of the database `lifecycle`; the role may create databases and roles.

        A named server's URL is passed on unchanged. Fails if PostgreSQL was not wanted.
        """
        assert self._database_url is not None, "PostgreSQL was not asked for"
        return self._database_url


@dataclass(frozen=True, slots=True)
class _ReadyEngine:
    """One engine that answers.

    Attributes:
        address: Bootstrap address of Kafka, or URL of PostgreSQL.
        engine: The process, if started from packages.
        text: Source and version, for a person, without secrets.
    """

    address: str
    engine: KafkaBroker | PostgresServer | None
    text: str


@contextmanager
def running(
    state_dir: Path,
    environ: Mapping[str, str],
    *,
    durability: Durability = Durability.EPHEMERAL,
    wanted: Collection[Engine] = BOTH,
    progress: jars.Progress | None = None,
) -> Iterator[RunningEngines]:
    """Starts the wanted engines, and stops the started engines at the end of the context. Blocks until both answer.

    Args:
        state_dir: Folder of the state of engines from packages. A second run has the same data and ports. The data
            of an unprivileged PostgreSQL are elsewhere if its user cannot reach the folder (`unprivileged`).
        environ: The environment: KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL, LIFECYCLE_ENGINES, JAVA_HOME, PATH,
            XDG_CACHE_HOME, HOME.
        durability: Data of PostgreSQL that may be lost if the machine crashes.
        wanted: The engines to start.
        progress: Callback for the progress of a download.

    Yields:
        The engines, ready for clients.

    Raises:
        EngineError: An engine cannot be started. The text names the attempts and the variables to set instead.
    """
    state_dir = state_dir.resolve()  # children have working directories of their own
    starters: dict[Engine, Callable[[ExitStack], _ReadyEngine]] = {
        Engine.KAFKA: lambda stack: _kafka(stack, state_dir, environ, progress),
        Engine.POSTGRES: lambda stack: _postgres(stack, state_dir, environ, durability),
    }
    # The pool is the inner context: after a failed start its exit waits for the second start, and only then the stack
    # stops the engines.
    with ExitStack() as stack, ThreadPoolExecutor(len(starters)) as pool:
        starts = {engine: pool.submit(starters[engine], stack) for engine in sorted(wanted)}
        ready = {engine: start.result() for engine, start in starts.items()}
        kafka, postgres = ready.get(Engine.KAFKA), ready.get(Engine.POSTGRES)
        yield RunningEngines(
            kafka=kafka.engine if kafka and isinstance(kafka.engine, KafkaBroker) else None,
            postgres=postgres.engine if postgres and isinstance(postgres.engine, PostgresServer) else None,
            chosen="; ".join(one.text for one in ready.values()),
            _bootstrap=kafka.address if kafka else None,
            _database_url=postgres.address if postgres else None,
        )


def _kafka(
    stack: ExitStack, state_dir: Path, environ: Mapping[str, str], progress: jars.Progress | None
) -> _ReadyEngine:
    """Starts Kafka from the chosen source, or returns the named server."""
    choice = choose(environ)
    if choice.bootstrap:
        return _ReadyEngine(choice.bootstrap, None, f"Kafka at {choice.bootstrap} (KAFKA_BOOTSTRAP_SERVERS)")
    if choice.kafka is EngineSource.DOCKER:
        container = DockerKafka()
        stack.callback(container.stop)  # before the start: a start that fails may leave a container
        container.start()
        return _ReadyEngine(container.bootstrap, None, f"Kafka {jars.KAFKA} in Docker at {container.bootstrap}")
    machine = java.find(environ)
    files = jars.fetch(jars.pinned(), jars.cache_folder(environ), progress=progress)
    broker = KafkaBroker(state_dir / "kafka", machine, files, environ)
    stack.callback(broker.stop)  # before the start: a start that fails, or is interrupted, may leave a process
    broker.start()
    how = f"Java {machine.major} from {machine.origin}"
    return _ReadyEngine(broker.bootstrap, broker, f"Kafka {jars.KAFKA} from pinned jars on {how} at {broker.bootstrap}")


def _postgres(stack: ExitStack, state_dir: Path, environ: Mapping[str, str], durability: Durability) -> _ReadyEngine:
    """Starts PostgreSQL from the chosen source, or returns the named server."""
    choice = choose(environ)
    if choice.database_url:
        return _ReadyEngine(choice.database_url, None, "PostgreSQL from DATABASE_URL")
    if choice.postgres is EngineSource.DOCKER:
        container = DockerPostgres()
        stack.callback(container.stop)
        container.start()
        return _ReadyEngine(container.url, None, "PostgreSQL 18 in Docker")
    server = PostgresServer(state_dir / "postgres", environ, durability)
    stack.callback(server.stop)
    server.start()
    return _ReadyEngine(server.url, server, f"PostgreSQL 18 ({durability}), data in {server.home}")
