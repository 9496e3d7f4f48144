"""The whole journey from outside: `lifecycle up`, a signed POST, and the resources of the tenant."""

import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import outsider
from tests.e2e.outsider import Up
from tests.support.eventually import eventually

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.timeout(400)]

_JOURNEY_S = 90
_FIVE = {"middleware": 1, "crm": 1, "schemas": 1, "subscriptions": 1, "tokens": 1}
_SERVICES = {"simulator", "ingress", "ledger", "provisioner", "reconciler"}


@pytest.fixture(scope="module")
def running() -> Iterator[Up]:
    with outsider.folder() as state_dir, outsider.up(state_dir) as one:
        yield one
        assert one.stop() == 0, one.log.read_text()


@pytest.fixture
def state_dir() -> Iterator[Path]:
    with outsider.folder() as made:
        yield made


def ids(number: int) -> dict[str, str]:
    return {
        "org": f"00000000-0000-4000-8000-{number:012}",
        "integration": f"00000000-0000-4000-9000-{number:012}",
        "tenant": f"tenant_{number}",
    }


def key_of(who: dict[str, str]) -> str:
    return f"{who['org']}:{who['integration']}"


def post(running: Up, event: str, who: dict[str, str]) -> tuple[int, Any]:
    return outsider.post(running, event, outsider.secret_of(running), **who)


def stands(running: Up, who: dict[str, str], stage: str) -> dict[str, Any]:
    def found() -> dict[str, Any]:
        tenant = outsider.tenant(running, key_of(who))
        assert tenant.get("stage") == stage, tenant
        return tenant

    return eventually(found, _JOURNEY_S)


def test_a_signed_install_and_uninstall_make_and_remove_a_tenant(running: Up) -> None:
    who = ids(1)
    assert post(running, "installed", who) == (200, {"status": "queued"})
    tenant = stands(running, who, "active")
    assert (tenant["tenant_id"], tenant["revision"], tenant["generation"]) == ("tenant_1", 1, 1)
    assert outsider.inventory(running, key_of(who)) == _FIVE
    assert len(outsider.schemas(running, key_of(who))) == 1

    assert post(running, "uninstalled", who)[0] == 200
    assert stands(running, who, "deprovisioned")["revision"] == 2
    assert outsider.inventory(running, key_of(who)) == {"archive": 1}
    assert outsider.schemas(running, key_of(who)) == []
    revisions = {event["revision"]: event["event"] for event in outsider.read(running, "lifecycle.events", key_of(who))}
    assert revisions == {1: "installed", 2: "uninstalled"}


def test_a_changed_tenant_id_is_shown_everywhere_and_can_be_resolved_both_ways(running: Up) -> None:
    who, key = ids(3), key_of(ids(3))
    other = who | {"tenant": "tenant_3_renamed"}

    def named(bound: str, claimed: str | None, generation: int, reason: str | None) -> bool:
        found = outsider.tenant(running, key)
        names = (found.get("tenant_id"), found.get("claimed_tenant_id"), found.get("generation"))
        return (*names, found.get("reason"), found.get("stage")) == (bound, claimed, generation, reason, "active")

    post(running, "installed", who)
    eventually(lambda: named("tenant_3", None, 1, None), _JOURNEY_S)
    post(running, "installed", other)
    eventually(lambda: named("tenant_3", "tenant_3_renamed", 1, "tenant_changed"), _JOURNEY_S)
    assert running.lifecycle("sagas", "show", key)[1]["tenant_id"] == "tenant_3"
    assert {one["tenant_id"] for one in outsider.read(running, "lifecycle.outcomes", key)} == {"tenant_3"}
    told = running.lifecycle("tenants", "timeline", key)[1]
    assert any("tenantId tenant_3_renamed" in line["why"] for line in told if line["what"] == "event")
    last = [line["why"] for line in told if line["what"] == "outcome"][-1]
    assert last == "bound to tenant_3; another tenantId is claimed; the bound one stands"
    # Back: the sender names the bound one again, as an event of its own.
    install(running, who, event_id="back")
    eventually(lambda: named("tenant_3", None, 1, None), _JOURNEY_S)
    # On: the key is uninstalled and installed again.
    install(running, other, event_id="on")
    eventually(lambda: named("tenant_3", "tenant_3_renamed", 1, "tenant_changed"), _JOURNEY_S)
    post(running, "uninstalled", other)
    assert stands(running, who, "deprovisioned")["tenant_id"] == "tenant_3"
    post(running, "installed", other)
    eventually(lambda: named("tenant_3_renamed", None, 2, None), _JOURNEY_S)
    assert outsider.inventory(running, key) == _FIVE | {"archive": 1}


