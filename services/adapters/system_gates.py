"""Gates before outside systems: per process and system a bulkhead and a circuit breaker (docs/decisions/0019).

Problem: a hanging system could occupy every slot of a worker, a system that is away would be called again and again,
and a large organisation could crowd out a small organisation. Approach: a caller acquires a slot at the system's gate
before the call. Each gate has

- a bulkhead: at most `at_once` concurrent calls, at most a quarter of them by one *share*, the party that shares the
  system with the rest: an organisation, say. A caller without a slot after `_QUEUE_S` returns after about `_BUSY_S`;
- a circuit breaker, made by the factory given: an open circuit turns every caller away but one probe at a time.

Invariants: every slot acquired by `enter` is released by `leave`; `answered` is called before `leave`; a gate stays in
memory only while a caller uses the gate or the breaker remembers a failure, since there may be any number of systems.
"""

import asyncio
import random
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol

from services.adapters.process.logs import Logger

_QUEUE_S: Final = 1.0
"""Longest wait for a slot at a gate. The caller occupies its slot in the worker meanwhile."""
_BUSY_S: Final = 2.0
"""Mean wait before a caller that found no slot asks again; jittered by half, to spread out callers turned away."""
_ASKED_WITHIN_S: Final = 3_900.0
"""How long an open circuit counts in the metrics after a caller last asked for the system: longer than an hour, the
longest `Retry-After` that is kept. A system whose last caller has left must not count as away for ever."""
_LOG_AGAIN_S: Final = 3_600.0
"""Shortest interval between two log lines about a system that refuses single callers."""
_REMEMBERED: Final = 10_000
"""Number of gates above which an unused gate with a closed circuit is forgotten along with its few failures."""


class SystemHealth(Enum):
    """Evidence of a call about the health of its system."""

    WORKED = auto()
    """The system works; a refusal of the caller's inputs is such an answer."""
    FAILED = auto()
    """The call had no answer, or an answer that reports trouble of the system."""
    OPERATOR_REFUSED = auto()
    """The system refused the operator's own credentials or set-up."""
    NOTHING_KNOWN = auto()
    """No request was sent."""


class CallReport(NamedTuple):
    """Report of a call to the gate of its system.

    Attributes:
        health: Evidence about the system.
        why: Short reason, for the log; needed if the operator was refused.
        remedy: One sentence for the operator: how to end the refusal.
    """

    health: SystemHealth
    why: str = ""
    remedy: str = ""


class CircuitBreaker(Protocol):
    """State of one system in one process; see `services.core.saga.system_breaker` for the rules."""

    @property
    def open(self) -> bool:
        """True while the circuit is open."""

    @property
    def operator_refused(self) -> bool:
        """True while the newest failure was a refusal of the operator's own credentials or set-up."""

    @property
    def idle(self) -> bool:
        """True if the circuit is closed and no failure is counted, so the breaker can be dropped and made anew."""

    def answered(self) -> None:
        """Counts a good answer, and closes the circuit."""

    def failed(self, key: str, now_s: float) -> None:
        """Counts an outage seen by the caller `key`."""

    def refused(self, key: str, now_s: float) -> None:
        """Counts a refusal of the operator seen by the caller `key`."""

    def wait_s(self, key: str, now_s: float, chance: float) -> float:
        """Returns the wait of the caller `key` in seconds; 0 admits the call, as the probe if the circuit is open."""


class _Share:
    """Slots of one share at a gate, for as long as the share waits for or holds a slot."""

    __slots__ = ("slots", "users")

    def __init__(self, slots: int) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.users = 0


