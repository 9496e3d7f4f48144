"""Audits alone, where nobody can be asked: a real ingress, ledger and provisioner, no Genesys API and no webhook."""

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from schemas import hint
from schemas.event import Recheck
from schemas.tenant import Stage, Tenant
from schemas.topics import DEAD_LETTERS, EVENTS, RECEIVED
from schemas.values import Key
from services.adapters.kafka.tenant_view import TenantView
from services.core.saga.next_move import HELD_US
from tests.support.eventually import eventually
from tests.support.hints import envelope, hint_request
from tests.support.ingress_process import ORG, Ingress, headers_of, now_us
from tests.support.ledger_process import LedgerBench
from tests.support.provisioner_process import Scene
from tests.support.saga_world import STEPS

pytestmark = pytest.mark.engines

PATH = f"{hint.PATH}audit-event"
HINTS = "lifecycle_ingress_hints_total"
GRACE_S = 8
SOON_S = 60.0


@dataclass
class AskedNobody:
    """An installation whose customers give no API credentials."""

    edge: Ingress
    bench: LedgerBench
    scene: Scene
    view: TenantView
    tenants: Path

    def audit(self, key: Key, action: str, **how: Any) -> tuple[int, Any]:
        """Posts an audit; `how` are changes of the audit."""
        reply = self.edge.ask(hint_request(envelope(key, action, **how), path=PATH))
        return reply.status, reply.said

    def tenant(self, key: Key) -> Tenant | None:
        return self.view.catch_up(30.0).get(key)

    def shows(self, key: Key, stage: Stage, reason: str | None = None) -> Tenant:
        """Waits until the view shows a stage."""

        def shown() -> Tenant | None:
            found = self.tenant(key)
            return found if found is not None and (found.stage, found.reason) == (stage, reason) else None

        found = eventually(shown, SOON_S)
        assert found is not None
        return found

    def tell(self, name: str, tenant_id: str) -> None:
        """Adds a line to the file of tenants."""
        told = {"tenant_id": tenant_id, "configuration": {"crmEndpoint": "https://acme.salesforce.com"}}
        made = self.tenants.with_suffix(".new")
        made.write_text(json.dumps(json.loads(self.tenants.read_text()) | {name: told}))
        made.rename(self.tenants)

    def install(self) -> Key:
        """An integration that an audit has installed."""
        key = new_key()
        self.tell(key, f"tenant-{key[-12:]}")
        assert self.audit(key, "Create") == (200, {"status": "queued"})
        found = self.shows(key, Stage.ACTIVE)
        assert (found.tenant_id, found.claimed_tenant_id) == (f"tenant-{key[-12:]}", None)
        return key


def new_key() -> Key:
    return f"{ORG}:{uuid4()}"


@pytest.fixture(scope="module")
def bench(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerBench]:
    made = LedgerBench(kafka_bootstrap, f"t{secrets.token_hex(5)}-", tmp_path_factory.mktemp("ledger"))
    with made.ledger(AUDIT_REMOVAL_GRACE_S=str(GRACE_S)):
        yield made


@pytest.fixture(scope="module")
def installation(
    bench: LedgerBench, edge: Ingress, database_admin_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AskedNobody]:
    # One database for all tests of this module: the provisioner refuses one that is older than its Kafka.
    name, folder = f"test_{secrets.token_hex(6)}", tmp_path_factory.mktemp("provisioner")
    with psycopg.connect(database_admin_url, autocommit=True) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    database = urlsplit(database_admin_url)._replace(path=f"/{name}").geturl()
    tenants = folder / "tenants.json"
    tenants.write_text("{}")
    with (
        closing(TenantView({"bootstrap.servers": bench.bootstrap}, bench.prefix)) as view,
        Scene(bench.bootstrap, bench.prefix, database, folder) as scene,
    ):
        scene.start(TENANTS_FILE=str(tenants))
        yield AskedNobody(edge, bench, scene, view, tenants)
    with psycopg.connect(database_admin_url, autocommit=True) as session:
        session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_an_audit_alone_installs_and_another_removes_after_the_grace_period(installation: AskedNobody) -> None:
    key = installation.install()
    assert installation.scene.things(key) == list(STEPS)
    began_s = time.monotonic()
    assert installation.audit(key, "Delete")[0] == 200
    found = installation.shows(key, Stage.DEPROVISIONING, "grace")
    assert found.installed is False
    assert installation.scene.things(key) == list(STEPS), "told at once, and removed later"
    installation.shows(key, Stage.DEPROVISIONED)
    assert time.monotonic() - began_s > GRACE_S
    assert installation.scene.things(key) == []
    told = [one.said for one in installation.bench.out(EVENTS, key)]
    assert [(one["event"], one["source"], one["revision"]) for one in told] == [
        ("installed", "audit", 1), ("uninstalled", "audit", 2),
    ]  # fmt: skip


