"""Prepares one turn of a saga: chooses the next move, asks the gates before it, and makes the call.

Rule: the gate of a system is asked before the intent is committed. A call refused by the gate becomes a wait without an
intent, so nothing is left in doubt. The decision is then repeated with the refused step barred: the life of
the step waits, and orphan checks of ended lives go on at the remaining systems (docs/decisions/0019). So it is with the
brake on removals, which is asked before the first delete of a teardown (docs/decisions/0041).
"""

import time
from dataclasses import dataclass, replace
from typing import Final

from schemas.saga import Journal
from services.adapters.process import tracing
from services.adapters.process.logs import Logger
from services.adapters.registry.registry import RegistryAway
from services.adapters.registry.types import NOT_WAITING, Claim, OutboxMessage, Removal, Waiting
from services.adapters.system_gates import SystemGates
from services.adapters.tenant_file import TenantFile
from services.core.saga.calls import Absent, Answer, Call, OperatorRefused
from services.core.saga.intents import Turn, completed, decide
from services.core.saga.milestones import NO_MILESTONES, Milestones, milestones
from services.core.saga.moves import Called, Wait
from services.core.saga.next_move import (
    BEFORE_DESTRUCTION,
    HELD_US,
    OPERATOR_REFUSED,
    SYSTEM_AWAY,
    Plans,
    is_reinstalled,
)
from services.core.saga.open_calls import OpenCalls
from services.core.saga.outside_system import system_of
from services.core.saga.plan import BadPlan
from services.core.saga.removal import begins_destruction
from services.core.saga.why import SagaWhy, standing
from services.core.unwell import REMOVAL_BRAKED
from services.provisioner.call_reports import report_of
from services.provisioner.caller import Caller
from services.provisioner.plans import PlanBook
from services.provisioner.removals import RemovalGate
from services.provisioner.spans import CallTrace, call_span, call_trace, record_answer
from services.provisioner.telemetry import record_first_call

_BAD_PLAN_US: Final = 60_000_000
"""Wait of a saga whose plan cannot be carried out, in microseconds."""
_NO_CALL: Final = Absent()


@dataclass(frozen=True, slots=True)
class PreparedTurn:
    """A decided turn with its call.

    Attributes:
        turn: Journal to commit, outcomes to publish and the move.
        call_or_answer: The call to make, or an answer known without a call; meaningless if the move is a wait.
        system: System at whose gate a slot is held for the call; None if no slot is held.
        waiting: The wait at the end of the turn; empty if the move is a call.
        milestones: Milestones of the desired version, met once the turn is committed and the call is made.
        trace: Spans of the call; None without a call to trace.
    """

    turn: Turn
    call_or_answer: Call | Answer = _NO_CALL
    system: str | None = None
    waiting: Waiting = NOT_WAITING
    milestones: Milestones = NO_MILESTONES
    trace: CallTrace | None = None


def stopped(why: str) -> Waiting:
    """Returns the wait of a saga that cannot go on before a person has looked."""
    return Waiting(why=why, because=SagaWhy.STOPPED)


