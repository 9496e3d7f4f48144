"""The reconciler between a real Genesys API, a real ledger and Kafka: differences are observed, lies change nothing."""

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from schemas.event import Recheck
from services.adapters.kafka.tenant_view import TenantView
from services.adapters.process.clock import now_us
from services.adapters.process.environment import read
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import ReconcilerSettings
from services.cli.exits import Exit
from services.cli.reconcile_text import Commands, print_run, status_of
from services.core.reconcile.reconcile import Action
from services.operations.reconciliation import ReportScope
from services.reconciler.report import RunReport
from services.reconciler.run import RunRequest, open_resources, run
from tests.support.eventually import eventually
from tests.support.genesys_server import FakeGenesys, serving_beside
from tests.support.ledger_process import LedgerBench
from tests.support.reconciler_world import CONFIGURATION, ReconcilerWorld, changed, tenant_of
from tests.support.simulator_process import Outside
from tests.support.terminal import COLUMNS, on_terminal

pytestmark = pytest.mark.engines


@pytest.fixture
def world(bench: LedgerBench, genesys: Outside, view: TenantView, tmp_path: Path) -> Iterator[ReconcilerWorld]:
    yield ReconcilerWorld(bench, genesys, tmp_path, view)
    genesys.heal()


def test_a_run_holds_the_configurations_of_differing_keys_alone(world: ReconcilerWorld) -> None:
    marked = {**CONFIGURATION, "mapping": {"mark": world.new_key()}}
    agreeing, differing = [world.new_key() for _ in range(3)], world.new_key()
    for key in (*agreeing, differing):
        world.install(key, marked)
    world.know(differing, configuration={**marked, "syncInterval": "PT1M"})
    held: list[int] = []

    async def count_held() -> None:
        # The plan exists, and nothing is published yet: all that a run has read is still held.
        held.append(
            sum(
                type(found) is dict and found.get("mapping") == marked["mapping"] and found is not marked
                for found in gc.get_objects()
            )
        )

    async def run_and_count() -> RunReport:
        resources = open_resources(read(world.environ, ReconcilerSettings), now_us, count_held)
        try:
            return await run(resources, RunRequest(orgs=[world.org_id]))
        finally:
            await resources.close()

    assert {line.key for line in asyncio.run(run_and_count()).lines} == {differing}
    assert held == [1]


def test_unreported_drift_is_observed_and_folded(world: ReconcilerWorld) -> None:
    disabled, removed, untouched, unheard = (world.new_key() for _ in range(4))
    for key in (disabled, removed, untouched):
        world.install(key)
    assert world.run().lines == ()
    world.know(disabled, enabled=False)
    world.forget(removed)
    world.know(unheard, enabled=False)
    last = world.run_twice()
    assert last.refusals == ()
    seen = {one.key: (one.installed, one.enabled, one.configuration) for one in world.observations()}
    assert seen == {
        disabled: (True, False, None),
        removed: (False, None, None),
        unheard: (True, False, {**CONFIGURATION, "tenantId": tenant_of(unheard)}),
    }
    eventually(lambda: changed(world, disabled, installed=True, enabled=False))
    eventually(lambda: changed(world, removed, installed=False, tenant_id=tenant_of(removed)))
    eventually(lambda: changed(world, unheard, installed=True, enabled=False, tenant_id=tenant_of(unheard)))
    assert world.run_twice().lines == ()
    assert len(world.observations()) == 3


def test_a_dry_run_publishes_and_remembers_no_observation(world: ReconcilerWorld) -> None:
    key = world.new_key()
    world.know(key)
    report = world.run(dry_run=True)
    assert [(line.key, line.action) for line in report.lines] == [(key, Action.INSTALL)]
    assert (report.published, world.observations()) == (0, [])
    assert not (world.folder / "reconciler" / "sights.json").exists()
    assert report.as_json()["plan"][0]["action"] == "install"


@pytest.mark.parametrize(
    "lie", ["unauthorized", "refuse", pytest.param("error", marks=pytest.mark.long), "empty", "missing_page", "down"]
)
def test_a_lying_or_unreachable_api_publishes_no_observation(world: ReconcilerWorld, lie: str) -> None:
    here, gone = world.new_key(), world.new_key()
    world.install(here)
    world.install(gone)
    assert world.run().lines == ()
    world.forget(gone)
    world.outside.fault("genesys", lie)
    for _ in range(2):
        report = world.run_twice()
        assert (report.lines, report.published, report.read) == ((), 0, ())
        assert [refusal.scope for refusal in report.refusals] == [world.org_id]
    assert world.observations() == []
    assert world.tenant(gone).installed


