"""Makes every librdkafka client except the producer, under common rules.

Rules:
- A request of a client never creates a topic.
- A reader reads committed records only: a record of an aborted transaction was never written.
- A setting unknown to librdkafka is reported as a fault of the configuration (`Unusable`).
"""

from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import KafkaError as Code
from confluent_kafka.admin import AdminClient

from schemas.topics import looks_group
from services.adapters.process.errors import Unusable

OURS: Final[dict[str, Any]] = {"allow.auto.create.topics": False}
"""Settings of every client. librdkafka's default for consumers is the same value, for producers the opposite."""

_READER: Final[dict[str, Any]] = OURS | {"enable.auto.commit": False, "isolation.level": "read_committed"}

_SILENT: Final[dict[str, Any]] = {"log_level": 0}
"""Turns librdkafka's own log off: its lines on standard error are not JSON, and the answers carry the same errors."""

_TRANSIENT: Final = frozenset({Code._TRANSPORT, Code._ALL_BROKERS_DOWN, Code._RESOLVE})  # noqa: SLF001
"""Errors that librdkafka reports and then retries without help."""

LEADERLESS: Final = frozenset({
    "NOT_LEADER_FOR_PARTITION", "LEADER_NOT_AVAILABLE", "FENCED_LEADER_EPOCH", "UNKNOWN_LEADER_EPOCH",
    "OFFSET_NOT_AVAILABLE", "REPLICA_NOT_AVAILABLE", "_DESTROY_BROKER", "_NOENT",
})  # fmt: skip
"""librdkafka's names for a partition without a usable leader at this moment."""

COORDINATORLESS: Final = frozenset({"NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS"})
"""librdkafka's names for a group without a usable coordinator at this moment."""


def consumer(config: Mapping[str, Any], **ours: Any) -> Consumer:
    """Returns a consumer that commits only on request.

    Args:
        config: librdkafka's connection settings.
        ours: Further settings of this reader, by librdkafka's names with `_` for `.`.

    Raises:
        Unusable: librdkafka does not accept a setting.
    """
    named = {name.replace("_", "."): value for name, value in ours.items()}
    try:
        # The order is the precedence: a caller may override `_READER`, an operator may not.
        return Consumer({**config, **_READER, **named})
    except KafkaException as error:
        raise _unusable(error) from None


def reader(config: Mapping[str, Any], topic: str, **ours: Any) -> Consumer:
    """Returns a consumer without a group; the only place that names the group of such readers (see `looks_group`).

    Args:
        config: librdkafka's connection settings.
        topic: Full name of a topic to read.
        ours: As `consumer`.

    Raises:
        Unusable: librdkafka does not accept a setting.
    """
    return consumer(config, group_id=looks_group(topic), **ours)


def admin(config: dict[str, Any]) -> AdminClient:
    """Returns an admin client. The client must live until the answers have arrived; only the answers carry errors.

    Use the client as a context, because the end of the context closes the client. Without a close the garbage collector
    ends the client. On the event loop, the loop then waits for the client's threads; on one of these threads, the
    process aborts.

    Raises:
        Unusable: librdkafka does not accept a setting.
    """
    try:
        return AdminClient(config | OURS | _SILENT)
    except KafkaException as error:
        raise _unusable(error) from None


def close(client: AdminClient) -> None:
    """Closes an admin client that outlived a `with` block. Blocks until the client's threads have ended."""
    client.__exit__(None, None, None)


def is_ignorable(error: Code) -> bool:
    """True if a reader may ignore the error and continue."""
    return error.retriable() or error.code() in _TRANSIENT


def _unusable(error: KafkaException) -> Unusable:
    return Unusable(f"KAFKA_CONFIG: {error.args[0].str()}")
