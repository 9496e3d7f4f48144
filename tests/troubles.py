"""What the world may do to a command: Kafka and PostgreSQL away, silent, or refusing, on real servers.

Rule: nothing here is a mock. One broker with four listeners (plain, SASL, and two that advertise an address where it is
not) and one PostgreSQL with roles of small rights are enough for every trouble; the silent server is a socket.
"""

import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without `as`
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from psycopg import sql

from services.adapters import topics
from services.adapters.registry import SCHEMA
from services.engines import jars, java
from services.engines.kafka import Kafka, Ports
from services.engines.ports import HOST, free_ports

PARTITIONS: Final = 2
_PASSWORD: Final = "right-one"
_USERS: Final = ("full", "bare", "narrow")
"""May do everything; may do nothing; may do everything but look at a topic's settings."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that the world does.

    Attributes:
        name: For the table.
        of: `kafka`, `postgres` or `settings`.
        environ: The variables that lead into it; the others are well.
        status: How a command ends that needs what is in trouble.
    """

    name: str
    of: str
    environ: Mapping[str, str]
    status: int


@dataclass(frozen=True, slots=True)
class World:
    """A well environment, and every trouble.

    Attributes:
        well: Variables of an installation where nothing is wrong.
        troubles: By name.
        broker: The one broker.
        sasl: Address of its SASL listener.
    """

    well: Mapping[str, str]
    troubles: Mapping[str, Trouble] = field(default_factory=dict)
    broker: str = ""
    sasl: str = ""

    def config(self, user: str, password: str = _PASSWORD) -> str:
        """`KAFKA_CONFIG` of one user of the SASL listener."""
        return json.dumps(
            {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": user,
                "sasl.password": password,
            }
        )


@contextmanager
def silent() -> Iterator[str]:
    """`host:port` of a server that accepts every connection and never says a word."""
    with socket.create_server((HOST, 0), backlog=64) as listening:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(listening.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, name="silent", daemon=True).start()
        try:
            yield f"{HOST}:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for connection in held:
                connection.close()


@contextmanager
def broker(folder: Path) -> Iterator[tuple[str, str, str]]:
    """One broker: its plain listener, its SASL listener, and one that advertises an address where it is not."""
    plain, quorum, sasl, lost, nowhere = free_ports(5)
    users = " ".join(f'user_{name}="{_PASSWORD}"' for name in _USERS)
    login = f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
    names = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,LOST:PLAINTEXT"
    settings = {
        "listeners": f"PLAINTEXT://{HOST}:{plain},CONTROLLER://{HOST}:{quorum},"
        f"SASL://{HOST}:{sasl},LOST://{HOST}:{lost}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{plain},SASL://{HOST}:{sasl},LOST://{HOST}:{nowhere}",
        "listener.security.protocol.map": names,
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": login,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:full",
    }
    machine = java.find(os.environ)
    files = jars.fetch(jars.pinned(), jars.cache_folder(os.environ))
    server = Kafka(folder, machine, files, os.environ, Ports(plain, quorum), settings)
    try:
        server.start()
        yield f"{HOST}:{plain}", f"{HOST}:{sasl}", f"{HOST}:{lost}"
    finally:
        server.stop()


@contextmanager
def world(folder: Path, database_url: str) -> Iterator[World]:
    """Everything, for as long as the context lasts.

    Args:
        folder: For the broker.
        database_url: Of an empty database, as a role that may create roles.
    """
    with ExitStack() as stack:
        plain, sasl, lost = stack.enter_context(broker(folder / "kafka"))
        quiet = stack.enter_context(silent())
        stack.enter_context(_roles(database_url))
        topics.apply({"bootstrap.servers": plain}, prefix="", partitions=PARTITIONS, replication=1)
        _grant_narrow(plain)
        closed = f"{HOST}:{free_ports(1)[0]}"
        well = {
            "KAFKA_BOOTSTRAP_SERVERS": plain,
            "DATABASE_URL": database_url,
            "TOPIC_PARTITIONS": str(PARTITIONS),
            "TOPIC_REPLICATION": "1",
        }
        made = World(well, broker=plain, sasl=sasl)
        found = [*_of_kafka(made, closed, quiet, lost), *_of_postgres(database_url, closed, quiet)]
        yield World(well, {trouble.name: trouble for trouble in found}, plain, sasl)


