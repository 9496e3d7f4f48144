"""Lost webhooks are noticed by Genesys' audits alone: a real ledger and Kafka, a listing once an hour."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from services.adapters.kafka.tenant_view import TenantView
from services.adapters.process.clock import now_us
from services.reconciler.audit_memory import sync_times
from tests.support.eventually import eventually
from tests.support.ledger_process import LedgerBench
from tests.support.reconciler_world import ReconcilerWorld, changed
from tests.support.simulator_process import outside

pytestmark = pytest.mark.engines

INTERVAL_S = 1.0
SOON_S = 10 * INTERVAL_S
"""An interval, a second to settle, two looks a second apart, and a busy machine."""


@pytest.fixture
def world(bench: LedgerBench, view: TenantView, tmp_path: Path) -> Iterator[ReconcilerWorld]:
    # A Genesys of its own for each test: an audit outlives the test that caused it.
    with outside(tmp_path) as genesys:
        yield ReconcilerWorld(bench, genesys, tmp_path, view)


def read(world: ReconcilerWorld, result: str = "read") -> float:
    """Readings of audits so far, as the service counts them."""
    return _metric(world, f'audit_reads_total{{result="{result}"}}')


def _metric(world: ReconcilerWorld, name: str) -> float:
    lines = httpx2.get(f"{world.health}/metrics").text.splitlines()
    # A counter with labels shows nothing before it counts.
    found = (float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"lifecycle_reconciler_{name} "))
    return next(found, 0.0)


@contextmanager
def following(world: ReconcilerWorld, interval: str = "3600") -> Iterator[None]:
    """The service after its first whole run; the next is an hour away, unless the test says so."""
    since_s = now_us() / 1_000_000
    with world.service(RECONCILE_INTERVAL_S=interval, RECONCILE_AUDIT_INTERVAL_S=str(INTERVAL_S)):
        eventually(lambda: _metric(world, "last_success_timestamp_seconds") >= since_s)
        yield


def logged(world: ReconcilerWorld, event: str) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in (world.folder / "reconciler.log").read_text().splitlines() if line[:1] == "{"]
    return [line for line in lines if line["event"] == event]


def test_an_install_without_a_webhook_converges_by_audits_alone(world: ReconcilerWorld) -> None:
    known, fresh = world.new_key(), world.new_key()
    world.install(known)
    with following(world):
        world.know(fresh)
        eventually(lambda: fresh in world.view.catch_up(30) and changed(world, fresh, installed=True), SOON_S)
    assert [(one.key, one.installed) for one in world.observations()] == [(fresh, True)]


def test_an_uninstall_without_a_webhook_converges_by_audits_alone(world: ReconcilerWorld) -> None:
    removed, kept = world.new_key(), world.new_key()
    world.install(removed)
    world.install(kept)
    # A first life of the service takes on the audits of the installs: a key is read at most every five minutes.
    with following(world):
        eventually(lambda: sync_times(world.folder) and not sync_times(world.folder)[world.org_id].waiting)
    with following(world):
        world.forget(removed)
        eventually(lambda: changed(world, removed, installed=False), SOON_S)
    assert [(one.key, one.installed) for one in world.observations()] == [(removed, False)]
    assert world.tenant(kept).installed


def test_a_tenant_removed_before_its_first_sight_is_removed_by_the_audit_of_that(world: ReconcilerWorld) -> None:
    unseen, kept = world.new_key(), world.new_key()
    world.install(unseen)
    world.install(kept)
    world.forget(unseen)
    with following(world):
        eventually(lambda: changed(world, unseen, installed=False), SOON_S)
    assert [(one.key, one.installed) for one in world.observations()] == [(unseen, False)]
    assert world.tenant(kept).installed


@pytest.mark.long
def test_nothing_is_missed_while_the_audits_are_away(world: ReconcilerWorld) -> None:
    known = world.new_key()
    world.install(known)
    with following(world):
        eventually(lambda: read(world) > 0)
        world.outside.fault("genesys", "error", path="/audits")
        eventually(lambda: read(world, "no_information") > 0)
        missed = [world.new_key() for _ in range(3)]
        for key in missed:
            world.know(key)
        eventually(lambda: read(world, "no_information") > 1)
        assert world.observations() == []
        world.outside.heal()
        eventually(lambda: {one.key for one in world.observations()} == set(missed), 30)
    (said,) = logged(world, "audits not read")
    assert said["org"] == world.org_id
    assert "HTTP 503 service.unavailable (correlation " in said["why"]
    assert len(logged(world, "audits are read again")) == 1


def test_a_missing_permission_is_named_once_and_the_listing_goes_on(world: ReconcilerWorld) -> None:
    known, drifted = world.new_key(), world.new_key()
    world.install(known)
    world.outside.fault("genesys", "refuse", path="/audits")
    with following(world, interval="3"):
        eventually(lambda: read(world, "not_permitted") > 1)
        world.know(drifted)
        eventually(lambda: [one.key for one in world.observations()] == [drifted])
        assert httpx2.get(f"{world.health}/readyz").status_code == 200
        assert _metric(world, 'organisations{result="unanswered"}') == 0
        # A listing is as good as the audits.
        eventually(lambda: _metric(world, "oldest_sync_seconds") < 60)
    (said,) = logged(world, "audits not read")
    assert "HTTP 403 missing.any.permissions" in said["why"]


def test_audits_of_an_integration_that_came_and_went_say_nothing(world: ReconcilerWorld) -> None:
    known, stranger = world.new_key(), world.new_key()
    world.install(known)
    world.know(stranger)
    world.forget(stranger)
    with following(world):
        eventually(lambda: read(world) > 3)
        eventually(lambda: not sync_times(world.folder)[world.org_id].waiting)
        assert (world.observations(), _metric(world, "unread_total")) == ([], 0)
