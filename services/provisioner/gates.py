"""The doors to the outside systems, as one worker has them: a bulkhead and a circuit breaker each.

Rule: a door is asked before an intent is committed, so that what does not pass has begun nothing and costs no try. A
system is a step of the plan, and where the event names the URL, its host: one tenant's system is another's never.
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


class _Gate:
    __slots__ = ("circuit", "places", "users")

    def __init__(self, at_once: int) -> None:
        self.circuit = Circuit()
        self.places = asyncio.Semaphore(at_once)
        self.users = 0


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

    async def enter(self, system: str) -> tuple[float, bool]:
        """Take a place before a call; each that was taken is given back by `leave`.

        Returns:
            How long to stay away (0: the place is taken), and whether that is because the system is away.
        """
        gate = self._gates.setdefault(system, _Gate(self._at_once))
        gate.users += 1
        stay_s, is_away = await self._place(gate)
        if stay_s:
            self._forget(system, gate)
        return stay_s, is_away

    async def _place(self, gate: _Gate) -> tuple[float, bool]:
        probes = gate.circuit.open
        if away_s := gate.circuit.wait_s(self._clock_s()):
            return away_s, True
        try:
            async with asyncio.timeout(_QUEUE_S):
                await gate.places.acquire()
        except TimeoutError:
            return _BUSY_S * self._chance.uniform(0.5, 1.5), False
        if not probes and (away_s := gate.circuit.wait_s(self._clock_s())):
            gate.places.release()  # it was found out meanwhile
            return away_s, True
        return 0.0, False

    def leave(self, system: str) -> None:
        """Give a place back."""
        gate = self._gates[system]
        gate.places.release()
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


def system_of(call: Call) -> str:
    """Which outside system a call goes to."""
    url = call.settings.get("url")
    if not isinstance(url, str) or call.settings.get("url_from") == "operator":
        return call.step
    try:
        return f"{call.step} {urlsplit(url).hostname or ''}"
    except ValueError:
        return call.step  # no such URL is ever called
