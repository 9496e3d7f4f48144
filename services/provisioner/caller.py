"""Makes one call: from a move to a `Call`, to its kind, within its time, and back with secrets sealed.

Rule: whatever happens, an answer comes back. What nobody foresaw is `Unknown`, since it may have had its effect.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Protocol

from schemas import codec
from schemas.outcome import WORDS_MAX
from schemas.saga import Journal, Life
from schemas.topics import AUDIT
from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.adapters.registry.types import OutboxMessage
from services.adapters.secrets.sealing import Sealer, Unsealable
from services.core.ledger import audit
from services.core.saga.calls import Answer, Call, Done, Refused, RefusedUs, Unknown, Verb, idempotency_key
from services.core.saga.intents import life_of, log_of, places_of
from services.core.saga.moves import Called, Observe, Undo
from services.core.saga.next_move import facts
from services.core.saga.plan import Step
from services.core.saga.references import references, substitute

_SLACK_S: Final = 1.0
"""A kind keeps its own time; this much later it is taken for lost."""

_CRY_EVERY_S: Final = 10.0

_CREDENTIALS: Final = ("credentials", "client_id", "client_secret")
"""Settings of the kinds `http` and `oauth` that prove who calls."""


class StepHandler(Protocol):
    """What carries a call out: a kind."""

    async def call(self, call: Call) -> Answer:
        """Carry one call out, within its time, and say what is known."""


class Caller:
    """The hands of the plan, by kind."""

    def __init__(
        self,
        hands: Mapping[str, StepHandler],
        secret: Mapping[str, frozenset[str]],
        sealer: Sealer,
        audit_key: bytes,
        log: Logger,
    ) -> None:
        """Take the hands.

        Args:
            hands: By the kind's name in the plan.
            secret: Kind to the names of its outputs that are sealed.
            sealer: Of this installation.
            audit_key: The newest of `material.audit`.
            log: Of the service.
        """
        self._hands, self._secret, self._sealer = hands, secret, sealer
        self._audit_key, self._log = audit_key, log
        self._next_cry_s = 0.0

    def prepare(self, key: str, epoch: int, journal: Journal, move: Called) -> Call | Answer:
        """The call of a move, or what is known without one.

        Args:
            key: Of the saga.
            epoch: Of the lease.
            journal: With the move's intent in it.
            move: What is to be done.
        """
        try:
            return self._prepared(key, epoch, life_of(journal, move), journal, move)
        except Unsealable as error:
            # The key may come back to the keyring; meanwhile nobody is asked.
            self._cry(str(error), key)
            return RefusedUs(f"no key opens {error}", "put the former key back into material.outputs of the keyring")

    async def call(self, call: Call) -> Answer:
        """Make a call whose intent is committed."""
        with metrics.SAGA_CALL_S.labels(call.step, call.verb).time():
            answer = await self._answered(call)
        metrics.SAGA_CALLS.labels(call.step, call.verb, _word(answer)).inc()
        if isinstance(answer, Done):
            names = self._secret.get(call.kind, frozenset())
            place = _place(call.generation, call.key, call.step)
            return replace(answer, outputs=self._sealer.seal(place, answer.outputs, names))
        return answer

    def lines(self, key: str, journal: Journal, move: Called, answer: Answer, now_us: int) -> list[OutboxMessage]:
        """The audit line of an answer, for the same commit; a look changes nothing and has none."""
        if isinstance(move, Observe):
            return []
        verb = Verb.DELETE if isinstance(move, Undo) else move.verb
        line = audit.line(
            line_id=f"{key}/step/{journal.lines}",
            key=key,
            what="step",
            verdict=f"{verb} {_word(answer)}",
            why=f"{move.step.name} of generation {move.generation}, intent {move.n}{_cause(answer)}",
            at_us=now_us,
            material=self._audit_key,
        )
        return [OutboxMessage(AUDIT.name, journal.lines, codec.dump(line))]

    def _prepared(self, key: str, epoch: int, life: Life, journal: Journal, move: Called) -> Call | Refused:
        log = log_of(journal, move)
        named = {
            name: self._sealer.open(_place(life.generation, key, name), one.outputs or one.former)
            for name, one in life.steps.items()
        }
        enabled = bool(log.inputs.get("enabled", True))
        configuration = log.inputs.get("configuration", {})
        given = facts(life, key, move.step, enabled=enabled, configuration=configuration, outputs=named)
        settings, missing = substitute(move.step.settings, given)
        if missing:
            return Refused(f"missing: {', '.join(missing)}")
        verb = Verb.READ if isinstance(move, Observe) else Verb.DELETE if isinstance(move, Undo) else move.verb
        return Call(
            step=move.step.name,
            kind=move.step.kind,
            verb=verb,
            key=key,
            tenant_id=life.tenant_id,
            generation=life.generation,
            epoch=epoch,
            idempotency_key=idempotency_key(key, life.generation, move.step.name, move.n),
            settings=settings,
            outputs=named[move.step.name] if log.outputs else {},
            enabled=enabled,
            timeout_s=move.step.timeout_s,
            places=places_of(log),
            repeats=log.lost,
            own_credentials=not _of_the_customer(move.step),
        )

    def _cry(self, place: str, key: str) -> None:
        """Sagas would wait for a key in silence, and one lost key is the same news for all of them."""
        metrics.SAGA_UNSEALABLE.inc()
        now_s = time.monotonic()
        if now_s >= self._next_cry_s:
            self._next_cry_s = now_s + _CRY_EVERY_S
            self._log.error("no key of material.outputs opens what was sealed", place=place, key=key)

    async def _answered(self, call: Call) -> Answer:
        try:
            async with asyncio.timeout(call.timeout_s + _SLACK_S):
                return await self._hands[call.kind].call(call)
        except TimeoutError:
            return Unknown("no answer in time")
        except Exception as error:  # noqa: BLE001 - the rule above
            self._log.exception("call failed in a way nobody foresaw", key=call.key, step=call.step, verb=call.verb)
            return Unknown(type(error).__name__)


def _word(answer: Answer) -> str:
    """The word for an answer in metrics and in the audit trail."""
    return "operator_refused" if isinstance(answer, RefusedUs) else type(answer).__name__.lower()


def _of_the_customer(step: Step) -> bool:
    """True if the credentials of a step come from the tenant's configuration."""
    wanted = {name: step.settings[name] for name in _CREDENTIALS if name in step.settings}
    return any(path.partition(".")[0] == "configuration" for path, _ in references(wanted))


def _cause(answer: Answer) -> str:
    """Formats the reason of a failed answer: status and short code as its kind gives them, no value of the call."""
    reason = getattr(answer, "reason", "")  # of every answer but the two good ones
    return f": {reason[:WORDS_MAX]}" if reason else ""


def _place(generation: int, key: str, step: str) -> str:
    return f"{key}/{generation}/{step}"
