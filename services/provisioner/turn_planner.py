"""One turn of a saga: decided by the plans of its lives, as far as the systems' doors are open, and its call made.

Rule: a call that is turned away at a door is a wait and has no intent, so it leaves nothing in doubt.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from schemas.saga import Journal
from services.adapters.process.logs import Logger
from services.adapters.registry.registry import RegistryAway
from services.adapters.registry.types import Claim, OutboxMessage
from services.core.saga.calls import Absent, Answer, Call, RefusedUs
from services.core.saga.intents import Turn, decide
from services.core.saga.moves import Called, Wait
from services.core.saga.next_move import HELD_US, SYSTEM_AWAY, SYSTEM_REFUSES, Plans
from services.core.saga.plan import BadPlan
from services.core.unwell import GRACE
from services.provisioner.bulkhead import SystemGates, system_of
from services.provisioner.caller import Caller
from services.provisioner.plans import PlanBook

_BAD_PLAN_US: Final = 60_000_000
_NOTHING: Final = Absent()


@dataclass(frozen=True, slots=True)
class PreparedTurn:
    """A turn, and what its call needs.

    Attributes:
        turn: As decided.
        prepared: The call, or what is known without one; nothing is asked where the turn ends in a wait.
        system: Whom the call goes to, where a place there is held.
        waits_for: The system that the saga waits for, where it is away.
        why: Why the turn ends in a wait, where its journal does not say so.
    """

    turn: Turn
    prepared: Call | Answer = _NOTHING
    system: str | None = None
    waits_for: str | None = None
    why: str | None = None


class TurnPlanner:
    """Of one worker."""

    def __init__(self, plans: PlanBook, caller: Caller, gates: SystemGates, log: Logger) -> None:
        """Take what a turn needs.

        Args:
            plans: Of every life.
            caller: Makes the calls.
            gates: Of the systems that are called.
            log: Of the service.
        """
        self._plans, self._caller, self._gates, self._log = plans, caller, gates, log
        self.lines: Callable[[str, Journal, Called, Answer, int], list[OutboxMessage]] = caller.lines
        self.on_recovered: Callable[[str], None] = lambda _: None
        """Called with a system that answers again after it was left alone."""

    async def prepare(self) -> None:
        """Keep the current plan, before the first life goes by it."""
        await self._plans.keep()

    async def next(self, claim: Claim, journal: Journal, now_us: int) -> PreparedTurn:
        """Decide; what holds a place at a system is given back by `leave`."""
        try:
            plans = await self._plans.needed_by(journal)
        except RegistryAway:
            return PreparedTurn(Turn(journal, Wait(now_us), ()))
        except BadPlan as error:
            self._log.error("plan of a life cannot be carried out", key=claim.key, why=str(error))
            why = f"its plan cannot be carried out: {error}"
            return PreparedTurn(Turn(journal, Wait(now_us + _BAD_PLAN_US), ()), why=why)
        step = await self._let_in(claim, plans, journal, now_us)
        if plans.unusable and isinstance(step.turn.move, Wait):
            self._log.error("plan of an ended life cannot be carried out", key=claim.key, why=dict(plans.unusable))
            why = f"the plan of an ended life cannot be carried out: {'; '.join(plans.unusable.values())}"
            return replace(step, why=why)
        return step

    async def _let_in(self, claim: Claim, plans: Plans, journal: Journal, now_us: int) -> PreparedTurn:
        barred: dict[tuple[int, str], Wait] = {}
        away: str | None = None
        while True:
            turn = decide(plans, journal, claim.desired, now_us, barred)
            move = turn.move
            if isinstance(move, Wait):
                return PreparedTurn(turn, waits_for=away, why=GRACE if move.reason == GRACE else None)
            prepared = self._caller.prepare(claim.key, claim.epoch, turn.journal, move)
            if isinstance(prepared, RefusedUs):
                barred[move.generation, move.step.name] = Wait(now_us + HELD_US, SYSTEM_REFUSES, move.step.name)
                continue
            if not isinstance(prepared, Call):
                return PreparedTurn(turn, prepared)
            system = system_of(prepared)
            if system is None:
                return PreparedTurn(turn, prepared)
            entry = await self._gates.enter(system, claim.key)
            if not entry.wait_s:
                return PreparedTurn(turn, prepared, system)
            away = system if entry.is_away else away
            reason = SYSTEM_REFUSES if entry.refuses else SYSTEM_AWAY if entry.is_away else ""
            barred[move.generation, move.step.name] = Wait(
                now_us + int(entry.wait_s * 1_000_000), reason, move.step.name
            )

    async def answer(self, step: PreparedTurn) -> Answer:
        """Make the call of a turn that is committed."""
        if not isinstance(step.prepared, Call):
            return step.prepared
        answer = await self._caller.call(step.prepared)
        if step.system is not None and self._gates.answered(step.system, step.prepared.key, answer):
            self.on_recovered(step.system)
        return answer

    def is_away(self, system: str) -> bool:
        """Whether a system is left alone now."""
        return self._gates.is_away(system)

    def leave(self, step: PreparedTurn) -> None:
        """Give the place at the system back, if one is held."""
        if step.system is not None and isinstance(step.prepared, Call):
            self._gates.leave(step.system, step.prepared.key)
