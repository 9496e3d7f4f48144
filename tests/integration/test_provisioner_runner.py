"""One worker on a real PostgreSQL while the registry fails in the middle of a turn."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from structlog.testing import LogCapture

from schemas.audit import Audit
from schemas.codec import decode
from schemas.outcome import Outcome
from schemas.saga import Failure, Journal, Life, OrphanCheck, StepLog
from schemas.saga_row import SagaRow
from schemas.tenant import Desired
from schemas.topics import AUDIT, OUTCOMES
from services.adapters.registry.registry import Registry, RegistryAway
from services.adapters.registry.types import (
    Claim,
    LeaseLost,
    NewerDesired,
    OutboxMessage,
    OutboxRow,
    RemovalRules,
    TenantTaken,
    Written,
)
from services.adapters.secrets.sealing import Sealer
from services.adapters.system_gates import SystemGates
from services.adapters.tenant_file import TenantFile
from services.core.saga.calls import Answer, Call, Done, Refused, Retryable, Verb
from services.core.saga.intents import Turn
from services.core.saga.milestones import NO_MILESTONES
from services.core.saga.moves import Wait
from services.core.saga.pace import Pace
from services.core.saga.plan import BadPlan
from services.core.saga.system_breaker import PROBE_S, SystemBreaker
from services.provisioner.caller import Caller
from services.provisioner.kinds import TRAITS
from services.provisioner.plans import PlanBook
from services.provisioner.registry_guard import RegistryGuard
from services.provisioner.removals import RemovalGate
from services.provisioner.runner import Runner, RunnerLimits
from services.provisioner.telemetry import record_outcomes
from services.provisioner.turn_planner import TurnPlanner
from tests.support.eventually import eventually_async
from tests.support.provisioner_process import desired, gone, key, untraced
from tests.support.unreadable import unexpected

LEASE_S = 1.0
PLAN = '[[step]]\nname = "thing"\nkind = "http"\nundo = "reverse"\n'


@dataclass
class Hand:
    """Does whatever is asked, once `held` is set."""

    held: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[Call] = field(default_factory=list)
    answer: Answer = field(default_factory=Done)

    async def call(self, call: Call) -> Answer:
        self.calls.append(call)
        await self.held.wait()
        return self.answer


class Deaf(Registry):
    """A registry whose answer to one write is lost, and meanwhile a newer version comes."""

    lost: Callable[[Journal, bool], bool] = lambda _, __: False

    async def write(
        self, claim: Claim, journal: Journal, messages: Sequence[OutboxMessage], *, release: bool, **more: Any
    ) -> Written | NewerDesired | LeaseLost | TenantTaken:
        result = await super().write(claim, journal, messages, release=release, **more)
        if self.lost(journal, release):
            self.lost = lambda _, __: False
            await self.store(untraced([gone(claim.key, 2)]))
            claim.journal = Journal()  # as it was before, for all that this worker was told
            raise RegistryAway("the answer was lost")
        return result


class Unrenewing(Registry):
    """A registry that fails in a way nobody foresaw when leases are renewed."""

    async def renew(self, claims: Sequence[Claim]) -> None:
        raise ArithmeticError(len(claims))


class Broken(Registry):
    """A registry that fails in a way nobody foresaw when a saga's intent is written."""

    async def write(
        self, claim: Claim, journal: Journal, messages: Sequence[OutboxMessage], *, release: bool, **more: Any
    ) -> Written | NewerDesired | LeaseLost | TenantTaken:
        if claim.key == key(1) and not release:
            raise ArithmeticError("canary")
        return await super().write(claim, journal, messages, release=release, **more)


def _heard() -> tuple[Any, LogCapture]:
    """A logger that keeps everything, whatever another test configured."""
    told = LogCapture()
    every = structlog.make_filtering_bound_logger("debug")
    return structlog.wrap_logger(structlog.PrintLogger(), processors=[told], wrapper_class=every), told


async def _audited(registry: Registry) -> list[Audit]:
    found: list[Audit] = []

    async def look(rows: list[OutboxRow]) -> list[int]:
        found.extend(decode(Audit, row.value) for row in rows if row.topic == AUDIT.name)
        return []

    await registry.drain(look, 100)
    return found


async def _outcomes(registry: Registry) -> list[Outcome]:
    found: list[Outcome] = []

    async def look(rows: list[OutboxRow]) -> list[int]:
        found.extend(decode(Outcome, row.value) for row in rows if row.topic == OUTCOMES.name)
        return []

    await registry.drain(look, 100)
    return found


async def _nothing_to_prove(_: Callable[[str], None]) -> str:
    return ""


