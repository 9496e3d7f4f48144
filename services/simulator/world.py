"""The common behaviour of all outside systems: faults, epochs and idempotency keys around the effect of a call.

Order of a call: faults strike, the wait passes, the epoch is checked, the idempotency key is looked up, the effect
runs, the answer is stored, the call is recorded, the answer is returned.

Invariant: from the check of the epoch to the record there is no `await`. So no two calls interleave on the event loop,
and no lock is needed. The wait must stay before this part: a slow call checks the epoch after its wait, as a real
system would, and the call list is in the order of effects.
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
    """The outcome of a call in the call list. LOST took effect, and its answer was withheld."""

    DONE = "done"
    ABSENT = "absent"
    REFUSED = "refused"
    ERROR = "error"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """A call received by an outside system.

    Attributes:
        system: The called system.
        verb: Verb of the call.
        key: `orgId:integrationId`; empty if the caller gave none.
        generation: Generation of the resource.
        epoch: Number of the caller's lease; a smaller epoch than an earlier call's is refused.
        idempotency_key: Equal in all repeats of one call; empty switches the check off.
        content: Hash of the request. An idempotency key with a different hash than before is refused.
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
    """The answer to a call: HTTP status, JSON body, and the outcome for the call list."""

    status: int
    body: Any
    outcome: CallOutcome


REFUSED: Final = Reply(422, {"error": "refused"}, CallOutcome.REFUSED)
UNAUTHORIZED: Final = Reply(401, {"error": "unauthorized"}, CallOutcome.REFUSED)
FAILED: Final = Reply(503, {"error": "unavailable"}, CallOutcome.ERROR)
STALE: Final = Reply(409, {"error": "stale_epoch"}, CallOutcome.REFUSED)
KEY_REUSED: Final = Reply(422, {"error": "idempotency_key_reused"}, CallOutcome.REFUSED)
_REPLIES: Final = {FaultKind.REFUSE: REFUSED, FaultKind.UNAUTHORIZED: UNAUTHORIZED, FaultKind.ERROR: FAILED}


class OutsideWorld:
    """All outside systems together: memory, faults and call list. For one event loop.

    Attributes:
        memory: Tables of all systems, and of epochs, stored answers and calls.
        faults: The faults that are set.
        latency_s: Wait of every call, in seconds.
    """

    def __init__(self, memory: Memory, faults: Faults, latency_s: float) -> None:
        self.memory = memory
        self.faults = faults
        self.latency_s = latency_s
        # An index of the table `calls` by key: a burst would otherwise search all calls for each tenant.
        self._calls: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for call in memory.table("calls").values():
            self._calls[call["key"]].append(call)

    async def receive(self, call: IncomingCall, effect: Callable[[], Reply]) -> Reply | None:
        """Carries out one call; returns the answer, or None if a fault withholds the answer.

        Args:
            call: The call.
            effect: Changes or reads the state of the system, and must not await; called at most once.
        """
        fault = self.faults.strike(call.system, call.verb, call.key, time.monotonic())
        if wait_s := self.latency_s + fault.wait_s:
            await asyncio.sleep(wait_s)
        if fault.ending is FaultKind.DOWN:
            return None  # without a record: a system that is down has not seen the call
        if fault.ending in _REPLIES:
            reply = _REPLIES[fault.ending]
            self.record(call, reply.outcome)
            return reply
        # A READ changes nothing, so a stale worker may read, and a repeated READ must see the present state.
        reply = effect() if fault.ignores_idempotency or call.verb is Verb.READ else self._deduplicated(call, effect)
        # Only a call that took effect can lose its answer; a refusal is answered.
        lost = fault.ending is FaultKind.LOST_ANSWER and reply.outcome in {CallOutcome.DONE, CallOutcome.ABSENT}
        self.record(call, CallOutcome.LOST if lost else reply.outcome)
        return None if lost else reply

    def record(self, call: IncomingCall, outcome: CallOutcome) -> None:
        """Adds a call to the call list, with the time of now."""
        entry = {
            "at": rfc3339(now_us()),
            "system": call.system,
            "verb": call.verb,
            "key": call.key,
            "generation": call.generation,
            "idempotency_key": call.idempotency_key,
            "outcome": outcome,
        }
        self._calls[call.key].append(entry)
        self.memory.put("calls", str(len(self.memory.table("calls"))), entry)

    def calls(self, key: str | None) -> list[dict[str, Any]]:
        """Returns the recorded calls of a key (None: of all keys), in order of effect."""
        return list(self.memory.table("calls").values()) if key is None else list(self._calls.get(key, ()))

    def inventory(self, system: System) -> dict[str, list[dict[str, Any]]]:
        """Returns the present resources of a system by key, each with id and generation."""
        rows_by_key: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self.memory.table(system).values():
            rows_by_key[row["key"]].append({"id": row["id"], "generation": row["generation"]})
        return rows_by_key

    def _deduplicated(self, call: IncomingCall, effect: Callable[[], Reply]) -> Reply:
        """Runs the effect unless the epoch is stale or the idempotency key is known; stores the answer of a success."""
        epoch_id = f"{call.system}/{call.key}"
        newest_epoch = self.memory.table("epochs").get(epoch_id, 0)
        if call.epoch < newest_epoch:
            return STALE
        # Raised before the effect, so that a call refused by its effect fences off older workers as well.
        if call.epoch > newest_epoch:
            self.memory.put("epochs", epoch_id, call.epoch)
        if not call.idempotency_key:
            return effect()
        answer_id = f"{call.system}/{call.idempotency_key}"
        if stored := self.memory.table("answers").get(answer_id):
            if stored["content"] != call.content:
                return KEY_REUSED
            return Reply(stored["status"], stored["body"], CallOutcome(stored["outcome"]))
        reply = effect()
        # Only successes are stored: a refused call may succeed on a repeat, once its cause is gone.
        if reply.outcome in {CallOutcome.DONE, CallOutcome.ABSENT}:
            self.memory.put("answers", answer_id, asdict(reply) | {"content": call.content})
        return reply
