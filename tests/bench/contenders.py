"""How each server is started, so that all are up together and each is on the server's core with all its threads.

Rule: what is ours is started as its user starts it: `lifecycle ingress`, configured by its environment alone. A server
counts as up when it has answered a signed delivery with 200.
"""

import http.client
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Final

from schemas.times import rfc3339
from services import engines
from services.adapters.kafka import topics
from services.adapters.process.clock import now_us
from services.engines import Engine, child_process
from services.engines.kafka import KafkaBroker
from services.engines.ports import HOST, free_ports
from tests.bench import deliveries, machine
from tests.bench.figures import Name
from tests.bench.machine import Cores
from tests.support import compiled
from tests.support.eventually import eventually

PATH: Final = "/v1/genesys/lifecycle/default"
PARTITIONS: Final = 4

_NAMED_ELSEWHERE: Final = ("KAFKA_BOOTSTRAP_SERVERS", "LIFECYCLE_ENGINES")
"""A broker that is not ours is on whatever core it is, and cannot be stopped."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start of one server.

    Attributes:
        argv: The program; `{port}` in it is the port it shall listen on.
        environ: Its environment; likewise.
        beside: Process ids of what works for it on the other core.
    """

    argv: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Contender:
    """One that answers.

    Attributes:
        pid: Root of its process tree.
        beside: Process ids of what works for it on the other core.
    """

    name: Name
    port: int
    pid: int
    beside: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BenchBroker:
    """A real Kafka."""

    bootstrap: str
    pid: int


@contextmanager
def broker(folder: Path) -> Iterator[BenchBroker]:
    """One of our own, on the core that this process is on."""
    environ = {name: value for name, value in os.environ.items() if name not in _NAMED_ELSEWHERE}
    with engines.running(folder, environ, wanted=(Engine.KAFKA,)) as running:
        assert isinstance(running.kafka, KafkaBroker)
        assert running.kafka.pid is not None
        yield BenchBroker(running.kafka_bootstrap, running.kafka.pid)


def keyring(folder: Path) -> Path:
    """The secrets file of the ingress."""
    path = folder / "keyring.json"
    path.write_text(json.dumps({"endpoints": {"default": {"current": {"secret": deliveries.SECRET}}}}))
    return path


def bare(name: Name) -> Start:
    """A server that does nothing."""
    word = {Name.ASGI: "asgi", Name.STARLETTE: "starlette"}[name]
    return Start((sys.executable, "-m", "tests.bench.bare", word, "{port}"))


UNCOMPILED: Final = "NOT compiled: the ingress was measured as a checkout has it."


@cache
def compiled_environ() -> Mapping[str, str]:
    """The environment in which Python finds the compiled ingress, as in the image; empty where it cannot be built."""
    try:
        return {"PYTHONSAFEPATH": "1", "PYTHONPATH": f"{compiled.folder()}:{compiled.ROOT}"}
    except compiled.CannotBuild as not_here:
        print(f"{UNCOMPILED} {not_here}", file=sys.stderr)
        return {}


def unwritten(folder: Path) -> Start:
    """The ingress without Kafka."""
    environ = {"KEYRING_FILE": str(keyring(folder)), **compiled_environ()}
    return Start((sys.executable, "-m", "tests.bench.unwritten", "{port}"), environ)


def acked(folder: Path, kafka: BenchBroker, prefix: str, **settings: str) -> Start:
    """The ingress as the image has it; makes its topics. Arguments as of `source`."""
    return source(folder, kafka, prefix, **settings, **compiled_environ())


def source(folder: Path, kafka: BenchBroker, prefix: str, **settings: str) -> Start:
    """The ingress as a checkout has it; makes its topics.

    Args:
        folder: For its keyring and its state.
        kafka: Where it writes.
        prefix: Of its topics.
        settings: What else its environment says.
    """
    topics.apply({"bootstrap.servers": kafka.bootstrap}, prefix=prefix, partitions=PARTITIONS, replication=1)
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "TOPIC_PREFIX": prefix,
        "KEYRING_FILE": str(keyring(folder)),
        "STATE_DIR": str(folder / f"{prefix}state"),
        "PORT": "{port}",
        **settings,
    }
    return Start((sys.executable, "-m", "services.cli.main", "ingress"), environ, (kafka.pid,))


@contextmanager
def up(starts: Mapping[Name, Start], cores: Cores, folder: Path) -> Iterator[dict[Name, Contender]]:
    """All of them, answering, each on the server's core; their logs are in `folder`."""
    with ExitStack() as stack:
        found = {name: _start(stack, name, start, folder) for name, start in starts.items()}
        for server in found.values():
            machine.pin(server.pid, cores.server)
            log = folder / f"{server.name}.log"
            try:
                eventually(partial(answers, server.port))
            except AssertionError as error:
                raise RuntimeError(f"{server.name} does not answer:\n{child_process.last_lines(log)}") from error
            astray = machine.strays(server.pid, cores.server)
            assert not astray, f"{server.name}: threads {astray} are not on core {cores.server}"
        yield found


def answers(port: int) -> bool:
    """Whether a signed delivery is answered 200."""
    now = now_us()
    [(signature, raw)] = deliveries.prepare(1, now)
    fields = {
        "Content-Type": "application/json",
        "X-Genesys-Signature": signature,
        "X-Genesys-Event-Timestamp": rfc3339(now),
    }
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("POST", PATH, raw, fields)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _start(stack: ExitStack, name: Name, start: Start, folder: Path) -> Contender:
    [port] = free_ports(1)
    environ = {key: value.replace("{port}", str(port)) for key, value in start.environ.items()}
    argv = [word.replace("{port}", str(port)) for word in start.argv]
    started = child_process.start(argv, env=child_process.bare(os.environ) | environ, log_path=folder / f"{name}.log")
    stack.callback(started.kill)
    return Contender(name, port, started.pid, start.beside)
