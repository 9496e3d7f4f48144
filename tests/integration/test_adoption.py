"""Adoption on real Kafka, PostgreSQL, ledger, provisioner and outside systems, judged by the systems' own call list."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.event import Event
from schemas.tenant import Stage
from schemas.topics import EVENTS
from services.adapters.kafka.tenant_view import TenantView
from services.cli.exits import Exit
from services.core.reconcile.onboarding import OrganisationState
from services.reconciler.memory import Sights
from tests.support.adoption_world import CONFIGURATION, SYSTEMS, AdoptionWorld, await_plan, unknown_key
from tests.support.eventually import eventually
from tests.support.ledger_process import LedgerBench
from tests.support.operator_world import provisioner
from tests.support.reconciler_world import changed, tenant_of
from tests.support.simulator_process import Outside, outside

pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory, database: str, bench: LedgerBench) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    given = {"keyring_file": str(bench.folder / "keyring.json"), "oauth_client_secret": "s" * 32}
    with outside(folder, database, **given) as running, provisioner(bench, running, database):
        await_plan(database)
        yield running


@pytest.fixture
def world(
    bench: LedgerBench, systems: Outside, view: TenantView, database: str, tmp_path: Path
) -> Iterator[AdoptionWorld]:
    yield AdoptionWorld(bench, systems, tmp_path, view, database=database)
    systems.heal()


def _ends(found: dict[str, Any]) -> dict[int, str]:
    return {line["line"]: line["end"] for line in found["lines"]}


def test_twenty_tenants_are_adopted_without_a_change_outside_and_removed_by_a_later_uninstall(
    world: AdoptionWorld,
) -> None:
    keys = world.vendors_tenants(20)
    before, file = world.changes(keys), world.file([world.line(key) for key in keys])
    there = world.things(keys)
    assert there == dict.fromkeys(SYSTEMS, 20)

    looked = world.adopt(file, "--dry-run")
    assert set(_ends(looked).values()) == {"can be adopted"}
    assert {found["sight"] for line in looked["lines"] for found in line["steps"].values()} == {"found"}
    assert (world.rows(), world.observations(), world.acts("adoption")) == ({}, [], [])
    assert not Sights(world.folder).admissions()

    found = world.adopt(file, "--reason", "from the old system")
    assert (set(_ends(found).values()), found["is_done"]) == ({"adopted"}, True)
    world.until_active(keys)
    assert (world.changes(keys), world.things(keys)) == (before, there), "0 creates, 0 updates, 0 deletes"
    assert {phase for phase, _, _ in world.rows().values()} == {"active"}
    eventually(lambda: len(world.acts("adoption")) == 20)
    acts = world.acts("adoption")
    assert {(one.act.by, one.act.reason, one.act.number, one.act.digest) for one in acts if one.act} == {
        ("Ada", "from the old system", 20, found["digest"])
    }
    assert Sights(world.folder).admissions() == {world.org_id: OrganisationState.ADOPTED}
    # Again: nothing is said twice.
    again = world.adopt(file)
    assert set(_ends(again).values()) == {"adopted already"}
    assert len(world.observations()) == 20

    # A change of one tenant reaches exactly the step that uses it.
    world.know(keys[0], enabled=True, configuration={**CONFIGURATION, "more": "1"})
    world.run()
    eventually(lambda: world.changes(keys)["middleware", "update"] == 1)
    world.until_active(keys)

    world.uninstalled(keys[:4])
    eventually(lambda: all(map(world.is_deprovisioned, keys[:4])), 120)
    assert world.things(keys) == dict.fromkeys(SYSTEMS, 16), "exactly what was adopted is gone"
    assert world.things(keys[:4]) == dict.fromkeys(SYSTEMS, 0)
    news = world.changes(keys) - before
    assert news == {("middleware", "update"): 1, **dict.fromkeys([(system, "delete") for system in SYSTEMS], 4)}


def test_what_is_missing_or_differs_is_named_and_left(world: AdoptionWorld) -> None:
    whole, missing, differs, other_id, known = world.vendors_tenants(5)
    world.take(missing, 1)
    world.install(known)
    eventually(lambda: changed(world, known, stage=Stage.ACTIVE), 60)
    nobody = unknown_key(world.org_id)
    lines: list[Any] = [
        world.line(whole),
        "{not json",
        world.line(missing),
        world.line(differs, steps={"tokens": {"access_token": "canary"}}),
        world.line(other_id, steps={"middleware": {"id": "m-17"}}),
        world.line(known),
        "",
        world.line(whole),
        world.line(nobody, steps={"tokens": {"access_token": "canary"}}),
    ]
    file = world.file(lines)
    before = world.changes([whole, missing, differs, other_id])
    found = world.adopt(file, status=Exit.DEVIATION)
    assert {line["line"]: (line["end"], line["detail"]) for line in found["lines"]} == {
        1: ("adopted", ""),
        2: ("bad line", "the line must be strict UTF-8 JSON"),
        3: ("left", "middleware missing"),
        4: ("left", "tokens differs (access_token)"),
        5: ("left", "middleware differs (id)"),
        6: ("known already", "active"),
        8: ("bad line", "key: stands in line 1 already"),
        9: ("left", "middleware missing, crm missing, schema missing, subscriptions missing, tokens missing"),
    }
    assert "canary" not in json.dumps(found)
    world.until_active([whole])
    assert world.rows().keys() == {whole, known}
    assert [one.key for one in world.observations()] == [whole]

    said = world.lifecycle("adopt", str(file), "--by", "Ada", status=Exit.DEVIATION)
    assert "middleware missing" in said
    assert "key: stands in line 1 already" in " ".join(said.split())

    # As it is, or updated at once: what an operator says about differences.
    kept = world.adopt(world.file([lines[3]]), "--differing", "keep")
    assert _ends(kept) == {1: "adopted"}
    world.until_active([differs])
    assert world.changes([whole, missing, differs, other_id]) == before, "nothing was made, changed or removed"
    updated = world.adopt(world.file([lines[4]]), "--differing", "update")
    assert _ends(updated) == {1: "adopted"}
    world.until_active([other_id])
    assert world.changes([other_id]) - before == {("middleware", "update"): 1}


def test_a_command_killed_midway_is_repeated_and_tells_the_ledger_once(world: AdoptionWorld) -> None:
    keys = world.vendors_tenants(20)
    before, file = world.changes(keys), world.file([world.line(key) for key in keys])
    world.adopt_and_die(file, after_rows=1)
    written = world.rows()
    assert written.keys() == set(keys), "a batch is one transaction"
    found = world.adopt(file)
    assert set(_ends(found).values()) == {"adopted already"}
    world.until_active(keys)
    assert world.changes(keys) == before
    # By identity: a ledger that was started again may repeat a record.
    told = {one.ce_id: Event.model_validate_json(one.value) for one in world.bench.out(EVENTS)}
    ours = [(one.key, one.event) for one in told.values() if one.key in set(keys)]
    assert len(ours) == len(set(ours)) == 3 * len(keys), "installed, enabled and configuration_updated, once each"
    assert len({one.id for one in world.acts("adoption")}) == len(keys)


@pytest.mark.long
def test_a_released_tenant_is_forgotten_kept_outside_and_adopted_again(world: AdoptionWorld) -> None:
    (key,) = world.vendors_tenants(1)
    world.know(key, configuration=world.line(key)["configuration"])
    before, file = world.changes([key]), world.file([world.line(key)])
    world.adopt(file)
    world.until_active([key])
    world.lifecycle("adopt", "--release", key, status=Exit.UNUSABLE)
    world.lifecycle("adopt", "--release", unknown_key(world.org_id), "--by", "Bob", status=Exit.NOT_FOUND)
    said = world.lifecycle("adopt", "--release", key, "--by", "Bob", "--reason", "wrong file")
    assert "released: nothing outside was removed" in " ".join(said.split())
    eventually(lambda: changed(world, key, stage=Stage.DEPROVISIONED, reason="released"), 60)
    assert (world.changes([key]), world.things([key])) == (before, dict.fromkeys(SYSTEMS, 1))
    assert [one.act.by for one in eventually(lambda: world.acts("release")) if one.act] == ["Bob"]
    assert world.report("--outside")["orphans"]["resources"] == [], "the vendor's resources are nobody's orphans"

    # Genesys has the integration: the reconciler says so, and nothing is made beside the vendor's resources.
    world.run()
    eventually(lambda: changed(world, key, stage=Stage.PENDING_INSTALL, reason="released"), 60)
    assert (world.changes([key]), world.things([key])) == (before, dict.fromkeys(SYSTEMS, 1))
    again = world.lifecycle("adopt", "--release", key, "--by", "Bob")
    assert "released before" in again

    found = world.adopt(file)
    assert _ends(found) == {1: "adopted"}
    world.until_active([key])
    # What Genesys says of the configuration is newer than the file, and reaches the step that uses it.
    assert {verb for _, verb in world.changes([key]) - before} <= {"update"}
    assert world.things([key]) == dict.fromkeys(SYSTEMS, 1)
    world.uninstall(key)
    eventually(lambda: world.is_deprovisioned(key), 120)
    assert world.things([key]) == dict.fromkeys(SYSTEMS, 0)


def test_a_tenant_id_of_another_organisation_is_named(world: AdoptionWorld) -> None:
    mine, theirs = world.vendors_tenants(2)
    foreign = unknown_key(f"{secrets.token_hex(4)}-0000-4000-8000-000000000000")
    world.bench.receive(_install(foreign, tenant_of(mine)), foreign)
    eventually(lambda: foreign in world.view.catch_up(30.0) and changed(world, foreign, stage=Stage.ACTIVE), 60)
    found = world.adopt(world.file([world.line(mine), world.line(theirs)]), status=Exit.DEVIATION)
    assert _ends(found) == {1: "tenantId taken", 2: "adopted"}
    world.until_active([theirs])
    assert mine not in world.rows()
    assert world.things([mine]) == dict.fromkeys(SYSTEMS, 1)


def test_a_system_in_trouble_is_not_read_and_its_tenants_are_left(world: AdoptionWorld) -> None:
    keys = world.vendors_tenants(6)
    world.outside.fault("subscriptions", "error")
    found = world.adopt(world.file([world.line(key) for key in keys]), status=Exit.DEVIATION)
    assert set(_ends(found).values()) == {"left"}
    details = {line["steps"]["subscriptions"]["detail"] for line in found["lines"]}
    assert any(detail.startswith("not asked") for detail in details), "nobody waits for every tenant"
    assert world.rows() == {}
    world.outside.heal()
    world.adopt(world.file([world.line(key) for key in keys]))
    world.until_active(keys)


def test_a_plan_that_no_provisioner_has_kept_adopts_nobody(world: AdoptionWorld) -> None:
    plan = world.folder / "plan.toml"
    plan.write_text('[[step]]\nname = "schema"\nkind = "postgres"\nundo = "reverse"\n')
    (key,) = world.vendors_tenants(1)
    words = ("adopt", str(world.file([world.line(key, steps={})])), "--by", "Ada")
    said = world.lifecycle(*words, status=Exit.UNUSABLE, PLAN_FILE=str(plan))
    assert "PLAN_FILE: no provisioner has run with this plan and this registry" in " ".join(said.split())
    assert world.rows() == {}


def _install(key: str, tenant_id: str) -> bytes:
    from tests.support.ledger_process import body

    return body(key, tenantId=tenant_id, configuration={})
