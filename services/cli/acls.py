"""The rights of the services as a cluster's administrator takes them: `kafka-acls` command lines, Strimzi users, JSON.

Rule: services that log in as one principal are one user with the rights of all.
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
"""Principal (`User:NAME`) to its rights, each once."""

_USER: Final = "User:"
_TLS: Final = "CN="
_HEAD: Final = "# ADMIN_CONFIG: a properties file for whoever may alter the ACLs of the cluster."
_COMMAND: Final = 'kafka-acls.sh --bootstrap-server "$KAFKA_BOOTSTRAP_SERVERS" --command-config "$ADMIN_CONFIG"'
_RESOURCE_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""What Kubernetes takes for the name of an object (RFC 1123)."""


class Format(StrEnum):
    """For whom."""

    KAFKA_ACLS = "kafka-acls"
    STRIMZI = "strimzi"


def principals(given: Iterable[str]) -> dict[Service, str]:
    """The principal of each service: as given, else `User:lifecycle-SERVICE`.

    Args:
        given: `SERVICE=NAME` each; NAME with or without `User:`.

    Raises:
        Failure: every one that cannot be used, by name.
    """
    found = {service: f"{_USER}lifecycle-{service}" for service in Service}
    faults = []
    for text in given:
        service, _, name = text.partition("=")
        name = name.strip().removeprefix(_USER)
        if service not in set(Service):
            faults.append(f"--principal {text}: no service {service!r}; there are {', '.join(Service)}")
        elif not name or "\n" in name:
            faults.append(f"--principal {text}: no name; write SERVICE=NAME, as in ledger=lifecycle-ledger")
        else:
            found[Service(service)] = _USER + name
    if faults:
        raise CommandError(Exit.UNUSABLE, "\n".join(faults))
    return found


def of_principals(named: Mapping[Service, str], prefix: str) -> Rights:
    """What each principal must be allowed.

    Args:
        named: The principal of each service.
        prefix: Of the installation's topics and groups.
    """
    found: defaultdict[str, dict[Right, None]] = defaultdict(dict)
    for service, principal in named.items():
        found[principal].update(dict.fromkeys(rights(service, prefix)))
    return {principal: tuple(_unimplied(each)) for principal, each in found.items()}


def as_commands(given: Rights) -> Iterator[str]:
    """One `kafka-acls` line for the resources of a principal that are allowed the same, below a comment."""
    yield _HEAD
    for principal, each in given.items():
        alike: defaultdict[tuple[str, tuple[Operation, ...]], list[str]] = defaultdict(list)
        for (resource, name), operations in _by_resource(each).items():
            alike[resource, operations].append(name)
        for (resource, operations), names in alike.items():
            words = ["--add", "--allow-principal", principal]
            words += [word for operation in operations for word in ("--operation", operation.value)]
            words += [word for name in names for word in (f"--{resource}", name)]
            yield f"{_COMMAND} {shlex.join(words)}"


def as_strimzi(given: Rights, cluster: str) -> Iterator[str]:
    """One `KafkaUser` document a principal, as YAML.

    Args:
        given: Rights by principal. A principal `User:CN=NAME` logs in with a certificate, any other with SCRAM.
        cluster: Name of the `Kafka` object.

    Raises:
        Failure: a principal that no KafkaUser can have, or a cluster that has no name.
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
    for principal, each in given.items():
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
                *_strimzi_acls(each),
            )
        )


def as_objects(given: Rights, named: Mapping[Service, str]) -> list[dict[str, Any]]:
    """For a program: one object a principal."""
    return [
        {
            "principal": principal,
            "services": [service.value for service, whose in named.items() if whose == principal],
            "rights": [
                {"resource": right.resource, "name": right.name, "operation": right.operation} for right in each
            ],
        }
        for principal, each in given.items()
    ]


def _unimplied(each: Iterable[Right]) -> Iterator[Right]:
    """Leave Describe out where another service of the principal reads or writes."""
    used = {(right.resource, right.name) for right in each if right.operation in {Operation.READ, Operation.WRITE}}
    for right in each:
        if right.operation is not Operation.DESCRIBE or (right.resource, right.name) not in used:
            yield right


def _strimzi_acls(each: Iterable[Right]) -> Iterator[str]:
    for (resource, name), operations in _by_resource(each).items():
        yield f"      - resource: {{type: {resource}, name: {name}, patternType: literal}}"
        yield f"        operations: [{', '.join(operations)}]"


def _by_resource(each: Iterable[Right]) -> dict[tuple[str, str], tuple[Operation, ...]]:
    found: defaultdict[tuple[str, str], list[Operation]] = defaultdict(list)
    for right in each:
        found[right.resource, right.name].append(right.operation)
    return {resource: tuple(sorted(operations, key=list(Operation).index)) for resource, operations in found.items()}
