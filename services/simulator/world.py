"""The outside systems' common manners: faults, epochs and idempotency keys around whatever a call does.

Rule: looking, doing and remembering happen without an await between them, so no two calls ever interleave; an answer is
remembered before it is given. The call list is in order of effect.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from schemas.times import rfc3339
from services.adapters.process.clock import now_us
from services.core.saga.calls import Verb
from services.simulator.faults import FaultKind, Faults, System
from services.simulator.memory import Memory


class CallOutcome(StrEnum):
    """What came of a call."""

    DONE = "done"
    ABSENT = "absent"
    REFUSED = "refused"
    ERROR = "error"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One call as it came in.

    Attributes:
        content: Fingerprint of what is asked: the same idempotency key with another one is refused.
    """

    system: System
    verb: Verb
    key: str
    generation: int
    epoch: int
    idempotency_key: str
    content: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer and what it says came of the call."""

    status: int
    body: Any
    outcome: CallOutcome


REFUSED: Final = Reply(422, {"error": "refused"}, CallOutcome.REFUSED)
UNAUTHORIZED: Final = Reply(401, {"error": "unauthorized"}, CallOutcome.REFUSED)
FAILED: Final = Reply(503, {"error": "unavailable"}, CallOutcome.ERROR)
STALE: Final = Reply(409, {"error": "stale_epoch"}, CallOutcome.REFUSED)
REUSED: Final = Reply(422, {"error": "idempotency_key_reused"}, CallOutcome.REFUSED)
_REPLIES: Final = {FaultKind.REFUSE: REFUSED, FaultKind.UNAUTHORIZED: UNAUTHORIZED, FaultKind.ERROR: FAILED}


class OutsideWorld:
    """Everything outside: its memory, its faults, its call list."""

    def __init__(self, memory: Memory, faults: Faults, latency_s: float) -> None:
        self.memory = memory
        self.faults = faults
        self.latency_s = latency_s
        self._calls: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for call in memory.table("calls").values():
            self._calls[call["key"]].append(call)

    async def receive(self, arrival: Arrival, effect: Callable[[], Reply]) -> Reply | None:
        """Answer one call; None means that no answer is given.

        Args:
            arrival: The call.
            effect: What it does; called at most once.
        """
        struck = self.faults.strike(arrival.system, arrival.verb, arrival.key, time.monotonic())
        if wait_s := self.latency_s + struck.wait_s:
            await asyncio.sleep(wait_s)
        if struck.ending is FaultKind.DOWN:
            return None
        if struck.ending in _REPLIES:
            reply = _REPLIES[struck.ending]
            self.record(arrival, reply.outcome)
            return reply
        reply = effect() if struck.forgetful or arrival.verb is Verb.READ else self._once(arrival, effect)
        lost = struck.ending is FaultKind.LOST_ANSWER and reply.outcome in {CallOutcome.DONE, CallOutcome.ABSENT}
        self.record(arrival, CallOutcome.LOST if lost else reply.outcome)
        return None if lost else reply

    def record(self, arrival: Arrival, outcome: CallOutcome) -> None:
        """Add one call to the list."""
        entry = {
            "at": rfc3339(now_us()),
            "system": arrival.system,
            "verb": arrival.verb,
            "key": arrival.key,
            "generation": arrival.generation,
            "idempotency_key": arrival.idempotency_key,
            "outcome": outcome,
        }
        self._calls[arrival.key].append(entry)
        self.memory.put("calls", str(len(self.memory.table("calls"))), entry)

    def calls(self, key: str | None) -> list[dict[str, Any]]:
        """The calls of one key, or of all, in order."""
        return list(self.memory.table("calls").values()) if key is None else list(self._calls.get(key, ()))

    def exist(self, system: System) -> dict[str, list[dict[str, Any]]]:
        """What a system keeps now, by key."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self.memory.table(system).values():
            found[row["key"]].append({"id": row["id"], "generation": row["generation"]})
        return found

    def _once(self, arrival: Arrival, effect: Callable[[], Reply]) -> Reply:
        epoch_id = f"{arrival.system}/{arrival.key}"
        seen = self.memory.table("epochs").get(epoch_id, 0)
        if arrival.epoch < seen:
            return STALE
        if arrival.epoch > seen:
            self.memory.put("epochs", epoch_id, arrival.epoch)
        if not arrival.idempotency_key:
            return effect()
        answer_id = f"{arrival.system}/{arrival.idempotency_key}"
        if known := self.memory.table("answers").get(answer_id):
            if known["content"] != arrival.content:
                return REUSED
            return Reply(known["status"], known["body"], CallOutcome(known["outcome"]))
        reply = effect()
        if reply.outcome in {CallOutcome.DONE, CallOutcome.ABSENT}:
            self.memory.put("answers", answer_id, asdict(reply) | {"content": arrival.content})
        return reply
