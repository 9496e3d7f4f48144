"""Checks if a Kafka cluster serves a client with the given settings, and states the reason in words if not.

librdkafka alone reports a closed port, a wrong password and a hanging broker by the same name (`_TRANSPORT`), and only
after its full time limit.

Rule: a command that works for a person asks here first.
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
from services.adapters.kafka.producer import DENIALS, AccessDenied, Electing, KafkaError, LoginRefused, Unreached

REACH_S: Final = 5.0
"""Time limit for the cluster's answer and for finding its leaders. A restarting broker needs one or two seconds."""

_FIRST_TIMEOUTS_S: Final = (0.5, 1.0, 2.0)
"""Time limits of the first questions, in seconds. A refused login is reported between two questions only."""
_CONNECT_S: Final = 2.0
"""Time limit of one TCP connection."""
_PAUSE_S: Final = 0.2

_LOGIN_NAMES: Final = frozenset({"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM"})
"""librdkafka's names for a login that a broker refused."""
_SILENCE_NAMES: Final = frozenset({"_TRANSPORT", "_TIMED_OUT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_WAIT_COORD"})
"""librdkafka's names for a broker that does not answer."""


@dataclass(frozen=True, slots=True)
class Reached:
    """The metadata of a cluster.

    Attributes:
        brokers: Id to `host:port`, as advertised by the cluster.
        topics: Topics of this installation that the principal may see, as described by `confluent_kafka`.
    """

    brokers: Mapping[int, str]
    topics: Mapping[str, Any]


def reach(config: Mapping[str, Any], *, prefix: str = "", timeout_s: float = REACH_S) -> Reached:
    """Asks for the cluster's metadata, and connects to every broker that leads a partition. Blocks.

    Args:
        config: librdkafka's connection settings.
        prefix: Prefix of the installation; the leaders of its topics are connected to.
        timeout_s: Time limit of the whole check.

    Raises:
        Unusable: librdkafka does not accept the name or the value of a setting.
        LoginRefused: The user, the password or the mechanism is refused.
        Unreached: No broker answers in time, or a leader is not reachable at its advertised address.
    """
    errors: list[confluent_kafka.KafkaError] = []
    with clients.admin({**config, "error_cb": errors.append}) as admin:
        return _connect_leaders(admin, errors, str(config["bootstrap.servers"]), prefix, timeout_s)


def _connect_leaders(
    admin: AdminClient, errors: Sequence[Any], bootstrap: str, prefix: str, timeout_s: float
) -> Reached:
    end_s = time.monotonic() + timeout_s
    our_topics = {named(topic, prefix) for topic in TOPICS}
    found = _ask_metadata(admin, errors, bootstrap, end_s)
    while True:
        topics = {name: topic for name, topic in found.topics.items() if name in our_topics}
        brokers = {number: f"{broker.host}:{broker.port}" for number, broker in found.brokers.items()}
        leaders = {
            partition.leader for topic in topics.values() for partition in topic.partitions.values()
        } & brokers.keys()
        # Without a topic of this installation no leader is known, so every broker is tried.
        unreachable = unreachable_addresses([brokers[number] for number in sorted(leaders or brokers.keys())])
        if not unreachable:
            return Reached(brokers, topics)
        if time.monotonic() >= end_s:
            where, why = next(iter(unreachable.items()))
            raise Unreached(f"a broker answers, and sends its clients to {where} (advertised.listeners), where {why}")
        time.sleep(_PAUSE_S)
        with suppress(confluent_kafka.KafkaException):  # a leader may have moved meanwhile
            found = admin.list_topics(timeout=max(_PAUSE_S, end_s - time.monotonic()))


def refusal(error: KafkaError) -> bool:
    """True if the cluster answered and refused: a login, or a request without a right."""
    return isinstance(error, LoginRefused | AccessDenied) or any(name in error.reason for name in DENIALS)


def in_words(error: KafkaError) -> str:
    """Returns the reason of an error as a sentence, also for an error with only a name of librdkafka."""
    for name in DENIALS:
        if name in error.reason:
            right = error.reason.partition(f": {name}")[0].replace(name, "what it asks")
            return f"the principal of KAFKA_CONFIG is not allowed {right} ({name}); allow it with `kafka-acls`"
    if isinstance(error, Electing) or error.reason in clients.LEADERLESS:
        return "a partition has no leader at this moment"
    return "no broker answers" if error.reason in _SILENCE_NAMES else error.reason


def unreachable_addresses(addresses: Iterable[str], timeout_s: float = _CONNECT_S) -> dict[str, str]:
    """Connects by TCP to each `host:port`; returns the unreachable addresses and the reasons. Blocks."""
    wanted = list(dict.fromkeys(addresses))
    with ThreadPoolExecutor(max(1, min(16, len(wanted)))) as pool:
        results = pool.map(lambda address: _connect(address, timeout_s), wanted)
        return {address: why for address, why in zip(wanted, results, strict=True) if why}


def _ask_metadata(admin: AdminClient, errors: Sequence[Any], bootstrap: str, end_s: float) -> Any:
    timeouts, closes_connections = iter(_FIRST_TIMEOUTS_S), False
    while True:
        left_s = end_s - time.monotonic()
        attempt_s = min(next(timeouts, left_s), left_s)
        began_s = time.monotonic()
        try:
            return admin.list_topics(timeout=max(0.1, attempt_s))
        except confluent_kafka.KafkaException:
            # An error long before the time limit means that the peer closes the connections; silence lasts the whole
            # limit.
            closes_connections = closes_connections or time.monotonic() - began_s < attempt_s / 2
        with suppress(confluent_kafka.KafkaException):
            # Delivers errors to the callback, which fills the list of errors.
            admin.poll(0)
        for error in errors:
            if error.name() in _LOGIN_NAMES:
                raise LoginRefused(f"the login of KAFKA_CONFIG is refused ({_core_message(error.str())})")
        if time.monotonic() >= end_s:
            raise Unreached(_diagnosis(errors, bootstrap, closes_connections=closes_connections))
        time.sleep(_PAUSE_S)


def _diagnosis(errors: Sequence[Any], bootstrap: str, *, closes_connections: bool) -> str:
    tls = next((error.str() for error in errors if error.name() == "_SSL"), None)
    if tls is not None:
        return f"TLS fails ({_core_message(tls)}); see ssl.ca.location in KAFKA_CONFIG"
    addresses = [address.strip().rpartition("://")[2] for address in bootstrap.split(",") if address.strip()]
    unreachable = unreachable_addresses(addresses)
    if len(unreachable) == len(dict.fromkeys(addresses)):
        return "; ".join(f"{address}: {why}" for address, why in unreachable.items()) or "no broker is named"
    behaviour = "closes every connection" if closes_connections else "says nothing"
    return f"something listens there and {behaviour}: no Kafka, or one that wants TLS or a login (KAFKA_CONFIG)"


def _core_message(text: str) -> str:
    """Returns the middle of an error text of librdkafka, without the address before and the state behind."""
    return text.rpartition(" (after ")[0].partition(": ")[2] or text


def _connect(address: str, timeout_s: float) -> str:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]") or address, int(port) if port.isdigit() else 9092), timeout_s):
            return ""
    except TimeoutError:
        return "no connection opens"
    except socket.gaierror:
        return f"the host {host or address} has no address"
    except OSError as error:
        return "nothing listens" if isinstance(error, ConnectionRefusedError) else f"{error.strerror or error}"
