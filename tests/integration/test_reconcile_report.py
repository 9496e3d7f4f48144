"""The operator's side of reconciliation on real Kafka, PostgreSQL and outside systems: report, rulings and orphans."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from schemas.tenant import Stage
from schemas.times import instant
from schemas.values import Key
from services.adapters.kafka.tenant_view import TenantView
from services.adapters.process.clock import now_us
from services.cli.exits import Exit
from tests.support.eventually import eventually
from tests.support.ledger_process import LedgerBench
from tests.support.operator_world import OperatorWorld, provisioner
from tests.support.provisioner_stage import SYSTEMS
from tests.support.reconciler_world import changed
from tests.support.simulator_process import Outside, outside

pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory, database: str, bench: LedgerBench) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    given = {"keyring_file": str(bench.folder / "keyring.json"), "oauth_client_secret": "s" * 32}
    with outside(folder, database, **given) as running, provisioner(bench, running, database):
        yield running


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


@pytest.mark.long
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


@pytest.mark.long
def test_without_a_name_or_for_another_set_nothing_is_ruled(world: OperatorWorld) -> None:
    keys, digest = _stopped(world, 7, gone=6)
    for words, said in (
        (("--now", "--approve", digest), "--by: say who rules"),
        (("--refuse", digest, "--by", "YOU"), "--by: say who rules"),
        (("--now", "--approve", "0123456789abcdef", "--by", "Ada"), f"removals of this run are approved with {digest}"),
        (("--refuse", "0123456789abcdef", "--by", "Ada"), f"removals of this run are refused with {digest}"),
        (("--now", "--approve", digest, "--by", "Ada", "--expires", "0"), "--expires: 0 would rule on nothing"),
    ):
        told = world.lifecycle("reconcile", *words, *world.scope, status=Exit.UNUSABLE)
        assert said in " ".join(told.split())
    told = world.lifecycle(
        "reconcile", "--now", "--approve", digest, "--by", "Ada", *world.scope, status=Exit.UNUSABLE, DATABASE_URL=""
    )
    assert "DATABASE_URL: missing" in told
    assert world.observations() == []
    assert world.acts("removal_approved") == world.acts("removal_refused") == []
    assert all(world.tenant(key).installed for key in keys)


@pytest.mark.long
def test_a_mass_disappearance_is_shown_and_let_go_once_by_name(world: OperatorWorld) -> None:
    keys, digest = _stopped(world, 20, gone=6)
    assert world.differences() == {key: [("Genesys lost it", "operator")] for key in keys[:6]}
    said = world.lifecycle("reconcile", "--report", *world.scope, status=Exit.DEVIATION)
    approve = f"lifecycle reconcile --now --org {world.org_id[:8]} --approve {digest} --by YOU"
    assert "STOPPED: 6 tenants gone, at most 5 may go in one run" in said
    assert [line.strip() for line in said.splitlines() if "--approve" in line] == [approve]
    words = [*approve.removesuffix("YOU").split()[1:], "Ada", "--reason", "closed"]
    said = world.lifecycle(*words)
    assert f"approved by Ada: 6 removals ({digest}), until" in " ".join(said.split())
    assert {one.key for one in world.observations()} == set(keys[:6])
    acts = world.acts("removal_approved")
    assert {one.key for one in acts} == set(keys[:6])
    assert {(one.act.by, one.act.reason, one.act.digest, one.act.number) for one in acts if one.act} == {
        ("Ada", "closed", digest, 6)
    }
    eventually(lambda: all(changed(world, key, stage=Stage.DEPROVISIONED) for key in keys[:6]), 120)
    assert all(world.tenant(key).installed for key in keys[6:])
    assert "this run removes nobody" in world.lifecycle(*words, status=Exit.UNUSABLE)
    assert len(world.acts("removal_approved")) == 6, "a second approval rules on nothing"


@pytest.mark.long
def test_a_refusal_by_name_keeps_the_tenants_and_lets_the_rest_go_on(world: OperatorWorld) -> None:
    keys, digest = _stopped(world, 9, gone=6)
    said = world.lifecycle("reconcile", "--refuse", digest, "--by", "Ada", "--reason", "a wrong role", *world.scope)
    assert "refused by Ada: 6 removals" in " ".join(said.split())
    assert {(one.key, one.act.by) for one in world.acts("removal_refused") if one.act} == {
        (key, "Ada") for key in keys[:6]
    }
    world.know(keys[8], enabled=False)
    world.lifecycle("reconcile", "--now", *world.scope)
    world.run_twice()
    assert [(one.key, one.enabled) for one in world.observations()] == [(keys[8], False)]
    assert all(world.tenant(key).installed for key in keys[:6])
    found = world.report()
    assert (found["brake"]["holds"], found["refused"][0]["by"], found["refused"][0]["keys"]) == (
        False,
        "Ada",
        sorted(keys[:6]),
    )
    assert {tuple(found["by"] for found in one["differences"]) for one in found["keys"]} == {("nobody",)}
    world.forget(keys[6])
    again = world.run_twice().stopped
    assert again is not None, "a new absence brakes again"
    assert again.absent == 7
    assert len(world.observations()) == 1


def test_new_tenants_are_let_in_by_name(world: OperatorWorld) -> None:
    keys = [world.new_key() for _ in range(6)]
    for key in keys:
        world.know(key)
    (held,) = world.report()["held"]
    refused = world.lifecycle(
        "reconcile", "--refuse", held["approval"], "--by", "Ada", *world.scope, status=Exit.UNUSABLE
    )
    assert "new tenants of an organisation stay held by themselves" in " ".join(refused.split())
    world.lifecycle("reconcile", "--now", "--approve", held["approval"], *world.scope, LIFECYCLE_OPERATOR="Bob")
    acts = world.acts("newcomer_approved")
    assert {one.key for one in acts} == {one.key for one in world.observations()} == set(keys)
    assert {one.act.by for one in acts if one.act} == {"Bob"}


@pytest.mark.long
def test_an_orphan_of_an_ended_life_is_listed_and_removed_after_two_looks(world: OperatorWorld) -> None:
    (key,) = world.provisioned(1)
    world.uninstall(key)
    eventually(lambda: changed(world, key, stage=Stage.DEPROVISIONED), 60)
    eventually(lambda: world.is_at_rest(key), 120)
    world.put(key, 1)
    world.make_schema(key, 1)
    assert world.differences() == {}, "the journal knows of nothing"
    found = world.report("--outside")
    assert [(one["generation"], one["step"]) for one in found["orphans"]["resources"]] == [
        (1, "middleware"),
        (1, "schema"),
    ]
    assert found["keys"][0]["differences"][0]["difference"] == "outside holds what nobody desires"
    assert found["orphans"]["digest"] is None, "seen once"
    first = found["orphans"]["resources"][0]["first_seen"]
    eventually(lambda: now_us() > instant(first) + 2_000_000)
    found = world.report("--outside")
    assert [one["first_seen"] for one in found["orphans"]["resources"]] == [first, first]
    said = world.lifecycle("reconcile", "--report", "--outside", *world.scope, status=Exit.DEVIATION)
    digest = found["orphans"]["digest"]
    assert f"lifecycle reconcile --org {world.org_id[:8]} --remove-orphans {digest} --by YOU" in said
    for words in (("x", "--by", "Ada"), (digest, "--by", "YOU")):
        world.lifecycle("reconcile", "--remove-orphans", *words, *world.scope, status=Exit.UNUSABLE)
    assert world.outside.inventory("middleware", key) != []
    said = world.lifecycle("reconcile", "--remove-orphans", digest, "--by", "Ada", *world.scope)
    assert "removal asked: the provisioner looks again and deletes" in " ".join(said.split())
    eventually(lambda: world.outside.inventory("middleware", key) == [], 60)
    eventually(lambda: world.report("--outside")["orphans"]["resources"] == [], 60)
    (act,) = eventually(lambda: world.acts("orphans_removal"))
    assert act.act is not None
    assert (act.key, act.act.by, act.act.digest, act.act.number) == (key, "Ada", digest, 2)


@pytest.mark.long
def test_a_storm_of_uninstalls_is_held_refused_and_let_go_by_name(world: OperatorWorld) -> None:
    # The last test of the file: its storm closes the brake of the provisioner for an hour.
    keys = world.provisioned(8)
    for key in keys:
        world.uninstall(key)
    held = eventually(lambda: _held(world, keys), 120)
    assert held is not None
    assert 3 <= len(held["keys"]) < len(keys), "the first of them went"
    differences = world.differences()
    assert {key: differences.get(key) for key in held["keys"]} == {
        key: [("teardown held", "operator")] for key in held["keys"]
    }
    digest = held["digest"]
    said = world.lifecycle("reconcile", "--report", *world.scope, status=Exit.DEVIATION)
    assert f"STOPPED: the provisioner holds {len(held['keys'])} removals" in said
    assert f"lifecycle reconcile --org {world.org_id[:8]} --refuse {digest} --by YOU" in said
    world.lifecycle("reconcile", "--refuse", digest, "--by", "Ada", *world.scope)
    refused = {**held, "refused": len(held["keys"]), "digest": None, "digest_keys": []}
    assert world.report()["held_removals"] == refused
    approve = ("reconcile", "--now", "--approve", digest, "--by", "Bob")
    other = world.lifecycle(*approve, *world.scope, status=Exit.UNUSABLE)
    assert f"{len(held['keys'])} that it holds were refused, and are approved by KEY alone" in " ".join(other.split())
    said = world.lifecycle(*approve, *held["keys"])
    assert "approved by Bob" in said
    eventually(lambda: all(changed(world, key, stage=Stage.DEPROVISIONED) for key in keys), 120)
    world.lifecycle(*approve, *held["keys"], status=Exit.UNUSABLE)
    for what, by in (("removal_refused", "Ada"), ("removal_approved", "Bob")):
        assert {(one.key, one.act.by) for one in world.acts(what) if one.act} == {(key, by) for key in held["keys"]}


def _held(world: OperatorWorld, keys: list[Key]) -> dict[str, Any] | None:
    """The removals that the provisioner holds, once each removal has either ended or is held."""
    held: dict[str, Any] = world.report()["held_removals"]
    gone = sum(changed(world, key, stage=Stage.DEPROVISIONED) for key in keys)
    return held if gone + len(held["keys"]) == len(keys) else None


def _stopped(world: OperatorWorld, count: int, *, gone: int) -> tuple[list[Key], str]:
    """Tenants of which the first are gone from Genesys, seen twice; and the digest of their removals."""
    keys = sorted(world.provisioned(count))
    assert world.run().lines == ()
    for key in keys[:gone]:
        world.forget(key)
    stopped = world.run_twice().stopped
    assert stopped is not None
    assert stopped.approval is not None
    return keys, stopped.approval
