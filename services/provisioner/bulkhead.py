"""The doors to the outside systems, as one worker has them: a bulkhead and a circuit breaker each.

Rule: a door is asked before an intent is committed, so that what does not pass has begun nothing. A
system is a step of the plan, and where the event names the URL, its host: one tenant's system is another's never. Of a
system's places one organisation has a quarter at most, so that its trouble leaves room for others.
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
    Refused,
    RefusedUs,
    Retryable,
    Unknown,
    Verb,
)
from services.core.saga.system_breaker import AWAY_S, SystemBreaker

_QUEUE_S: Final = 1.0
"""How long a saga keeps its place in the worker while it waits for its turn at a system."""
_BUSY_S: Final = 2.0
"""Then it comes again after about this long, and others have its place."""
_ASK_NOBODY: Final = frozenset({("archive", Verb.CREATE), ("archive", Verb.UPDATE), ("oauth", Verb.UPDATE)})
"""Kinds and verbs that are done without asking anybody."""
_NAMED_BY_URL: Final = frozenset({"http", "subscription"})
_ASKED_WITHIN_S: Final = 3_900.0
"""A system that nobody asked for so long is waited for by nobody (an answer may ask for an hour): it counts no more as
away. Else one that was away when its last tenant left would count for ever."""
_TOLD_FOR_S: Final = 3_600.0
_REMEMBERED: Final = 10_000
"""Systems of which a few failures are remembered while nobody calls them: the events name hosts."""


class _Share:
    """What one organisation has of a system's places, for as long as it uses any."""

    __slots__ = ("places", "users")

    def __init__(self, places: int) -> None:
        self.places = asyncio.Semaphore(places)
        self.users = 0