def _of_kafka(made: World, closed: str, quiet: str, lost: str) -> Iterator[Trouble]:
    yield Trouble("kafka away", "kafka", {"KAFKA_BOOTSTRAP_SERVERS": closed}, 3)
    yield Trouble("kafka silent", "kafka", {"KAFKA_BOOTSTRAP_SERVERS": quiet}, 3)
    yield Trouble("kafka host unknown", "kafka", {"KAFKA_BOOTSTRAP_SERVERS": "kafka.invalid:9092"}, 3)
    yield Trouble("kafka leader away", "kafka", {"KAFKA_BOOTSTRAP_SERVERS": lost}, 3)
    asked = {"KAFKA_BOOTSTRAP_SERVERS": made.sasl}
    yield Trouble("kafka wants a login", "kafka", asked, 3)
    yield Trouble("kafka password wrong", "kafka", asked | {"KAFKA_CONFIG": made.config("full", "wrong-one")}, 5)
    yield Trouble("kafka no right", "kafka", asked | {"KAFKA_CONFIG": made.config("bare")}, 5)
    yield Trouble("kafka no DescribeConfigs", "kafka", asked | {"KAFKA_CONFIG": made.config("narrow")}, 5)
    yield Trouble("kafka setting unknown", "settings", {"KAFKA_CONFIG": '{"no.such": "x"}'}, 2)


def _of_postgres(url: str, closed: str, quiet: str) -> Iterator[Trouble]:
    parts = urlsplit(url)

    def at(place: str) -> str:
        return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{place}").geturl()

    def by(user: str, password: str) -> str:
        return parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()

    yield Trouble("postgres away", "postgres", {"DATABASE_URL": at(closed)}, 3)
    yield Trouble("postgres silent", "postgres", {"DATABASE_URL": at(quiet)}, 3)
    yield Trouble("postgres host unknown", "postgres", {"DATABASE_URL": at("postgres.invalid:5432")}, 3)
    yield Trouble("postgres password wrong", "postgres", {"DATABASE_URL": by(str(parts.username), "wrong-one")}, 5)
    nowhere = parts._replace(path="/no_such_database").geturl()
    yield Trouble("postgres database unknown", "postgres", {"DATABASE_URL": nowhere}, 5)
    yield Trouble("postgres no right", "postgres", {"DATABASE_URL": by(_ROLE, _PASSWORD)}, 5)


_ROLE: Final = f"bare_{secrets.token_hex(4)}"


@contextmanager
def _roles(url: str) -> Iterator[None]:
    """A role that may connect and nothing else, and a registry that it may not look at."""
    role = sql.Identifier(_ROLE)
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(_PASSWORD)))
        session.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))
    try:
        yield
    finally:
        with psycopg.connect(url, autocommit=True) as session:
            session.execute(sql.SQL("DROP ROLE {}").format(role))


def _grant_narrow(plain: str) -> None:
    """Everything but DescribeConfigs."""
    rights = (
        (ResourceType.TOPIC, AclOperation.READ),
        (ResourceType.TOPIC, AclOperation.WRITE),
        (ResourceType.TOPIC, AclOperation.DESCRIBE),
        (ResourceType.GROUP, AclOperation.READ),
    )
    bindings = [
        AclBinding(kind, "*", ResourcePatternType.LITERAL, "User:narrow", "*", operation, AclPermissionType.ALLOW)
        for kind, operation in rights
    ]
    admin = AdminClient({"bootstrap.servers": plain})
    for future in admin.create_acls(bindings).values():
        future.result(20)
