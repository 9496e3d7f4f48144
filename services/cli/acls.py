"""Formats the services' rights for a cluster's administrator: `kafka-acls` command lines, Strimzi users, or JSON.

Rule: services with a common principal form a single user with the rights of all.
"""

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

from schemas.rights import Operation, Right, Service, rights
from services.cli.exits import CommandError, Exit

Rights = Mapping[str, tuple[Right, ...]]
"""Principal (`User:NAME`) to its rights, each listed once."""

_USER: Final = "User:"
_TLS: Final = "CN="
_HEAD: Final = "# ADMIN_CONFIG: a properties file for whoever may alter the ACLs of the cluster."
_COMMAND: Final = 'kafka-acls.sh --bootstrap-server "$KAFKA_BOOTSTRAP_SERVERS" --command-config "$ADMIN_CONFIG"'
_RESOURCE_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""A valid name of a Kubernetes object (RFC 1123)."""


class Format(StrEnum):
    """The output format: commands of Kafka's own tool, or documents of the Strimzi operator."""

    KAFKA_ACLS = "kafka-acls"
    STRIMZI = "strimzi"


def principals(given: Iterable[str]) -> dict[Service, str]:
    """Returns the principal of each service: as given, else `User:lifecycle-SERVICE`.

    Args:
        given: Texts `SERVICE=NAME`; NAME with or without `User:`.

    Raises:
        CommandError: a text cannot be used (UNUSABLE); the message lists every fault.
    """
    result = {service: f"{_USER}lifecycle-{service}" for service in Service}
    faults = []
    for text in given:
        service, _, name = text.partition("=")
        name = name.strip().removeprefix(_USER)
        if service not in set(Service):
            faults.append(f"--principal {text}: no service {service!r}; there are {', '.join(Service)}")
        elif not name or "\n" in name:
            faults.append(f"--principal {text}: no name; write SERVICE=NAME, as in ledger=lifecycle-ledger")
        else:
            result[Service(service)] = _USER + name
    if faults:
        raise CommandError(Exit.UNUSABLE, "\n".join(faults))
    return result


def rights_by_principal(principal_of: Mapping[Service, str], prefix: str) -> Rights:
    """Returns the rights needed by each principal.

    Args:
        principal_of: The principal of each service.
        prefix: Prefix of the installation's topics and groups.
    """
    result: defaultdict[str, dict[Right, None]] = defaultdict(dict)
    for service, principal in principal_of.items():
        result[principal].update(dict.fromkeys(rights(service, prefix)))
    return {principal: tuple(_without_implied_describe(owned)) for principal, owned in result.items()}


def as_commands(given: Rights) -> Iterator[str]:
    """Yields the `kafka-acls` lines below a comment; resources of a principal with equal operations share a line."""
    yield _HEAD
    for principal, owned in given.items():
        # `kafka-acls` applies every --operation of a line to every resource of the line, so only equal operations may
        # share one.
        alike: defaultdict[tuple[str, tuple[Operation, ...]], list[str]] = defaultdict(list)
        for (resource, name), operations in _by_resource(owned).items():
            alike[resource, operations].append(name)
        for (resource, operations), names in alike.items():
            words = ["--add", "--allow-principal", principal]
            words += [word for operation in operations for word in ("--operation", operation.value)]
            words += [word for name in names for word in (f"--{resource}", name)]
            yield f"{_COMMAND} {shlex.join(words)}"


def as_strimzi(given: Rights, cluster: str) -> Iterator[str]:
    """Yields a `KafkaUser` document per principal, as YAML.

    Args:
        given: Rights by principal. `User:CN=NAME` logs in with a certificate, every other principal with SCRAM.
        cluster: Name of the `Kafka` object.

    Raises:
        CommandError: a principal or the cluster has no valid name of a Kubernetes object (UNUSABLE).
    """
    users = {principal: principal.removeprefix(_USER).removeprefix(_TLS) for principal in given}
    faults = [
        f"--principal {principal}: a KafkaUser needs a name of lower-case letters, digits, '-' and '.'"
        for principal, name in users.items()
        if not _RESOURCE_NAME.fullmatch(name)
    ]
    if not _RESOURCE_NAME.fullmatch(cluster):
        faults.append(f"--cluster {cluster}: no name of a Kafka object: lower-case letters, digits, '-' and '.'")
    if faults:
        raise CommandError(Exit.UNUSABLE, "\n".join(faults))
    for principal, owned in given.items():
        # Strimzi derives the principal from the login: `User:CN=NAME` for TLS, `User:NAME` for SCRAM.
        login = "tls" if principal.removeprefix(_USER).startswith(_TLS) else "scram-sha-512"
        yield "\n".join(
            (
                "apiVersion: kafka.strimzi.io/v1",
                "kind: KafkaUser",
                "metadata:",
                f'  name: "{users[principal]}"',
                "  labels:",
                f'    strimzi.io/cluster: "{cluster}"',
                "spec:",
                "  authentication:",
                f"    type: {login}",
                "  authorization:",
                "    type: simple",
                "    acls:",
                *_strimzi_acls(owned),
            )
        )


def as_json(given: Rights, principal_of: Mapping[Service, str]) -> list[dict[str, Any]]:
    """Returns a JSON object per principal: name, services, rights."""
    return [
        {
            "principal": principal,
            "services": [service.value for service, whose in principal_of.items() if whose == principal],
            "rights": [
                {"resource": right.resource, "name": right.name, "operation": right.operation} for right in owned
            ],
        }
        for principal, owned in given.items()
    ]


def _without_implied_describe(owned: Iterable[Right]) -> Iterator[Right]:
    """Yields the rights without any Describe implied by a Read or Write on the resource."""
    # Kafka grants Describe with Read and with Write; the line would be redundant.
    used = {(right.resource, right.name) for right in owned if right.operation in {Operation.READ, Operation.WRITE}}
    for right in owned:
        if right.operation is not Operation.DESCRIBE or (right.resource, right.name) not in used:
            yield right


def _strimzi_acls(owned: Iterable[Right]) -> Iterator[str]:
    """Yields the YAML lines of a user's ACLs."""
    for (resource, name), operations in _by_resource(owned).items():
        yield f"      - resource: {{type: {resource}, name: {name}, patternType: literal}}"
        yield f"        operations: [{', '.join(operations)}]"


def _by_resource(owned: Iterable[Right]) -> dict[tuple[str, str], tuple[Operation, ...]]:
    """Groups rights by resource; the operations of each are in the order of `Operation`."""
    result: defaultdict[tuple[str, str], list[Operation]] = defaultdict(list)
    for right in owned:
        result[right.resource, right.name].append(right.operation)
    return {resource: tuple(sorted(operations, key=list(Operation).index)) for resource, operations in result.items()}
