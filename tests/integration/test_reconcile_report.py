"""The operator's side of reconciliation on real Kafka, PostgreSQL and outside systems: report, rulings and orphans."""

import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from schemas.tenant import Stage
from services.adapters.kafka.tenant_view import TenantView
from services.cli.exits import Exit
from tests.support.eventually import eventually
from tests.support.ledger_process import LedgerBench
from tests.support.operator_world import OperatorWorld, database_of, provisioner
from tests.support.provisioner_stage import SYSTEMS
from tests.support.reconciler_world import changed
from tests.support.simulator_process import Outside, outside

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def bench(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerBench]:
    made = LedgerBench(kafka_bootstrap, f"t{secrets.token_hex(5)}-", tmp_path_factory.mktemp("ledger"))
    with made.ledger():
        yield made


@pytest.fixture(scope="module")
def database(database_admin_url: str) -> str:
    return database_of(database_admin_url, f"test_{secrets.token_hex(6)}")


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory, database: str, bench: LedgerBench) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    given = {"keyring_file": str(bench.folder / "keyring.json"), "oauth_client_secret": "s" * 32}
    with outside(folder, database, **given) as running, provisioner(bench, running, database):
        yield running


@pytest.fixture(scope="module")
def view(bench: LedgerBench) -> Iterator[TenantView]:
    with closing(TenantView({"bootstrap.servers": bench.bootstrap}, bench.prefix)) as made:
        yield made


@pytest.fixture
def world(
    bench: LedgerBench, systems: Outside, view: TenantView, database: str, tmp_path: Path
) -> Iterator[OperatorWorld]:
    yield OperatorWorld(bench, systems, tmp_path, view, database=database)
    systems.heal()


def test_the_report_names_each_difference_and_who_mends_it(world: OperatorWorld) -> None:
    same, disabled, removed = world.provisioned(3)
    assert world.run().lines == ()
    fresh = world.new_key()
    world.know(disabled, enabled=False)
    world.forget(removed)
    world.know(fresh)
    assert world.differences() == {
        disabled: [("settings differ", "reconciler")],
        removed: [("Genesys lost it", "reconciler")],
        fresh: [("install lost", "reconciler")],
    }
    assert world.differences("--all")[same] == []
    found = world.report()
    assert (found["agreeing"], found["brake"]["absent"], found["brake"]["holds"]) == (1, 1, False)
    assert world.observations() == [], "a report publishes nothing"
    (one,) = [one for one in found["keys"] if one["key"] == disabled]
    assert one["outside"]["shows"] == "whole"
    assert set(one["outside"]["steps"]) >= {"middleware", "crm", "schema", "subscriptions", "tokens"}
    said = world.lifecycle("reconcile", "--report", "--org", world.org_id, status=Exit.DEVIATION)
    assert "Genesys lost it (uninstalled: counts when seen again after" in " ".join(said.split())
    assert "3 keys with a difference, 1 without" in said


def test_a_resource_that_is_gone_outside_is_missing_only_to_a_look(world: OperatorWorld) -> None:
    (key,) = world.provisioned(1)
    world.take(key, 1)
    assert world.differences() == {}
    assert world.differences("--outside") == {key: [("outside is missing", "operator")]}
    (one,) = world.report("--outside")["keys"]
    assert (one["outside"]["shows"], one["outside"]["missing"]) == ("incomplete", ["middleware"])
    calls = world.outside.calls(key)
    world.report("--outside")
    assert [verb for verb, _ in world.outside.calls(key)[len(calls) :] if verb != "read"] == []


def test_a_system_that_is_away_is_no_information(world: OperatorWorld) -> None:
    world.provisioned(1)
    world.outside.fault("subscriptions", "error", verb="read")
    (one,) = world.report("--outside")["keys"]
    assert [(found["difference"], found["by"]) for found in one["differences"]] == [("outside not read", "nobody")]
    assert one["differences"][0]["why"].startswith("subscriptions: ")


def test_without_the_registry_the_rest_is_reported(world: OperatorWorld) -> None:
    (key,) = world.provisioned(1)
    world.know(key, enabled=False)
    parts = urlsplit(world.database)
    away = parts._replace(netloc=parts.netloc.rpartition(":")[0] + ":1").geturl()
    said = world.lifecycle("reconcile", "--report", key, status=Exit.DEVIATION, DATABASE_URL=away)
    assert "outside: not read: " in said
    assert "settings differ" in said


def test_an_uninstalled_tenant_is_under_way_and_then_agrees(world: OperatorWorld) -> None:
    (key,) = world.provisioned(1)
    for system in SYSTEMS:
        world.outside.fault(system, "refuse", verb="delete", key=key)
    world.uninstall(key)
    eventually(lambda: world.differences() == {key: [("teardown under way", "provisioner")]}, 60)
    world.outside.heal()
    eventually(lambda: changed(world, key, stage=Stage.DEPROVISIONED), 60)
    assert world.differences("--outside") == {}
