"""The engines from start to end: one context, one choice, both at once.

Rule: what was started here is stopped here, in any case; what was named by the environment is only used.
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
        kafka: The broker when it was started from packages: it can be watched and started again.
        postgres: The server, likewise.
        chosen: Which engine was chosen for each, in words without secrets.
    """

    kafka: KafkaBroker | None
    postgres: PostgresServer | None
    chosen: str
    _bootstrap: str | None
    _database_url: str | None

    @property
    def kafka_bootstrap(self) -> str:
        """`host:port[,…]` for Kafka clients."""
        assert self._bootstrap is not None, "Kafka was not asked for"
        return self._bootstrap

    @property
    def database_url(self) -> str:
        """URL for libpq of a role that may create databases and roles, for the database `lifecycle`."""
        assert self._database_url is not None, "PostgreSQL was not asked for"
        return self._database_url


@dataclass(frozen=True, slots=True)
class _Had:
    """One engine that answers: its address, itself when we can start it again, and how it came."""

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
    """Have the engines for as long as the context lasts.

    Args:
        state_dir: Everything they keep, but for what an unprivileged PostgreSQL cannot reach there. Stopped and started
            again on the same folder they have the same data and ports.
        environ: The environment: KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL, LIFECYCLE_ENGINES, JAVA_HOME, PATH,
            XDG_CACHE_HOME, HOME.
        durability: What a crash of the machine may cost.
        wanted: Which engines.
        progress: Told how far a download is.

    Yields:
        The engines, once they answer.

    Raises:
        EngineError: One cannot be had; the text says what was tried and what to set instead.
    """
    state_dir = state_dir.resolve()  # children have working directories of their own
    ways: dict[Engine, Callable[[ExitStack], _Had]] = {
        Engine.KAFKA: lambda stack: _kafka(stack, state_dir, environ, progress),
        Engine.POSTGRES: lambda stack: _postgres(stack, state_dir, environ, durability),
    }
    with ExitStack() as stack, ThreadPoolExecutor(len(ways)) as pool:
        starts = {engine: pool.submit(ways[engine], stack) for engine in sorted(wanted)}
        had = {engine: start.result() for engine, start in starts.items()}
        kafka, postgres = had.get(Engine.KAFKA), had.get(Engine.POSTGRES)
        yield RunningEngines(
            kafka=kafka.engine if kafka and isinstance(kafka.engine, KafkaBroker) else None,
            postgres=postgres.engine if postgres and isinstance(postgres.engine, PostgresServer) else None,
            chosen="; ".join(one.text for one in had.values()),
            _bootstrap=kafka.address if kafka else None,
            _database_url=postgres.address if postgres else None,
        )


def _kafka(stack: ExitStack, state_dir: Path, environ: Mapping[str, str], progress: jars.Progress | None) -> _Had:
    choice = choose(environ)
    if choice.bootstrap:
        return _Had(choice.bootstrap, None, f"Kafka at {choice.bootstrap} (KAFKA_BOOTSTRAP_SERVERS)")
    if choice.kafka is EngineSource.DOCKER:
        container = DockerKafka()
        stack.callback(container.stop)
        container.start()
        return _Had(container.bootstrap, None, f"Kafka {jars.KAFKA} in Docker at {container.bootstrap}")
    machine = java.find(environ)
    files = jars.fetch(jars.pinned(), jars.cache_folder(environ), progress=progress)
    broker = KafkaBroker(state_dir / "kafka", machine, files, environ)
    stack.callback(broker.stop)
    broker.start()
    how = f"Java {machine.major} from {machine.found}"
    return _Had(broker.bootstrap, broker, f"Kafka {jars.KAFKA} from pinned jars on {how} at {broker.bootstrap}")


def _postgres(stack: ExitStack, state_dir: Path, environ: Mapping[str, str], durability: Durability) -> _Had:
    choice = choose(environ)
    if choice.database_url:
        return _Had(choice.database_url, None, "PostgreSQL from DATABASE_URL")
    if choice.postgres is EngineSource.DOCKER:
        container = DockerPostgres()
        stack.callback(container.stop)
        container.start()
        return _Had(container.url, None, "PostgreSQL 18 in Docker")
    server = PostgresServer(state_dir / "postgres", environ, durability)
    stack.callback(server.stop)
    server.start()
    return _Had(server.url, server, f"PostgreSQL 18 ({durability}), data in {server.home}")
