"""Runs a whole installation on one machine, for `up`, the demo and tests: engines, keyring, topics and services.

Rule: a state folder is an installation. A second start on the folder finds the data, ports and secrets of the first;
two simultaneous starts on a folder are refused. At the end of the context everything is stopped, in reverse order.
"""

# The order of the contexts in `stack` is the rule of this file. The lock comes first: only its holder may touch the
# files of the folder. Stale files go before the engines start, since an operator's command would believe them. The file
# of processes encloses the engines, because `down` waits for the engines as well. At the end the order is reversed:
# endpoints withdrawn, services stopped, engines stopped, file of processes removed, lock released.

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from services import engines
from services.adapters import tenant_file
from services.adapters.kafka import topics
from services.adapters.process.environment import complete, read
from services.adapters.process.folder_lock import locked_folder
from services.adapters.process.settings import ProvisionerSettings, Settings
from services.cli import keyring_contents
from services.cli.environment import ENVIRONMENT, require_kafka, require_registry
from services.cli.exits import CommandError, Exit
from services.cli.files import replace_json
from services.cli.local import observe, readiness, wiring
from services.cli.local.endpoints_file import EndpointsFile
from services.cli.local.process_file import ProcessFile, SupervisedProcess
from services.cli.local.supervisor import Report, ServiceProcess, Supervisor
from services.cli.local.wiring import HOST, SERVICES, Addresses, Folders, LocalPorts
from services.engines import prometheus
from services.engines.child_process import last_lines
from services.engines.ports import free_ports
from services.engines.prometheus import Prometheus
from services.provisioner.kinds import TRAITS
from services.provisioner.plans import plan_text

_READY_S: Final = 120.0
"""Seconds until everything must be ready. A quiet machine needs a few; a busy one many more."""

_STOP_S: Final = 7.0
"""Seconds for the stop of all services together; the engines take a second or two more."""

_MOST_DEATHS_BEFORE_READY: Final = 3
"""Deaths before the first readiness that end the start: such a service has a fault that waiting does not cure."""

_ENGINES: Final = frozenset({"kafka", "postgres"})

OnActivity = Callable[[str], None]
"""Called with the present activity in words; repeatedly with the same text while the activity lasts."""


