"""Which environment each process of a local installation gets: pure, from ports, addresses and folders.

Rule: services meet only through Kafka, PostgreSQL and the addresses written here; a service that works under `up` works
anywhere with the same variables.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from services.adapters.process.settings import Settings

HOST: Final = "127.0.0.1"

SERVICES: Final = ("simulator", "ingress", "ledger", "provisioner", "reconciler")
"""In the order of their start: the simulator's proxy stands before the tenants' database."""

_FOR_ONE_MACHINE: Final = {"TOPIC_PARTITIONS": "4", "TOPIC_REPLICATION": "1", "SPOOL_HIGH_WATER": "0.95"}
"""Other than the defaults, which are for a cluster and a volume of one's own."""

_SIMULATED: Final = {
    # Over HTTP, so that a fault may strike the archive too; the simulator keeps it in its folder.
    "ARCHIVE_URL": "SIMULATOR/archive",
    "MIDDLEWARE_URL": "SIMULATOR/middleware",
    "SUBSCRIPTIONS_URL": "SIMULATOR/subscriptions",
    "OAUTH_URL": "SIMULATOR/oauth",
    "EGRESS_MAP": json.dumps({"*.salesforce.com": "SIMULATOR/crm/{host}"}),
    "GENESYS_LOGIN_URL": "SIMULATOR/genesys/login",
    "GENESYS_API_URL": "SIMULATOR/genesys",
}
"""Where the simulator stands for an outside system that the operator does not name."""

OUTSIDE: Final = frozenset({"TENANT_DATABASE_URL", "OAUTH_CLIENT_SECRET", *_SIMULATED})
"""Variables of the outside systems: what the operator says of them stands."""

WEBHOOK_PATH: Final = "/v1/genesys/lifecycle/default"

_OWN_PORT: Final = frozenset({"simulator", "ingress"})
"""Services whose health and metrics are on their public port."""


@dataclass(frozen=True, slots=True)
class LocalPorts:
    """Every port we choose; kept over restarts of a process and of the whole."""

    simulator: int
    simulator_database: int
    ingress: int
    ledger: int
    provisioner: int
    reconciler: int

    def base(self, service: str) -> str:
        """Base URL of a service's HTTP port."""
        return f"http://{HOST}:{asdict(self)[service]}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the engines are."""

    kafka: str
    database: str


@dataclass(frozen=True, slots=True)
class Folders:
    """The layout of a state folder."""

    top: Path

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.top / "logs"

    @property
    def keyring(self) -> Path:
        """The keyring file."""
        return self.top / "keyring.json"

    @property
    def orgs(self) -> Path:
        """One file an organisation."""
        return self.top / "orgs"

    @property
    def spool(self) -> Path:
        """Deliveries that Kafka has not yet."""
        return self.top / "spool"

    @property
    def archive(self) -> Path:
        """The archive of audit trails."""
        return self.top / "archive"

    @property
    def endpoints(self) -> Path:
        """Where `up` writes its endpoints unless told otherwise."""
        return self.top / "endpoints.json"

    def of(self, service: str) -> Path:
        """What one service keeps."""
        return self.top / "services" / service


def shared(
    environ: Mapping[str, str], folders: Folders, ports: LocalPorts, engines: Addresses, client_secret: str
) -> dict[str, str]:
    """The variables that all services have in common; what `environ` says of anything else stands.

    Args:
        environ: The environment of `up`.
        folders: Its state folder.
        ports: All ports.
        engines: The engines.
        client_secret: Of the OAuth client at the simulator, unless `environ` has one.
    """
    simulator = ports.base("simulator")
    names = {name.upper() for name in Settings.model_fields}
    chosen = {name: text for name, text in environ.items() if name in names and text}
    outside = {
        "TENANT_DATABASE_URL": with_port(engines.database, HOST, ports.simulator_database),
        "OAUTH_CLIENT_SECRET": client_secret,
        **{name: form.replace("SIMULATOR", simulator) for name, form in _SIMULATED.items()},
    }
    return _FOR_ONE_MACHINE | outside | chosen | {
        "KAFKA_BOOTSTRAP_SERVERS": engines.kafka,
        "DATABASE_URL": engines.database,
        "KEYRING_FILE": str(folders.keyring),
        "ORGS_DIR": str(folders.orgs),
        "HOST": HOST,
        # Each service has its own; an operator's `reconcile` works on the memory of the reconciler.
        "STATE_DIR": str(folders.of("reconciler")),
        "SPOOL_DIR": str(folders.spool),
        "SIMULATOR_URL": simulator,
        "SIMULATOR_DATABASE_PORT": str(ports.simulator_database),
        "SIMULATOR_WEBHOOK_URL": ports.base("ingress") + WEBHOOK_PATH,
        "SIMULATOR_ARCHIVE_DIR": str(folders.archive),
        **_unproxied(environ),
    }  # fmt: skip


def _unproxied(environ: Mapping[str, str]) -> dict[str, str]:
    """A proxy that the operator has for the world is no way to this machine; of both names the lower-case one wins."""
    given = environ.get("no_proxy") or environ.get("NO_PROXY")
    return dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(filter(None, (given, HOST, "localhost"))))


def own(service: str, folders: Folders, ports: LocalPorts) -> dict[str, str]:
    """The variables that are a service's alone."""
    port = asdict(ports)[service]
    name = "PORT" if service in _OWN_PORT else "METRICS_PORT"
    return {name: str(port), "STATE_DIR": str(folders.of(service))}


def endpoints(folders: Folders, ports: LocalPorts, engines: Addresses, pids: Mapping[str, int]) -> dict[str, Any]:
    """The endpoints file: where everything is, for programs outside."""
    return {
        "kafka": engines.kafka,
        "ingress": ports.base("ingress"),
        "console": None,
        "database": engines.database,
        "simulator": ports.base("simulator"),
        "keyring": str(folders.keyring),
        "metrics": {service: f"{ports.base(service)}/metrics" for service in SERVICES},
        "pids": dict(pids),
    }


def with_port(url: str, host: str, port: int) -> str:
    """The same URL at another host and port."""
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    place = f"{host}:{port}"
    return urlunsplit(parts._replace(netloc=f"{credentials}@{place}" if credentials else place))
