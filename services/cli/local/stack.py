"""Everything on one machine: engines, keyring, topics and services, from start to end, for `up`, demo and tests.

Rule: one state folder is one installation. Started again on the same folder it has the same data, ports and secrets;
two at once on one folder are refused. The context ends with everything stopped, in reverse order.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from services import engines
from services.adapters.kafka import topics
from services.adapters.process import settings
from services.adapters.process.folder_lock import locked_folder
from services.cli import keyring_contents
from services.cli.environment import ENVIRONMENT, answering, registry_answers
from services.cli.exits import CommandError, Exit
from services.cli.files import replace_json
from services.cli.local import readiness, wiring
from services.cli.local.endpoints_file import EndpointsFile
from services.cli.local.process_file import ProcessFile, Supervised
from services.cli.local.supervisor import Report, ServiceProcess, Supervisor
from services.cli.local.wiring import SERVICES, Addresses, Folders, LocalPorts
from services.engines.child_process import last_lines
from services.engines.ports import free_ports

_READY_S: Final = 120.0
"""Everything is up in a few seconds on a quiet machine; this much on one that is busy with everything else."""

_STOP_S: Final = 7.0
"""For all services together; the engines take another second or two."""

_HOPELESS_DEATHS: Final = 3
"""A service that ended so often before it was ever ready has a fault that waiting does not cure."""

_ENGINES: Final = frozenset({"kafka", "postgres"})

Doing = Callable[[str], None]
"""Told what is being done, in words; the same again and again while it lasts."""


def print_nothing(_: str) -> None:
    """Of a start that nobody watches."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A running installation.

    Attributes:
        folders: Its state folder.
        ports: Its ports.
        addresses: Its engines.
        environ: What an operator's command needs to work on it.
        chosen: Which engines were chosen, in words.
        supervisor: Its processes.
    """

    folders: Folders
    ports: LocalPorts
    addresses: Addresses
    environ: Mapping[str, str]
    chosen: str
    supervisor: Supervisor

    @property
    def ingress(self) -> str:
        """Base URL of the ingress."""
        return self.ports.base("ingress")

    @property
    def simulator(self) -> str:
        """Base URL of the simulator."""
        return self.ports.base("simulator")

    @property
    def settings(self) -> settings.Settings:
        """The settings of an operator's command."""
        return settings.read(self.environ)

    def endpoints(self) -> dict[str, Any]:
        """The endpoints file as it is now."""
        return wiring.endpoints(self.folders, self.ports, self.addresses, self.supervisor.pids())

    def unready(self, services: tuple[str, ...] = SERVICES) -> dict[str, str]:
        """What is missing, by service; empty when every one says it is ready."""
        return readiness.unready(self.ports, services)

    def until_ready(self, deadline_s: float = _READY_S, doing: Doing = print_nothing) -> None:
        """Wait until every service is ready.

        Args:
            deadline_s: How long it may take.
            doing: Told who is waited for.

        Raises:
            Failure: one was not in time, or ended again and again.
        """
        end = time.monotonic() + deadline_s
        while faults := self.unready():
            hopeless = [name for name in faults if self.supervisor.deaths[name] >= _HOPELESS_DEATHS]
            if hopeless or time.monotonic() > end:
                raise CommandError(Exit.UNREACHABLE, self._why(faults))
            doing(f"waiting for {', '.join(faults)}")
            time.sleep(0.1)

    def supervised(self) -> dict[str, Supervised]:
        """Every process under the supervisor."""
        watched, pids = self.supervisor, self.supervisor.pids()
        return {
            name: Supervised(pids.get(name), str(watched.log_path(name)), deaths)
            for name, deaths in watched.deaths.copy().items()
        }

    def _why(self, faults: Mapping[str, str]) -> str:
        return "\n".join(
            f"{name} is not ready: {fault}; its log {self.supervisor.log_path(name)} ends:\n"
            + last_lines(self.supervisor.log_path(name))
            for name, fault in faults.items()
        )