class _SystemGate:
    """One system: its places, of which one organisation may have a quarter."""

    __slots__ = ("_places", "_quarter", "_shares", "asked_s", "circuit", "users")

    def __init__(self, at_once: int, away_s: float) -> None:
        self.circuit = SystemBreaker(away_s)
        self.users = 0
        self.asked_s = 0.0
        self._quarter = max(1, at_once // 4)
        self._places = asyncio.Semaphore(at_once)
        self._shares: dict[str, _Share] = {}

    async def take(self, org: str) -> None:
        share = self._shares.setdefault(org, _Share(self._quarter))
        share.users += 1
        try:
            await share.places.acquire()
            try:
                await self._places.acquire()
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
    """What a door says.

    Attributes:
        wait_s: How long to stay away; 0: a place is held.
        is_away: True if that is because the system is away, or refuses the operator.
        refuses: True if the system refuses the operator's own credentials or set-up.
    """

    wait_s: float = 0.0
    is_away: bool = False
    refuses: bool = False


_TURNED_AWAY: Final = Admission(1.0)


class SystemGates:
    """Every system that this worker calls now, or knows to be in trouble."""

    def __init__(self, at_once: int, clock_s: Callable[[], float], log: Logger, away_s: float = AWAY_S) -> None:
        """Know of none.

        Args:
            at_once: Calls to one system at the same time.
            clock_s: Monotonic.
            log: Of the service.
            away_s: The longest wait of a saga at a gate.
        """
        self._longest_s = away_s
        self._at_once, self._clock_s, self._log = at_once, clock_s, log
        self._chance = random.Random()  # noqa: S311 - jitter, not a secret
        self._gates: dict[str, _SystemGate] = {}
        self._told_s: dict[str, float] = {}
        self._shown: set[str] = set()
        metrics.SAGA_SYSTEMS_AWAY.set_function(self.away)

    async def enter(self, system: str, key: str) -> Admission:
        """Take a place before a call; each that was taken is given back by `leave`."""
        gate = self._gates.setdefault(system, _SystemGate(self._at_once, self._longest_s))
        gate.users += 1
        gate.asked_s = self._clock_s()
        entry = _TURNED_AWAY
        try:
            entry = await self._place(gate, key)
        finally:
            if entry.wait_s:
                self._forget(system, gate)
        return entry

    async def _place(self, gate: _SystemGate, key: str) -> Admission:
        org = _org(key)
        probes = gate.circuit.open
        if away_s := self._away_s(gate, key):
            return Admission(away_s, is_away=True, refuses=gate.circuit.refuses)
        try:
            async with asyncio.timeout(_QUEUE_S):
                await gate.take(org)
        except TimeoutError:
            return Admission(_BUSY_S * self._chance.uniform(0.5, 1.5))
        if not probes and (away_s := self._away_s(gate, key)):
            gate.give_back(org)  # it was found out meanwhile
            return Admission(away_s, is_away=True, refuses=gate.circuit.refuses)
        return Admission()

    def _away_s(self, gate: _SystemGate, key: str) -> float:
        return gate.circuit.wait_s(key, self._clock_s(), self._chance.random())

    def leave(self, system: str, key: str) -> None:
        """Give a place back."""
        gate = self._gates[system]
        gate.give_back(_org(key))
        self._forget(system, gate)

    def answered(self, system: str, key: str, answer: Answer) -> bool:
        """Notes what became of a call whose place is still held; returns True if the system is well again by it."""
        circuit = self._gates[system].circuit
        was_open, refused = circuit.open, circuit.refuses
        match answer:
            case Refused(heard=False):
                return False
            case RefusedUs():
                circuit.refused(key, self._clock_s())
            case Done() | Absent() | Refused() | Contradicted() | Retryable(well=True) | Unknown(succeeded=True):
                circuit.answered()
            case _:
                circuit.failed(key, self._clock_s())
        if isinstance(answer, RefusedUs) and ((circuit.open and not was_open) or not refused):
            self._tell(system, answer, is_closed=circuit.open)
        elif was_open and refused and not circuit.open:
            self._told_s.pop(system, None)
            self._log.info("system does not refuse the operator any more", system=system)
        self._show(system, refuses=circuit.refuses)
        return was_open and not circuit.open

    def _tell(self, system: str, answer: RefusedUs, *, is_closed: bool) -> None:
        """Says what an operator has to put right: when the gate closes, and of a tenant refused alone once an hour."""
        now_s = self._clock_s()
        if is_closed or now_s >= self._told_s.get(system, -_TOLD_FOR_S) + _TOLD_FOR_S:
            self._told_s[system] = now_s
            self._log.error("system refuses the operator", system=system, why=answer.reason, remedy=answer.remedy)

    def _show(self, system: str, *, refuses: bool) -> None:
        if refuses or system in self._shown:
            self._shown.add(system)
            metrics.SAGA_SYSTEM_REFUSES.labels(system).set(refuses)

    def away(self) -> int:
        """Returns how many systems are left alone now, of those that somebody still asks for."""
        since_s = self._clock_s() - _ASKED_WITHIN_S
        for system in self._shown:
            gate = self._gates.get(system)
            self._show(system, refuses=gate is not None and gate.circuit.refuses and gate.asked_s > since_s)
        return sum(gate.circuit.open and gate.asked_s > since_s for gate in self._gates.values())

    def is_away(self, system: str) -> bool:
        """Whether it is left alone now."""
        gate = self._gates.get(system)
        return gate is not None and gate.circuit.open

    def _forget(self, system: str, gate: _SystemGate) -> None:
        gate.users -= 1
        if not gate.users and (gate.circuit.idle or (not gate.circuit.open and len(self._gates) > _REMEMBERED)):
            del self._gates[system]


def _org(key: str) -> str:
    return key.partition(":")[0]


def system_of(call: Call) -> str | None:
    """Which outside system a call goes to; None where it asks nobody."""
    if (call.kind, call.verb) in _ASK_NOBODY:
        return None
    url = call.settings.get("url")
    if call.kind not in _NAMED_BY_URL or call.settings.get("url_from") == "operator":
        return call.step
    places = [place for place in (url, *call.places, call.outputs.get("url")) if isinstance(place, str)]
    if not places:
        return None
    try:
        return f"{call.step} {urlsplit(places[0]).hostname or ''}"
    except ValueError:
        return None  # no such URL is ever called
