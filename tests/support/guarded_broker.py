"""A broker of a test's own that knows its clients by name (SASL/PLAIN) and lets them do what ACLs allow, and no more.

Two listeners: on the plain one everybody is ANONYMOUS, who may do everything (the quorum, and the test that gives the
rights); on the guarded one a client is `User:NAME`, with its name as its password. The log has every decision.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without `as`
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from schemas.rights import Operation, Resource, Right
from services.engines import jars, java
from services.engines.kafka import BrokerPorts, KafkaBroker
from services.engines.ports import HOST, free_ports

_DECIDED = re.compile(
    r"Principal = User:(\S+) is (Allowed|Denied) operation = (\S+) from \S+ \S+ \S+ on resource = (\S+?):LITERAL:(\S+)"
)
_EVERY_HOST = "*"


class _Talkative(KafkaBroker):
    """Writes down what was allowed, beside what was denied."""

    def _write_settings(self) -> None:
        super()._write_settings()
        with self._file("log4j2.properties").open("a") as file:
            file.write("logger.rights.name=kafka.authorizer.logger\nlogger.rights.level=DEBUG\n")


@dataclass(frozen=True)
class Guarded:
    """The broker, and the address where clients are known by name."""

    broker: KafkaBroker
    bootstrap: str

    @property
    def plain(self) -> str:
        """The address where everything is allowed."""
        return self.broker.bootstrap

    def config(self, name: str) -> dict[str, str]:
        """KAFKA_CONFIG of one client."""
        login = {"sasl.mechanism": "PLAIN", "sasl.username": name, "sasl.password": name}
        return {"security.protocol": "SASL_PLAINTEXT", **login}

    def allow(self, name: str, rights: Iterable[Right]) -> None:
        """Give rights to a client."""
        admin = AdminClient({"bootstrap.servers": self.plain})
        for answer in admin.create_acls([_binding(name, right) for right in rights]).values():
            answer.result(20)

    def forbid(self, name: str, right: Right) -> None:
        """Take one right of a client away."""
        admin = AdminClient({"bootstrap.servers": self.plain})
        given = _binding(name, right)
        wanted = AclBindingFilter(
            *(given.restype, given.name, given.resource_pattern_type, given.principal, given.host),
            *(given.operation, given.permission_type),
        )
        for answer in admin.delete_acls([wanted]).values():
            assert len(answer.result(20)) == 1, f"{name} had no {right}"

    def decisions(self, which: str) -> set[tuple[str, Resource, str, str]]:
        """The lines `Allowed` and `Denied`: client, resource, its name, operation in the protocol's words."""
        found = _DECIDED.findall(self.broker.log_path.read_text())
        return {
            (client, Resource(resource.lower()), name, operation)
            for client, decided, operation, resource, name in found
            if decided == which and resource.lower() in set(Resource)
        }


@contextmanager
def guarded_broker(folder: Path, names: Collection[str], **more: str) -> Iterator[Guarded]:
    """One that these clients can log in to, without any right yet; `more` are settings of the broker."""
    clients, quorum, guarded = free_ports(3)
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    users = " ".join(f'user_{name}="{name}"' for name in names)
    settings = {
        "listeners": f"PLAINTEXT://{HOST}:{clients},SASL_PLAINTEXT://{HOST}:{guarded},CONTROLLER://{HOST}:{quorum}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{login} {users};",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        **more,
    }
    files = jars.fetch(jars.pinned(), jars.cache_folder(os.environ))
    broker = _Talkative(
        folder / "kafka", java.find(os.environ), files, os.environ, BrokerPorts(clients, quorum), settings
    )
    broker.start()
    try:
        yield Guarded(broker, f"{HOST}:{guarded}")
    finally:
        broker.kill()


def _binding(name: str, right: Right) -> AclBinding:
    return AclBinding(
        {Resource.TOPIC: ResourceType.TOPIC, Resource.GROUP: ResourceType.GROUP}[right.resource],
        right.name,
        ResourcePatternType.LITERAL,
        f"User:{name}",
        _EVERY_HOST,
        AclOperation[Operation(right.operation).name],
        AclPermissionType.ALLOW,
    )
