"""Claims due sagas from the registry and drives each one in a loop: decide, commit, call, settle.

Problem: a worker may die or lose its lease between any two statements, and the effect of a call is unknown once its
answer is lost. Approach: a write-ahead journal in the registry. Each pass of the loop is one turn:

1. decide: a pure function chooses the next move and adds its intent to the journal;
2. commit: the registry stores journal and outbox messages, if the lease still holds;
3. call: the outside system is called, only after the commit and only while the lease is held;
4. settle: a pure function adds the answer to the journal, in memory; the commit of the next turn stores the answer.

Invariants: no call without a committed intent under a held lease; no answer is dropped, because the next decision and
the answer before it are one commit. A crash between 3 and the next 2 leaves an open intent: the next worker reads the
resource back by name, then repeats the call with the same idempotency key. The order of the four must never change.
Sagas share the worker's time and nothing else; an unexpected error stops one saga and not the worker.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from schemas import codec
from schemas.outcome import Outcome
from schemas.saga import Journal
from schemas.topics import OUTCOMES
from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.adapters.registry.registry import Registry, RegistryAway
from services.adapters.registry.types import Claim, LeaseLost, NewerDesired, OutboxMessage, TenantTaken, Written
from services.core.saga.intents import Turn, hold
from services.core.saga.milestones import phase_began_us
from services.core.saga.moves import Wait
from services.core.saga.open_calls import OpenCalls, after_answer, with_call
from services.core.saga.pace import Pace
from services.core.saga.results import settle
from services.provisioner.registry_guard import RegistryGuard
from services.provisioner.telemetry import record_outcomes
from services.provisioner.turn_planner import PreparedTurn, TurnPlanner, stopped

_POLL_S: Final = 0.5
"""Interval between two claims of an idle worker: the longest delay of a saga whose wait has ended or which another
process has made due."""
_CLAIM_FRACTION: Final = 8
"""A full worker claims again once an eighth of its slots is free; a claim per free slot would be a statement per
saga."""
_STOPPED_S: Final = 60.0
"""Pause of a saga after an unexpected error."""
_AWAY_FIRST_S: Final = 0.1
_AWAY_MOST_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """Limits of one worker.

    Attributes:
        at_once: Sagas driven concurrently.
        lease_s: Length of a lease in seconds, equal to the registry's; leases are renewed every third of `lease_s`.
        pace: Waits between retries.
    """

    at_once: int
    lease_s: float
    pace: Pace


class Runner:
    """One worker. Any number of workers, in any number of processes, share one registry."""

    def __init__(
        self,
        registry: Registry,
        registry_guard: RegistryGuard,
        planner: TurnPlanner,
        limits: RunnerLimits,
        *,
        on_outbox_written: Callable[[], None],
        log: Logger,
    ) -> None:
        """Prepares a worker; nothing is claimed before `run`.

        Args:
            registry: Started registry.
            registry_guard: Leases due sagas, once the registry is proved.
            planner: Decides turns and makes their calls.
            limits: Limits of this worker.
            on_outbox_written: Called after a commit with outbox messages.
            log: Logger of the service.
        """
        self._registry, self._registry_guard, self._planner = registry, registry_guard, planner
        self._at_once, self._lease_s, self._pace = limits.at_once, limits.lease_s, limits.pace
        self._on_outbox_written, self._log = on_outbox_written, log
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._wake_tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._more_due = self._stopping = False

    def wake(self) -> None:
        """Requests an immediate claim of due sagas."""
        self._wake.set()

    async def prepare(self) -> None:
        """Stores the current plan in the registry; required before the first life begins with the plan."""
        await self._planner.prepare()

    async def run(self) -> None:
        """Claims and drives sagas until `stop`."""
        renewing = asyncio.create_task(self._renew(), name="renew")
        try:
            while not self._stopping:
                if renewing.done():
                    # The task ends only by an unexpected error. Without renewals no lease lasts: the worker ends too.
                    renewing.result()
                # Cleared before the claim, so that a wake during the claim is kept for the rest below.
                self._wake.clear()
                free = self._at_once - len(self._running)
                claims = await self._claim(free) if free else []
                self._more_due = len(claims) == free
                for claim in claims:
                    task = asyncio.create_task(self._drive(claim), name=f"saga {claim.key}")
                    self._running[task] = claim
                    task.add_done_callback(self._on_saga_done)
                metrics.PROVISIONER_RUNNING.set(len(self._running))
                if len(claims) < free or not free:
                    await self._rest(_POLL_S)
            if self._running:
                await asyncio.wait(self._running)
        finally:
            renewing.cancel()

    def stop(self) -> None:
        """Begins no further call; `run` returns once calls under way are settled and their leases given back."""
        self._stopping = True
        self._wake.set()

    async def _drive(self, claim: Claim) -> None:
        """Runs the turns of a claimed saga; an unexpected error releases the row for `_STOPPED_S`."""
        try:
            await self._run_turns(claim)
        except Exception as error:  # noqa: BLE001 - the fault of one saga must not stop the worker
            self._log.exception("saga stopped", key=claim.key)
            waiting = stopped(f"stopped by {type(error).__name__}, which the provisioner's log tells whole")
            with suppress(RegistryAway):
                # The journal as last committed: the intent of a call already made stays open, hence in doubt.
                await self._registry.write(claim, claim.journal, (), due_in_s=_STOPPED_S, release=True, waiting=waiting)

    async def _run_turns(self, claim: Claim) -> None:
        """Repeats decide, commit, call and settle until a turn ends in a wait or the lease is gone."""
        journal, open_calls, messages = claim.journal, claim.open_calls, list[OutboxMessage]()
        while True:
            now_us = claim.now_us()
            prepared = await self._plan_turn(claim, journal, open_calls, now_us)
            try:
                match await self._commit(claim, prepared, open_calls, messages, now_us):
                    case LeaseLost():
                        return
                    case NewerDesired(written):
                        # Written: an earlier attempt of this commit took effect and its confirmation was lost, so the
                        # messages are in the outbox. Not written: journal and messages stay for the next commit.
                        if written:
                            journal, open_calls, messages = prepared.turn.journal, claim.open_calls, []
                        continue
                    case TenantTaken():
                        journal = hold(journal, claim.desired, "tenant_conflict", now_us)
                        continue
                move = prepared.turn.move
                # A lease may end during a slow commit. The intent stays open for the next worker.
                if isinstance(move, Wait) or not claim.is_held():
                    return
                answer, recovered = await self._planner.call(prepared)
                if recovered is not None:
                    self._on_recovered(recovered)
            finally:
                self._planner.leave(prepared)  # the slot at the system, on every way out
            now_us = claim.now_us()
            journal = settle(prepared.turn.journal, move, answer, now_us, self._pace)
            open_calls = after_answer(claim.open_calls, journal, move)
            messages = self._planner.audit_messages(claim.key, journal, move, answer, now_us)

    async def _plan_turn(self, claim: Claim, journal: Journal, open_calls: OpenCalls, now_us: int) -> PreparedTurn:
        if self._stopping:
            # A wait until now gives the lease back: any worker may continue at once.
            return PreparedTurn(Turn(journal, Wait(now_us), ()))
        return await self._planner.plan_turn(claim, journal, open_calls, now_us)

    async def _commit(
        self, claim: Claim, prepared: PreparedTurn, open_calls: OpenCalls, messages: list[OutboxMessage], now_us: int
    ) -> Written | NewerDesired | LeaseLost | TenantTaken:
        """Commits one turn and retries while the registry is away; a turn with a wait gives the lease back.

        Args:
            claim: Lease of the saga.
            prepared: Turn to commit.
            open_calls: The trace contexts of the open calls before this turn.
            messages: Audit lines of the answer before this turn.
            now_us: Time of the decision, microseconds UTC.

        Returns:
            The result of the registry, or `LeaseLost` if the worker is to stop while the registry is away.
        """
        turn, waiting, trace = prepared.turn, prepared.waiting, prepared.trace
        # The row names the span of the call before the call: also to a worker that takes over after a kill.
        calls = with_call(open_calls, turn.journal, {trace.place: trace.own} if trace else {})
        began_us, pause_s = phase_began_us(claim.journal), _AWAY_FIRST_S
        release = isinstance(turn.move, Wait)
        due_in_s = _due_in_s(turn.move, now_us) if isinstance(turn.move, Wait) else 0.0
        messages = [*messages, *map(_outbox_message, turn.outcomes)]
        while True:
            try:
                # Safe to repeat after a lost confirmation: the journal is equal and the outbox ignores known numbers.
                result = await self._registry.write(
                    claim, turn.journal, messages, due_in_s=due_in_s, release=release, waiting=waiting, open_calls=calls
                )
                break
            except RegistryAway as error:
                self._registry_guard.note_fault(str(error))
                if self._stopping:
                    return LeaseLost()
                await asyncio.sleep(pause_s)
                pause_s = min(_AWAY_MOST_S, pause_s * 2)
        # Race: a system that recovered before `waiting` was committed has woken every saga but this one.
        if waiting.system is not None and not self._planner.is_circuit_open(waiting.system):
            self._on_recovered(waiting.system)
        if messages and (isinstance(result, Written) or result == NewerDesired(written=True)):
            record_outcomes(turn, prepared.milestones, began_us, self._log)
            self._on_outbox_written()
        return result

    async def _claim(self, limit: int) -> list[Claim]:
        claims = await self._registry_guard.claim(limit)
        if self._registry_guard.fault:
            await self._rest(_AWAY_MOST_S)
        return claims

    async def _rest(self, at_most_s: float) -> None:
        try:
            async with asyncio.timeout(at_most_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _renew(self) -> None:
        """Renews every running lease each third of its length, so that one failed renewal costs no lease."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            claims = list(self._running.values())
            if claims:
                try:
                    await self._registry.renew(claims)
                except RegistryAway:
                    continue  # a lease without renewal ends by the clock: `Claim.is_held` then forbids calls

    def _on_recovered(self, system: str) -> None:
        task = asyncio.create_task(self._wake_waiting_sagas(system), name=f"wake for {system}")
        # The event loop keeps weak references to tasks: the set keeps this one alive.
        self._wake_tasks.add(task)
        task.add_done_callback(self._wake_tasks.discard)

    async def _wake_waiting_sagas(self, system: str) -> None:
        """Makes all sagas due, of all workers, that wait for a recovered system; retries while the registry is away."""
        while not self._stopping:
            try:
                woken = await self._registry.wake(system)
            except RegistryAway:
                await asyncio.sleep(_AWAY_MOST_S)
                continue
            self._log.info("system is well again", system=system, woken=woken)
            self.wake()
            return

    def _on_saga_done(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        # `_drive` catches errors of the turns; an error here came from writing the row afterwards.
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("saga stopped and could not say so", why=repr(error))
        if self._more_due and (self._at_once - len(self._running)) * _CLAIM_FRACTION >= self._at_once:
            self._wake.set()


def _outbox_message(outcome: Outcome) -> OutboxMessage:
    return OutboxMessage(OUTCOMES.name, outcome.seq, codec.dump(outcome))


def _due_in_s(wait: Wait, now_us: int) -> float | None:
    """Returns the seconds until a saga is due again; None if only a newer desired version makes the saga due."""
    return None if wait.until_us is None else max(0.0, (wait.until_us - now_us) / 1_000_000)