class TurnPlanner:
    """Plans the turns of one worker's sagas and makes their calls."""

    def __init__(
        self,
        plans: PlanBook,
        caller: Caller,
        removal_gate: RemovalGate,
        system_gates: SystemGates,
        tenant_file: TenantFile,
        log: Logger,
    ) -> None:
        """Prepares the planner.

        Args:
            plans: Plans of all lives.
            caller: Makes the calls.
            removal_gate: Asked before a teardown destroys.
            system_gates: Gates of the outside systems.
            tenant_file: What an operator tells, where no event does.
            log: Logger of the service.
        """
        self._plans, self._caller, self._log = plans, caller, log
        self._removal_gate, self._system_gates, self._tenant_file = removal_gate, system_gates, tenant_file

    async def prepare(self) -> None:
        """Stores the current plan in the registry; required before the first life begins with the plan."""
        await self._plans.keep()

    async def plan_turn(self, claim: Claim, journal: Journal, open_calls: OpenCalls, now_us: int) -> PreparedTurn:
        """Decides the next turn of a saga. `leave` must follow, since the turn may hold a slot at a gate.

        A bad plan of the current life stops the saga for a minute. A bad plan of an ended life is reported only when
        the turn ends in a wait: all remaining work of the saga goes first.

        Args:
            claim: Lease of the saga, with the newest desired version.
            journal: The journal with every answer so far.
            open_calls: The trace contexts of the open calls, after every answer so far.
            now_us: Microseconds UTC.
        """
        tracing.follow(claim.trace)
        # The version stays: a key that waits for its tenantId is decided anew once the file names it.
        claim.desired = completed(claim.desired, await self._tenant_file.of(claim.key, time.monotonic()))
        try:
            plans = await self._plans.needed_by(journal)
            prepared = await self._admit(claim, plans, journal, open_calls, now_us)
        except RegistryAway:
            # A stored plan or the brake could not be read. The lease goes back, and the saga is due again at once.
            return PreparedTurn(Turn(journal, Wait(now_us), ()))
        except BadPlan as error:
            self._log.error("plan of a life cannot be carried out", key=claim.key, why=str(error))
            waiting = stopped(f"its plan cannot be carried out: {error}")
            return PreparedTurn(Turn(journal, Wait(now_us + _BAD_PLAN_US), ()), waiting=waiting)
        if plans.unusable and isinstance(prepared.turn.move, Wait):
            why = "; ".join(plans.unusable.values())
            self._log.error("plan of an ended life cannot be carried out", key=claim.key, why=why)
            why = f"the plan of an ended life cannot be carried out: {why}"
            # Counted as stopped whatever else the saga waits for: the rest goes on by itself, this only by a person.
            return replace(prepared, waiting=replace(stopped(why), system=prepared.waiting.system))
        return prepared

    async def _admit(
        self, claim: Claim, plans: Plans, journal: Journal, open_calls: OpenCalls, now_us: int
    ) -> PreparedTurn:
        """Decides until a gate admits the call or the saga has to wait; each pass bars one more step of a life."""
        barred: dict[tuple[int, str], Wait] = {}
        away: str | None = None
        while True:
            # Always from the journal as given: the intent of a refused call is discarded with its turn.
            turn = decide(plans, journal, claim.desired, now_us, barred)
            move, met = turn.move, milestones(plans, journal, turn)
            if isinstance(move, Wait):
                word, since_us = standing(turn.journal, claim.desired, move, now_us)
                why = move.reason if move.reason in BEFORE_DESTRUCTION else None
                return PreparedTurn(turn, waiting=Waiting(away, why, word, since_us), milestones=met)
            if begins_destruction(journal, turn.journal, move):
                turned_away = await self._ask_to_remove(claim, turn.journal, now_us)
                if turned_away is not None:
                    barred[move.generation, move.step.name] = replace(turned_away, step=move.step.name)
                    continue
            prepared = self._caller.prepare(
                claim.key, claim.epoch, turn.journal, move, now_us=now_us, is_held=claim.is_held
            )
            if isinstance(prepared, OperatorRefused):
                # No key of the keyring opens a step's sealed outputs: a wait until the operator restores the key.
                barred[move.generation, move.step.name] = Wait(now_us + HELD_US, OPERATOR_REFUSED, move.step.name)
                continue
            if not isinstance(prepared, Call):
                return PreparedTurn(turn, prepared, milestones=met)
            # The turn is whole before the gate: an exception after `enter` would keep the slot for good.
            trace = call_trace(claim.trace, open_calls, prepared)
            whole = PreparedTurn(turn, prepared, milestones=met, trace=trace)
            system = system_of(prepared, move.step.traits)
            if system is None:
                return whole
            admission = await self._system_gates.enter(system, _org(claim.key), claim.key)
            if not admission.wait_s:
                return replace(whole, system=system)
            # A saga refused by a busy system has no recovery to wait for, and returns after about two seconds.
            away = system if admission.circuit_open else away
            reason = OPERATOR_REFUSED if admission.operator_refused else SYSTEM_AWAY if admission.circuit_open else ""
            barred[move.generation, move.step.name] = Wait(
                now_us + int(admission.wait_s * 1_000_000), reason, move.step.name
            )

    async def _ask_to_remove(self, claim: Claim, journal: Journal, now_us: int) -> Wait | None:
        """Asks for a teardown before its first delete; returns None if the teardown may begin.

        Args:
            claim: Lease of the saga.
            journal: The journal with the intent of the first delete.
            now_us: Microseconds UTC.

        Raises:
            RegistryAway: the brake could not be read.
        """
        if is_reinstalled(journal, claim.desired):
            # Nothing is destroyed yet: the life goes on, and uses up neither a place nor an approval.
            return Wait(now_us, REMOVAL_BRAKED)
        version = journal.target.version if journal.target else claim.desired.version
        installed_at_us = claim.desired.installed_at
        removal = Removal(claim.key, journal.generation, journal.phase_began_at, version, installed_at_us)
        found = await self._removal_gate.enter(removal, claim.epoch)
        return None if found is None else Wait(now_us + int(found.wait_s * 1_000_000), found.reason)

    async def call(self, prepared: PreparedTurn) -> tuple[Answer, str | None]:
        """Makes the call of a committed turn; an answer known before is returned as it is.

        Returns:
            The answer, and the system whose open circuit the answer has closed; None if no circuit was closed.
        """
        if not isinstance(prepared.call_or_answer, Call):
            return prepared.call_or_answer, None
        record_first_call(prepared.milestones)
        with call_span(prepared.trace, prepared.call_or_answer) as span:
            answer = await self._caller.call(prepared.call_or_answer)
            record_answer(span, prepared.call_or_answer, answer)
        # Before `leave`: the gate judges answers only while the slot of their call is held.
        if prepared.system is not None and self._system_gates.answered(
            prepared.system, prepared.call_or_answer.key, report_of(answer)
        ):
            return answer, prepared.system
        return answer, None

    def audit_messages(
        self, key: str, journal: Journal, move: Called, answer: Answer, now_us: int
    ) -> list[OutboxMessage]:
        """Returns the audit line of an answer, for the next commit; arguments as of `Caller.audit_messages`."""
        return self._caller.audit_messages(key, journal, move, answer, now_us)

    def is_circuit_open(self, system: str) -> bool:
        """True if the circuit of a system is open now: sagas wait, except for one probe at a time."""
        return self._system_gates.is_circuit_open(system)

    def leave(self, prepared: PreparedTurn) -> None:
        """Gives back the slot at the gate, if the turn holds a slot."""
        if prepared.system is not None and isinstance(prepared.call_or_answer, Call):
            self._system_gates.leave(prepared.system, _org(prepared.call_or_answer.key))


def _org(key: str) -> str:
    """Returns the organisation of a saga: sagas of one organisation share its part of a system's slots."""
    return key.partition(":")[0]