def test_an_organisation_without_usable_credentials_is_no_information(world: ReconcilerWorld) -> None:
    key = world.new_key()
    world.install(key)
    file = world.outside.orgs / f"{world.org_id}.json"
    good = file.read_text()
    another = world.org_id[:-1] + ("1" if world.org_id.endswith("0") else "0")
    for text in ("{}", good.replace("client_secret", "secret"), good.replace(world.org_id, another)):
        file.write_text(text)
        report = world.run()
        assert (report.read, report.lines) == ((), ())
        assert report.refusals[0].reason.startswith("organisation file: ")
        assert good[60:90] not in str(report)
    file.unlink()
    assert world.run().refusals[0].reason == "organisation file: missing"


def test_a_recheck_is_answered_by_an_observation_without_a_difference(world: ReconcilerWorld) -> None:
    key = world.new_key()
    world.install(key)
    world.bench.tell(Recheck(key=key, reason="test", at=now_us()), key)
    eventually(lambda: world.tenant(key).recheck_at is not None)
    report = world.run_twice()
    assert [(line.key, line.action) for line in report.lines] == [(key, Action.CONFIRM)]
    (observed,) = world.observations()
    assert (observed.installed, observed.enabled, observed.configuration) == (True, True, CONFIGURATION)
    eventually(lambda: world.tenant(key).recheck_at is None)


def test_the_brake_holds_until_exactly_the_stopped_removals_are_approved(world: ReconcilerWorld) -> None:
    keys = [world.new_key() for _ in range(7)]
    for key in keys:
        world.install(key)
    assert world.run().lines == ()
    for key in keys[:6]:
        world.forget(key)
    stopped = world.run_twice()
    assert stopped.stopped is not None
    assert world.observations() == []
    with pytest.raises(Unusable, match=f"--approve: 'another'.* approved with {stopped.stopped.approval}"):
        world.run(approval="another")
    assert world.observations() == []
    report = world.run(approval=stopped.stopped.approval)
    assert (report.published, report.stopped) == (6, None)
    assert {one.key for one in world.observations()} == set(keys[:6])
    eventually(lambda: all(changed(world, key, installed=False) for key in keys[:6]))
    assert world.tenant(keys[6]).installed


def test_a_new_organisation_waits_for_the_approval_of_exactly_its_new_tenants(world: ReconcilerWorld) -> None:
    for _ in range(6):
        world.know(world.new_key())
    (first,) = world.run().held
    assert (first.org_id, first.newcomers) == (world.org_id, 6)
    assert status_of(world.run().as_json()) is Exit.DEVIATION
    assert world.observations() == []
    world.know(world.new_key())
    with pytest.raises(Unusable, match=f"--approve: '{first.approval}': the 7 new tenants of {world.org_id} are appr"):
        world.run(approval=first.approval)
    assert world.observations() == [], "an approval of another set lets nobody in"
    (second,) = world.run(dry_run=True).held
    report = world.run(approval=second.approval)
    assert (report.published, report.held) == (7, ())
    for _ in range(6):
        world.know(world.new_key())
    assert world.run().published == 6, "only the first comparison is held"
    with pytest.raises(Unusable, match="this run removes nobody"):
        world.run(approval=second.approval)


def test_the_command_that_a_held_run_prints_lets_the_organisation_in(world: ReconcilerWorld) -> None:
    for _ in range(7):
        world.know(world.new_key())

    def lifecycle(*words: str, status: Exit) -> str:
        own = {"PYTHONPATH": str(Path(__file__).parents[2]), **world.environ}
        ended, said = on_terminal(*words, cwd=world.folder, **own)
        assert ended == status, said
        return said

    plan = lifecycle("reconcile", "--dry-run", "--org", world.org_id, status=Exit.DEVIATION)
    assert f"HELD: {world.org_id}: would create 7 tenants, and at most 5" in " ".join(plan.split())
    (command,) = [line.strip() for line in plan.splitlines() if "--approve" in line]
    assert len(command) <= COLUMNS
    words = command.split()[1:]
    assert "--by: say who rules" in " ".join(lifecycle(*words, status=Exit.UNUSABLE).split()), "YOU is nobody's name"
    words[-1] = "Ada"
    assert lifecycle(*words, status=Exit.OK).endswith("7 observations published\n")
    assert len(world.observations()) == 7
    assert "this run removes nobody" in " ".join(lifecycle(*words, status=Exit.UNUSABLE).split())


