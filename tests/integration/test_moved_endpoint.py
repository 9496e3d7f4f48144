"""A `crmEndpoint` that moves, by saga, caller and kind against a real simulator: one connection is left, or none."""

import secrets
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
from pydantic import SecretStr

from schemas.saga import Phase, Presence
from services.adapters.http_client import HttpClient, resolve
from services.adapters.process import logs
from services.adapters.secrets.sealing import Sealer
from services.core.saga.calls import Answer, Done, Unknown, resource_name
from services.provisioner.caller import Caller
from services.provisioner.kinds import TRAITS
from services.provisioner.kinds.http import HttpKind
from services.provisioner.kinds.outbound import Outbound
from tests.support.saga_driver import Saga, plans
from tests.support.simulator_process import ORG, Outside, outside

PLAN = """
[[step]]
name = "crm"
kind = "http"
undo = "reverse"
url = "{configuration.crmEndpoint?}"
"""
SYSTEMS = {"a": "crm", "b": "middleware", "c": "subscriptions"}
"""Three hosts at three systems of the simulator, so that a fault strikes at one of them alone."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside(tmp_path_factory.mktemp("outside")) as world:
        yield world


@pytest.fixture
def world(running: Outside) -> Iterator[Outside]:
    yield running
    running.heal()


@pytest.fixture
async def saga(world: Outside) -> AsyncIterator[Saga]:
    locations = {f"{host}.salesforce.com": f"{world.url}/{system}/{{host}}" for host, system in SYSTEMS.items()}
    async with HttpClient(connections=10) as client:
        kind = HttpKind(Outbound(client, resolve, allow=("*.salesforce.com",), egress_map=locations))
        sealer = Sealer([SecretStr("x" * 40)])
        caller = Caller({"http": kind}, TRAITS, sealer, b"k" * 32, logs.configure("test", "critical"))
        yield Saga(f"{ORG}:a1b2c3d4-e5f6-7890-abcd-{secrets.token_hex(6)}", caller, plans(PLAN))


def url(host: str) -> str:
    return f"https://{host}.salesforce.com"


def live(world: Outside, saga: Saga) -> list[str]:
    """Hosts where the tenant has a connection, one entry a connection."""
    return [host for host, system in SYSTEMS.items() for _ in world.inventory(system, saga.key)]


def _active(world: Outside, saga: Saga, hosts: list[str], reason: str | None = None) -> None:
    assert saga.said == ("up", "done", reason)
    assert live(world, saga) == hosts


async def _gone(world: Outside, saga: Saga) -> None:
    """An uninstall leaves no resource at any location, after any history, and reports success."""
    world.heal()
    await saga.uninstalled()
    assert saga.said == ("down", "done", None)
    assert live(world, saga) == []
    assert saga.journal.orphan_checks == ()


def _in_doubt(answer: Answer) -> bool:
    return isinstance(answer, Unknown)


async def test_a_moved_connection_exists_at_its_new_location_only(saga: Saga, world: Outside) -> None:
    for host in "abca":
        await saga.installed(url(host))
        _active(world, saga, [host])
    await saga.installed(None)
    _active(world, saga, [])
    await _gone(world, saga)


async def test_a_move_is_undone_when_the_former_location_refuses_the_removal(saga: Saga, world: Outside) -> None:
    await saga.installed(url("a"))
    world.fault("crm", "refuse", verb="delete")
    await saga.installed(url("b"))
    _active(world, saga, ["a"], "update_refused")
    await _gone(world, saga)


async def test_a_connection_possibly_made_at_a_new_location_is_removed_when_the_endpoint_returns(
    saga: Saga, world: Outside
) -> None:
    await saga.installed(url("a"))
    world.fault("middleware", "lost_answer", verb="create", times=1)
    await saga.installed(url("b"), until=_in_doubt)
    assert live(world, saga) == ["a", "b"]
    await saga.installed(url("a"))
    _active(world, saga, ["a"])
    await _gone(world, saga)


async def test_a_connection_left_at_a_former_location_is_removed_after_a_second_move(
    saga: Saga, world: Outside
) -> None:
    await saga.installed(url("a"))
    world.fault("crm", "error", verb="delete", times=1)
    await saga.installed(url("b"), until=_in_doubt)
    assert live(world, saga) == ["a", "b"]
    await saga.installed(url("c"))
    _active(world, saga, ["c"])
    await _gone(world, saga)


async def test_an_uninstall_during_a_move_removes_the_connection_at_every_location(saga: Saga, world: Outside) -> None:
    await saga.installed(url("a"))
    world.fault("crm", "error", verb="delete", times=1)
    await saga.installed(url("b"), until=_in_doubt)
    world.fault("subscriptions", "lost_answer", verb="create", times=1)
    await saga.installed(url("c"), until=_in_doubt)
    assert live(world, saga) == ["a", "b", "c"]
    await _gone(world, saga)


async def test_a_move_that_had_no_effect_keeps_the_former_location_known(saga: Saga, world: Outside) -> None:
    await saga.installed(url("a"))
    world.fault("middleware", "down", times=1)
    await saga.installed(url("b"), until=_in_doubt)
    assert live(world, saga) == ["a"]
    await _gone(world, saga)


async def test_a_location_that_refused_the_move_gets_no_delete(saga: Saga, world: Outside) -> None:
    await saga.installed(url("a"))
    world.fault("middleware", "refuse")
    world.fault("crm", "error", verb="update", times=1)
    await saga.installed(url("b"), until=lambda _: saga.journal.phase is Phase.RESTORING)
    await saga.uninstalled()
    assert (saga.said, live(world, saga)) == (("down", "done", None), [])
    assert ("delete", "refused") not in world.calls(saga.key)


async def test_a_connection_that_appears_late_at_a_former_location_is_removed_later(saga: Saga, world: Outside) -> None:
    await saga.installed(url("a"))
    world.fault("middleware", "lost_answer", verb="create", times=1)
    await saga.installed(url("b"), until=_in_doubt)
    await saga.installed(url("a"), until=lambda answer: isinstance(answer, Unknown | Done))
    await saga.uninstalled(until=lambda answer: isinstance(answer, Done))
    assert live(world, saga) == []
    headers = {"Lifecycle-Key": saga.key, "Lifecycle-Generation": "1", "Lifecycle-Epoch": "1"}
    late = f"{world.url}/middleware/b.salesforce.com/{resource_name(saga.key, 1)}"
    httpx2.put(late, headers=headers, json={"enabled": True}).raise_for_status()
    assert live(world, saga) == ["b"]
    await _gone(world, saga)


@pytest.mark.parametrize("endpoint", [5, True, ["https://a.salesforce.com"], {"url": "https://a.salesforce.com"}])
async def test_an_endpoint_that_is_not_a_string_is_refused_and_rolled_back(
    saga: Saga, world: Outside, endpoint: object
) -> None:
    await saga.installed(endpoint)
    assert saga.said == ("up", "rolled_back", "crm_refused")
    await saga.installed(url("a"))
    _active(world, saga, ["a"])
    await saga.installed(endpoint)
    _active(world, saga, ["a"], "update_refused")
    life = saga.journal.life
    assert life is not None
    assert life.steps["crm"].presence is Presence.PRESENT
    await _gone(world, saga)
