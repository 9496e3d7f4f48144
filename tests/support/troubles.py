"""Troubles of a command: Kafka and PostgreSQL away, silent, or refusing, on real servers.

Rule: nothing here is a mock. One broker with four listeners (plain, SASL, and two that advertise an address where it is
not) and one PostgreSQL with roles of small rights are enough for every trouble; the silent server is a socket.
"""

import asyncio
import json
import os
import secrets
import socket
import socketserver
import struct
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

from services.adapters.kafka import topics
from services.adapters.registry.registry import SCHEMA, Registry
from services.engines import jars, java
from services.engines.kafka import BrokerPorts, KafkaBroker
from services.engines.ports import HOST, free_ports
from tests.support.hint_queue import hint_queue, moto
from tests.support.unreadable import unexpected

PARTITIONS: Final = 2
_PASSWORD: Final = "right-one"
_USERS: Final = ("full", "bare", "narrow")
"""May do everything; may do nothing; may do everything but look at a topic's settings."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that the world does.

    Attributes:
        name: For the table.
        of: What a command must need to notice it: `kafka`, `configs` (of its topics), `postgres` or `settings`.
        environ: The variables that lead into it; the others are well.
        status: How a command ends that needs what is in trouble.
        says: Words of which its sentence has one.
    """

    name: str
    of: str
    environ: Mapping[str, str]
    status: int
    says: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TroubledWorld:
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
def greeting() -> Iterator[str]:
    """`host:port` of a PostgreSQL that lets everybody log in and never says a word after that."""

    class Greeting(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while True:
                (size,) = struct.unpack("!I", self.request.recv(4, socket.MSG_WAITALL))
                (code,) = struct.unpack_from("!I", self.request.recv(size - 4, socket.MSG_WAITALL))
                if code not in _NO_TLS:
                    break
                self.request.sendall(b"N")
            known = {b"server_version": b"18.0", b"client_encoding": b"UTF8", b"standard_conforming_strings": b"on"}
            said = [b"R" + struct.pack("!II", 8, 0)]
            for name, text in known.items():
                said.append(b"S" + struct.pack("!I", 6 + len(name) + len(text)) + name + b"\0" + text + b"\0")
            said.append(b"K" + struct.pack("!III", 12, 1, 2) + b"Z" + struct.pack("!I", 5) + b"I")
            self.request.sendall(b"".join(said))
            while self.request.recv(4096):
                pass

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that went away is no news."""

    with Server((HOST, 0), Greeting) as server:
        thread = threading.Thread(target=server.serve_forever, name="greeting")
        thread.start()
        try:
            yield f"{HOST}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


_NO_TLS: Final = frozenset({80877103, 80877104})
"""Codes with which libpq asks for TLS or GSS encryption."""


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
    server = KafkaBroker(folder, machine, files, os.environ, BrokerPorts(plain, quorum), settings)
    try:
        server.start()
        yield f"{HOST}:{plain}", f"{HOST}:{sasl}", f"{HOST}:{lost}"
    finally:
        server.stop()


@contextmanager
def world(folder: Path, database_url: str) -> Iterator[TroubledWorld]:
    """Everything, for as long as the context lasts.

    Args:
        folder: For the broker.
        database_url: Of an empty database, as a role that may create roles.
    """
    with ExitStack() as stack:
        plain, sasl, lost = stack.enter_context(broker(folder / "kafka"))
        quiet, greets = stack.enter_context(silent()), stack.enter_context(greeting())
        stack.enter_context(_roles(database_url))
        asyncio.run(_registry(database_url))
        topics.apply({"bootstrap.servers": plain}, prefix="", partitions=PARTITIONS, replication=1)
        _grant_narrow(plain)
        closed = f"{HOST}:{free_ports(1)[0]}"
        well = {
            "KAFKA_BOOTSTRAP_SERVERS": plain,
            "DATABASE_URL": database_url,
            "TOPIC_PARTITIONS": str(PARTITIONS),
            "TOPIC_REPLICATION": "1",
            **stack.enter_context(hint_queue(stack.enter_context(moto(folder)))).environ,
        }
        made = TroubledWorld(well, broker=plain, sasl=sasl)
        found = [*_of_kafka(made, closed, quiet, lost), *_of_postgres(database_url, closed, quiet, greets)]
        yield TroubledWorld(well, {trouble.name: trouble for trouble in found}, plain, sasl)


def _of_kafka(made: TroubledWorld, closed: str, quiet: str, lost: str) -> Iterator[Trouble]:
    def at(address: str) -> dict[str, str]:
        return {"KAFKA_BOOTSTRAP_SERVERS": address}

    def by(user: str, password: str = _PASSWORD) -> dict[str, str]:
        return at(made.sasl) | {"KAFKA_CONFIG": made.config(user, password)}

    yield Trouble("kafka away", "kafka", at(closed), 3, ("nothing listens",))
    yield Trouble("kafka silent", "kafka", at(quiet), 3, ("says nothing",))
    yield Trouble("kafka host unknown", "kafka", at("kafka.invalid:9092"), 3, ("has no address",))
    yield Trouble("kafka leader away", "kafka", at(lost), 3, ("advertised.listeners",))
    yield Trouble("kafka wants a login", "kafka", at(made.sasl), 3, ("KAFKA_CONFIG",))
    yield Trouble("kafka password wrong", "kafka", by("full", "wrong-one"), 5, ("password",))
    yield Trouble("kafka no right", "kafka", by("bare"), 5, ("lacks",))
    yield Trouble("kafka no DescribeConfigs", "configs", by("narrow"), 5, ("DescribeConfigs", "lacks"))
    yield Trouble("kafka setting unknown", "settings", {"KAFKA_CONFIG": '{"no.such": "x"}'}, 2, ("no.such",))


def _of_postgres(url: str, closed: str, quiet: str, greets: str) -> Iterator[Trouble]:
    parts = urlsplit(url)

    def at(address: str) -> dict[str, str]:
        return {"DATABASE_URL": parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{address}").geturl()}

    def by(user: str, password: str) -> dict[str, str]:
        return {"DATABASE_URL": parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()}

    nowhere = {"DATABASE_URL": parts._replace(path="/no_such_database").geturl()}
    yield Trouble("postgres away", "postgres", at(closed), 3, ("refused",))
    yield Trouble("postgres silent", "postgres", at(quiet), 3, ("timeout", "no answer"))
    yield Trouble("postgres logs in, then silent", "postgres", at(greets), 3, ("no answer",))
    yield Trouble("postgres host unknown", "postgres", at("postgres.invalid:5432"), 3, ("resolve", "not known"))
    yield Trouble("postgres password wrong", "postgres", by(str(parts.username), "wrong-one"), 5, ("password",))
    yield Trouble("postgres database unknown", "postgres", nowhere, 5, ("no_such_database",))
    yield Trouble("postgres no right", "postgres", by(_ROLE, _PASSWORD), 5, ("may not",))


_ROLE: Final = f"bare_{secrets.token_hex(4)}"


async def _registry(url: str) -> None:
    registry = Registry(url, schema=SCHEMA, lease_s=5.0, worker="the test", on_unreadable=unexpected)
    await registry.start()
    await registry.close()


@contextmanager
def _roles(url: str) -> Iterator[None]:
    """A role that may connect and nothing else."""
    role = sql.Identifier(_ROLE)
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(_PASSWORD)))
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
