"""Gates before the outside systems: per worker and system a bulkhead and a circuit breaker (docs/decisions/0019).

Problem: a hanging system could occupy every place of a worker, every saga would call a system that is away, and a large
organisation could crowd out a small organisation. Approach: a saga takes a place at the system's gate before its intent
is committed, so a refused saga has begun nothing. Each gate has

- a bulkhead: at most `at_once` concurrent calls, at most a quarter of them by one organisation. A saga without a place
  after `_QUEUE_S` frees its place in the worker and returns after about `_BUSY_S`;
- a circuit breaker (`services.core.saga.system_breaker`): an open circuit refuses every saga but one probe at a time.

A system is a step of the plan. If the event names the URL, a system is the step and the URL's host: the broken endpoint
of one tenant never closes the gate of an endpoint at a different host.

Invariants: every place taken by `enter` is given back by `leave`; `answered` is called before `leave`; a gate stays in
memory only while a saga uses it or its breaker remembers a failure, since events may name any number of hosts.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.core.saga.calls import (
    Absent,
    Answer,
    Call,
    Contradicted,
    Done,
    OperatorRefused,
    Refused,
    Retryable,
    Unknown,
)
from services.core.saga.kind_traits import KindTraits, SystemBy
from services.core.saga.system_breaker import AWAY_S, SystemBreaker

_QUEUE_S: Final = 1.0
"""Longest wait for a place at a gate. The saga occupies its place in the worker meanwhile."""
_BUSY_S: Final = 2.0
"""Mean wait before a saga that found no place asks again; jittered by half, so that refused sagas spread out."""
_ASKED_WITHIN_S: Final = 3_900.0
"""How long an open circuit counts in the metrics after a saga last asked for the system: longer than an hour, the
longest `Retry-After` that is kept. A system whose last tenant has left must not count as away for ever."""
_LOG_AGAIN_S: Final = 3_600.0
"""Shortest interval between two log lines about a system that refuses single tenants."""
_REMEMBERED: Final = 10_000
"""Number of gates above which an unused gate with a closed circuit is forgotten along with its few failures."""


class _OrgShare:
    """Places of one organisation at a gate, for as long as the organisation waits for or holds a place."""

    __slots__ = ("places", "users")

    def __init__(self, places: int) -> None:
        self.places = asyncio.Semaphore(places)
        self.users = 0


class _SystemGate:
    """Gate of one system: circuit breaker, and places of which an organisation has at most a quarter.

    Attributes:
        circuit: Circuit breaker.
        users: Sagas that wait for or hold a place.
        asked_s: Time of the newest `enter`, by the clock of `SystemGates`.
    """

    __slots__ = ("_org_places", "_places", "_shares", "asked_s", "circuit", "users")

    def __init__(self, at_once: int, away_s: float) -> None:
        self.circuit = SystemBreaker(away_s)
        self.users = 0
        self.asked_s = 0.0
        self._org_places = max(1, at_once // 4)
        self._places = asyncio.Semaphore(at_once)
        self._shares: dict[str, _OrgShare] = {}

    async def take(self, org: str) -> None:
        # The share first: a saga that waits for its organisation's share must not occupy a place of the system.
        share = self._shares.setdefault(org, _OrgShare(self._org_places))
        share.users += 1
        try:
            await share.places.acquire()
            try:
                await self._places.acquire()
            # BaseException: the time-out of `_QUEUE_S` arrives here as a cancellation.
            except BaseException:
                share.places.release()
                raise
        except BaseException:
            self._leave_share(org)
            raise

    def give_back(self, org: str) -> None:
        self._places.release()
        self._shares[org].places.release()
        self._leave_share(org)

    def _leave_share(self, org: str) -> None:
        share = self._shares[org]
        share.users -= 1
        if not share.users:
            del self._shares[org]


class Admission(NamedTuple):
    """Result of asking at a gate.

    Attributes:
        wait_s: Seconds to stay away; 0 if a place was taken.
        is_away: True if the circuit is open: the system is away or refuses the operator.
        operator_refused: True if the system refuses the operator's own credentials or set-up.
    """

    wait_s: float = 0.0
    is_away: bool = False
    operator_refused: bool = False


_INTERRUPTED: Final = Admission(1.0)
"""Stands for the result while `enter` waits: an exception leaves `enter` without a place."""


class SystemGates:
    """Gates of all systems in use by this worker or remembered as failing. Use from one event loop."""

    def __init__(self, at_once: int, clock_s: Callable[[], float], log: Logger, away_s: float = AWAY_S) -> None:
        """Prepares the gates; each is made when first asked for.

        Args:
            at_once: Calls to one system at the same time.
            clock_s: Monotonic clock, seconds.
            log: Logger of the service.
            away_s: Longest wait of a saga at an open circuit, seconds.
        """
        self._longest_s = away_s
        self._at_once, self._clock_s, self._log = at_once, clock_s, log
        self._random = random.Random()  # noqa: S311 - jitter, not a secret
        self._gates: dict[str, _SystemGate] = {}
        self._logged_s: dict[str, float] = {}
        self._in_metric: set[str] = set()
        metrics.SAGA_SYSTEMS_AWAY.set_function(self.away)

    async def enter(self, system: str, key: str) -> Admission:
        """Asks for a place; a place taken (`wait_s` 0) must be given back by `leave`.

        Args:
            system: Name of the system, from `system_of`.
            key: Key of the saga, `orgId:integrationId`.
        """
        gate = self._gates.setdefault(system, _SystemGate(self._at_once, self._longest_s))
        # Counted before the first await: a gate with users is never forgotten.
        gate.users += 1
        gate.asked_s = self._clock_s()
        admission = _INTERRUPTED
        try:
            admission = await self._take_place(gate, key)
        finally:
            if admission.wait_s:
                self._release_gate(system, gate)
        return admission

    async def _take_place(self, gate: _SystemGate, key: str) -> Admission:
        org = _org(key)
        # Open and yet admitted by the next line: this saga is the probe.
        is_probe = gate.circuit.open
        if away_s := self._away_s(gate, key):
            return Admission(away_s, is_away=True, operator_refused=gate.circuit.operator_refused)
        try:
            async with asyncio.timeout(_QUEUE_S):
                await gate.take(org)
        except TimeoutError:
            return Admission(_BUSY_S * self._random.uniform(0.5, 1.5))
        # Race: the circuit may have opened during the wait for a place. A probe is not asked twice, since the breaker
        # has counted it already and would refuse it now.
        if not is_probe and (away_s := self._away_s(gate, key)):
            gate.give_back(org)
            return Admission(away_s, is_away=True, operator_refused=gate.circuit.operator_refused)
        return Admission()

    def _away_s(self, gate: _SystemGate, key: str) -> float:
        """Returns the wait that the circuit breaker imposes, in seconds; 0 if the saga may call or is the probe."""
        return gate.circuit.wait_s(key, self._clock_s(), self._random.random())

    def leave(self, system: str, key: str) -> None:
        """Gives back a place taken by `enter`."""
        gate = self._gates[system]
        gate.give_back(_org(key))
        self._release_gate(system, gate)

    def answered(self, system: str, key: str, answer: Answer) -> bool:
        """Reports an answer to the circuit breaker; to be called while the place of the call is still held.

        Args:
            system: Name of the system.
            key: Key of the saga.
            answer: Answer of the call.

        Returns:
            True if the answer closed the open circuit: sagas that wait for the system may be woken.
        """
        circuit = self._gates[system].circuit
        was_open, refused = circuit.open, circuit.operator_refused
        match answer:
            case Refused(heard=False):
                return False  # no request was sent, so nothing is known of the system
            case OperatorRefused():
                circuit.refused(key, self._clock_s())
            # A refusal, a contradiction or a stale epoch shows a working system.
            case Done() | Absent() | Refused() | Contradicted() | Retryable(well=True) | Unknown(succeeded=True):
                circuit.answered()
            case _:
                circuit.failed(key, self._clock_s())
        if isinstance(answer, OperatorRefused) and ((circuit.open and not was_open) or not refused):
            self._log_refusal(system, answer, is_open=circuit.open)
        elif was_open and refused and not circuit.open:
            self._logged_s.pop(system, None)
            self._log.info("system does not refuse the operator any more", system=system)
        self._set_refused_metric(system, operator_refused=circuit.operator_refused)
        return was_open and not circuit.open

    def _log_refusal(self, system: str, answer: OperatorRefused, *, is_open: bool) -> None:
        """Logs the remedy for the operator: always if the circuit is open, else at most once in `_LOG_AGAIN_S`."""
        now_s = self._clock_s()
        if is_open or now_s >= self._logged_s.get(system, -_LOG_AGAIN_S) + _LOG_AGAIN_S:
            self._logged_s[system] = now_s
            self._log.error("system refuses the operator", system=system, why=answer.reason, remedy=answer.remedy)

    def _set_refused_metric(self, system: str, *, operator_refused: bool) -> None:
        # A label appears with the first refusal and stays, at 0 or 1; systems without a refusal get no label.
        if operator_refused or system in self._in_metric:
            self._in_metric.add(system)
            metrics.SAGA_SYSTEM_REFUSES.labels(system).set(operator_refused)

    def away(self) -> int:
        """Returns the number of systems with an open circuit for which a saga asked within `_ASKED_WITHIN_S`.

        Called at each scrape of the metrics; also sets the refusals of systems without recent sagas to 0.
        """
        since_s = self._clock_s() - _ASKED_WITHIN_S
        for system in self._in_metric:
            gate = self._gates.get(system)
            self._set_refused_metric(
                system, operator_refused=gate is not None and gate.circuit.operator_refused and gate.asked_s > since_s
            )
        return sum(gate.circuit.open and gate.asked_s > since_s for gate in self._gates.values())

    def is_away(self, system: str) -> bool:
        """True if the circuit of a system is open now."""
        gate = self._gates.get(system)
        return gate is not None and gate.circuit.open

    def _release_gate(self, system: str, gate: _SystemGate) -> None:
        """Counts one user less and forgets a gate without users, unless its circuit breaker is needed."""
        gate.users -= 1
        if not gate.users and (gate.circuit.idle or (not gate.circuit.open and len(self._gates) > _REMEMBERED)):
            del self._gates[system]


def _org(key: str) -> str:
    return key.partition(":")[0]


def system_of(call: Call, traits: KindTraits) -> str | None:
    """Returns the name of the system that a call goes to; None if the call makes no request.

    Args:
        call: The call.
        traits: Traits of the call's kind.
    """
    if call.verb in traits.silent_verbs:
        return None
    url = call.settings.get("url")
    if traits.system is SystemBy.STEP or call.settings.get("url_from") == "operator":
        return call.step
    # A call may go to several places of a moved resource; the gate of the first stands for the whole call.
    places = [place for place in (url, *call.places, call.outputs.get("url")) if isinstance(place, str)]
    if not places:
        return None
    try:
        return f"{call.step} {urlsplit(places[0]).hostname or ''}"
    except ValueError:
        return None  # unusable as a URL: the kind refuses the call before any request
