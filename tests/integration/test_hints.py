"""Hints alone, between a real ingress, ledger, reconciler and Genesys API: no webhook, and an hour between two runs."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from schemas.event import Recheck
from schemas.topics import RECEIVED, TENANTS
from schemas.values import Key
from services.adapters.kafka.tenant_view import TenantView
from services.adapters.process.clock import now_us
from services.simulator.genesys import OTHER_TYPE
from tests.support.eventually import eventually
from tests.support.hint_queue import hint_queue, moto, reader
from tests.support.hints import envelope, hint_request
from tests.support.ingress_process import Ingress, Line, ingress
from tests.support.ledger_process import LedgerBench
from tests.support.reconciler_world import CONFIGURATION, SECOND_LOOK_S, ReconcilerWorld, changed, tenant_of
from tests.support.simulator_process import Outside

pytestmark = pytest.mark.engines

SOON_S = 20.0
"""Seconds; far below the hour between two runs."""


@dataclass
class Hinted:
    """A world whose reconciler has made its first run and will not make a second within the test."""

    world: ReconcilerWorld
    edge: Ingress
    metrics_url: str

    def hint(self, key: Key, action: str, **how: Any) -> int:
        return self.edge.ask(hint_request(envelope(key, action), **how)).status

    def reads(self) -> float:
        """Readings of organisations, whole or early."""
        lines = httpx2.get(f"{self.metrics_url}/metrics").text.splitlines()
        name = 'lifecycle_reconciler_reads_total{result="read"}'
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)

    def asked(self) -> dict[str, int]:
        """Requests and refusals that the simulator has counted for the organisation."""
        found = httpx2.get(f"{self.world.outside.url}/genesys/control/budgets").raise_for_status().json()
        counts: dict[str, int] = found[self.world.org_id]
        return counts


@pytest.fixture
def hinted(bench: LedgerBench, genesys: Outside, view: TenantView, edge: Ingress, tmp_path: Path) -> Iterator[Hinted]:
    world = ReconcilerWorld(bench, genesys, tmp_path, view)
    # An organisation that the first run reads, and with it the credentials of all later integrations.
    world.know(world.new_key())
    with world.service(RECONCILE_INTERVAL_S="3600") as url:
        eventually(lambda: gauge(url, "last_success_timestamp_seconds") > 0)
        yield Hinted(world, edge, url)


def gauge(url: str, name: str) -> float:
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"lifecycle_reconciler_{name} "))


def known(hinted: Hinted, key: Key) -> bool:
    return key in hinted.world.view.catch_up(30.0)


def test_a_hint_alone_installs_an_integration_of_which_nobody_heard(hinted: Hinted) -> None:
    world, key = hinted.world, hinted.world.new_key()
    world.know(key)
    began_us = now_us()
    assert hinted.hint(key, "Create") == 200
    eventually(lambda: changed(world, key, installed=True, tenant_id=tenant_of(key), recheck_at=None), SOON_S)
    print(f"installed {(now_us() - began_us) / 1_000_000:.1f} s after the hint")
    (observed,) = [one for one in world.observations() if one.key == key]
    assert (observed.installed, observed.enabled, observed.cause) == (True, True, "recheck")


def test_an_audit_in_a_queue_alone_installs_an_integration_of_which_nobody_heard(
    hinted: Hinted, tmp_path: Path
) -> None:
    world, key = hinted.world, hinted.world.new_key()
    world.know(key)
    bench, folder = world.bench, tmp_path / "queue"
    folder.mkdir()
    with (
        moto(folder) as amazon,
        hint_queue(amazon) as queue,
        reader(bench.bootstrap, bench.prefix, folder, queue.environ) as running,
    ):
        eventually(running.is_ready)
        began_us = now_us()
        queue.tell(envelope(key, "Create"))
        eventually(lambda: known(hinted, key) and changed(world, key, installed=True, recheck_at=None), SOON_S)
        print(f"installed {(now_us() - began_us) / 1_000_000:.1f} s after the message")
        eventually(lambda: queue.counts() == (0, 0))
    (observed,) = [one for one in world.observations() if one.key == key]
    assert (observed.installed, observed.enabled, observed.cause) == (True, True, "recheck")


@pytest.mark.long
def test_a_hint_is_believed_in_seconds_with_the_second_look_that_ships(
    bench: LedgerBench, genesys: Outside, view: TenantView, edge: Ingress, tmp_path: Path
) -> None:
    world = ReconcilerWorld(bench, genesys, tmp_path, view)
    new = world.new_key()
    # An organisation that the first run reads, and with it the credentials of the integration.
    world.know(world.new_key())
    with world.service(RECONCILE_INTERVAL_S="3600", RECONCILE_SECOND_LOOK_S="600") as url:
        hinted = Hinted(world, edge, url)
        eventually(lambda: gauge(url, "last_success_timestamp_seconds") > 0)
        world.know(new)
        assert hinted.hint(new, "Create") == 200
        eventually(lambda: known(hinted, new) and changed(world, new, installed=True), SOON_S)


def test_a_hint_alone_disables_and_removes_a_tenant_after_two_sights(hinted: Hinted) -> None:
    world = hinted.world
    paused, gone = world.new_key(), world.new_key()
    for key in (paused, gone):
        world.install(key)
        world.conclude(key)
    eventually(lambda: world.has_seen(paused) and world.has_seen(gone), SOON_S)
    eventually(lambda: now_us() > world.tenant(gone).updated_at + int(SECOND_LOOK_S * 1_000_000))
    world.know(paused, enabled=False)
    world.forget(gone)
    began_us = now_us()
    assert (hinted.hint(paused, "Disable"), hinted.hint(gone, "Delete")) == (200, 200)
    eventually(lambda: changed(world, paused, installed=True, enabled=False), SOON_S)
    eventually(lambda: changed(world, gone, installed=False), SOON_S)
    assert now_us() - began_us > SECOND_LOOK_S * 1_000_000, "an absence counts after a second sight alone"
    assert [one.cause for one in world.observations() if one.key in {paused, gone}] == ["recheck", "recheck"]


def test_a_thousand_hints_for_a_key_cost_one_read(hinted: Hinted) -> None:
    world, key = hinted.world, hinted.world.new_key()
    world.know(key)
    reads, before = hinted.reads(), hinted.asked()
    with contextlib.closing(Line(hinted.edge.port)) as line:
        for _ in range(10):
            line.write(b"".join(hint_request(envelope(key, "Update")) for _ in range(100)))
            replies = [line.reply() for _ in range(100)]
            assert {reply.status for reply in replies if reply is not None} == {200}
    eventually(lambda: changed(world, key, installed=True), SOON_S)
    world.bench.drained()
    # Time for a second read that must not come.
    shown_us = now_us()
    eventually(lambda: now_us() > shown_us + 6_000_000)
    assert hinted.reads() == reads + 1
    # Genesys itself counts the organisation, a page of the listing and the configuration.
    assert hinted.asked() == before | {"requests": before["requests"] + 3}
    assert len([one for one in world.observations() if one.key == key]) == 1
    asked = [one for one in world.bench.out(RECEIVED, key) if one.headers["ce_type"] == Recheck.ce_type]
    assert len(asked) == 1000, "every audit was written"
    assert len(world.bench.out(TENANTS, key)) < 20, "and few of them changed the row"


@pytest.mark.long
def test_a_flood_over_many_keys_reads_each_once_and_never_exceeds_the_budget(hinted: Hinted) -> None:
    world, keys = hinted.world, [hinted.world.new_key() for _ in range(40)]
    for key in keys:
        world.know(key)
    reads, asked = hinted.reads(), hinted.asked()
    with contextlib.closing(Line(hinted.edge.port)) as line:
        for _ in range(10):
            line.write(b"".join(hint_request(envelope(key, "Update")) for key in keys))
            assert {reply.status for reply in [line.reply() for _ in keys] if reply is not None} == {200}
    eventually(lambda: all(known(hinted, key) and changed(world, key, installed=True) for key in keys), SOON_S)
    # Time for second reads that must not come: late hints of an organisation wait 10 s for a look.
    shown_us = now_us()
    eventually(lambda: now_us() > shown_us + 12_000_000)
    looks = hinted.reads() - reads
    # A look costs the organisation and a page; a key its configuration.
    assert hinted.asked() == asked | {"requests": asked["requests"] + 2 * looks + len(keys)}
    assert looks <= 4
    counted = {key: len([one for one in world.observations() if one.key == key]) for key in keys}
    assert set(counted.values()) == {1}


def test_a_repeated_hint_after_the_read_changes_nothing(hinted: Hinted) -> None:
    world, key = hinted.world, hinted.world.new_key()
    world.know(key)
    told = hint_request(envelope(key, "Create"))
    assert hinted.edge.ask(told).status == 200
    eventually(lambda: changed(world, key, installed=True, recheck_at=None), SOON_S)
    version = world.tenant(key).version
    # Another ingress has not seen the audit, and writes it again.
    with ingress(world.bench.bootstrap, world.bench.prefix, world.folder) as second:
        eventually(lambda: second.get("/readyz").status == 200)
        assert second.ask(told).said == {"status": "queued"}
    assert hinted.edge.ask(told).said == {"status": "duplicate_handled"}
    world.bench.drained()
    assert (world.tenant(key).version, world.tenant(key).recheck_at) == (version, None)


def test_a_forged_hint_is_written_nowhere(hinted: Hinted) -> None:
    world, key = hinted.world, hinted.world.new_key()
    world.know(key)
    asked = hinted.asked()
    assert {hinted.hint(key, "Create", secret="x" * 40) for _ in range(20)} == {401}
    # A genuine hint behind it is read to the end.
    other = world.new_key()
    world.know(other)
    assert hinted.hint(other, "Create") == 200
    eventually(lambda: known(hinted, other) and changed(world, other, installed=True), SOON_S)
    assert not known(hinted, key)
    assert world.bench.out(RECEIVED, key) == []
    assert hinted.asked() == asked | {"requests": asked["requests"] + 3}, "one read, of the genuine hint"


def test_an_integration_of_somebody_else_and_an_invented_one_are_looked_for_and_never_installed(
    hinted: Hinted,
) -> None:
    world = hinted.world
    foreign, invented = f"{world.org_id}:{other_vendors_id(world)}", world.new_key()
    reads = hinted.reads()
    assert (hinted.hint(foreign, "Update"), hinted.hint(invented, "Create")) == (200, 200)
    eventually(lambda: hinted.reads() > reads, SOON_S)
    eventually(lambda: all(known(hinted, key) for key in (foreign, invented)))
    last = hinted.world.run()
    assert {line.key for line in last.lines}.isdisjoint({foreign, invented})
    for key in (foreign, invented):
        assert (world.tenant(key).installed, world.tenant(key).stage) == (None, None)
    assert {one.key for one in world.observations()}.isdisjoint({foreign, invented})


def other_vendors_id(world: ReconcilerWorld) -> str:
    """Id of the integration of another type that every organisation of the simulator has."""
    file = httpx2.Response(200, content=(world.outside.orgs / f"{world.org_id}.json").read_bytes()).json()
    login = httpx2.post(
        f"{world.environ['GENESYS_LOGIN_URL']}/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(file["client_id"], file["client_secret"]),
    )
    token = {"Authorization": f"Bearer {login.raise_for_status().json()['access_token']}"}
    listing = httpx2.get(f"{world.environ['GENESYS_API_URL']}/api/v2/integrations", headers=token).json()
    (found,) = [one["id"] for one in listing["entities"] if one["integrationType"]["id"] == OTHER_TYPE]
    return str(found)


@pytest.mark.long
def test_an_organisation_without_credentials_is_hinted_at_in_vain(hinted: Hinted) -> None:
    world, stranger = hinted.world, f"{uuid4()}:{uuid4()}"
    assert hinted.hint(stranger, "Create") == 200
    eventually(lambda: known(hinted, stranger))
    key = world.new_key()
    world.know(key, configuration=CONFIGURATION)
    assert hinted.hint(key, "Create") == 200
    eventually(lambda: known(hinted, key) and changed(world, key, installed=True), SOON_S)
    assert world.tenant(stranger).installed is None
