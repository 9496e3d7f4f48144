"""Which faults are set, and which of them strike a call.

Rule: a fault strikes the calls its filter means, in order of arrival, until its count, or else its time, is spent.
The clock is an argument.
"""

import random
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from services.core.saga.calls import Verb


class System(StrEnum):
    """An outside system, as the inventory and the faults name it."""

    MIDDLEWARE = "middleware"
    CRM = "crm"
    SCHEMAS = "schemas"
    SUBSCRIPTIONS = "subscriptions"
    TOKENS = "tokens"
    ARCHIVE = "archive"
    GENESYS = "genesys"


class FaultKind(StrEnum):
    """What goes wrong. The first seven are for every system, the others for Genesys alone."""

    REFUSE = "refuse"
    """The request is judged and refused, as it would be however often it came."""
    UNAUTHORIZED = "unauthorized"
    """The caller's own credentials are refused."""
    ERROR = "error"
    SLOW = "slow"
    """The call waits before it takes effect: a caller that gave up is answered by a late effect."""
    LOST_ANSWER = "lost_answer"
    """The call takes effect and its answer is withheld."""
    IGNORE_IDEMPOTENCY = "ignore_idempotency"
    """Neither the idempotency key nor the epoch of the call is looked at."""
    DOWN = "down"
    """The connection ends without an answer and nothing happens."""
    RATE_LIMITED = "rate_limited"
    EMPTY = "empty"
    """A listing answers 200 without integrations, and calls that complete."""
    MISSING_PAGE = "missing_page"
    """The last page of a listing is left out; `total` still counts its integrations."""
    STALE = "stale"
    """Reads show the state before the last change of each integration."""


class Fault(BaseModel):
    """One fault as an operator posts it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: System
    fault: FaultKind
    verb: Verb | None = None
    key: str | None = None
    times: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, ge=0)
    """Of `slow`: how long each call waits. Of every other without `times`: how long it stays; 0 is until cleared."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Of the calls it means, how many it strikes, by chance."""

    def means(self, system: System, verb: Verb, key: str) -> bool:
        """Whether the filter is for this call; a call about a whole organisation has the org's id as its key."""
        org_wide = self.key is not None and ":" not in key and self.key.startswith(f"{key}:")
        return self.system is system and self.verb in {None, verb} and (self.key in {None, key} or org_wide)


@dataclass(frozen=True, slots=True)
class Struck:
    """What strikes one call.

    Attributes:
        wait_s: Before anything happens.
        ending: The one fault that decides the answer, if any.
        forgetful: Idempotency key and epoch are not looked at.
    """

    wait_s: float = 0.0
    ending: FaultKind | None = None
    forgetful: bool = False


@dataclass(slots=True)
class _Set:
    fault: Fault
    left: int | None
    until_s: float | None


class Faults:
    """The faults set now."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._set: list[_Set] = []

    def add(self, fault: Fault, now_s: float) -> None:
        """Set one more."""
        timed = fault.fault is not FaultKind.SLOW and fault.times is None
        self._set.append(_Set(fault, fault.times, now_s + fault.seconds if timed and fault.seconds else None))

    def clear(self) -> int:
        """Remove all and say how many there were."""
        count = len(self._set)
        self._set.clear()
        return count

    def strike(self, system: System, verb: Verb, key: str, now_s: float) -> Struck:
        """What strikes this call now; counts what struck."""
        wait_s, ending, forgetful = 0.0, None, False
        self._set = [s for s in self._set if s.until_s is None or now_s < s.until_s]
        for one in [s for s in self._set if s.fault.means(system, verb, key)]:
            kind = one.fault.fault
            if one.fault.share < 1 and self._chance.random() >= one.fault.share:
                continue
            if kind is FaultKind.SLOW:
                wait_s += one.fault.seconds or 0.0
            elif kind is FaultKind.IGNORE_IDEMPOTENCY:
                forgetful = True
            elif ending is None:
                ending = kind
            else:
                continue
            self._spend(one)
        return Struck(wait_s, ending, forgetful)

    def is_down(self, system: System, key: str, now_s: float) -> bool:
        """Whether nobody answers there at all, whatever is asked; counts nothing."""
        standing = [s for s in self._set if s.left is None and (s.until_s is None or now_s < s.until_s)]
        down = [s.fault for s in standing if s.fault.fault is FaultKind.DOWN and s.fault.verb is None]
        return any(fault.means(system, Verb.READ, key) for fault in down)

    def _spend(self, one: _Set) -> None:
        if one.left is not None:
            one.left -= 1
            if one.left == 0:
                self._set.remove(one)
