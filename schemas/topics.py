"""The journey as a table: every topic, who writes it, who reads it, how long it keeps what.

Rule: a topic name is written here and nowhere else, and so is who writes and reads it: `schemas.rights` derives from it
what each service must be allowed. Partition counts are equal on all topics and never change
(the partition of a key is its order); the partitioner is murmur2 everywhere (librdkafka's default is another one).
"""

from dataclasses import dataclass
from enum import StrEnum

DAY_MS = 86_400_000
PARTITIONER = "murmur2_random"
"""librdkafka's name for the partitioner of the Java client and of Faust."""

RECORD_MAX_BYTES = 2_097_152
"""`max.message.bytes` of every topic, and what a producer may send."""

ROW_MAX_BYTES = RECORD_MAX_BYTES - 65_536
"""The greatest packed row: what is left of a record of a changelog after key, headers and the next re-check."""

LEDGER_APP = "lifecycle-ledger"
"""Faust's application id: the consumer group of the ledger and the prefix of its changelogs."""

PROVISIONER_GROUP = "lifecycle-provisioner"
"""The consumer group of the provisioners."""

LOOKS_GROUP = "lifecycle-looks"
"""The group that readers without a group name. Nobody joins it, and nothing is committed to it; but librdkafka gives no
consumer without a name, and asks the cluster twice a second who coordinates it (docs/decisions/0024)."""


class Table(StrEnum):
    """The two changelog-backed tables of the ledger."""

    TENANTS = "tenants"
    STAGES = "stages"


@dataclass(frozen=True, slots=True)
class Topic:
    """One row of the table.

    Attributes:
        name: Without the prefix of the installation.
        keyed: The key is always `orgId:integrationId`; else it may be absent.
        writers: The only ones that may write it; `operator` is the program `lifecycle` in an operator's hands.
        readers: Who reads it, likewise.
        retention_ms: How long a record stays; None for a compacted topic.
        restricted: May hold secrets and personal data; readable only by the services named.
        log_append_time: The broker's clock stamps the records (log time of the ledger).
    """

    name: str
    keyed: bool
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    retention_ms: int | None
    restricted: bool = False
    log_append_time: bool = False

    @property
    def config(self) -> dict[str, str]:
        """The topic's Kafka settings."""
        settings = {
            "message.timestamp.type": "LogAppendTime" if self.log_append_time else "CreateTime",
            "max.message.bytes": str(RECORD_MAX_BYTES),
        }
        if self.retention_ms is None:
            # A paused worker's old row must still find the newer one beside it: never compact within the hour.
            return settings | {"cleanup.policy": "compact", "min.compaction.lag.ms": str(DAY_MS // 24)}
        return settings | {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}


RECEIVED = Topic(
    # The ledger asks for re-checks there; `lifecycle reconcile --now` publishes what it saw.
    "lifecycle.received", True, ("ingress", "ledger", "reconciler", "operator"), ("ledger",), 7 * DAY_MS,
    restricted=True, log_append_time=True,
)  # fmt: skip
EVENTS = Topic("lifecycle.events", True, ("ledger",), ("operator", "downstream"), 30 * DAY_MS)
DESIRED = Topic("lifecycle.desired", True, ("ledger",), ("provisioner",), 7 * DAY_MS, restricted=True)
OUTCOMES = Topic(
    "lifecycle.outcomes", True, ("provisioner",), ("ledger", "provisioner", "operator", "downstream"), 30 * DAY_MS
)
TENANTS = Topic("lifecycle.tenants", True, ("ledger",), ("provisioner", "reconciler", "operator", "downstream"), None)
AUDIT = Topic(
    # The provisioner archives the trail of a tenant that is gone.
    "lifecycle.audit", True, ("ledger", "provisioner"), ("provisioner", "operator"), 400 * DAY_MS
)  # fmt: skip
DEAD_LETTERS = Topic(
    "lifecycle.dead-letters", False, ("ingress", "ledger", "provisioner"), ("people",), 30 * DAY_MS, restricted=True
)


def changelog(table: Table) -> Topic:
    """The changelog of one ledger table: the durable form of its rows."""
    return Topic(f"{LEDGER_APP}-{table}-changelog", True, ("ledger",), ("ledger",), None, restricted=True)


TOPICS: tuple[Topic, ...] = (
    RECEIVED, EVENTS, DESIRED, OUTCOMES, TENANTS, AUDIT, DEAD_LETTERS,
    changelog(Table.TENANTS), changelog(Table.STAGES),
)  # fmt: skip
"""Everything `lifecycle topics apply` creates, in the order of the journey."""


def named(topic: Topic, prefix: str = "") -> str:
    """The topic's name in this installation; tests and shared clusters set a prefix."""
    return prefix + topic.name


def looks_group(topic: str) -> str:
    """The group that a reader without a group names, in the installation of a topic.

    Args:
        topic: With the prefix.
    """
    names = (known.name for known in TOPICS if topic.endswith(known.name))
    return topic.removesuffix(next(names, topic)) + LOOKS_GROUP