def test_a_restored_integration_is_revived_within_the_grace_period(installation: AskedNobody) -> None:
    key = installation.install()
    assert installation.audit(key, "Delete")[0] == 200
    installation.shows(key, Stage.DEPROVISIONING, "grace")
    assert installation.audit(key, "Restore")[0] == 200
    found = installation.shows(key, Stage.ACTIVE)
    assert found.generation == 1
    removed = {step for step, verb in installation.scene.calls(key) if verb == "delete"}
    assert removed <= {"tokens"}, "only tokens from before the uninstall are issued anew"


def test_an_audit_switches_a_tenant_and_one_that_states_nothing_is_acknowledged_and_counted(
    installation: AskedNobody,
) -> None:
    key = installation.install()
    assert installation.audit(key, "Disable")[1] == {"status": "queued"}
    eventually(lambda: (found := installation.tenant(key)) is not None and found.enabled is False)
    state = [{"property": "intendedState", "oldValues": ["DISABLED"], "newValues": ["ENABLED"]}]
    assert installation.audit(key, "Update", propertyChanges=state)[1] == {"status": "queued"}
    eventually(lambda: (found := installation.tenant(key)) is not None and found.enabled is True)
    written = len(installation.edge.records(RECEIVED))
    silent: list[tuple[str, dict[str, Any], str]] = [
        ("Update", {"propertyChanges": [{"property": "notes", "newValues": ["x"]}]}, "ignored_change"),
        ("Activate", {}, "ignored_change"),
        ("View", {}, "ignored_action"),
        ("Delete", {"entityType": "OAuthClient", "serviceName": "PeoplePermissions"}, "ignored_entity"),
    ]
    for action, changes, reason in silent:
        before = installation.edge.metric(HINTS, status="200", reason=reason)
        assert installation.audit(key, action, **changes) == (200, {"status": "ignored"})
        assert installation.edge.metric(HINTS, status="200", reason=reason) == before + 1
    assert len(installation.edge.records(RECEIVED)) == written


def test_a_forged_audit_and_one_of_another_organisation_or_account_change_nothing(edge: Ingress) -> None:
    key = new_key()
    written = len(edge.records(RECEIVED))
    forged = edge.ask(hint_request(envelope(key, "Create"), "x" * 40, PATH))
    unknown = edge.ask(hint_request(envelope(key, "Create"), path=f"{hint.PATH}nobody"))
    assert (forged.status, forged.content) == (401, unknown.content)
    foreign = envelope(f"{uuid4()}:{uuid4()}", "Create")
    assert edge.ask(hint_request(foreign, path=PATH)).status == 403
    assert edge.ask(hint_request(envelope(key, "Create") | {"account": "000000000000"}, path=PATH)).status == 403
    assert len(edge.records(RECEIVED)) == written


def test_an_audit_is_written_untouched_and_once_and_a_hint_of_it_is_no_event(edge: Ingress) -> None:
    key = new_key()
    audit = envelope(key, "Disable", id="audit-1")
    paths = (f"{hint.PATH}audit", PATH, PATH)
    said = [edge.ask(hint_request(audit, path=path)).said["status"] for path in paths]
    assert said == ["queued", "queued", "duplicate_handled"]
    asked, told = [record for record in edge.records(RECEIVED) if record.key() == key.encode()]
    assert headers_of(asked)["ce_type"] == Recheck.ce_type
    headers = headers_of(told)
    assert (headers["ce_type"], headers["ce_id"]) == (hint.CE_TYPE, f"{key}/audit/audit-1")
    assert headers["endpoint"] == "audit-event"
    assert json.loads(told.value() or b"") == audit


def test_an_audit_of_the_future_becomes_a_dead_letter(bench: LedgerBench, edge: Ingress) -> None:
    key = new_key()
    audit = envelope(key, "Delete", now_us() + 3_600_000_000)
    assert edge.ask(hint_request(audit, path=PATH)).status == 200
    (letter,) = eventually(lambda: bench.out(DEAD_LETTERS, key), SOON_S)
    assert letter.said["reason"] == "future"
    assert bench.out(EVENTS, key) == []


@pytest.mark.long
def test_an_integration_without_a_tenant_id_waits_until_the_file_names_it(installation: AskedNobody) -> None:
    key = new_key()
    assert installation.audit(key, "Create")[0] == 200
    found = installation.shows(key, Stage.PENDING_INSTALL, "tenant_unknown")
    assert (found.installed, found.tenant_id) == (True, None)
    assert installation.scene.calls(key) == []
    installation.tell(f"{ORG}:*", "acme")
    eventually(lambda: installation.scene.things(key) == list(STEPS), HELD_US / 1_000_000 + SOON_S)
    assert installation.shows(key, Stage.ACTIVE).tenant_id == "acme"