def _runner(registry: Registry, hand: Hand, plan: str = PLAN, log: Any = None) -> Runner:
    log = log or structlog.get_logger()
    sealer = Sealer([SecretStr("k" * 40)])
    pace = Pace(first_s=0.05)
    return Runner(
        registry,
        RegistryGuard(registry, _nothing_to_prove, log),
        TurnPlanner(
            PlanBook(registry, text=plan, kinds=TRAITS, settings={}, pace=pace),
            Caller({"http": hand}, TRAITS, sealer, b"k" * 40, log),
            RemovalGate(registry, RemovalRules(5, 2, 3600), None),
            SystemGates(16, SystemBreaker, time.monotonic, log),
            TenantFile(None, log),
            log,
        ),
        RunnerLimits(4, LEASE_S, pace),
        on_outbox_written=lambda: None,
        log=log,
    )


@pytest.fixture
async def hand() -> Hand:
    return Hand()


@pytest.fixture
async def deaf(database_url: str) -> AsyncIterator[Deaf]:
    opened = Deaf(database_url, schema="lifecycle", lease_s=LEASE_S, worker="one", on_unreadable=unexpected)
    await opened.start()
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    ("first", "release"), [(gone(key(1), 1), True), (desired(key(1), 1), False)], ids=["at an end", "at an intent"]
)
async def test_every_version_has_an_outcome_despite_a_lost_commit_answer_and_a_newer_version(
    deaf: Deaf, hand: Hand, first: Desired, *, release: bool
) -> None:
    hand.held.set()
    runner = _runner(deaf, hand)
    await runner.prepare()
    await deaf.store(untraced([first]))
    deaf.lost = lambda _, released: released is release
    running = asyncio.create_task(runner.run())

    async def ended() -> list[Outcome]:
        found = await _outcomes(deaf)
        return found if {o.desired_version for o in found if o.state == "done"} >= {2} else []

    said = await eventually_async(ended)
    runner.stop()
    await running
    assert [outcome.seq for outcome in said] == list(range(1, len(said) + 1))
    assert said[0].desired_version == 1
    assert {call.verb for call in hand.calls} <= {Verb.READ, Verb.DELETE}


async def test_an_ended_generation_without_its_plan_is_named_and_blocks_no_saga(deaf: Deaf) -> None:
    book = PlanBook(deaf, text=PLAN, kinds=TRAITS, settings={}, pace=Pace())
    ended, on = Life(generation=1, plan="f" * 64, tenant_id="acme"), Life(generation=2, plan="f" * 64, tenant_id="acme")
    plans = await book.needed_by(Journal(orphan_checks=(OrphanCheck(due_at=0, life=ended),)))
    assert plans.unusable == {"f" * 64: "plan ffffffffffff is not kept"}
    with pytest.raises(BadPlan):
        await book.needed_by(Journal(life=on))


async def test_a_saga_at_rest_whose_ended_life_has_a_bad_plan_is_counted_as_stopped(deaf: Deaf, hand: Hand) -> None:
    deaf.lost = lambda _, __: False
    hand.held.set()
    await deaf.store(untraced([desired(key(1), 1)]))
    (claim,) = await deaf.claim(1)
    ended = Life(generation=1, plan="f" * 64, tenant_id="acme")
    before = Journal(generation=1, orphan_checks=(OrphanCheck(due_at=0, life=ended),))
    await deaf.write(claim, before, (), due_in_s=0, release=True)
    runner = _runner(deaf, hand)
    await runner.prepare()
    running = asyncio.create_task(runner.run())

    async def waits() -> SagaRow | None:
        (row,) = await deaf.sagas(key=key(1), limit=1)
        return row if row.phase == "active" and row.worker is None else None

    row = await eventually_async(waits)
    runner.stop()
    await running
    assert row is not None
    assert row.why == "the plan of an ended life cannot be carried out: plan ffffffffffff is not kept"
    assert {why: counted.number for why, counted in (await deaf.census(0)).sagas.items()} == {"stopped": 1}


async def test_an_unexpected_error_in_a_lease_renewal_ends_the_worker(database_url: str, hand: Hand) -> None:
    registry = Unrenewing(database_url, schema="lifecycle", lease_s=LEASE_S, worker="one", on_unreadable=unexpected)
    await registry.start()
    runner = _runner(registry, hand)
    await runner.prepare()
    await registry.store(untraced([desired(key(1), 1)]))
    with pytest.raises(ArithmeticError):
        async with asyncio.timeout(20):
            await runner.run()
    hand.held.set()
    await registry.close()