def test_an_organisation_with_tenants_by_webhook_is_compared_without_an_approval(world: ReconcilerWorld) -> None:
    world.install(world.new_key())
    for _ in range(7):
        world.know(world.new_key())
    report = world.run()
    assert (report.published, report.held) == (7, ())


def test_a_webhook_does_not_let_a_held_organisation_in(world: ReconcilerWorld) -> None:
    for _ in range(7):
        world.know(world.new_key())
    assert world.run().held
    world.install(world.new_key())
    (held,) = world.run().held
    assert held.newcomers == 7
    assert world.observations() == []


def test_the_service_holds_a_new_organisation_until_an_operator_approves(world: ReconcilerWorld) -> None:
    for _ in range(7):
        world.know(world.new_key())
    with world.service() as url:
        eventually(lambda: gauge(url, "held_organisations") == 1)
        assert world.observations() == []
        (line,) = [one for one in world.log() if one["event"] == "first comparison held"]
        assert (line["org"], line["newcomers"]) == (world.org_id, 7)
        assert world.run(approval=line["approval"]).published == 7
        eventually(lambda: gauge(url, "held_organisations") == 0)


@pytest.mark.long
def test_the_service_compares_an_organisation_soon_after_its_file_is_added(world: ReconcilerWorld) -> None:
    other, fresh = world.new_key(), world.new_key()
    world.install(other)
    org_id = world.org_id
    file = world.outside.orgs / f"{org_id}.json"
    whole = file.read_text()
    file.unlink()
    with world.service(RECONCILE_INTERVAL_S="3600") as url:
        eventually(lambda: gauge(url, "last_run_timestamp_seconds") > 0)
        file.write_text("{")
        eventually(lambda: gauge(url, 'organisation_files{state="broken"}') == 1)
        world.know(fresh)
        file.write_text(whole)
        eventually(lambda: gauge(url, 'organisation_files{state="broken"}') == 0)
        eventually(lambda: [one.key for one in world.observations()] == [fresh], 60)
        assert {"organisation file broken", "organisation files changed"} <= {one["event"] for one in world.log()}


def test_an_integration_with_null_properties_leaves_the_others_read(world: ReconcilerWorld) -> None:
    keys = sorted(world.new_key() for _ in range(5))
    for key in keys:
        world.install(key)
    told = FakeGenesys(world.org_id)
    for key in keys:
        told.add(key.partition(":")[2], "DISABLED" if key == keys[4] else "ENABLED", **CONFIGURATION)
    for key in keys[:3]:
        told.integrations[key.partition(":")[2]]["properties"] = None
    with serving_beside(told):
        report = world.run_twice({"GENESYS_LOGIN_URL": f"{told.url}/login", "GENESYS_API_URL": told.url})
    assert (report.published, report.unread) == (1, 3)
    assert [(one.key, one.enabled) for one in world.observations()] == [(keys[4], False)]
    assert {line.key for line in report.lines if line.action is Action.UNREAD} == set(keys[:3])
    assert status_of(report.as_json()) is Exit.DEVIATION
    print_run(report.as_json(), Commands(ReportScope(), None))
    eventually(lambda: changed(world, keys[4], enabled=False))


@pytest.mark.long
def test_the_service_shows_the_state_after_an_operators_run(world: ReconcilerWorld) -> None:
    keys = [world.new_key() for _ in range(7)]
    for key in keys:
        world.install(key)
    with world.service() as url:
        eventually(lambda: all(world.has_seen(key) for key in keys))
        eventually(lambda: gauge(url, "last_success_timestamp_seconds") > 0)
        for key in keys[:6]:
            world.forget(key)
        stopped = world.run_twice().stopped
        assert stopped is not None
        eventually(lambda: gauge(url, "brake_engaged") == 1)
        before_s = now_us() / 1_000_000
        assert world.run(whole=True).stopped is not None
        eventually(lambda: gauge(url, "last_run_timestamp_seconds") >= before_s)
        assert gauge(url, "last_success_timestamp_seconds") < before_s
        report = world.run(whole=True, approval=stopped.approval)
        assert (report.published, report.succeeded) == (6, True)
        eventually(lambda: gauge(url, "brake_engaged") == 0)
        eventually(lambda: gauge(url, "last_success_timestamp_seconds") >= before_s)
    with world.service() as url:
        # Nor does a restart forget it.
        eventually(lambda: gauge(url, "last_success_timestamp_seconds") >= before_s)


