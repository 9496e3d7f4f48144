"""The topic table: name, writers, readers, retention and Kafka settings of every topic.

Rule: topic names, writers and readers are written in this module alone; `schemas.rights` derives the ACLs of each
service from the table. All topics have an equal number of partitions, and the number never changes: events of a key are
in order only within a partition. Every producer uses the murmur2 partitioner, which is not librdkafka's default.
"""

from dataclasses import dataclass
from enum import StrEnum

DAY_MS = 86_400_000
PARTITIONER = "murmur2_random"
"""librdkafka's name for the partitioner of the Java client and of Faust. A producer with a different partitioner puts a
key's records into a foreign partition, and the ledger buries such records as `misplaced` (docs/decisions/0018)."""

RECORD_MAX_BYTES = 2_097_152
"""`max.message.bytes` of every topic, and the limit of a producer's message."""

ROW_MAX_BYTES = RECORD_MAX_BYTES - 65_536
"""Greatest size of a packed row: a changelog record less the room for key, headers and the next re-check."""

LEDGER_APP = "lifecycle-ledger"
"""Faust's application id: the consumer group of the ledger and the prefix of its changelogs."""

PROVISIONER_GROUP = "lifecycle-provisioner"
"""The consumer group of the provisioners."""

RECONCILER_GROUP = "lifecycle-reconciler"
"""The consumer group by which the reconcilers choose the active one; its offsets have no meaning."""

LOOKS_GROUP = "lifecycle-looks"
"""The group id of readers outside a consumer group. No consumer joins the group or commits to the group. librdkafka
demands a `group.id` of every consumer and asks the cluster for the group's coordinator twice a second, so a reader also
needs a right on the group (docs/decisions/0024)."""


class Table(StrEnum):
    """The two changelog-backed tables of the ledger."""

    TENANTS = "tenants"
    STAGES = "stages"


@dataclass(frozen=True, slots=True)
class Topic:
    """A row of the topic table.

    Attributes:
        name: Name without the prefix of the installation.
        keyed: True if every record has a key `orgId:integrationId`; else the key may be absent.
        writers: The services with the right to write; `operator` means the commands of `lifecycle` run by an operator.
        readers: The services with the right to read; `downstream` and `people` are outside this project.
        retention_ms: Retention of a record in milliseconds; None for a compacted topic.
        restricted: True if records may hold secrets or personal data, for the named readers only.
        log_append_time: True if the broker's clock stamps the records; the ledger takes this time as log time.
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
        """Returns the topic's Kafka settings."""
        settings = {
            "message.timestamp.type": "LogAppendTime" if self.log_append_time else "CreateTime",
            "max.message.bytes": str(RECORD_MAX_BYTES),
        }
        if self.retention_ms is None:
            # A paused worker may wake up and append an old row after the newer row of its successor. For an hour the
            # log keeps both, so a recovery compares the versions and keeps the newer row.
            return settings | {"cleanup.policy": "compact", "min.compaction.lag.ms": str(DAY_MS // 24)}
        return settings | {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}


RECEIVED = Topic(
    # The ledger asks for re-checks there; `lifecycle reconcile --now` publishes what it saw.
    "lifecycle.received", True, ("ingress", "hints", "ledger", "reconciler", "operator"), ("ledger",), 7 * DAY_MS,
    restricted=True, log_append_time=True,
)  # fmt: skip
EVENTS = Topic("lifecycle.events", True, ("ledger",), ("operator", "downstream"), 30 * DAY_MS)
DESIRED = Topic("lifecycle.desired", True, ("ledger",), ("provisioner",), 7 * DAY_MS, restricted=True)
OUTCOMES = Topic(
    "lifecycle.outcomes", True, ("provisioner",), ("ledger", "provisioner", "operator", "downstream"), 30 * DAY_MS
)
TENANTS = Topic("lifecycle.tenants", True, ("ledger",), ("provisioner", "reconciler", "operator", "downstream"), None)
AUDIT = Topic(
    # The provisioner archives the trail of a tenant that is gone. The reconciler seals the trail; a seal has no key. An
    # operator approves and refuses by name.
    "lifecycle.audit", False, ("ledger", "provisioner", "reconciler", "operator"),
    ("provisioner", "reconciler", "operator"), 400 * DAY_MS,
)  # fmt: skip
DEAD_LETTERS = Topic(
    "lifecycle.dead-letters", False, ("ingress", "ledger", "provisioner"), ("people",), 30 * DAY_MS, restricted=True
)


def changelog(table: Table) -> Topic:
    """Returns the changelog of a ledger table, the durable form of the table's rows."""
    return Topic(f"{LEDGER_APP}-{table}-changelog", True, ("ledger",), ("ledger",), None, restricted=True)


TOPICS: tuple[Topic, ...] = (
    RECEIVED, EVENTS, DESIRED, OUTCOMES, TENANTS, AUDIT, DEAD_LETTERS,
    changelog(Table.TENANTS), changelog(Table.STAGES),
)  # fmt: skip
"""Every topic created by `lifecycle topics apply`, in the order of an event's journey."""


def named(topic: Topic, prefix: str = "") -> str:
    """Returns the topic's name in this installation; tests and shared clusters set a prefix."""
    return prefix + topic.name


def looks_group(topic: str) -> str:
    """Returns the group id for a reader outside a consumer group, with the prefix of the topic's installation.

    Args:
        topic: Full name of a topic, with the prefix.
    """
    names = (known.name for known in TOPICS if topic.endswith(known.name))
    return topic.removesuffix(next(names, topic)) + LOOKS_GROUP
