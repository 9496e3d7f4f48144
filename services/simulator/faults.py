"""Keeps the faults set by an operator, and decides the effect of the faults on each call.

Rule: a fault strikes every call matched by the filter (system, verb, key), until the count of calls is used up. A fault
without a count ends after a time; a fault with neither count nor time stays until cleared. For `slow` and `clock_skew`
the seconds are the wait or the deviation of each call, not a lifetime. The caller passes the clock, as monotonic
seconds.

Several faults may match a call. Waits add up, and the earliest fault with an answer decides the answer. A later fault
with an answer has not struck, so the call is not counted against the later fault.
"""

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.core.saga.calls import Verb


class System(StrEnum):
    """Names of the outside systems in the inventory, the call list and the faults."""

    MIDDLEWARE = "middleware"
    CRM = "crm"
    SCHEMAS = "schemas"
    SUBSCRIPTIONS = "subscriptions"
    TOKENS = "tokens"
    ARCHIVE = "archive"
    ACCOUNTS = "accounts"
    GENESYS = "genesys"


class FaultKind(StrEnum):
    """The kinds of faults. Those from `rate_limited` on exist for Genesys alone."""

    REFUSE = "refuse"
    """The system refuses the request itself, by an answer after which no client should repeat the request."""
    UNAUTHORIZED = "unauthorized"
    """The system refuses the caller's credentials."""
    ERROR = "error"
    """The system answers a temporary error, and the call has no effect."""
    SLOW = "slow"
    """The call waits before the effect. The effect comes even if the caller has given up by then."""
    LOST_ANSWER = "lost_answer"
    """The call takes effect, and the connection ends without the answer."""
    IGNORE_IDEMPOTENCY = "ignore_idempotency"
    """The system checks neither the idempotency key nor the epoch of the call."""
    DOWN = "down"
    """The connection ends without an answer, and the call has no effect."""
    RATE_LIMITED = "rate_limited"
    """The answer is 429 with `Retry-After`."""
    EMPTY = "empty"
    """A listing answers 200 with `total` 0 and no integrations."""
    MISSING_PAGE = "missing_page"
    """The last page of a listing is left out; `total` still counts its integrations."""
    STALE = "stale"
    """Reads show the state before the last change of each integration: a new integration is absent, a removed
    integration is present. The newest audit of each integration is missing."""
    SHIFTED_PAGE = "shifted_page"
    """From the second page on, the first entity of all is gone, as after a removal while the pages are read."""
    WRONG_TOTAL = "wrong_total"
    """`total` counts an entity more than the pages have."""
    FLAPPING = "flapping"
    """A read by id answers Genesys' own 404, although the integration exists."""
    UNKNOWN_VALUES = "unknown_values"
    """States of integrations, actions of audits and states of transactions are words of a later release."""
    CLOCK_SKEW = "clock_skew"
    """The header `Date` is ahead of the time by `seconds`; an hour without `seconds`."""
    BLANK = "blank"
    """The answer is a 200 without a body."""
    SILENT = "silent"
    """The request is taken and never answered; the connection stays open until the client gives up."""
    OVER_MINTED = "over_minted"
    """A request for a token is refused by a 400: the client requests tokens too often."""


GENESYS_ALONE: Final = frozenset(list(FaultKind)[list(FaultKind).index(FaultKind.RATE_LIMITED) :])
"""Kinds without a meaning for a system but Genesys."""
MINTING: Final = frozenset({FaultKind.OVER_MINTED})
"""Kinds that strike requests for tokens, and those alone."""
_OWN_SECONDS: Final = frozenset({FaultKind.SLOW, FaultKind.CLOCK_SKEW})
SKEW_S: Final = 3600.0


