"""The simulator keeps its state over a kill, and fails as told."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.eventually import eventually
from tests.support.simulator_process import ORG, Outside, outside

KEY = f"{ORG}:a1b2c3d4-e5f6-7890-abcd-ef1234567890"
"""Of the tests that have a simulator of their own; the others have `key`."""
SYSTEMS = {"middleware", "crm", "schemas", "subscriptions", "tokens", "archive", "accounts"}


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Outside]:
    """A simulator of the test's own."""
    with outside(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside(tmp_path_factory.mktemp("outside")) as running:
        yield running


@pytest.fixture
def world(shared: Outside) -> Iterator[Outside]:
    """A simulator that other tests use as well, with other keys."""
    yield shared
    shared.heal()


@pytest.fixture
def key() -> str:
    return f"{ORG}:a1b2c3d4-e5f6-7890-abcd-{secrets.token_hex(6)}"


def put(
    world: Outside, path: str, *, idempotency_key: str, epoch: int = 1, generation: int = 1, key: str = KEY
) -> httpx2.Response:
    headers = {
        "Idempotency-Key": idempotency_key,
        "Lifecycle-Key": key,
        "Lifecycle-Generation": str(generation),
        "Lifecycle-Epoch": str(epoch),
    }
    return httpx2.put(f"{world.url}/{path}", headers=headers, json={"enabled": True})


def test_the_inventory_names_every_system_even_when_nothing_exists(fresh: Outside) -> None:
    found = httpx2.get(f"{fresh.url}/inventory").json()
    assert set(found) == SYSTEMS
    assert all(rows == {} for rows in found.values())


def test_a_killed_simulator_keeps_resources_answers_epochs_and_calls(fresh: Outside) -> None:
    first = put(fresh, "middleware/a", idempotency_key="k1", epoch=5)
    assert first.status_code == 201
    fresh.kill()
    fresh.start()
    assert fresh.inventory("middleware", KEY) == [{"id": "a", "generation": 1}]
    assert put(fresh, "middleware/a", idempotency_key="k1", epoch=5).json() == first.json()
    assert put(fresh, "middleware/b", idempotency_key="k2", epoch=4).status_code == 409
    assert fresh.calls(KEY) == [("create", "done"), ("update", "done"), ("create", "refused")]


def test_a_truncated_state_file_is_read_up_to_the_cut(fresh: Outside) -> None:
    put(fresh, "middleware/a", idempotency_key="k1")
    fresh.kill()
    journal = fresh.folder / "state" / "simulator.jsonl"
    with journal.open("ab") as file:
        file.write(b'["middleware","b",{"id":')
    fresh.start()
    assert fresh.inventory("middleware", KEY) == [{"id": "a", "generation": 1}]
    put(fresh, "middleware/c", idempotency_key="k2")
    fresh.kill()
    fresh.start()
    assert [row["id"] for row in fresh.inventory("middleware", KEY)] == ["a", "c"]


def test_the_simulator_ends_with_0_on_sigterm(fresh: Outside) -> None:
    assert fresh.stop() == 0


def test_calls_have_the_fields_of_the_contract(fresh: Outside) -> None:
    put(fresh, "subscriptions/a", idempotency_key="k1", generation=3)
    call = httpx2.get(f"{fresh.url}/calls", params={"key": KEY}).json()[0]
    assert call.pop("at").endswith("Z")
    assert call == {
        "system": "subscriptions",
        "verb": "create",
        "key": KEY,
        "generation": 3,
        "idempotency_key": "k1",
        "outcome": "done",
    }
    assert httpx2.get(f"{fresh.url}/calls", params={"key": "nobody"}).json() == []
    assert len(httpx2.get(f"{fresh.url}/calls").json()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"system": "middleware"},
        {"system": "nothing", "fault": "refuse"},
        {"system": "middleware", "fault": "nothing"},
        {"system": "middleware", "fault": "refuse", "times": 0},
        {"system": "middleware", "fault": "refuse", "verb": "frobnicate"},
        {"system": "middleware", "fault": "refuse", "typo": 1},
        [],
    ],
)
def test_an_invalid_fault_is_refused_with_a_reason(world: Outside, fault: Any) -> None:
    answer = httpx2.post(f"{world.url}/faults", json=fault)
    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_head_is_answered_as_get_without_the_body(world: Outside, key: str) -> None:
    url, headers = f"{world.url}/middleware/headed", {"Lifecycle-Key": key, "Lifecycle-Generation": "1"}
    assert httpx2.head(url, headers=headers).status_code == 404
    put(world, "middleware/headed", idempotency_key="1", key=key)
    asked, read = httpx2.head(url, headers=headers), httpx2.get(url, headers=headers)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-length"] == str(len(read.content))