def print_nothing(_: str) -> None:
    """Ignores the activity, for a start without a terminal."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A running installation.

    Attributes:
        folders: The layout of the state folder.
        ports: The ports of the services.
        addresses: The addresses of the engines.
        environ: The environment for an operator's command.
        chosen: The chosen engines, in words.
        supervisor: The supervisor of all processes.
        prometheus: Prometheus beside the services; None unless the start asked for it.
    """

    folders: Folders
    ports: LocalPorts
    addresses: Addresses
    environ: Mapping[str, str]
    chosen: str
    supervisor: Supervisor
    prometheus: Prometheus | None = None

    @property
    def ingress(self) -> str:
        """Base URL of the ingress."""
        return self.ports.base("ingress")

    @property
    def simulator(self) -> str:
        """Base URL of the simulator."""
        return self.ports.base("simulator")

    @property
    def settings(self) -> Settings:
        """Settings of an operator's command on this installation."""
        return read(self.environ, Settings)

    def endpoints(self) -> dict[str, Any]:
        """Returns the content of the endpoints file, with the present process ids."""
        return wiring.endpoints(self.folders, self.ports, self.addresses, self.supervisor.pids())

    def unready_services(self, services: tuple[str, ...] = SERVICES) -> dict[str, str]:
        """Returns the fault of each unready service, by name; empty if all are ready."""
        return readiness.unready_services(self.ports, services)

    def until_ready(self, deadline_s: float = _READY_S, on_activity: OnActivity = print_nothing) -> None:
        """Waits until every service is ready.

        Args:
            deadline_s: Longest wait in seconds.
            on_activity: Called with the names of the services still missing.

        Raises:
            CommandError: a service was not ready in time, or died again and again (UNREACHABLE).
        """
        end = time.monotonic() + deadline_s
        while faults := self.unready_services():
            # A service without a fault may have died earlier and recovered; its deaths do not count.
            hopeless = [name for name in faults if self.supervisor.deaths[name] >= _MOST_DEATHS_BEFORE_READY]
            if hopeless or time.monotonic() > end:
                raise CommandError(Exit.UNREACHABLE, self._why(faults))
            on_activity(f"waiting for {', '.join(faults)}")
            time.sleep(0.1)

    def supervised(self) -> dict[str, SupervisedProcess]:
        """Returns every process under the supervisor, by name; called by any thread."""
        watched, pids = self.supervisor, self.supervisor.pids()
        return {
            name: SupervisedProcess(pids.get(name), str(watched.log_path(name)), deaths)
            # A copy: a watcher thread calls this method while the main thread may still be adding processes.
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
    on_activity: OnActivity = print_nothing,
    scrape_s: float | None = None,
) -> Iterator[Stack]:
    """Runs an installation for as long as the context lasts.

    Args:
        state_dir: The state folder.
        environ: The environment of this process; the choice of engines, topics and outside systems has precedence.
        report: Called with each end of a process and the supervisor's reaction.
        durability: Data of the engines at risk in a crash of the machine.
        endpoints_file: A second location of the endpoints file, beside the file in the state folder.
        progress: Called with the received and the total bytes of a download.
        on_activity: Called with the present activity of the start.
        scrape_s: Seconds between two scrapes of the machine's Prometheus beside the services; None without Prometheus.

    Yields:
        The installation, once everything is ready.

    Raises:
        EngineError: an engine can be neither found nor started, or Prometheus is asked for and not installed.
        CommandError: a service did not become ready, or Kafka or the topics are not usable.
        NoDatabase: PostgreSQL does not answer, or refuses the role.
        Unusable: the folder is in use, or a setting cannot be used.
    """
    folders = Folders(state_dir.resolve())
    environ = complete(environ)
    # Before the engines start: a start that cannot succeed leaves nothing behind.
    _check_files(environ, folders)
    if scrape_s is not None:
        prometheus.program()
    # The state folder gets the endpoints file in any case: our own commands look there.
    endpoints_files = {folders.endpoints, endpoints_file or folders.endpoints}
    published = EndpointsFile(endpoints_files, folders.top / ENVIRONMENT)
    on_activity("starting Kafka and PostgreSQL")
    with (
        locked_folder(folders.top, "--state-dir"),
        _without_stale_files(published),
        _process_file(folders.top) as process_file,
        engines.running(folders.top, environ, durability=durability, progress=progress) as running,
    ):

        def changed() -> None:
            published.refresh()
            process_file.write()

        supervisor = Supervisor(report, changed)
        on_activity("making the topics")
        installation = _prepare(folders, environ, running, supervisor, scrape_s=scrape_s)
        try:
            # Before the first start, so that `lifecycle status` shows a start in progress.
            process_file.use_source(installation.supervised)
            _start(installation, running, environ, on_activity)
            process_file.write()
            installation.until_ready(on_activity=on_activity)
            published.publish(installation.endpoints, installation.environ)
            process_file.mark_ready()
            yield installation
        finally:
            published.withdraw()
            # The engines stay for `engines.running`, which stops them after the services that use them; only their
            # watchers end here.
            supervisor.stop(_STOP_S, leave=_ENGINES)


def _check_files(environ: Mapping[str, str], folders: Folders) -> None:
    """Reads the settings and the files that the services read at their start, with stand-ins for the addresses.

    Raises:
        Unusable: a setting, TENANTS_FILE or PLAN_FILE cannot be used; the text names every fault of the first such.
    """
    ports = LocalPorts(**{field.name: 0 for field in fields(LocalPorts)})
    addresses = Addresses(f"{HOST}:0", f"postgresql://{HOST}:0/lifecycle")
    given = wiring.shared(environ, folders, ports, addresses, "made at the first start")
    read(given, Settings)
    chosen = read(given, ProvisionerSettings)
    if chosen.tenants_file is not None:
        tenant_file.load(chosen.tenants_file)
    plan_text(chosen, TRAITS)


@contextmanager
def _process_file(folder: Path) -> Iterator[ProcessFile]:
    """Yields the file of processes, present from before the first process until after the last."""
    process_file = ProcessFile(folder)
    try:
        yield process_file
    finally:
        process_file.withdraw()