class Fault(BaseModel):
    """One fault: the body of `POST /faults`.

    Attributes:
        system: The system with the fault.
        fault: Kind of the fault.
        verb: Verb of the calls to strike; None strikes all verbs.
        key: `orgId:integrationId` of the calls to strike; None strikes all keys.
        times: Number of calls to strike; None sets no limit.
        seconds: For `slow` the wait of each call, for `clock_skew` the deviation. For any further kind, without
            `times`, the lifetime of the fault; None and 0 keep the fault until cleared.
        share: Probability of a strike, for each matching call.
        path: Text in the path of the requests to strike, for Genesys alone; None strikes all requests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: System
    fault: FaultKind
    verb: Verb | None = None
    key: str | None = None
    times: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, ge=0)
    share: float = Field(default=1.0, gt=0, le=1)
    path: str | None = None

    @model_validator(mode="after")
    def _has_meaning(self) -> Self:
        if self.system is not System.GENESYS and (self.fault in GENESYS_ALONE or self.path is not None):
            raise ValueError("this fault, or `path`, is for the system genesys alone")
        return self

    def matches(self, system: System, verb: Verb, key: str, path: str = "") -> bool:
        """True if the filter matches a call.

        A call about a whole organisation (a listing of Genesys) has the organisation's id as key. A fault of one
        integration matches the listings of the organisation too.
        """
        org_wide = self.key is not None and ":" not in key and self.key.startswith(f"{key}:")
        of_path = self.path is None or self.path in path
        return self.system is system and self.verb in {None, verb} and (self.key in {None, key} or org_wide) and of_path


@dataclass(frozen=True, slots=True)
class FaultEffect:
    """The effect of all matching faults on one call.

    Attributes:
        wait_s: Wait before the call takes effect.
        ending: The fault that decides the answer; None if no fault does.
        ignores_idempotency: True if idempotency key and epoch are not checked.
        skew_s: Deviation of the header `Date`.
    """

    wait_s: float = 0.0
    ending: FaultKind | None = None
    ignores_idempotency: bool = False
    skew_s: float = 0.0


@dataclass(slots=True)
class _ActiveFault:
    """A fault with the number of remaining calls and the monotonic second of the end; None is unlimited."""

    fault: Fault
    calls_left: int | None
    until_s: float | None


class Faults:
    """The faults in force."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._active: list[_ActiveFault] = []

    def add(self, fault: Fault, now_s: float) -> None:
        """Sets a fault. Faults strike in the order of these calls."""
        # Seconds with a meaning of their own are no lifetime; a count outlives any time.
        timed = fault.fault not in _OWN_SECONDS and fault.times is None
        self._active.append(
            _ActiveFault(fault, fault.times, now_s + fault.seconds if timed and fault.seconds else None)
        )

    def clear(self) -> int:
        """Removes all faults; returns the number removed."""
        count = len(self._active)
        self._active.clear()
        return count

    def strike(
        self, system: System, verb: Verb, key: str, now_s: float, path: str = "", *, minting: bool = False
    ) -> FaultEffect:
        """Returns the effect of the faults on a call, and counts the call against each striking fault.

        Args:
            system: The called system.
            verb: Verb of the call.
            key: `orgId:integrationId` of the call, or the organisation's id.
            now_s: Monotonic seconds.
            path: Path of the request, for the filter `path`.
            minting: True for a request for a token of Genesys, which only the kinds of `MINTING` strike.
        """
        wait_s, skew_s, ending, ignores_idempotency = 0.0, 0.0, None, False
        self._active = [active for active in self._active if active.until_s is None or now_s < active.until_s]
        # A new list, since `_spend` removes a used-up fault from `self._active` during the loop.
        for active in [active for active in self._active if active.fault.matches(system, verb, key, path)]:
            kind = active.fault.fault
            if (kind in MINTING) is not minting:
                continue
            if active.fault.share < 1 and self._chance.random() >= active.fault.share:
                continue
            if kind is FaultKind.SLOW:
                wait_s += active.fault.seconds or 0.0
            elif kind is FaultKind.CLOCK_SKEW:
                skew_s += SKEW_S if active.fault.seconds is None else active.fault.seconds
            elif kind is FaultKind.IGNORE_IDEMPOTENCY:
                ignores_idempotency = True
            elif ending is None:
                ending = kind
            else:
                continue
            self._spend(active)
        return FaultEffect(wait_s, ending, ignores_idempotency, skew_s)

    def is_down(self, system: System, key: str, now_s: float) -> bool:
        """True if a `down` fault without a count strikes every verb of a key; counts nothing.

        Meant for requests outside of the call list, like the CRM's token request: only a call may use up a fault.
        """
        standing = [
            active
            for active in self._active
            if active.calls_left is None and (active.until_s is None or now_s < active.until_s)
        ]
        down = [
            active.fault for active in standing if active.fault.fault is FaultKind.DOWN and active.fault.verb is None
        ]
        return any(fault.matches(system, Verb.READ, key) for fault in down)

    def _spend(self, active: _ActiveFault) -> None:
        """Counts one call against a fault; removes the fault after its last call."""
        if active.calls_left is not None:
            active.calls_left -= 1
            if active.calls_left == 0:
                self._active.remove(active)