async def test_an_unexpected_error_in_a_saga_is_reported_and_stops_no_other_saga(database_url: str, hand: Hand) -> None:
    registry = Broken(database_url, schema="lifecycle", lease_s=LEASE_S, worker="one", on_unreadable=unexpected)
    await registry.start()
    runner = _runner(registry, hand)
    await runner.prepare()
    hand.held.set()
    await registry.store(untraced([desired(key(1), 1), desired(key(2), 1)]))
    running = asyncio.create_task(runner.run())

    async def at_rest() -> dict[str, SagaRow]:
        rows = {row.key: row for row in await registry.sagas(limit=5)}
        return rows if rows[key(1)].why and rows[key(2)].phase == "active" else {}

    rows = await eventually_async(at_rest)
    runner.stop()
    await running
    stopped = rows[key(1)]
    assert stopped.why == "stopped by ArithmeticError, which the provisioner's log tells whole"
    assert stopped.worker is None
    assert stopped.due_s is not None
    assert stopped.due_s > time.time() + 30
    await registry.close()


async def test_sagas_waiting_for_a_system_run_at_once_when_it_is_well(database_url: str, hand: Hand) -> None:
    registry = Registry(database_url, schema="lifecycle", lease_s=LEASE_S, worker="one", on_unreadable=unexpected)
    await registry.start()
    runner = _runner(registry, hand, PLAN + 'url = "http://thing"\nurl_from = "operator"\n')
    await runner.prepare()
    hand.held.set()
    hand.answer = Retryable("HTTP 503")
    keys = [key(number, org=number) for number in range(12)]
    await registry.store(untraced([desired(of, 1) for of in keys]))
    running = asyncio.create_task(runner.run())

    async def turned_away() -> bool:
        return sum(row.waits_for == "thing" for row in await registry.sagas(limit=20)) >= 5

    assert await eventually_async(turned_away)
    asked = len(hand.calls)
    await asyncio.sleep(PROBE_S + 1)
    assert len(hand.calls) - asked <= 2, "one probe at a time"
    hand.answer = Done()

    async def active() -> bool:
        return all(row.phase == "active" for row in await registry.sagas(limit=20))

    # Who is turned away comes by himself within a minute: half of that is no time for all of twelve.
    assert await eventually_async(active, 30.0)
    runner.stop()
    await running
    await registry.close()


async def test_the_status_and_code_of_a_refusal_are_in_the_log_and_in_the_audit_line(deaf: Deaf, hand: Hand) -> None:
    deaf.lost = lambda _, __: False
    log, told = _heard()
    runner = _runner(deaf, hand, log=log)
    await runner.prepare()
    hand.held.set()
    hand.answer = Refused("HTTP 422 unknown_plan")
    await deaf.store(untraced([desired(key(1), 1)]))
    running = asyncio.create_task(runner.run())

    async def refused() -> list[Audit]:
        return [line for line in await _audited(deaf) if "refused" in line.verdict]

    lines = await eventually_async(refused)
    runner.stop()
    await running
    assert lines[0].why == "thing of generation 1, intent 1: HTTP 422 unknown_plan"
    said = next(line for line in told.entries if line["event"] == "outcome" and line["error_class"])
    assert (said["step"], said["error_class"], said["answer"]) == ("thing", "refused", "HTTP 422 unknown_plan")


@pytest.mark.parametrize(
    ("error_class", "level", "answer"),
    [
        ("exhausted", "error", "HTTP 503 unavailable"),
        ("retryable", "info", "HTTP 503 unavailable"),
        (None, "info", None),
    ],
)
@pytest.mark.parametrize("known_by", ["failure", "step"])
def test_a_step_given_up_is_logged_as_an_error_and_a_single_try_is_not(
    error_class: str | None, level: str, answer: str | None, known_by: str
) -> None:
    log, told = _heard()
    why = "HTTP 503 unavailable"
    life = Life(generation=1, plan="f" * 64, tenant_id="acme", steps={"thing": StepLog(n=3, reason=why)})
    failure = Failure(step="thing", error_class="exhausted", reason=why) if known_by == "failure" else None
    said = Outcome.model_validate(
        {
            "key": key(1), "seq": 1, "desired_version": 1, "generation": 1, "direction": "up", "state": "working",
            "step": "thing", "class": error_class, "reason": "compensating", "at": 0,
        }
    )  # fmt: skip
    record_outcomes(Turn(Journal(generation=1, life=life, failure=failure), Wait(None), (said,)), NO_MILESTONES, 0, log)
    assert [(line["event"], line["log_level"], line["answer"]) for line in told.entries] == [("outcome", level, answer)]
