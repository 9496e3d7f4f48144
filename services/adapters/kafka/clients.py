"""Makes every librdkafka client but the producer, so that all of them keep the same rules.

Rule: no client of ours creates a topic by asking for it, and every reader reads what is committed: a record of a
transaction that was aborted was never written. A setting that librdkafka does not take is a fault of the
configuration, told as such.
"""

from typing import Any, Final

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import KafkaError as Code
from confluent_kafka.admin import AdminClient

from services.adapters.process.settings import Unusable

OURS: Final[dict[str, Any]] = {"allow.auto.create.topics": False}
"""What every client has; for a producer the default of librdkafka is the opposite."""

_READER: Final[dict[str, Any]] = OURS | {"enable.auto.commit": False, "isolation.level": "read_committed"}

_SILENT: Final[dict[str, Any]] = {"log_level": 0}
"""librdkafka's own lines on standard error are no JSON, and the answer says the same."""

_PASSING: Final = frozenset({Code._TRANSPORT, Code._ALL_BROKERS_DOWN, Code._RESOLVE})  # noqa: SLF001
"""librdkafka tells of them and goes on trying."""


def consumer(config: dict[str, Any], **ours: Any) -> Consumer:
    """Returns a consumer that commits only when told to.

    Args:
        config: librdkafka's connection settings.
        ours: What this reader needs beside, by librdkafka's names with `_` for `.`.

    Raises:
        Unusable: librdkafka does not know a setting, or not its value.
    """
    named = {name.replace("_", "."): value for name, value in ours.items()}
    try:
        return Consumer(config | _READER | named)
    except KafkaException as error:
        raise _unusable(error) from None


def admin(config: dict[str, Any]) -> AdminClient:
    """Returns a client that asks the cluster; it must outlive its answers. What fails is told by them alone.

    Use it as a context: its end closes the client, which cannot be left to the garbage collector. That may run in the
    event loop, which then waits for the client's threads, or in one of these threads, which aborts the process.

    Raises:
        Unusable: librdkafka does not know a setting, or not its value.
    """
    try:
        return AdminClient(config | OURS | _SILENT)
    except KafkaException as error:
        raise _unusable(error) from None


def close(held: AdminClient) -> None:
    """Ends a client that was held longer than a context lasts. Blocks for as long as its threads take to end."""
    held.__exit__(None, None, None)


def passes(error: Code) -> bool:
    """True if a reader that goes on hears no more of it."""
    return error.retriable() or error.code() in _PASSING


def _unusable(error: KafkaException) -> Unusable:
    return Unusable(f"KAFKA_CONFIG: {error.args[0].str()}")
