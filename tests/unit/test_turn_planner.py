"""The planner of turns: a turn that cannot be planned holds no slot at the gate of its system."""

import time
from typing import cast

import pytest
import structlog
from pydantic import SecretStr

from schemas.saga import Journal
from services.adapters.process import tracing
from services.adapters.process.environment import read
from services.adapters.process.settings import ProvisionerSettings
from services.adapters.registry.registry import Registry
from services.adapters.registry.types import Claim, RemovalRules
from services.adapters.secrets.sealing import Sealer
from services.adapters.system_gates import Admission, SystemGates
from services.adapters.tenant_file import TenantFile
from services.core.saga.calls import Answer, Call, Done
from services.core.saga.open_calls import OpenCalls
from services.core.saga.pace import Pace
from services.core.saga.system_breaker import SystemBreaker
from services.provisioner.caller import Caller
from services.provisioner.kinds import TRAITS
from services.provisioner.plans import PlanBook
from services.provisioner.removals import RemovalGate
from services.provisioner.turn_planner import TurnPlanner
from tests.support.provisioner_process import desired, key
from tests.support.unreadable import unexpected

PLAN = '[[step]]\nname = "thing"\nkind = "http"\nundo = "reverse"\nurl = "http://thing"\nurl_from = "operator"\n'


class Compliant:
    """Does whatever is asked."""

    async def call(self, _: Call) -> Answer:
        return Done()


async def test_a_fault_while_a_turn_is_planned_keeps_no_slot() -> None:
    log = structlog.get_logger()
    nowhere = "postgresql://lifecycle@127.0.0.1:1/none"
    registry = Registry(nowhere, schema="lifecycle", lease_s=1.0, worker="one", on_unreadable=unexpected)
    gates = SystemGates(1, SystemBreaker, time.monotonic, log)
    caller = Caller({"http": Compliant()}, TRAITS, Sealer([SecretStr("k" * 40)]), b"k" * 40, log)
    removals = RemovalGate(registry, RemovalRules(5, 2, 3600), None)
    plans = PlanBook(registry, text=PLAN, kinds=TRAITS, settings={}, pace=Pace())
    planner = TurnPlanner(plans, caller, removals, gates, TenantFile(None, log), log)
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    claim = Claim(key(1), 1, desired(key(1), 1), Journal(), time.monotonic() + 60, 0, trace=trace)
    settings = read({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, ProvisionerSettings)
    with tracing.exporting("provisioner", settings), pytest.raises(AttributeError):
        await planner.plan_turn(claim, Journal(), cast("OpenCalls", None), 1_000_000)
    prepared = await planner.plan_turn(claim, Journal(), {}, 1_000_000)
    assert prepared.system == "thing"
    planner.leave(prepared)
    assert await gates.enter("thing", key(1).partition(":")[0], key(2)) == Admission()
