"""One Kafka and one PostgreSQL for a whole test run, started when the first test asks, whichever process it runs in.

Rule: the process that was started as `pytest` is their parent and the only one that starts and stops them; the
workers of pytest-xdist ask it over a socket. So an engine lives as long as the run and no longer, also when a worker
crashes.
"""

import os
import secrets
import shutil
import tempfile
import threading
from contextlib import ExitStack
from functools import cached_property
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any, Protocol, cast

from services import engines
from services.engines import Engine, jars
from services.engines.choice import EngineSource

LOCAL = "127.0.0.1"
_ASKED = ("fetch", "kafka_bootstrap", "database_url", "chosen")


class Engines(Protocol):
    """Requests that a test process may make."""

    def fetch(self) -> None:
        """Download what Kafka needs, unless it is here."""

    def kafka_bootstrap(self) -> str:
        """The address of the run's Kafka, which answers."""

    def database_url(self) -> str:
        """The URL of the run's PostgreSQL, of a role that may create databases."""

    def chosen(self) -> list[str]:
        """The engines that were started, in words."""


class _Desk(BaseManager):
    """The server for the requests of workers, answered by the engines' own methods."""


class OwnEngines:
    """Starts each engine once; safe to ask from any thread."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._locks = {engine: threading.Lock() for engine in Engine}
        self._fetching = threading.Lock()
        self._running: dict[Engine, engines.RunningEngines] = {}

    def kafka_bootstrap(self) -> str:
        return self._have(Engine.KAFKA).kafka_bootstrap

    def database_url(self) -> str:
        return self._have(Engine.POSTGRES).database_url

    def chosen(self) -> list[str]:
        return [running.chosen for running in self._running.values()]

    @cached_property
    def ticket(self) -> dict[str, Any]:
        """The address and key with which a worker asks; opens the desk."""
        _Desk.register("engines", callable=lambda: self, exposed=_ASKED)
        authkey = secrets.token_bytes(16)
        server = _Desk(address=(LOCAL, 0), authkey=authkey).get_server()
        threading.Thread(target=server.serve_forever, name="engines-for-workers", daemon=True).start()
        assert isinstance(server.address, tuple)
        return {"port": server.address[1], "authkey": authkey}

    def fetch(self) -> None:
        """Download Kafka now when it will be needed and is not here: no test's time limit covers that."""
        if engines.choose(os.environ).kafka is EngineSource.PACKAGES:
            with self._fetching:
                jars.fetch(jars.pinned(), jars.cache_folder(os.environ))

    def close(self) -> None:
        self._stack.close()

    def _have(self, engine: Engine) -> engines.RunningEngines:
        with self._locks[engine]:
            if engine not in self._running:
                self._running[engine] = self._start(engine)
            return self._running[engine]

    def _start(self, engine: Engine) -> engines.RunningEngines:
        folder = Path(tempfile.mkdtemp(prefix=f"lifecycle-tests-{engine}-"))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        with ExitStack() as start:
            running = start.enter_context(engines.running(folder, os.environ, wanted=(engine,)))
            if running.postgres:
                self._stack.callback(running.postgres.remove)
            self._stack.push(start.pop_all())
            return running


def asked_with(ticket: dict[str, Any]) -> Engines:
    """The engines of the run, from inside a worker."""
    _Desk.register("engines")
    desk = _Desk(address=(LOCAL, ticket["port"]), authkey=ticket["authkey"])
    desk.connect()
    return cast("Engines", desk.engines())  # type: ignore[attr-defined]
