"""Asks a Kafka cluster whether it would serve a client with these settings, and says in words why it would not.

Rule: whoever works for a person asks here first. A client of librdkafka alone says of a closed port, a wrong password
and a broker that hangs one and the same (`_TRANSPORT`), and only when its own patience has ended.
"""

import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import confluent_kafka
from confluent_kafka.admin import AdminClient

from schemas.topics import TOPICS, named
from services.adapters.kafka import clients
from services.adapters.kafka.producer import AccessDenied, Electing, KafkaError, LoginRefused, Unreached

REACH_S: Final = 5.0
"""How long a cluster may take to answer, and its leaders to be found. A restarting broker needs a second or two."""

_TRIES_S: Final = (0.5, 1.0, 2.0)
"""Patience of the first questions: a login that is refused is heard between two of them."""
_CONNECT_S: Final = 2.0
_PAUSE_S: Final = 0.2

_LOGIN: Final = frozenset({"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM"})
"""librdkafka's names for a login that a broker refused."""
_DENIED: Final = ("TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED")
_LEADERLESS: Final = frozenset({
    "_NOENT", "_DESTROY_BROKER", "NOT_LEADER_FOR_PARTITION", "LEADER_NOT_AVAILABLE", "FENCED_LEADER_EPOCH",
})  # fmt: skip
_ABSENT: Final = frozenset({"_TRANSPORT", "_TIMED_OUT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_WAIT_COORD"})


@dataclass(frozen=True, slots=True)
class Reached:
    """What a cluster said of itself.

    Attributes:
        brokers: Id to `host:port`, as the cluster advertises them.
        topics: Those of this installation that the principal may see, as `confluent_kafka` describes them.
    """

    brokers: Mapping[int, str]
    topics: Mapping[str, Any]


def reach(config: Mapping[str, Any], *, prefix: str = "", timeout_s: float = REACH_S) -> Reached:
    """Ask for the cluster's metadata, and connect to every broker that leads a partition. Blocks.

    Args:
        config: librdkafka's connection settings.
        prefix: Of the installation, whose topics' leaders matter.
        timeout_s: For everything.

    Raises:
        Unusable: librdkafka does not know a setting, or not its value.
        LoginRefused: user, password or mechanism are refused.
        Unreached: no broker answers in time, or a leader cannot be reached where it is advertised.
    """
    heard: list[confluent_kafka.KafkaError] = []
    with clients.admin({**config, "error_cb": heard.append}) as admin:
        return _reached(admin, heard, str(config["bootstrap.servers"]), prefix, timeout_s)


def _reached(admin: AdminClient, heard: Sequence[Any], bootstrap: str, prefix: str, timeout_s: float) -> Reached:
    end_s = time.monotonic() + timeout_s
    ours = {named(topic, prefix) for topic in TOPICS}
    found = _metadata(admin, heard, bootstrap, end_s)
    while True:
        topics = {name: topic for name, topic in found.topics.items() if name in ours}
        brokers = {number: f"{broker.host}:{broker.port}" for number, broker in found.brokers.items()}
        leaders = {part.leader for topic in topics.values() for part in topic.partitions.values()} & brokers.keys()
        closed = unconnected([brokers[number] for number in sorted(leaders or brokers.keys())])
        if not closed:
            return Reached(brokers, topics)
        if time.monotonic() >= end_s:
            where, why = next(iter(closed.items()))
            raise Unreached(f"a broker answers, and sends its clients to {where} (advertised.listeners), where {why}")
        time.sleep(_PAUSE_S)
        with suppress(confluent_kafka.KafkaException):  # a leader may have moved meanwhile
            found = admin.list_topics(timeout=max(_PAUSE_S, end_s - time.monotonic()))


def refusal(error: KafkaError) -> bool:
    """True if the cluster answered and said no: to a login, or for want of a right."""
    return isinstance(error, LoginRefused | AccessDenied) or any(name in error.reason for name in _DENIED)


def in_words(error: KafkaError) -> str:
    """The reason of an error as a sentence, also where librdkafka has only a name for it."""
    for name in _DENIED:
        if name in error.reason:
            right = error.reason.partition(f": {name}")[0].replace(name, "what it asks")
            return f"the principal of KAFKA_CONFIG is not allowed {right} ({name}); allow it with `kafka-acls`"
    if isinstance(error, Electing) or error.reason in _LEADERLESS:
        return "a partition has no leader at this moment"
    return "no broker answers" if error.reason in _ABSENT else error.reason


def unconnected(places: Iterable[str], timeout_s: float = _CONNECT_S) -> dict[str, str]:
    """Connect by TCP to each `host:port`; those that could not be, and why. Blocks."""
    wanted = list(dict.fromkeys(places))
    with ThreadPoolExecutor(max(1, min(16, len(wanted)))) as pool:
        results = pool.map(lambda place: _connect(place, timeout_s), wanted)
        return {place: why for place, why in zip(wanted, results, strict=True) if why}


def _metadata(admin: AdminClient, heard: Sequence[Any], bootstrap: str, end_s: float) -> Any:
    tries, closes = iter(_TRIES_S), False
    while True:
        left_s = end_s - time.monotonic()
        patience_s = min(next(tries, left_s), left_s)
        began_s = time.monotonic()
        try:
            return admin.list_topics(timeout=max(0.1, patience_s))
        except confluent_kafka.KafkaException:
            closes = closes or time.monotonic() - began_s < patience_s / 2
        with suppress(confluent_kafka.KafkaException):
            admin.poll(0)
        for error in heard:
            if error.name() in _LOGIN:
                raise LoginRefused(f"the login of KAFKA_CONFIG is refused ({_core(error.str())})")
        if time.monotonic() >= end_s:
            raise Unreached(_why(heard, bootstrap, closes=closes))
        time.sleep(_PAUSE_S)


def _why(heard: Sequence[Any], bootstrap: str, *, closes: bool) -> str:
    tls = next((error.str() for error in heard if error.name() == "_SSL"), None)
    if tls is not None:
        return f"TLS fails ({_core(tls)}); see ssl.ca.location in KAFKA_CONFIG"
    places = [place.strip().rpartition("://")[2] for place in bootstrap.split(",") if place.strip()]
    closed = unconnected(places)
    if len(closed) == len(dict.fromkeys(places)):
        return "; ".join(f"{place}: {why}" for place, why in closed.items()) or "no broker is named"
    does = "closes every connection" if closes else "says nothing"
    return f"something listens there and {does}: no Kafka, or one that wants TLS or a login (KAFKA_CONFIG)"


def _core(text: str) -> str:
    """The middle of a sentence of librdkafka's, without the address before and the state behind it."""
    return text.rpartition(" (after ")[0].partition(": ")[2] or text


def _connect(place: str, timeout_s: float) -> str:
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]") or place, int(port) if port.isdigit() else 9092), timeout_s):
            return ""
    except TimeoutError:
        return "no connection opens"
    except socket.gaierror:
        return f"the host {host or place} has no address"
    except OSError as error:
        return "nothing listens" if isinstance(error, ConnectionRefusedError) else f"{error.strerror or error}"
