"""Checks the names in KAFKA_CONFIG: the librdkafka settings that an operator may give, and the reason for each refusal.

Rule: an operator decides how a broker is reached. Reading, writing and committing belong to the service, because the
promises of the service depend on these settings. So only listed settings are allowed; every unlisted name is refused at
the start.

Values are checked by librdkafka when the first client is made (`clients`). No message repeats a value, because a value
may be a secret.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

_PREFIXES: Final = ("ssl.", "sasl.", "socket.", "reconnect.backoff.", "retry.backoff.", "https.", "metadata.recovery.")
"""Prefixes of settings that concern connections only."""

_SAFE: Final = frozenset({
    *("security.protocol", "enable.ssl.certificate.verification", "enable.sasl.oauthbearer.unsecure.jwt"),
    *("client.id", "client.rack", "client.dns.lookup", "broker.address.family", "broker.address.ttl"),
    *("broker.version.fallback", "api.version.request", "api.version.request.timeout.ms", "api.version.fallback.ms"),
    *("connections.max.idle.ms", "metadata.max.age.ms", "topic.metadata.refresh.interval.ms"),
    *("topic.metadata.refresh.fast.interval.ms", "topic.metadata.refresh.sparse", "enable.metrics.push"),
    *("compression.type", "compression.codec", "compression.level", "batch.size", "batch.num.messages"),
    *("log_level", "debug", "log.connection.close", "log.thread.name"),
})  # fmt: skip
"""Settings that change no promise. For example, every consumer reads compressed records, and small batches are only
slow."""

_COMMIT: Final = "an offset is committed after what its record caused is acknowledged, and not before"
_GROUP: Final = "groups are named after TOPIC_PREFIX, and members share partitions by the classic, eager protocol"
_SESSION: Final = "set SESSION_TIMEOUT_S instead"
_ACKS: Final = "200 is answered when every in-sync replica has a record, and in order: acks=all, idempotent"
_TIME: Final = "each service has its own, within which it must answer"
_SIZE: Final = "every record of ours must fit; the sizes follow from the topics' max.message.bytes"
_READING: Final = "a reader of ours needs its own, to know where a topic ends"

_OURS: Final[Mapping[str, str]] = {
    "bootstrap.servers": "set KAFKA_BOOTSTRAP_SERVERS instead",
    "metadata.broker.list": "set KAFKA_BOOTSTRAP_SERVERS instead",
    "allow.auto.create.topics": "no topic is made by asking for it; make them with `lifecycle topics apply`",
    **dict.fromkeys(("auto.offset.reset", "enable.partition.eof", "isolation.level", "check.crcs"), _READING),
    **dict.fromkeys(
        ("group.id", "group.instance.id", "group.protocol", "group.protocol.type", "group.remote.assignor",
         "partition.assignment.strategy", "coordinator.query.interval.ms", "max.poll.interval.ms"), _GROUP,
    ),
    **dict.fromkeys(("session.timeout.ms", "heartbeat.interval.ms"), _SESSION),
    **dict.fromkeys(
        ("enable.auto.commit", "auto.commit.enable", "auto.commit.interval.ms", "enable.auto.offset.store",
         "offset.store.method", "offset.store.path", "offset.store.sync.interval.ms"), _COMMIT,
    ),
    **dict.fromkeys(
        ("acks", "request.required.acks", "enable.idempotence", "enable.gapless.guarantee", "max.in.flight",
         "max.in.flight.requests.per.connection", "retries", "message.send.max.retries", "transactional.id",
         "transaction.timeout.ms", "queuing.strategy"), _ACKS,
    ),
    **dict.fromkeys(
        ("partitioner", "sticky.partitioning.linger.ms", "topic.metadata.propagation.max.ms"),
        "the partition of a key is its order: murmur2 on all topics",
    ),
    **dict.fromkeys(
        ("message.timeout.ms", "delivery.timeout.ms", "request.timeout.ms", "linger.ms", "queue.buffering.max.ms",
         "fetch.wait.max.ms", "fetch.error.backoff.ms", "fetch.queue.backoff.ms"), _TIME,
    ),
    **dict.fromkeys(
        ("message.max.bytes", "message.copy.max.bytes", "receive.message.max.bytes", "fetch.max.bytes",
         "fetch.message.max.bytes", "max.partition.fetch.bytes", "fetch.min.bytes", "queue.buffering.max.messages",
         "queue.buffering.max.kbytes", "queued.min.messages", "queued.max.messages.kbytes"), _SIZE,
    ),
}  # fmt: skip
"""Settings that the services choose themselves, and the reason against a different choice."""


def faults(config: Mapping[str, object]) -> list[str]:
    """Returns one sentence for each refused setting; an empty list if all are allowed.

    Args:
        config: librdkafka's names to values, as given by an operator.
    """
    return [f"{name}: {why}" for name in sorted(config) if (why := _refusal(name))]


def _refusal(name: str) -> str:
    if name in _OURS:
        return f"may not be set: {_OURS[name]}"
    if name in _SAFE or name.startswith(_PREFIXES):
        return ""
    near = get_close_matches(name, _KNOWN, n=1, cutoff=0.75)
    meant = f"; did you mean {near[0]}?" if near else f"; {_ALLOWED}"
    return f"is no setting that is known here{meant}"


_ALLOWED: Final = "those of the connection are: security.protocol, ssl.*, sasl.*, socket.*, client.* and the like"
_KNOWN: Final = (
    *(*_SAFE, *_OURS),
    *("ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.key.password"),
    *("sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password"),
)
