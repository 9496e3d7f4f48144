"""The settings: a frozen `Settings`, read once from the environment. A bad environment reports all faults at the start.

Rules: no other module reads an environment variable. A field has a unit in its name, a safe default, and a reason. The
variable is the field's name in capitals, without a prefix. A field that may hold a secret is left out of the repr.

The docstrings of the fields are user documentation: `lifecycle doctor --settings` prints them.
"""

import json
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from services.adapters.kafka import client_settings
from services.adapters.postgres import url as postgres_url
from services.adapters.process.log_throttle import LIBRDKAFKA

Port = Annotated[int, Field(ge=0, le=65535)]


class Unusable(Exception):
    """The environment, or a file or address named there, cannot be used; the text has a line for each fault."""


class Settings(BaseModel):
    """The settings of all services and commands. `lifecycle doctor --settings` prints this table."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, hide_input_in_errors=True)

    # Kafka
    kafka_bootstrap_servers: str | None = None
    """Brokers, `host:port,…`; absent: `up` and `demo` start their own."""
    kafka_config: dict[str, str] = Field(default_factory=dict, repr=False)
    """Further librdkafka settings as a JSON object: how a broker is reached (TLS, SASL). Settings that a
    service must choose for itself are refused (`kafka_settings`)."""
    topic_prefix: str = ""
    """Put before every topic, group and application id, so that one cluster can hold several installations."""
    topic_partitions: int = Field(default=12, ge=1, le=1000)
    """Partitions of every topic when `topics apply` creates them; never changes afterwards."""
    topic_replication: int = Field(default=3, ge=1, le=9)
    """Replicas of every topic when created; `min.insync.replicas` is one less, at least 1."""

    # Files
    state_dir: Path = Path(".lifecycle")
    """Everything a service keeps on local disk; losing it loses no event."""
    keyring_file: Path = Path("keyring.json")
    """Endpoint secrets and key material; `lifecycle keyring init` makes it."""
    plan_file: Path | None = None
    """The provisioning plan; absent: the guide's plan, shipped with the provisioner."""
    orgs_dir: Path = Path("orgs")
    """One JSON file an organisation: Genesys API credentials, `tenant_id_from`."""

    # Listening
    host: str = "127.0.0.1"
    """Address that each service listens on; the default is reachable from this machine only."""
    port: Port = 8080
    """Port of the service (ingress, simulator); 0 takes a free one."""
    metrics_port: Port = 0
    """Port of `/livez`, `/readyz` and `/metrics` of the other services; 0 takes a free one."""

    # Ingress
    ack_timeout_s: float = Field(default=1.2, gt=0, le=1.2)
    """How long Kafka may take before the spool is asked; an answer takes at most 2.7 s."""
    receive_timeout_s: float = Field(default=1.0, gt=0, le=1.0)
    """How long a body may take to arrive."""
    spool_dir: Path | None = None
    """Where deliveries wait while Kafka is slow or away. Naming it declares that it outlives process and machine (a
    persistent volume, never an emptyDir); absent: no spool, and Kafka's trouble is 503."""
    spool_timeout_s: float = Field(default=0.4, gt=0, le=0.4)
    """How long the spool may take before the answer is 503."""
    spool_max_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """Size at which the spool closes."""
    spool_max_age_s: float = Field(default=21_600.0, gt=0, le=21_600)
    """Age of its oldest record at which the spool closes; older records become dead letters with a re-check."""
    spool_high_water: float = Field(default=0.8, gt=0, le=1)
    """Part of its file system in use at which the spool closes, before the disk is full."""
    inflight_max: int = Field(default=20_000, ge=1)
    """Deliveries waiting for Kafka at once; beyond it 503."""
    keep_alive_s: float = Field(default=75.0, gt=0)
    """How long an idle connection stays open; longer than the proxy in front keeps its own (nginx: 60 s)."""
    drain_s: float = Field(default=1.0, ge=0)
    """Time between SIGTERM and the end of listening: `/readyz` answers 503, so that a load balancer sends elsewhere;
    requests that still arrive are answered."""

    # Ledger
    published_names: tuple[str, ...] = ("crmEndpoint", "syncInterval", "featureFlags")
    """Names of a configuration that may leave the restricted topics; everything else is taken for a secret."""
    commit_interval_s: float = Field(default=0.7, gt=0)
    """How often the ledger commits offsets; a crash replays at most this much."""
    session_timeout_s: float = Field(default=10.0, ge=1)
    """How long a silent worker keeps its partitions."""
    unreadable_in_a_row: int = Field(default=100, ge=1)
    """Unreadable records in succession after which the ledger ends: this version is the wrong one, and would turn a
    whole topic into dead letters."""
    standby_replicas: int = Field(default=0, ge=0)
    """How many other ledgers keep a copy of each table partition: a takeover then reads the newest changes only."""

    # Provisioner
    database_url: str | None = Field(default=None, repr=False)
    """PostgreSQL of the registry; absent: `up` and `demo` start their own."""
    database_password: str | None = Field(default=None, repr=False)
    """Password for a DATABASE_URL without one. Any character is allowed; in a URL a password is percent-encoded."""
    tenant_database_url: str | None = Field(default=None, repr=False)
    """PostgreSQL that holds the tenants' schemas; absent: the registry's database."""
    tenant_database_password: str | None = Field(default=None, repr=False)
    """Password for a TENANT_DATABASE_URL without one."""
    sagas_at_once: int = Field(default=64, ge=1)
    """Sagas one worker drives at the same time."""
    org_sagas_at_once: int = Field(default=16, ge=1)
    """Sagas of one organisation driven at the same time, over all workers: an organisation that installs everywhere at
    once leaves room for others."""
    system_calls_at_once: int = Field(default=16, ge=1)
    """Calls of one worker to one outside system at the same time: a system that hangs leaves room for others."""
    lease_s: float = Field(default=15.0, gt=0)
    """How long a silent worker keeps a saga; renewed every third of it."""
    retry_first_s: float = Field(default=1.0, gt=0)
    """First wait after a failed call; doubled with full jitter, at most `retry_most_s`."""
    retry_most_s: float = Field(default=60.0, gt=0, le=60)
    """Longest wait between two tries of a step, and at the gate before a system that is away or refuses the operator; a
    longer wait that a system asks for is kept, up to an hour."""
    unwell_after_s: float = Field(default=900.0, gt=0)
    """How long a tenant may stand at one step before it counts as unwell."""
    provision_again_s: float = Field(default=3600.0, gt=0)
    """From the end of a compensation to the next provisioning; doubled after each further one, at most 24 h."""
    egress_allow: tuple[str, ...] = ("*.salesforce.com",)
    """Hosts that a URL from an event may name."""
    egress_map: dict[str, str] = Field(default_factory=dict)
    """Host to local URL (`{host}` in it: that host), applied after the allow-list; for one machine alone. An ingress
    that listens on another address than loopback refuses to start with it."""
    middleware_url: str | None = None
    """Our middleware: where the shipped plan makes tenants."""
    subscriptions_url: str | None = None
    """Where the shipped plan makes event subscriptions."""
    oauth_url: str | None = None
    """Where the shipped plan issues and revokes OAuth tokens."""
    oauth_client_id: str = "lifecycle"
    """Client id of the shipped plan's OAuth client."""
    oauth_client_secret: str = Field(default="", repr=False)
    """Client secret of the shipped plan's OAuth client."""
    archive_url: str | None = None
    """Object store of the audit archive (`file:///…`); absent: a folder below `state_dir`."""

    # Reconciler
    genesys_login_url: str | None = None
    """OAuth host of Genesys Cloud; absent: from the region in the organisation's file."""
    genesys_api_url: str | None = None
    """API host of Genesys Cloud; absent: from the region in the organisation's file."""
    reconcile_interval_s: float = Field(default=3600.0, gt=0)
    """Time between two runs over all organisations."""
    reconcile_second_look_s: float = Field(default=600.0, ge=0)
    """Absence and contradictions are read again this much later before they count (the demo sets 2)."""

    # Simulator
    simulator_url: str | None = None
    """Base URL of the simulator, where one is used."""
    simulator_database_port: Port = 0
    """Port of the simulator's PostgreSQL proxy, before the database of DATABASE_URL; 0 takes a free one."""
    simulator_webhook_url: str | None = None
    """Where the simulator's Genesys sends its webhooks; absent: it sends none."""
    simulator_archive_dir: Path | None = None
    """The archive's folder, which the simulator's inventory lists; absent: below `state_dir`."""
    simulator_latency_s: float = Field(default=0.0, ge=0)
    """How long every outside system takes before it answers."""
    simulator_rate_per_minute: int = Field(default=300, ge=1)
    """Requests a Genesys token may make per minute; the platform's default is 300."""

    # Operators' commands
    service_urls: dict[str, str] = Field(default_factory=dict)
    """Name to base URL of each running service, as a JSON object: `{"ledger": "http://ledger:9100", …}`. `doctor` asks
    them for `/readyz` and `/metrics`; absent: those of the running `up`."""

    # Logs
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """Least level that is written."""

    @field_validator("kafka_config", "egress_map", "service_urls", mode="before")
    @classmethod
    def _read_object(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("published_names", "egress_allow", mode="before")
    @classmethod
    def _read_list(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("kafka_config")
    @classmethod
    def _judge_kafka(cls, value: dict[str, str]) -> dict[str, str]:
        if found := client_settings.faults(value):
            raise ValueError("\n".join(found))
        return value

    @property
    def egress_fault(self) -> str:
        """The fault of an `egress_map` beside webhooks from remote machines; empty text without a fault.

        Only the ingress checks this. The HOST of every other service is an address for health and metrics, and accepts
        no webhooks.
        """
        if not self.egress_map or _is_loopback(self.host):
            return ""
        return (
            f"EGRESS_MAP: it is for one machine alone, and webhooks are taken from others (HOST {self.host}); "
            "remove it, or set HOST=127.0.0.1"
        )

    @property
    def kafka(self) -> dict[str, Any]:
        """The connection settings for librdkafka's clients, with the logger for their messages.

        Without a logger a client writes raw lines to standard error, past the JSON log. A client delivers its messages
        when polled. An admin client is never polled and loses nothing: its results carry the errors.

        Raises:
            Unusable: `kafka_bootstrap_servers` is not set.
        """
        servers = required(self, "kafka_bootstrap_servers")
        return {"log_level": 3, "logger": LIBRDKAFKA, **self.kafka_config, "bootstrap.servers": servers}


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read(environment: Mapping[str, str]) -> Settings:
    """Read the settings; empty variables count as absent.

    Raises:
        Unusable: a variable is invalid; the text has a line for each fault.
    """
    faults = []
    try:
        environment = complete(environment)
    except Unusable as unusable:
        faults.append(str(unusable))
    given = {name.lower(): text for name, text in environment.items() if text and name.lower() in Settings.model_fields}
    try:
        found = Settings.model_validate(given)
    except ValidationError as error:
        faults += [line for fault in error.errors(include_url=False) for line in _fault_lines(fault)]
    if faults:
        raise Unusable("\n".join(faults))
    return found


def _fault_lines(fault: Any) -> list[str]:
    """Return a validation error as text, a line for each fault of the variable."""
    name, *inside = fault["loc"]
    where = ": ".join((str(name).upper(), *map(str, inside)))
    return [f"{where}: {line}" for line in str(fault["msg"]).removeprefix("Value error, ").splitlines()]


_PASSWORDS: Final = {
    "DATABASE_URL": "DATABASE_PASSWORD",
    "TENANT_DATABASE_URL": "TENANT_DATABASE_PASSWORD",
}
"""The password's setting by the URL's setting, for each database."""


def complete(environment: Mapping[str, str]) -> dict[str, str]:
    """Insert the separate password of each database into the database's URL.

    Raises:
        Unusable: a URL cannot be parsed; the text has a line for each fault.
    """
    completed, faults = dict(environment), []
    for name, password in _PASSWORDS.items():
        try:
            if url := environment.get(name):
                completed[name] = postgres_url.complete(url, environment.get(password) or None)
        except ValueError as error:
            faults.append(f"{name}: {error}, or give the password as it is in {password}")
    if faults:
        raise Unusable("\n".join(faults))
    return completed


def required(settings: Settings, *names: str) -> str:
    """Return the value of the first setting in `names`, after a check that every setting in `names` is set.

    Raises:
        Unusable: a setting is missing; the text lists all missing settings.
    """
    missing = [name for name in names if getattr(settings, name) is None]
    if missing:
        raise Unusable("\n".join(f"{name.upper()}: missing, and has no default" for name in missing))
    return str(getattr(settings, names[0]))
