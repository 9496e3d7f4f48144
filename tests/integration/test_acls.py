"""A cluster with ACLs: the printed rights suffice, none is superfluous, and a missing right is named.

The services run on a broker that knows each by name. `LIFECYCLE_ALL_MARKS=1` takes every right of every service away in
turn, instead of a few (`make faults`).
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from schemas.rights import Operation, Resource, Right, Service, rights
from schemas.topics import AUDIT, DESIRED, EVENTS, LOOKS_GROUP, RECEIVED, TENANTS
from services.adapters.kafka import tenant_view
from services.adapters.tables.exits import WorkerExit as Ended
from services.cli.exits import Exit
from tests.support.eventually import eventually
from tests.support.guarded_broker import Guarded, guarded_broker
from tests.support.guarded_services import CUSTOMER, RUNNING, SIMULATOR, Installation

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.timeout(300)]

ALL: Final = bool(os.environ.get("LIFECYCLE_ALL_MARKS"))
PREFIX: Final = "acme-"
_LONG_S: Final = 60


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="lifecycle-acls-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[Guarded]:
    with guarded_broker(folder, list(Service)) as one:
        yield one


@pytest.fixture(scope="module")
def database(database_admin_url: str) -> Iterator[str]:
    name = f"acls_{secrets.token_hex(6)}"
    with psycopg.connect(database_admin_url, autocommit=True) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield urlsplit(database_admin_url)._replace(path=f"/{name}").geturl()
    with psycopg.connect(database_admin_url, autocommit=True) as session:
        session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def installation(guarded: Guarded, folder: Path, database: str) -> Iterator[Installation]:
    """With the printed rights and nothing else; nothing runs yet but the simulator."""
    made = Installation(guarded, folder / "installation", database, PREFIX)
    try:
        for name, given in made.printed_rights().items():
            guarded.allow(name, given)
        assert made.lifecycle("topics", "apply").returncode == Exit.OK
        made.start(SIMULATOR)
        yield made
    finally:
        for one in made.running.values():
            one.kill()


def tenant(made: Installation) -> dict[str, Any]:
    found = tenant_view.read({"bootstrap.servers": made.guarded.plain}, PREFIX).get(CUSTOMER.key)
    return {} if found is None else found.model_dump(mode="json")


def stands(made: Installation, stage: str, **more: object) -> None:
    def found() -> bool:
        seen = tenant(made)
        assert seen | {"stage": stage, **more} == seen, seen
        return True

    eventually(found, _LONG_S)


@pytest.mark.long
def test_the_journey_needs_exactly_the_printed_rights_over_restarts(installation: Installation) -> None:
    made = installation
    made.start("provisioner", words=("--accept-older-registry",))  # reads everything that was ever said
    made.start("ingress", "ledger", "reconciler")
    all_run(made, RUNNING)
    assert made.send("installed") == "queued"
    stands(made, "active")

    made.stop("provisioner", "ledger", "reconciler")
    assert made.send("enabled") == "queued"
    made.lose(PREFIX + RECEIVED.name)
    assert made.lifecycle("ledger", "--recover-only", client="ledger").returncode == Exit.OK
    made.stop("ingress")
    made.start("ledger", words=("--accept-loss",))  # asks about every key
    made.start("ingress", "provisioner")
    all_run(made, ("ledger", "ingress", "provisioner"))

    # Genesys is asked about what nobody can know, and answers through the reconciler.
    assert made.send("uninstalled", unknown=True) == "queued"
    assert made.send("installed", 1, unknown=True) == "queued"
    stands(made, "deprovisioned", flags=["ambiguous"])
    made.start("reconciler")
    stands(made, "active", flags=[])
    made.stop("reconciler")
    assert made.send("disabled", unknown=True) == "queued"
    stands(made, "active", enabled=False)
    assert made.lifecycle("reconcile", "--now").returncode == Exit.OK
    stands(made, "active", enabled=True)
    made.start("reconciler")

    # What cannot be read goes to the dead letters, from three services.
    assert made.send("renamed", unknown=True) == "parked"
    for topic in (RECEIVED, DESIRED):
        made.write_rubbish(PREFIX + topic.name)

    assert made.send("uninstalled") == "queued"
    stands(made, "deprovisioned")
    for words in (("tenants", "timeline", CUSTOMER.key), ("topics", "plan")):
        assert made.lifecycle(*words).returncode == Exit.OK
    all_run(made, RUNNING)

    assert made.guarded.decisions("Denied") == set()
    wanted = {
        (name.value, right.resource, right.name, right.operation.name)
        for name in Service
        if name is not Service.HINTS  # needs a queue of Amazon
        for right in rights(name, PREFIX)
    } - {("operator", Resource.TOPIC, PREFIX + AUDIT.name, "WRITE")}  # a ruling by name, which needs a mass removal

    def used() -> bool:
        assert wanted - made.guarded.decisions("Allowed") == set()
        return True

    eventually(used)


def rounds() -> list[Any]:
    """Of each service one right to take away: all of them in turn, or those that fail in ways of their own."""
    if ALL:
        every = zip_longest(*(rights(Service(name), PREFIX) for name in RUNNING))
        taken = [{name: right for name, right in zip(RUNNING, one, strict=True) if right} for one in every]
    else:
        to_receive = Right(Resource.TOPIC, PREFIX + RECEIVED.name, Operation.WRITE)
        few = {
            "ingress": to_receive,
            "ledger": Right(Resource.TOPIC, PREFIX + EVENTS.name, Operation.WRITE),
            "provisioner": Right(Resource.GROUP, PREFIX + LOOKS_GROUP, Operation.DESCRIBE),
            "reconciler": to_receive,  # all that it may write: its producer fails for good
        }
        taken = [few, {"ingress": Right(Resource.TOPIC, PREFIX + RECEIVED.name, Operation.DESCRIBE_CONFIGS)}]
    return [
        pytest.param(one, id=str(number), marks=pytest.mark.long if number else ()) for number, one in enumerate(taken)
    ]


@pytest.mark.parametrize("taken", rounds())
def test_a_service_names_a_missing_right_and_continues_once_it_is_granted(
    installation: Installation, taken: dict[str, Right]
) -> None:
    made = installation
    all_run(made, taken)
    with without(made, taken):
        if ALL:
            # While they work. A reader without a group asks about the group's right when it begins, and not before.
            all_told(made, {name: right for name, right in taken.items() if right.name != PREFIX + LOOKS_GROUP})
            assert traced(made, taken) == []
        for name in taken:
            made.stop(name)
            made.log_path(name).unlink()
        made.start(*taken)
        all_told(made, taken)
    all_run(made, taken)
    assert traced(made, taken) == []


@contextmanager
def without(made: Installation, taken: dict[str, Right]) -> Iterator[None]:
    for name, right in taken.items():
        made.guarded.forbid(name, right)
    try:
        yield
    finally:
        for name, right in taken.items():
            made.guarded.allow(name, [right])


def all_run(made: Installation, names: Iterable[str]) -> None:
    """They are ready, once whoever has ended was started again: a supervisor's part."""

    def ready() -> bool:
        for name in names:
            if name not in made.running or made.running[name].poll() is not None:
                made.start(name)
        assert not (unready := {name: made.readiness(name) for name in names if not made.is_ready(name)}), unready
        return True

    eventually(ready, _LONG_S)