def test_a_fault_strikes_only_matching_calls_and_only_so_often(world: Outside, key: str) -> None:
    world.fault("middleware", "refuse", verb="create", key=key, times=2, seconds=0)
    assert put(world, f"crm/{key[-12:]}", idempotency_key=f"{key}k0", key=key).status_code == 201
    statuses = [
        put(world, f"middleware/{key[-12:]}", idempotency_key=f"{key}k1", key=key).status_code for _ in range(3)
    ]
    assert statuses == [422, 422, 201]
    world.fault("middleware", "error", key="another")
    assert put(world, f"middleware/{key[-12:]}", idempotency_key=f"{key}k2", key=key).status_code == 200
    world.fault("middleware", "error", verb=None, key=None, times=None)
    assert put(world, f"middleware/{key[-12:]}", idempotency_key=f"{key}k3", key=key).status_code == 503
    world.heal()
    assert put(world, f"middleware/{key[-12:]}", idempotency_key=f"{key}k3", key=key).status_code == 200


def test_a_fault_with_seconds_ends_after_them(world: Outside, key: str) -> None:
    world.fault("middleware", "down", seconds=0.5)
    with pytest.raises(httpx2.HTTPError):
        put(world, f"middleware/{key[-12:]}", idempotency_key=f"{key}k1", key=key)

    def is_back() -> bool:
        try:
            return put(world, f"middleware/{key[-12:]}", idempotency_key=f"{key}k1", key=key).is_success
        except httpx2.HTTPError:
            return False

    eventually(is_back)


def test_the_archive_is_read_from_its_folder(world: Outside, key: str) -> None:
    org, _, integration = key.partition(":")
    folder = world.archive / org / integration / "g4"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"key": key, "generation": 4}))
    assert world.inventory("archive", key) == [{"id": f"{org}/{integration}/g4", "generation": 4}]


def test_an_incomplete_inventory_is_answered_with_an_error(tmp_path: Path) -> None:
    with outside(tmp_path, "postgresql://u:p@127.0.0.1:9/x") as world:
        answer = httpx2.get(f"{world.url}/inventory", timeout=10)
        assert answer.status_code == 503
        assert answer.json()["detail"].startswith("schemas: ")


@pytest.mark.parametrize("path", ["../state/simulator.jsonl", "a/b/g1/manifest.json", f"{ORG}/{ORG}/g1/.."])
def test_the_object_store_refuses_paths_outside_its_form(world: Outside, path: str) -> None:
    raw = path.replace("..", "%2e%2e")
    assert httpx2.put(f"{world.url}/archive/{raw}", content=b"x").status_code in {400, 404}
    assert not any(file.name != "manifest.json" for file in world.archive.rglob("*") if file.is_file())
    assert not (world.archive / "a").exists()


def test_latency_delays_every_answer(tmp_path: Path) -> None:
    with outside(tmp_path, simulator_latency_s="0.4") as world, pytest.raises(httpx2.ReadTimeout):
        httpx2.get(f"{world.url}/middleware/a", headers={"Lifecycle-Key": KEY}, timeout=0.1)
