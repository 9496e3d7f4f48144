"""The doors to the outside systems, as one worker has them: a bulkhead and a circuit breaker each.

Rule: a door is asked before an intent is committed, so that what does not pass has begun nothing and costs no try. A
system is a step of the plan, and where the event names the URL, its host: one tenant's system is another's never. Of a
system's places one organisation has half at most, so that its trouble leaves room for others.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from services.adapters import metrics
from services.core.calls import Absent, Answer, Call, Done, Refused
from services.core.circuit import Circuit

_QUEUE_S: Final = 1.0
"""How long a saga keeps its place in the worker while it waits for its turn at a system."""
_BUSY_S: Final = 2.0
"""Then it comes again after about this long, and others have its place."""
_REMEMBERED: Final = 10_000
"""Systems of which a few failures are remembered while nobody calls them: the events name hosts."""


class _Share:
    """What one organisation has of a system's places, for as long as it uses any."""

    __slots__ = ("places", "users")

    def __init__(self, places: int) -> None:
        self.places = asyncio.Semaphore(places)
        self.users = 0


class _Gate:
    """One system: its places, of which one organisation may have half."""

    __slots__ = ("_half", "_places", "_shares", "circuit", "users")

    def __init__(self, at_once: int) -> None:
        self.circuit = Circuit()
        self.users = 0
        self._half = max(1, at_once // 2)
        self._places = asyncio.Semaphore(at_once)
        self._shares: dict[str, _Share] = {}

    async def take(self, org: str) -> None:
        share = self._shares.setdefault(org, _Share(self._half))
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


class Gates:
    """Every system that this worker calls now, or knows to be in trouble."""

    def __init__(self, at_once: int, clock_s: Callable[[], float]) -> None:
        """Know of none.

        Args:
            at_once: Calls to one system at the same time.
            clock_s: Monotonic.
        """
        self._at_once, self._clock_s = at_once, clock_s
        self._chance = random.Random()  # noqa: S311 - jitter, not a secret
        self._gates: dict[str, _Gate] = {}

    async def enter(self, system: str, key: str) -> tuple[float, bool]:
        """Take a place before a call; each that was taken is given back by `leave`.

        Returns:
            How long to stay away (0: the place is taken), and whether that is because the system is away.
        """
        gate = self._gates.setdefault(system, _Gate(self._at_once))
        gate.users += 1
        stay_s, is_away = await self._place(gate, _org(key))
        if stay_s:
            self._forget(system, gate)
        return stay_s, is_away

    async def _place(self, gate: _Gate, org: str) -> tuple[float, bool]:
        probes = gate.circuit.open
        if away_s := gate.circuit.wait_s(self._clock_s()):
            return away_s, True
        try:
            async with asyncio.timeout(_QUEUE_S):
                await gate.take(org)
        except TimeoutError:
            return _BUSY_S * self._chance.uniform(0.5, 1.5), False
        if not probes and (away_s := gate.circuit.wait_s(self._clock_s())):
            gate.give_back(org)  # it was found out meanwhile
            return away_s, True
        return 0.0, False

    def leave(self, system: str, key: str) -> None:
        """Give a place back."""
        gate = self._gates[system]
        gate.give_back(_org(key))
        self._forget(system, gate)

    def answered(self, system: str, key: str, answer: Answer) -> bool:
        """Note what became of a call, while its place is still held; whether the system is well again by it."""
        circuit = self._gates[system].circuit
        is_well_again = False
        if isinstance(answer, Done | Absent | Refused):
            is_well_again = circuit.answered()
        else:
            circuit.failed(key, self._clock_s())
        metrics.SAGA_SYSTEMS_AWAY.set(len(self.away))
        return is_well_again

    @property
    def away(self) -> list[str]:
        """Systems that are left alone now."""
        return sorted(system for system, gate in self._gates.items() if gate.circuit.open)

    def _forget(self, system: str, gate: _Gate) -> None:
        gate.users -= 1
        if not gate.users and (gate.circuit.idle or (not gate.circuit.open and len(self._gates) > _REMEMBERED)):
            del self._gates[system]


def _org(key: str) -> str:
    return key.partition(":")[0]


def system_of(call: Call) -> str:
    """Which outside system a call goes to."""
    url = call.settings.get("url")
    if not isinstance(url, str) or call.settings.get("url_from") == "operator":
        return call.step
    try:
        return f"{call.step} {urlsplit(url).hostname or ''}"
    except ValueError:
        return call.step  # no such URL is ever called
