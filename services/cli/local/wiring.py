"""Computes the environment of each process of a local installation from ports, addresses and folders. Pure.

Rules:
- Services meet only through Kafka, PostgreSQL and the addresses written here. A service configured as under `up` works
  on any machine.
- A service is given its section of the settings and the variables of the machine, and no further variable. So the
  process that takes webhooks holds no password of a database and no client secret.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from services.adapters.process.settings import SECTIONS, Settings

HOST: Final = "127.0.0.1"

SERVICES: Final = ("simulator", "ingress", "ledger", "provisioner", "reconciler")
"""Services in the order of their start. The simulator is first: its proxy stands before the tenants' database."""

_LOCAL_DEFAULTS: Final = {"TOPIC_PARTITIONS": "4", "TOPIC_REPLICATION": "1", "SPOOL_HIGH_WATER": "0.95"}
"""Values that differ from the defaults, which suit a cluster and a dedicated volume."""

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
"""Addresses of the simulator in place of an outside system that the operator's environment does not name."""

OUTSIDE: Final = frozenset({"TENANT_DATABASE_URL", "OAUTH_CLIENT_SECRET", *_SIMULATED})
"""Variables of the outside systems; a value in the operator's environment has precedence."""

WEBHOOK_PATH: Final = "/v1/genesys/lifecycle/default"

_MACHINE: Final = re.compile(
    r"PATH|HOME|USER|LOGNAME|TMPDIR|TZ|LANG|LANGUAGE|NO_COLOR"
    r"|(?i:\w+_proxy)|(REQUESTS|CURL)_CA_BUNDLE|SASL_(CONF_)?PATH"
    r"|(LC_|LD_|XDG_|PYTHON|MALLOC_|SSL_CERT_|OPENSSL_|KRB5|LIFECYCLE_)\w*"
)
"""Names of variables for every process: paths, locale, proxies, certificates, Python, Kerberos, our own tests."""

_LIBRARIES: Final = {
    "ingress": re.compile(r"OTEL_\w+"),
    "ledger": re.compile(r"OTEL_\w+"),
    "provisioner": re.compile(r"(PG|AWS_|AZURE_|GOOGLE_|IDENTITY_|MSI_|OTEL_)\w+"),
    "reconciler": re.compile(r"OTEL_\w+"),
    "simulator": re.compile(r"PG\w+"),
}
"""Names of further variables by service: libpq's (password file, certificates), the credentials of the object store
that ARCHIVE_URL names, and those of OpenTelemetry's exporter."""

_ON_PUBLIC_PORT: Final = frozenset({"simulator", "ingress"})
"""Services with health and metrics on their public port."""


@dataclass(frozen=True, slots=True)
class LocalPorts:
    """The port of each service; constant over restarts of a process and of the installation."""

    simulator: int
    simulator_database: int
    ingress: int
    ledger: int
    provisioner: int
    reconciler: int

    def base(self, service: str) -> str:
        """Returns the base URL of a service's HTTP port."""
        return f"http://{HOST}:{asdict(self)[service]}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of the engines.

    Attributes:
        kafka: Bootstrap servers.
        database: URL of the registry's database.
    """

    kafka: str
    database: str


@dataclass(frozen=True, slots=True)
class Folders:
    """The layout of a state folder."""

    top: Path

    @property
    def logs(self) -> Path:
        """Folder of the logs, a file per process."""
        return self.top / "logs"

    @property
    def keyring(self) -> Path:
        """Path of the keyring file."""
        return self.top / "keyring.json"

    @property
    def orgs(self) -> Path:
        """Folder of Genesys credentials, a file per organisation."""
        return self.top / "orgs"

    @property
    def spool(self) -> Path:
        """Spool folder of the ingress."""
        return self.top / "spool"

    @property
    def archive(self) -> Path:
        """Folder of the archive of audit trails, kept by the simulator."""
        return self.top / "archive"

    @property
    def endpoints(self) -> Path:
        """Default path of the endpoints file."""
        return self.top / "endpoints.json"

    def of(self, service: str) -> Path:
        """Returns the folder of a service's own state."""
        return self.top / "services" / service


def shared(
    environ: Mapping[str, str], folders: Folders, ports: LocalPorts, engines: Addresses, client_secret: str
) -> dict[str, str]:
    """Returns the settings of the whole installation; each service is given the part in its section (`environment`).

    Args:
        environ: The environment of `up`; its settings replace the defaults, but not the addresses set here.
        folders: The layout of the state folder.
        ports: The ports of the services.
        engines: The addresses of the engines.
        client_secret: Secret of the OAuth client at the simulator, unless `environ` has one.
    """
    simulator = ports.base("simulator")
    names = {name.upper() for name in Settings.model_fields}
    chosen = {name: text for name, text in environ.items() if name in names and text}
    outside = {
        "TENANT_DATABASE_URL": with_port(engines.database, HOST, ports.simulator_database),
        "OAUTH_CLIENT_SECRET": client_secret,
        **{name: form.replace("SIMULATOR", simulator) for name, form in _SIMULATED.items()},
    }
    return _LOCAL_DEFAULTS | outside | chosen | {
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
        **_proxy_exceptions(environ),
    }  # fmt: skip


def _proxy_exceptions(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns `NO_PROXY` and `no_proxy` with this machine added to the operator's exceptions."""
    given = environ.get("no_proxy") or environ.get("NO_PROXY")
    return dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(filter(None, (given, HOST, "localhost"))))


def own(service: str, folders: Folders, ports: LocalPorts) -> dict[str, str]:
    """Returns the variables of a single service: port and state folder."""
    # The settings distinguish the public port (PORT) from the port of health and metrics (METRICS_PORT).
    port = asdict(ports)[service]
    name = "PORT" if service in _ON_PUBLIC_PORT else "METRICS_PORT"
    return {name: str(port), "STATE_DIR": str(folders.of(service))}


def environment(
    service: str, environ: Mapping[str, str], shared: Mapping[str, str], folders: Folders, ports: LocalPorts
) -> dict[str, str]:
    """Returns the whole environment of a service's process.

    Args:
        service: Name of the service.
        environ: The environment of `up`.
        shared: The variables common to all services.
        folders: The layout of the state folder.
        ports: The ports of the services.
    """
    known = {**environ, **shared, **own(service, folders, ports)}
    return {name: text for name, text in known.items() if _is_for(service, name)}


def _is_for(service: str, name: str) -> bool:
    """True if a variable belongs to the service's section, to the machine, or to a library of the service."""
    if name.lower() in Settings.model_fields:
        return name.lower() in SECTIONS[service].model_fields
    library = _LIBRARIES.get(service)
    return bool(_MACHINE.fullmatch(name) or (library and library.fullmatch(name)))


def endpoints(folders: Folders, ports: LocalPorts, engines: Addresses, pids: Mapping[str, int]) -> dict[str, Any]:
    """Returns the content of the endpoints file: all addresses, for outside programs."""
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
    """Returns the URL with host and port replaced."""
    parts = urlsplit(url)
    # A password may hold an unescaped "@": the last "@" separates.
    credentials = parts.netloc.rpartition("@")[0]
    address = f"{host}:{port}"
    return urlunsplit(parts._replace(netloc=f"{credentials}@{address}" if credentials else address))