@contextmanager
def stack(
    state_dir: Path,
    environ: Mapping[str, str],
    *,
    report: Report,
    durability: engines.Durability = engines.Durability.EPHEMERAL,
    endpoints_file: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    doing: Doing = print_nothing,
) -> Iterator[Stack]:
    """Run everything for as long as the context lasts.

    Args:
        state_dir: The installation.
        environ: Our environment; what it says of engines and topics stands.
        report: Told what dies, and what is done about it.
        durability: What a crash of the machine may cost the engines.
        endpoints_file: Where programs outside find everything, beside the file in the state folder.
        progress: Told how far a download is.
        doing: Told what the start is about, in words.

    Yields:
        The installation, once everything is ready.

    Raises:
        EngineError: an engine cannot be had.
        Failure: the folder is in use, or a service did not become ready.
        Unusable: a database's URL cannot be read.
    """
    folders = Folders(state_dir.resolve())
    environ = settings.complete(environ)
    # Always in the state folder too: there our own commands look.
    endpoints_files = {folders.endpoints, endpoints_file or folders.endpoints}
    whereabouts = EndpointsFile(endpoints_files, folders.top / ENVIRONMENT)
    doing("starting Kafka and PostgreSQL")
    with (
        locked_folder(folders.top, "--state-dir"),
        _withdrawn(whereabouts),
        _enrolled(folders.top) as roll,
        engines.running(folders.top, environ, durability=durability, progress=progress) as running,
    ):

        def changed() -> None:
            whereabouts.refresh()
            roll.write()

        supervisor = Supervisor(report, changed)
        doing("making the topics")
        built = _prepare(folders, environ, running, supervisor)
        try:
            roll.follow(built.supervised)
            _start(built, running, environ, doing)
            roll.write()
            built.until_ready(doing=doing)
            whereabouts.publish(built.endpoints, built.environ)
            roll.ready()
            yield built
        finally:
            whereabouts.withdraw()
            supervisor.stop(_STOP_S, leave=_ENGINES)


@contextmanager
def _enrolled(folder: Path) -> Iterator[ProcessFile]:
    """The file of processes, from before the first of them until after the last."""
    roll = ProcessFile(folder)
    try:
        yield roll
    finally:
        roll.withdraw()


@contextmanager
def _withdrawn(whereabouts: EndpointsFile) -> Iterator[None]:
    """What a killed `up` left goes before the engines start, which may take long or fail."""
    whereabouts.withdraw()
    yield


def _prepare(
    folders: Folders, environ: Mapping[str, str], running: engines.RunningEngines, supervisor: Supervisor
) -> Stack:
    """Everything the services find: ports, secrets, keyring, folders, topics."""
    kept = _kept(folders.top / "stack.json")
    ports = LocalPorts(**kept["ports"])
    addresses = Addresses(running.kafka_bootstrap, running.database_url)
    if not folders.keyring.exists():
        keyring_contents.init(folders.keyring)
    for folder in (folders.orgs, folders.archive, *map(folders.of, SERVICES)):
        folder.mkdir(parents=True, exist_ok=True)
    _link_engine_logs(folders)
    shared = wiring.shared(environ, folders, ports, addresses, kept["oauth_client_secret"])
    _apply_topics(shared)
    return Stack(folders, ports, addresses, shared, running.chosen, supervisor)


def _link_engine_logs(folders: Folders) -> None:
    """The engines write into their own folders; the logs of all are found in one."""
    folders.logs.mkdir(exist_ok=True)
    for name in _ENGINES:
        link = folders.logs / f"{name}.log"
        if not link.is_symlink():
            link.symlink_to(Path("..", name, "server.log"))


def _kept(path: Path) -> dict[str, Any]:
    """What was chosen at the first start and stays: ports, and the secret of the OAuth client."""
    if not path.exists():
        names = [field.name for field in fields(LocalPorts)]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        replace_json(path, {"ports": ports, "oauth_client_secret": secrets.token_urlsafe(32)})
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        LocalPorts(**found["ports"])
        str(found["oauth_client_secret"])
    except (ValueError, KeyError, TypeError):
        told = f"{path}: is not what `lifecycle up` writes; put it back, or begin with another --state-dir"
        raise CommandError(Exit.UNUSABLE, told) from None
    return found


def _apply_topics(environ: Mapping[str, str]) -> None:
    """Make the missing topics; of servers that we did not start ourselves nobody knows yet whether they serve us.

    Raises:
        Failure: Kafka does not.
        NoDatabase: PostgreSQL does not.
    """
    chosen = settings.read(environ)
    registry_answers(chosen)
    with answering(chosen):
        plan = topics.apply(
            chosen.kafka,
            prefix=chosen.topic_prefix,
            partitions=chosen.topic_partitions,
            replication=chosen.topic_replication,
        )
    if plan.conflicts:
        raise CommandError(Exit.DEVIATION, "\n".join(plan.conflicts))


def _start(built: Stack, running: engines.RunningEngines, environ: Mapping[str, str], doing: Doing) -> None:
    for name, engine in (("kafka", running.kafka), ("postgres", running.postgres)):
        if engine is not None:
            built.supervisor.add(name, engine)
    doing("starting the services")
    for name in SERVICES:
        whole = {**environ, **built.environ, **wiring.own(name, built.folders, built.ports)}
        built.supervisor.add(name, ServiceProcess(name, whole, built.folders.logs / f"{name}.log"))