@pytest.mark.long
def test_a_run_with_an_unread_organisation_is_no_success(world: ReconcilerWorld) -> None:
    key = world.new_key()
    world.install(key)
    with world.service(RECONCILE_INTERVAL_S="1") as url:
        eventually(lambda: gauge(url, "last_success_timestamp_seconds") > 0)
        world.outside.fault("genesys", "error")
        eventually(lambda: gauge(url, 'organisations{result="unanswered"}') > 0)
        success_s = gauge(url, "last_success_timestamp_seconds")
        run_s = gauge(url, "last_run_timestamp_seconds")
        eventually(lambda: gauge(url, "last_run_timestamp_seconds") > run_s)
        assert gauge(url, "last_success_timestamp_seconds") == success_s
        world.outside.heal()
        eventually(lambda: gauge(url, 'organisations{result="unanswered"}') == 0)
        eventually(lambda: gauge(url, "last_success_timestamp_seconds") > success_s)


@pytest.mark.long
def test_a_run_with_an_unread_organisation_is_repeated_soon(world: ReconcilerWorld) -> None:
    world.install(world.new_key())
    world.outside.fault("genesys", "error")
    with world.service(RECONCILE_INTERVAL_S="3600") as url:
        eventually(lambda: gauge(url, 'organisations{result="unanswered"}') > 0)
        assert gauge(url, 'reads_total{result="no_answer"}') > 0
        world.outside.heal()
        eventually(lambda: gauge(url, 'organisations{result="unanswered"}') == 0, 60)
        assert gauge(url, "last_success_timestamp_seconds") > 0


@pytest.mark.long
def test_a_run_that_fails_after_reading_genesys_is_not_repeated_every_second(world: ReconcilerWorld) -> None:
    world.install(world.new_key())
    # The memory can be read, and not written.
    barrier = world.folder / "reconciler" / "sights.new"
    barrier.mkdir(parents=True)
    with world.service(ready=False, RECONCILE_INTERVAL_S="3600") as url:
        eventually(lambda: str(barrier) in httpx2.get(f"{url}/readyz").text)
        read, shown_us = _reads(url), now_us()
        eventually(lambda: now_us() > shown_us + 6_000_000)
        assert _reads(url) == read
        assert str(barrier) in httpx2.get(f"{url}/readyz").text, "not ready before a run ends well"
        barrier.rmdir()
        eventually(lambda: httpx2.get(f"{url}/readyz").status_code == 200, 60)
        eventually(lambda: gauge(url, "last_success_timestamp_seconds") > 0)


def _reads(url: str) -> float:
    """Number of organisations read by whole and early runs."""
    return gauge(url, 'reads_total{result="read"}')


def gauge(url: str, name: str) -> float:
    """A metric of the reconciler's, now."""
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"lifecycle_reconciler_{name} "))


def test_an_approval_of_no_removals_is_refused(world: ReconcilerWorld) -> None:
    key = world.new_key()
    world.know(key)
    with pytest.raises(Unusable, match="--approve: '0123456789abcdef': this run removes nobody and holds"):
        world.run(approval="0123456789abcdef")
    assert world.observations() == []
    assert world.run(dry_run=True).lines != (), "there was something to publish"


def test_the_service_repeats_its_runs_and_ends_on_sigterm(world: ReconcilerWorld) -> None:
    removed, asked = world.new_key(), world.new_key()
    world.install(removed)
    world.install(asked)
    with world.service() as url:
        eventually(lambda: world.has_seen(removed))
        world.bench.tell(Recheck(key=asked, reason="test", at=now_us()), asked)
        eventually(lambda: any(one.key == asked for one in world.observations()))
        world.forget(removed)
        world.run()  # the first look; the second is the service's
        eventually(lambda: changed(world, removed, installed=False))
        answer = httpx2.get(f"{url}/metrics").text
        assert 'lifecycle_reconciler_observations_total{cause="recheck"}' in answer


@pytest.mark.long
def test_the_service_reads_a_tenant_as_soon_as_it_is_active(world: ReconcilerWorld) -> None:
    other, fresh = world.new_key(), world.new_key()
    world.install(other)
    with world.service():
        eventually(lambda: world.has_seen(other))
        world.install(fresh)
        world.conclude(fresh)
        eventually(lambda: world.has_seen(fresh))
    assert world.observations() == []


def test_the_service_reports_that_it_waits_for_its_topics(world: ReconcilerWorld) -> None:
    with world.service(ready=False, TOPIC_PREFIX="nobody-made-these-") as url:
        eventually(lambda: "no such topic" in httpx2.get(f"{url}/readyz").text)