def traced(made: Installation, names: Iterable[str]) -> list[str]:
    return [name for name in names if "Traceback" in made.log_path(name).read_text()]


def all_told(made: Installation, taken: dict[str, Right]) -> None:
    for name, right in taken.items():
        eventually(partial(is_told, made, name, right), _LONG_S)


def is_told(made: Installation, name: str, right: Right) -> bool:
    """True if the log has one line with right and remedy, and the service says that it is not ready, or has ended.

    An ingress that may not compare its topics with the table is ready all the same, and tells of the right in a note.
    """
    is_spared = name == Service.INGRESS and right.operation is Operation.DESCRIBE_CONFIGS
    assert made.is_ready(name) == is_spared
    lines = made.log_path(name).read_text().splitlines()
    assert any(str(right) in line and "`lifecycle topics acls`" in line for line in lines), lines[-5:]
    told = made.readiness(name).get("notes" if is_spared else "checks")
    assert told is None or any(str(right) in fault for fault in told.values()), told
    ended = made.running[name].poll()
    assert told is not None or ended in {Exit.REFUSED, Ended.DENIED, Ended.UNDELIVERED}, ended
    return True


def of_the_operator() -> list[Any]:
    """Rights of the operator to take away: all, or one of each command."""
    every = rights(Service.OPERATOR, PREFIX)
    few = {
        "Create on topic acme-lifecycle.audit",
        "Describe on topic acme-lifecycle.desired",
        "DescribeConfigs on topic acme-lifecycle.tenants",
        "Read on topic acme-lifecycle.audit",
        "Describe on group acme-lifecycle-looks",
    }
    return [pytest.param(right, id=str(right)) for right in every if ALL or str(right) in few]


@pytest.mark.parametrize("right", of_the_operator())
def test_a_command_names_a_missing_right_of_the_operator(
    installation: Installation, right: Right, topic_prefix: str
) -> None:
    made, name, status = installation, Service.OPERATOR.value, Exit.REFUSED
    if right.operation is Operation.CREATE:  # what exists is not made again
        right = Right(right.resource, topic_prefix + right.name.removeprefix(PREFIX), right.operation)
        made.guarded.allow(name, rights(Service.OPERATOR, topic_prefix))
        made.guarded.forbid(name, right)
        done = made.lifecycle("topics", "apply", TOPIC_PREFIX=topic_prefix)
    else:
        if right.operation is Operation.WRITE:
            differ_from_genesys(made)
        elif right.resource is Resource.GROUP:
            status = Exit.DEVIATION
        with without(made, {name: right}):
            done = made.lifecycle(*command_for(right))
    told = [line for line in (done.stdout + done.stderr).splitlines() if str(right) in line]
    # A short read of doctor's may be refused as well before it is over.
    assert len(told) == 1 or (told and right.resource is Resource.GROUP), done.stdout + done.stderr
    assert done.returncode == status, done.stdout + done.stderr
    assert "`lifecycle topics acls`" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def command_for(right: Right) -> tuple[str, ...]:
    if right.operation is Operation.WRITE:
        return ("reconcile", "--now")
    if right.operation is Operation.READ and right.name != PREFIX + TENANTS.name:
        return ("tenants", "timeline", CUSTOMER.key)
    if right.resource is Resource.GROUP:
        return ("doctor",)  # a short read may be over before its refusal comes
    return ("tenants", "list") if right.operation is Operation.READ else ("topics", "plan")


def differ_from_genesys(made: Installation) -> None:
    all_run(made, ("ingress", "ledger", "provisioner"))
    assert made.send("installed") == "queued"
    stands(made, "active")
    assert made.send("disabled", unknown=True) == "queued"
    stands(made, "active", enabled=False)