@contextmanager
def _without_stale_files(published: EndpointsFile) -> Iterator[None]:
    """Removes the files of a killed `up` before the start of the engines: the start may take long or fail."""
    published.withdraw()
    yield


def _prepare(
    folders: Folders,
    environ: Mapping[str, str],
    running: engines.RunningEngines,
    supervisor: Supervisor,
    *,
    scrape_s: float | None,
) -> Stack:
    """Creates everything expected by the services at the start: ports, secrets, keyring, folders, topics."""
    choices = _first_start_choices(folders.top / "stack.json")
    ports = LocalPorts(**choices["ports"])
    addresses = Addresses(running.kafka_bootstrap, running.database_url)
    if not folders.keyring.exists():
        keyring_contents.init(folders.keyring)
    for folder in (folders.orgs, folders.archive, *map(folders.of, SERVICES)):
        folder.mkdir(parents=True, exist_ok=True)
    _link_engine_logs(folders)
    shared = wiring.shared(environ, folders, ports, addresses, choices["oauth_client_secret"])
    _apply_topics(shared)
    beside = None if scrape_s is None else observe.beside(folders.top, ports, scrape_s)
    return Stack(folders, ports, addresses, shared, running.chosen, supervisor, beside)


def _link_engine_logs(folders: Folders) -> None:
    """Links the engines' logs into the folder of all logs; each engine writes into a separate folder."""
    folders.logs.mkdir(exist_ok=True)
    for name in _ENGINES:
        link = folders.logs / f"{name}.log"
        if not link.is_symlink():
            # A relative link: the state folder may be moved as a whole.
            link.symlink_to(Path("..", name, "server.log"))


def _first_start_choices(path: Path) -> dict[str, Any]:
    """Returns the lasting choices of the first start: ports, and the secret of the OAuth client.

    Raises:
        CommandError: the file was damaged (UNUSABLE).
    """
    if not path.exists():
        names = [field.name for field in fields(LocalPorts)]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        # The file is written once and never again: clients outside may have noted the ports.
        replace_json(path, {"ports": ports, "oauth_client_secret": secrets.token_urlsafe(32)})
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        # Both lines only prove the shape of the file: a missing or unknown name raises here, before the services start.
        LocalPorts(**found["ports"])
        str(found["oauth_client_secret"])
    except (ValueError, KeyError, TypeError):
        message = f"{path}: is not what `lifecycle up` writes; put it back, or begin with another --state-dir"
        raise CommandError(Exit.UNUSABLE, message) from None
    return found


def _apply_topics(environ: Mapping[str, str]) -> None:
    """Creates the missing topics.

    PostgreSQL and Kafka are probed first: a server not started by `up` may be away or refuse us, and the retries of
    a client library would report only a timeout.

    Raises:
        CommandError: Kafka does not serve us, or an existing topic conflicts with the table.
        NoDatabase: PostgreSQL does not answer, or refuses the role.
    """
    chosen = read(environ, Settings)
    require_registry(chosen)
    with require_kafka(chosen):
        plan = topics.apply(
            chosen.kafka,
            prefix=chosen.topic_prefix,
            partitions=chosen.topic_partitions,
            replication=chosen.topic_replication,
        )
    if plan.conflicts:
        raise CommandError(Exit.DEVIATION, "\n".join(plan.conflicts))


def _start(
    installation: Stack, running: engines.RunningEngines, environ: Mapping[str, str], on_activity: OnActivity
) -> None:
    """Adds the engines to the supervisor, and starts the services through it, in order."""
    for name, engine in (("kafka", running.kafka), ("postgres", running.postgres)):
        if engine is not None:
            installation.supervisor.add(name, engine)
    on_activity("starting the services")
    for name in SERVICES:
        given = wiring.environment(name, environ, installation.environ, installation.folders, installation.ports)
        installation.supervisor.add(name, ServiceProcess(name, given, installation.folders.logs / f"{name}.log"))
    if installation.prometheus is not None:
        installation.supervisor.add(observe.NAME, installation.prometheus)