def test_a_forged_post_changes_nothing(running: Up) -> None:
    who = ids(2)
    status, _ = outsider.post(running, "uninstalled", b"a secret that is long enough, and wrong", **who)
    assert status == 401
    assert outsider.read(running, "lifecycle.received", key_of(who)) == []


_OFTEN = {"ledger", "ingress"}


@pytest.mark.parametrize(
    "service",
    [pytest.param(name, marks=() if name in _OFTEN else pytest.mark.long) for name in sorted(_SERVICES)],
)
def test_a_killed_service_is_started_again_and_events_pass(running: Up, service: str) -> None:
    who = ids(10 + sorted(_SERVICES).index(service))
    before = running.endpoints
    os.kill(before["pids"][service], signal.SIGKILL)
    eventually(lambda: running.endpoints["pids"][service] != before["pids"][service])
    now = running.endpoints
    assert {name: now[name] for name in ("ingress", "simulator", "kafka", "metrics")} == {
        name: before[name] for name in ("ingress", "simulator", "kafka", "metrics")
    }
    eventually(lambda: is_live(now["metrics"][service]), 60)
    status, _ = post(running, "installed", who)
    assert status == 200
    stands(running, who, "active")
    assert outsider.inventory(running, key_of(who)) == _FIVE


@pytest.mark.long
def test_killed_engines_are_started_again(running: Up) -> None:
    who = ids(20)
    before = running.endpoints
    for engine in ("kafka", "postgres"):
        os.kill(before["pids"][engine], signal.SIGKILL)
    eventually(lambda: not {"kafka", "postgres"} & set(map_equal(before["pids"], running.endpoints["pids"])), 120)

    def accepted() -> bool:
        return post(running, "installed", who)[0] == 200

    eventually(accepted, 60)
    stands(running, who, "active")
    assert outsider.inventory(running, key_of(who)) == _FIVE


def test_the_commands_find_the_running_installation(running: Up) -> None:
    who = ids(30)
    words = ("--org", who["org"], "--integration", who["integration"], "--tenant", who["tenant"])
    status, sent = running.lifecycle("send", "installed", *words)
    assert (status, sent["status"], sent["key"]) == (0, 200, key_of(who))
    stands(running, who, "active")
    status, tenants = running.lifecycle("tenants", "list", "--stage", "active")
    assert status == 0
    assert key_of(who) in {one["key"] for one in tenants}
    assert running.lifecycle("tenants", "show", key_of(who))[1]["tenant_id"] == who["tenant"]
    happened = [line["what"] for line in running.lifecycle("tenants", "timeline", key_of(who))[1]]
    assert {"event", "delivery", "stage"} <= set(happened)
    assert running.lifecycle("topics", "plan") == (0, {"create": [], "configure": {}, "conflicts": []})
    # What was killed above may have left a fault that mends itself.
    eventually(lambda: is_well(*running.lifecycle("doctor")), 120)


@pytest.mark.long
def test_a_second_up_on_a_folder_keeps_data_ports_and_secrets(state_dir: Path) -> None:
    who = ids(40)
    with outsider.up(state_dir) as first:
        before = first.endpoints
        secret = Path(before["keyring"]).read_text()
        post(first, "installed", who)
        stands(first, who, "active")
        assert first.stop() == 0
        assert not first.file.exists()
    assert not any(outsider.is_running(pid) for pid in before["pids"].values())
    with outsider.up(state_dir) as second:
        now = second.endpoints
        assert {name: value for name, value in now.items() if name != "pids"} == {
            name: value for name, value in before.items() if name != "pids"
        }
        assert Path(now["keyring"]).read_text() == secret
        assert outsider.tenant(second, key_of(who))["stage"] == "active"
        assert outsider.inventory(second, key_of(who)) == _FIVE
        post(second, "uninstalled", who)
        stands(second, who, "deprovisioned")
        second.process.kill()
        second.process.wait()
        eventually(lambda: not any(outsider.is_running(pid) for pid in now["pids"].values()))


def install(running: Up, who: dict[str, str], *, event_id: str) -> None:
    named = (word for name, value in who.items() for word in (f"--{name}", value))
    assert running.lifecycle("send", "installed", *named, "--event-id", event_id)[0] == 0


def is_live(metrics_url: str) -> bool:
    try:
        with urllib.request.urlopen(metrics_url.removesuffix("metrics") + "readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def is_well(status: int, findings: list[dict[str, str]]) -> bool:
    assert [one for one in findings if one["health"] == "fault"] == []
    return status == 0


def map_equal(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name, value in one.items() if other.get(name) == value]
