"""The plans of docs/own-steps.md, played against the simulator as the page says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from pydantic import SecretStr

from schemas.saga import Phase
from services.adapters.http_client import HttpClient, resolve
from services.adapters.process import logs
from services.adapters.secrets.named_secrets import NamedSecrets
from services.adapters.secrets.sealing import Sealer
from services.core.saga.plan_check import check
from services.provisioner.caller import Caller
from services.provisioner.kinds import TRAITS
from services.provisioner.kinds.outbound import Outbound
from services.provisioner.kinds.rest import RestKind
from services.provisioner.kinds.rest_exchange import RestExchange
from tests.support.saga_driver import Saga, plans
from tests.support.simulator_process import ORG, Outside, outside

PAGE: Final = (Path(__file__).parents[2] / "docs/own-steps.md").read_text()
PLANS: Final = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
KEY: Final = f"{ORG}:a1b2c3d4-e5f6-7890-abcd-ef1234567890"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Outside]:
    with outside(tmp_path) as running:
        yield running


@pytest.mark.parametrize("number", range(len(PLANS)))
async def test_a_plan_of_the_page_installs_updates_and_uninstalls_through_lost_answers(
    world: Outside, tmp_path: Path, number: int
) -> None:
    text = PLANS[number].replace("http://127.0.0.1:8080", world.url)
    check(text, kinds=TRAITS, settings={})
    (tmp_path / "accounts").write_text("hush")
    async with HttpClient(connections=4) as client:
        outbound = Outbound(client, resolve, allow=(), egress_map={})
        kind = RestKind(RestExchange(outbound, NamedSecrets(tmp_path, {})))
        log = logs.configure("test", "critical")
        caller = Caller({"rest": kind}, TRAITS, Sealer([SecretStr("x" * 40)]), b"k" * 32, log)
        saga = Saga(KEY, caller, plans(text), until_us=10**12)
        for verb in ("create", "update", "delete"):
            world.fault("accounts", "lost_answer", verb=verb, key=KEY, times=2)
        await saga.installed("https://a")
        assert _phase(saga) is Phase.ACTIVE
        assert [row["id"] for row in world.inventory("accounts", KEY)] == [1]
        await saga.installed("https://a", enabled=False)
        assert _phase(saga) is Phase.ACTIVE
        await saga.uninstalled()
        assert _phase(saga) is Phase.EMPTY
    assert world.inventory("accounts", KEY) == []
    assert [outcome for verb, outcome in world.calls(KEY, "accounts") if verb == "create"] == ["lost"]


def _phase(saga: Saga) -> Phase:
    return saga.journal.phase


def test_the_page_has_two_whole_plans() -> None:
    assert len(PLANS) == 2
