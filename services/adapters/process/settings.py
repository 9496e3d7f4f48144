"""The settings, in sections: a frozen model for each service, made of parts that several services share.

Rules: no module but the command line reads an environment variable, and it does so once (`environment.read`). A
function asks for the section it needs, so the type checker proves that the ingress has no field of the provisioner. A
field has a unit in its name, a safe default, and a reason. The variable is the field's name in capitals, without a
prefix. A field that may hold a secret is left out of the repr.

The docstrings of the fields are user documentation: `lifecycle doctor --settings` prints them.
"""

import json
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from schemas.removal import REMOVE_LEAST, REMOVE_PERCENT
from services.adapters.process import client_settings
from services.adapters.process.errors import Unusable
from services.adapters.process.log_throttle import LIBRDKAFKA


def _read_object(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _read_list(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _judge_client(value: dict[str, str]) -> dict[str, str]:
    if found := client_settings.faults(value):
        raise ValueError("\n".join(found))
    return value


Port = Annotated[int, Field(ge=0, le=65535)]
JsonObject = Annotated[dict[str, str], BeforeValidator(_read_object)]
"""Texts by name, written as a JSON object."""
NameList = Annotated[tuple[str, ...], BeforeValidator(_read_list)]
"""Texts separated by commas."""
ClientSettings = Annotated[JsonObject, AfterValidator(_judge_client)]
"""librdkafka's names to values, as far as an operator may give them."""


# Parts: what several sections have in common.


class ProcessSettings(BaseModel):
    """The part of every process."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, hide_input_in_errors=True)

    state_dir: Path = Path(".lifecycle")
    """Everything a service keeps on local disk; losing it loses no event."""
    keyring_file: Path = Path("keyring.json")
    """Endpoint secrets and key material; `lifecycle keyring init` makes it."""
    host: str = "127.0.0.1"
    """Address that each service listens on; the default is reachable from this machine only."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """Least level that is written."""


class KafkaSettings(ProcessSettings):
    """The part of a client of Kafka."""

    kafka_bootstrap_servers: str | None = None
    """Brokers, `host:port,…`; absent: `up` and `demo` start their own."""
    kafka_config: ClientSettings = Field(default_factory=dict, repr=False)
    """Further librdkafka settings as a JSON object: how a broker is reached (TLS, SASL). Settings that a
    service must choose for itself are refused."""
    topic_prefix: str = ""
    """Put before every topic, group and application id, so that one cluster can hold several installations."""

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


_PROTOCOL: Final = "otel_exporter_otlp_protocol"
_TRACES_PROTOCOL: Final = "otel_exporter_otlp_traces_protocol"


class TraceSettings(ProcessSettings):
    """The part of a service that traces its work, named by OpenTelemetry. Its exporter reads further variables.

    The variables may be meant for other programs of the machine. So while traces are off, a value that this program
    does not accept counts as absent.
    """

    otel_sdk_disabled: bool = False
    """True: no traces, whatever the other variables say."""
    otel_traces_exporter: Literal["otlp", "none"] | None = None
    """`otlp` turns traces on and `none` off; absent: on where an OTLP endpoint is named."""
    otel_exporter_otlp_endpoint: str | None = Field(default=None, repr=False)
    """Base URL of the OTLP receiver, over HTTP (`http://collector:4318`)."""
    otel_exporter_otlp_traces_endpoint: str | None = Field(default=None, repr=False)
    """Whole URL for the traces alone, in place of the base URL."""
    otel_exporter_otlp_traces_protocol: Literal["http/protobuf"] | None = None
    """Protocol for the traces alone, in place of the protocol for all signals."""
    otel_exporter_otlp_protocol: Literal["http/protobuf"] = "http/protobuf"
    """Protocol of the receiver; only OTLP over HTTP is spoken."""
    otel_traces_sampler: Literal[
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
        "always_on",
        "always_off",
        "traceidratio",
    ] = "parentbased_always_on"
    """How ingress and reconciler, where traces begin, decide if a trace is sampled. Others go by that decision."""
    otel_traces_sampler_arg: float = Field(default=1.0, ge=0, le=1)
    """Part of the traces that `traceidratio` samples: 0.01 is one of a hundred."""
    otel_service_name: str | None = None
    """`service.name` of the spans; absent: `lifecycle-` with the service's name."""

    @field_validator(
        "otel_traces_exporter",
        "otel_exporter_otlp_traces_protocol",
        "otel_exporter_otlp_protocol",
        "otel_traces_sampler",
        "otel_traces_sampler_arg",
        mode="wrap",
    )
    @classmethod
    def _absent_while_off(cls, value: Any, judge: ValidatorFunctionWrapHandler, field: ValidationInfo) -> Any:
        try:
            return judge(value)
        except ValidationError:
            name = str(field.field_name)
            # The data holds the fields before this field: those that turn traces on come first.
            is_replaced = name == _PROTOCOL and field.data.get(_TRACES_PROTOCOL) is not None
            if _asks_for_traces({name: value} | field.data) and not is_replaced:
                raise
            return cls.model_fields[name].default

    @property
    def traces_on(self) -> bool:
        """True if the variables of OpenTelemetry ask for traces."""
        return _asks_for_traces(vars(self))

    @property
    def traces_ratio(self) -> float:
        """The part of the deliveries whose traces are sampled, 0 to 1."""
        fixed = {"always_on": 1.0, "always_off": 0.0}
        return fixed.get(self.otel_traces_sampler.removeprefix("parentbased_"), self.otel_traces_sampler_arg)


def _asks_for_traces(fields: Mapping[str, Any]) -> bool:
    if fields.get("otel_sdk_disabled") or fields.get("otel_traces_exporter") == "none":
        return False
    turning_on = ("otel_traces_exporter", "otel_exporter_otlp_endpoint", "otel_exporter_otlp_traces_endpoint")
    return any(fields.get(name) is not None for name in turning_on)


class WorkerSettings(KafkaSettings):
    """The part of a service that serves nothing but its health and metrics."""

    metrics_port: Port = 0
    """Port of `/livez`, `/readyz` and `/metrics` of the services without a public port; 0 takes a free one."""


class TopicSettings(KafkaSettings):
    """The part of a service that compares the topics it writes."""

    topic_partitions: int = Field(default=12, ge=1, le=1000)
    """Partitions of every topic when `topics apply` creates them; never changes afterwards."""


class GroupSettings(WorkerSettings):
    """The part of a member of a consumer group."""

    session_timeout_s: float = Field(default=10.0, ge=1)
    """How long a silent worker keeps its partitions."""


class PortSettings(ProcessSettings):
    """The part of a service with a public port."""

    port: Port = 8080
    """Public port of the service; 0 takes a free one."""


class EgressSettings(ProcessSettings):
    """The part of a service that uses, or judges, the replacement of URLs."""

    egress_map: JsonObject = Field(default_factory=dict)
    """Host to local URL (`{host}` in it: that host), applied after the allow-list; for one machine alone. An ingress
    that listens on another address than loopback refuses to start with it."""


class OrganisationSettings(ProcessSettings):
    """The part of a service that knows the organisations."""

    orgs_dir: Path = Path("orgs")
    """One JSON file an organisation: Genesys API credentials, `tenant_id_from`."""


class GenesysSettings(OrganisationSettings):
    """The part of a service that reads the Genesys Cloud API."""

    genesys_login_url: str | None = None
    """OAuth host of Genesys Cloud; absent: from the region in the organisation's file."""
    genesys_api_url: str | None = None
    """API host of Genesys Cloud; absent: from the region in the organisation's file."""


class DatabaseSettings(ProcessSettings):
    """The part of a client of the registry's database."""

    database_url: str | None = Field(default=None, repr=False)
    """PostgreSQL of the registry; absent: `up` and `demo` start their own."""
    database_password: str | None = Field(default=None, repr=False)
    """Password for a DATABASE_URL without one. Any character is allowed; in a URL a password is percent-encoded."""


# Sections: a service each.


class IngressSettings(TopicSettings, PortSettings, EgressSettings, TraceSettings):
    """The settings of the ingress. No credential of an outside system is among them."""

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


class HintsSettings(WorkerSettings, TopicSettings):
    """The settings of the reader of hints. boto3 finds the credentials of AWS by itself, by further variables."""

    hints_sqs_queue_url: str | None = Field(
        default=None, pattern=r"^https?://[^/\s?#@]+/[0-9]{12}/[\w-]{1,80}(\.fifo)?$"
    )
    """URL of the SQS queue with the audits of EventBridge, as `https://sqs.eu-west-1.amazonaws.com/ACCOUNT/NAME`."""
    hints_sqs_region: str | None = Field(default=None, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")
    """Region of the queue; absent: from the queue's URL."""
    hints_sqs_orgs: NameList = ("*",)
    """Organisations of which hints are taken; `*` takes any. Every other message stays for the dead-letter queue."""
    hints_sqs_accounts: NameList = ("*",)
    """AWS accounts of the event bus of which hints are taken, 12 digits each; `*` takes any."""


class LedgerSettings(GroupSettings, TraceSettings):
    """The settings of the ledger."""

    published_names: NameList = ("crmEndpoint", "syncInterval", "featureFlags")
    """Names of a configuration that may leave the restricted topics; everything else is taken for a secret."""
    commit_interval_s: float = Field(default=0.7, gt=0)
    """How often the ledger commits offsets; a crash replays at most this much."""
    unreadable_in_a_row: int = Field(default=100, ge=1)
    """Unreadable records in succession after which the ledger ends: this version is the wrong one, and would turn a
    whole topic into dead letters."""
    audit_removal_grace_s: int = Field(default=86_400, ge=1)
    """How long a teardown waits where audits alone assert the removal (endpoints with the authority `event`): time to
    see a forged audit; a reinstall within this time revives the tenant."""
    standby_replicas: int = Field(default=0, ge=0)
    """How many other ledgers keep a copy of each table partition: a takeover then reads the newest changes only."""


class ProvisionerSettings(GroupSettings, EgressSettings, GenesysSettings, DatabaseSettings, TraceSettings):
    """The settings of the provisioner."""

    tenants_file: Path | None = None
    """JSON file with a tenantId, and a configuration, by integration (`ORG:INTEGRATION`, or `ORG:*`): for what no event
    tells. Read again after a change; absent: an integration without a tenantId waits."""
    plan_file: Path | None = None
    """The provisioning plan; absent: the guide's plan, shipped with the provisioner."""
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
    removals_at_once: int = Field(default=REMOVE_LEAST, ge=0)
    """Removals of active tenants within `removals_window_s`, over all workers, that no operator has to approve; or the
    percentage below, where that is more. Further ones are held."""
    removals_percent: int = Field(default=REMOVE_PERCENT, ge=0, le=100)
    """The same as a percentage of the tenants that were active."""
    removals_window_s: float = Field(default=3600.0, gt=0)
    """The window over which removals are counted."""
    confirm_removals: Literal["off", "reachable", "always"] = "off"
    """If Genesys is asked before the first delete of a removal. An integration that is still there holds the removal.
    Without an answer to its own question (no file in `orgs_dir` either) `reachable` goes on, and `always` waits."""
    egress_allow: NameList = ("*.salesforce.com",)
    """Hosts that a URL from an event may name."""
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
    secrets_dir: Path | None = None
    """Folder with a file for each `{secrets.NAME}` of the plan, as Kubernetes mounts a secret; read at each use."""
    plan_secrets: JsonObject = Field(default_factory=dict, repr=False)
    """Name to value of secrets of the plan that no file in `secrets_dir` has, as a JSON object."""
    archive_url: str | None = None
    """Object store of the audit archive (`file:///…`); absent: a folder below `state_dir`."""


class ReconcilerSettings(WorkerSettings, GenesysSettings, TraceSettings):
    """The settings of the reconciler."""

    reconcile_interval_s: float = Field(default=3600.0, gt=0)
    """Time between two runs over all organisations."""
    reconcile_second_look_s: float = Field(default=600.0, ge=0)
    """Absence and contradictions are read again this much later before they count (the demo sets 2)."""
    seal_interval_s: float = Field(default=3600.0, gt=0)
    """Time between two seals over a partition of the audit trail; a record can be changed unnoticed until its seal."""
    reconcile_audit_interval_s: float = Field(default=60.0, ge=0)
    """Time between two readings of each organisation's audits, by which a lost webhook is noticed; 0: never. Audits
    spend at most a fifth of a token's requests, and need the permission audits:audit:view."""


class SimulatorSettings(PortSettings, OrganisationSettings, DatabaseSettings):
    """The settings of the simulator."""

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
    simulator_seed: int | None = None
    """Seed of the faults with a `share`: equal calls then meet equal faults; absent: by chance."""


class Settings(
    IngressSettings, HintsSettings, LedgerSettings, ProvisionerSettings, ReconcilerSettings, SimulatorSettings
):
    """All settings, for the operators' commands. The fields below are of commands alone."""

    topic_replication: int = Field(default=3, ge=1, le=9)
    """Replicas of every topic when created; `min.insync.replicas` is one less, at least 1."""
    lifecycle_operator: str | None = None
    """Name of the operator, where a command asks for `--by`: the audit trail keeps who approved or refused."""
    simulator_url: str | None = None
    """Base URL of the simulator, where one is used."""
    service_urls: JsonObject = Field(default_factory=dict)
    """Name to base URL of each running service, as a JSON object: `{"ledger": "http://ledger:9100", …}`. `doctor` asks
    them for `/readyz` and `/metrics`; absent: those of the running `up`."""


SECTIONS: Final[Mapping[str, type[ProcessSettings]]] = {
    "ingress": IngressSettings,
    "hints": HintsSettings,
    "ledger": LedgerSettings,
    "provisioner": ProvisionerSettings,
    "reconciler": ReconcilerSettings,
    "simulator": SimulatorSettings,
}
"""The section of each service, in the order of an event's journey."""


def readers(name: str) -> tuple[str, ...]:
    """Return the services that read a setting; empty for a setting of the operators' commands alone."""
    return tuple(service for service, section in SECTIONS.items() if name in section.model_fields)


def required(settings: ProcessSettings, *names: str) -> str:
    """Return the value of the first setting in `names`, after a check that every setting in `names` is set.

    Raises:
        Unusable: a setting is missing; the text lists all missing settings.
    """
    missing = [name for name in names if getattr(settings, name) is None]
    if missing:
        raise Unusable("\n".join(f"{name.upper()}: missing, and has no default" for name in missing))
    return str(getattr(settings, names[0]))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
