"""Claims due sagas and drives each by one loop: decide, commit, call, settle.

Rule: nothing is called before its intent is committed under a lease that still holds, and no answer is forgotten: it is
committed with whatever is decided next. Sagas share nothing but the worker's time.
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
from services.core.saga.moves import Wait
from services.core.saga.pace import Pace
from services.core.saga.results import settle
from services.provisioner.registry_guard import RegistryGuard
from services.provisioner.telemetry import tell
from services.provisioner.turn_planner import PreparedTurn, TurnPlanner

_POLL_S: Final = 0.5
"""How late a saga may be that another process made due, or whose time has come."""

_CLAIMS: Final = 8
"""A full worker asks for more when an eighth of its places is free: one claim each would be one statement a saga."""
_STOPPED_S: Final = 60.0
"""How long a saga rests after an error that nobody foresaw."""
_AWAY_FIRST_S: Final = 0.1
_AWAY_MOST_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """What one worker may do.

    Attributes:
        at_once: Sagas driven at the same time.
        lease_s: As the registry's; renewed every third of it.
        pace: Of waits.
    """

    at_once: int
    lease_s: float
    pace: Pace


class Runner:
    """One worker; any number of them, in any number of processes, share one registry."""

    def __init__(
        self,
        registry: Registry,
        turns: TurnPlanner,
        limits: RunnerLimits,
        *,
        log: Logger,
    ) -> None:
        """Prepare a worker.

        Args:
            registry: Started.
            turns: Decides, and makes the calls.
            limits: Of this worker.
            log: Of the service.
        """
        self._registry, self._turns = registry, turns
        turns.on_recovered = self._well_again
        self._at_once, self._lease_s, self._pace = limits.at_once, limits.lease_s, limits.pace
        self._log = log
        self.standing = RegistryGuard(registry, log)
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._waking: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._more = False
        self._stopping = False
        self.on_outbox_written: Callable[[], None] = lambda: None
        """Called when something to be published was committed."""

    def wake(self) -> None:
        """Look for due sagas now."""
        self._wake.set()

    async def prepare(self) -> None:
        """Keep the current plan, before the first life goes by it."""
        await self._turns.prepare()

    async def run(self) -> None:
        """Claim and drive until `stop`."""
        renewing = asyncio.create_task(self._renew(), name="renew")
        try:
            while not self._stopping:
                if renewing.done():
                    renewing.result()  # it ends only by an error that nobody foresaw
                self._wake.clear()
                free = self._at_once - len(self._running)
                claims = await self._claim(free) if free else []
                self._more = len(claims) == free
                for claim in claims:
                    task = asyncio.create_task(self._drive(claim), name=f"saga {claim.key}")
                    self._running[task] = claim
                    task.add_done_callback(self._ended)
                metrics.SAGA_RUNNING.set(len(self._running))
                if len(claims) < free or not free:
                    await self._rest(_POLL_S)
            if self._running:
                await asyncio.wait(self._running)
        finally:
            renewing.cancel()

    def stop(self) -> None:
        """Intend no further call; `run` returns when those intended are settled and their leases given back."""
        self._stopping = True
        self._wake.set()

    def is_stopping(self) -> bool:
        """Whether it was asked to."""
        return self._stopping

    async def _drive(self, claim: Claim) -> None:
        try:
            await self._driven(claim)
        except Exception as error:  # noqa: BLE001 - one saga's fault is no other's
            self._log.exception("saga stopped", key=claim.key)
            why = f"stopped by {type(error).__name__}, which the provisioner's log tells whole"
            with suppress(RegistryAway):
                # As it was last written: an intent whose call was made is in doubt.
                await self._registry.write(claim, claim.journal, (), due_in_s=_STOPPED_S, release=True, why=why)

    async def _driven(self, claim: Claim) -> None:
        journal, lines = claim.journal, list[OutboxMessage]()
        while True:
            now_us = claim.now_us()
            step = await self._next(claim, journal, now_us)
            try:
                match await self._commit(claim, step, lines, now_us):
                    case LeaseLost():
                        return
                    case NewerDesired(written):
                        if written:
                            journal, lines = step.turn.journal, []
                        continue
                    case TenantTaken():
                        journal = hold(journal, claim.desired, "tenant_conflict", now_us)
                        continue
                move = step.turn.move
                if isinstance(move, Wait) or not claim.is_held():
                    return
                answer = await self._turns.answer(step)
            finally:
                self._turns.leave(step)
            now_us = claim.now_us()
            journal = settle(step.turn.journal, move, answer, now_us, self._pace)
            lines = self._turns.lines(claim.key, journal, move, answer, now_us)

    async def _next(self, claim: Claim, journal: Journal, now_us: int) -> PreparedTurn:
        if self._stopping:
            return PreparedTurn(Turn(journal, Wait(now_us), ()))
        return await self._turns.next(claim, journal, now_us)

    async def _commit(
        self, claim: Claim, step: PreparedTurn, lines: list[OutboxMessage], now_us: int
    ) -> Written | NewerDesired | LeaseLost | TenantTaken:
        """Write one turn, however long the registry is away; a turn that ends in a wait gives the lease back."""
        turn = step.turn
        began_us, pause_s = claim.journal.turned_at, _AWAY_FIRST_S
        release = isinstance(turn.move, Wait)
        due_in_s = _due_in_s(turn.move, now_us) if isinstance(turn.move, Wait) else 0.0
        sayings = [*lines, *map(_saying, turn.outcomes)]
        while True:
            try:
                result = await self._registry.write(
                    claim,
                    turn.journal,
                    sayings,
                    due_in_s=due_in_s,
                    release=release,
                    waits_for=step.waits_for,
                    why=step.why,
                )
                break
            except RegistryAway as error:
                self.standing.note(str(error))
                if self._stopping:
                    return LeaseLost()
                await asyncio.sleep(pause_s)
                pause_s = min(_AWAY_MOST_S, pause_s * 2)
        if step.waits_for is not None and not self._turns.is_away(step.waits_for):
            self._well_again(step.waits_for)  # it came back while this was being written
        if sayings and (isinstance(result, Written) or result == NewerDesired(written=True)):
            tell(turn, began_us, self._log)
            self.on_outbox_written()
        return result

    async def _claim(self, limit: int) -> list[Claim]:
        claims = await self.standing.claim(limit)
        if self.standing.fault:
            await self._rest(_AWAY_MOST_S)
        return claims

    async def _rest(self, at_most_s: float) -> None:
        try:
            async with asyncio.timeout(at_most_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            claims = list(self._running.values())
            if claims:
                try:
                    await self._registry.renew(claims)
                except RegistryAway:
                    continue  # a worker that could not renew starts no call: `is_held` says so

    def _well_again(self, system: str) -> None:
        task = asyncio.create_task(self._wake_who_waits_for(system), name=f"wake for {system}")
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    async def _wake_who_waits_for(self, system: str) -> None:
        while not self._stopping:
            try:
                woken = await self._registry.wake(system)
            except RegistryAway:
                await asyncio.sleep(_AWAY_MOST_S)
                continue
            self._log.info("system is well again", system=system, woken=woken)
            self.wake()
            return

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("saga stopped and could not say so", why=repr(error))
        if self._more and (self._at_once - len(self._running)) * _CLAIMS >= self._at_once:
            self._wake.set()


def _saying(outcome: Outcome) -> OutboxMessage:
    return OutboxMessage(OUTCOMES.name, outcome.seq, codec.dump(outcome))


def _due_in_s(wait: Wait, now_us: int) -> float | None:
    return None if wait.until_us is None else max(0.0, (wait.until_us - now_us) / 1_000_000)