class _SystemGate:
    """Gate of one system: circuit breaker, and slots of which a share has at most a quarter.

    Attributes:
        circuit: Circuit breaker.
        users: Callers that wait for or hold a slot.
        asked_s: Time of the newest `enter`, by the clock of `SystemGates`.
    """

    __slots__ = ("_share_slots", "_shares", "_slots", "asked_s", "circuit", "users")

    def __init__(self, at_once: int, circuit: CircuitBreaker) -> None:
        self.circuit = circuit
        self.users = 0
        self.asked_s = 0.0
        self._share_slots = max(1, at_once // 4)
        self._slots = asyncio.Semaphore(at_once)
        self._shares: dict[str, _Share] = {}

    async def acquire(self, name: str) -> None:
        # The share first: a caller that waits for its share must not occupy a slot of the system.
        share = self._shares.setdefault(name, _Share(self._share_slots))
        share.users += 1
        try:
            await share.slots.acquire()
            try:
                await self._slots.acquire()
            # BaseException: the time-out of `_QUEUE_S` arrives here as a cancellation.
            except BaseException:
                share.slots.release()
                raise
        except BaseException:
            self._leave_share(name)
            raise

    def release(self, name: str) -> None:
        self._slots.release()
        self._shares[name].slots.release()
        self._leave_share(name)

    def _leave_share(self, name: str) -> None:
        share = self._shares[name]
        share.users -= 1
        if not share.users:
            del self._shares[name]


class Admission(NamedTuple):
    """Result of asking at a gate.

    Attributes:
        wait_s: Seconds to stay away; 0 if a slot was acquired.
        circuit_open: True if the circuit is open: the system is away or refuses the operator.
        operator_refused: True if the system refuses the operator's own credentials or set-up.
    """

    wait_s: float = 0.0
    circuit_open: bool = False
    operator_refused: bool = False


_INTERRUPTED: Final = Admission(1.0)
"""Stands for the result while `enter` waits: an exception leaves `enter` without a slot."""


class SystemGates:
    """Gates of all systems in use by this process or remembered as failing. Use from one event loop."""

    def __init__(
        self, at_once: int, new_breaker: Callable[[], CircuitBreaker], clock_s: Callable[[], float], log: Logger
    ) -> None:
        """Prepares the gates; each is made when first asked for.

        Args:
            at_once: Calls to one system at the same time.
            new_breaker: Makes the circuit breaker of a system, closed.
            clock_s: Monotonic clock, seconds.
            log: Logger of the service.
        """
        self._at_once, self._new_breaker, self._clock_s, self._log = at_once, new_breaker, clock_s, log
        self._random = random.Random()  # noqa: S311 - jitter, not a secret
        self._gates: dict[str, _SystemGate] = {}
        self._logged_s: dict[str, float] = {}

    async def enter(self, system: str, share: str, key: str) -> Admission:
        """Asks for a slot; an acquired slot (`wait_s` 0) must be released by `leave`.

        Args:
            system: Name of the system.
            share: Name of the party that has a quarter of the slots at most.
            key: Key of the caller: the circuit breaker counts different keys.
        """
        gate = self._gates.get(system)
        if gate is None:
            gate = self._gates[system] = _SystemGate(self._at_once, self._new_breaker())
        # Counted before the first await: a gate with users is never forgotten.
        gate.users += 1
        gate.asked_s = self._clock_s()
        admission = _INTERRUPTED
        try:
            admission = await self._acquire_slot(gate, share, key)
        finally:
            if admission.wait_s:
                self._release_gate(system, gate)
        return admission

    async def _acquire_slot(self, gate: _SystemGate, share: str, key: str) -> Admission:
        # Open and yet admitted by the next line: this caller is the probe.
        is_probe = gate.circuit.open
        if away_s := self._away_s(gate, key):
            return Admission(away_s, circuit_open=True, operator_refused=gate.circuit.operator_refused)
        try:
            async with asyncio.timeout(_QUEUE_S):
                await gate.acquire(share)
        except TimeoutError:
            return Admission(_BUSY_S * self._random.uniform(0.5, 1.5))
        # Race: the circuit may have opened during the wait for a slot. A probe is not asked twice, since the breaker
        # has counted it already and would refuse it now.
        if not is_probe and (away_s := self._away_s(gate, key)):
            gate.release(share)
            return Admission(away_s, circuit_open=True, operator_refused=gate.circuit.operator_refused)
        return Admission()

    def _away_s(self, gate: _SystemGate, key: str) -> float:
        """Returns the wait that the circuit breaker imposes, in seconds; 0 if the call may go out or is the probe."""
        return gate.circuit.wait_s(key, self._clock_s(), self._random.random())

    def leave(self, system: str, share: str) -> None:
        """Releases a slot acquired by `enter`."""
        gate = self._gates[system]
        gate.release(share)
        self._release_gate(system, gate)

    def answered(self, system: str, key: str, report: CallReport) -> bool:
        """Reports a call to the circuit breaker; to be called while the slot of the call is still held.

        Args:
            system: Name of the system.
            key: Key of the caller.
            report: Evidence of the call about the system.

        Returns:
            True if the answer closed the open circuit: callers that wait for the system may be woken.
        """
        circuit = self._gates[system].circuit
        was_open, was_refused = circuit.open, circuit.operator_refused
        match report.health:
            case SystemHealth.NOTHING_KNOWN:
                return False
            case SystemHealth.OPERATOR_REFUSED:
                circuit.refused(key, self._clock_s())
            case SystemHealth.WORKED:
                circuit.answered()
            case SystemHealth.FAILED:
                circuit.failed(key, self._clock_s())
        if report.health is SystemHealth.OPERATOR_REFUSED and ((circuit.open and not was_open) or not was_refused):
            self._log_refusal(system, report, is_open=circuit.open)
        elif was_open and was_refused and not circuit.open:
            self._logged_s.pop(system, None)
            self._log.info("system does not refuse the operator any more", system=system)
        return was_open and not circuit.open

    def _log_refusal(self, system: str, report: CallReport, *, is_open: bool) -> None:
        """Logs the remedy for the operator: always if the circuit is open, else at most once in `_LOG_AGAIN_S`."""
        now_s = self._clock_s()
        if is_open or now_s >= self._logged_s.get(system, -_LOG_AGAIN_S) + _LOG_AGAIN_S:
            self._logged_s[system] = now_s
            self._log.error("system refuses the operator", system=system, why=report.why, remedy=report.remedy)

    def away(self) -> list[str]:
        """Returns the systems with an open circuit for which a caller asked within `_ASKED_WITHIN_S`."""
        return [system for system, gate in self._asked_lately() if gate.circuit.open]

    def refusing(self) -> list[str]:
        """Returns the systems, of those asked for likewise, that refuse the operator's own credentials or set-up."""
        return [system for system, gate in self._asked_lately() if gate.circuit.operator_refused]

    def _asked_lately(self) -> list[tuple[str, _SystemGate]]:
        since_s = self._clock_s() - _ASKED_WITHIN_S
        return [(system, gate) for system, gate in self._gates.items() if gate.asked_s > since_s]

    def is_circuit_open(self, system: str) -> bool:
        """True if the circuit of a system is open now."""
        gate = self._gates.get(system)
        return gate is not None and gate.circuit.open

    def _release_gate(self, system: str, gate: _SystemGate) -> None:
        """Counts one user less and forgets a gate without users, unless its circuit breaker is needed."""
        gate.users -= 1
        if not gate.users and (gate.circuit.idle or (not gate.circuit.open and len(self._gates) > _REMEMBERED)):
            del self._gates[system]
