"""Makes one call of a saga: builds the `Call` from a move, hands it to its kind within a time limit, seals secrets.

Rule: every call ends in an answer, never in an exception. An unexpected error of a kind becomes `Unknown`, since the
call may have taken effect. Secrets are in clear text only inside a `Call` and inside a kind: outputs are opened when
the call is built, and sealed again before the answer reaches the journal.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from schemas import codec
from schemas.outcome import WORDS_MAX
from schemas.saga import Journal, Life
from schemas.topics import AUDIT
from services.adapters.process import metrics
from services.adapters.process.logs import Logger
from services.adapters.registry.types import OutboxMessage
from services.adapters.secrets.sealing import Sealer, Unsealable
from services.core.ledger import audit
from services.core.saga.calls import (
    Answer,
    Call,
    Done,
    OperatorRefused,
    Refused,
    Unknown,
    Verb,
    answer_word,
    idempotency_key,
)
from services.core.saga.intents import life_of, locations_of, log_of
from services.core.saga.kind_traits import KindTraits
from services.core.saga.moves import Called, LookUp, Undo
from services.core.saga.next_move import facts
from services.core.saga.plan import Step
from services.core.saga.references import references, substitute
from services.core.saga.step_transitions import REPEATED

_SLACK_S: Final = 1.0
"""Seconds that a kind may exceed `Call.timeout_s`. Kinds enforce the limit themselves and know best what was sent; this
second limit is for a kind that hangs."""

_LOG_EVERY_S: Final = 10.0
"""Shortest interval between two log lines about outputs that no key opens."""


class StepHandler(Protocol):
    """Carries out the calls of the steps of one kind."""

    async def call(self, call: Call) -> Answer:
        """Carries out one call within `call.timeout_s` and returns the answer."""


class Caller:
    """Makes calls through the step handlers."""

    def __init__(
        self,
        step_handlers: Mapping[str, StepHandler],
        traits: Mapping[str, KindTraits],
        sealer: Sealer,
        audit_key: bytes,
        log: Logger,
    ) -> None:
        """Prepares the caller.

        Args:
            step_handlers: Kind in the plan to step handler.
            traits: Kind in the plan to traits.
            sealer: Sealer with the keys of `material.outputs`.
            audit_key: Newest key of `material.audit`.
            log: Logger of the service.
        """
        self._step_handlers, self._traits, self._sealer = step_handlers, traits, sealer
        self._audit_key, self._log = audit_key, log
        self._next_log_s = 0.0

    def prepare(
        self,
        key: str,
        epoch: int,
        journal: Journal,
        move: Called,
        *,
        now_us: int = 0,
        is_held: Callable[[], bool] = lambda: True,
    ) -> Call | Answer:
        """Builds the call of a move.

        Args:
            key: Key of the saga, `orgId:integrationId`.
            epoch: Epoch of the lease.
            journal: Journal with the intent of the move.
            move: Move to carry out.
            now_us: Present time, microseconds UTC, for the age of an open intent.
            is_held: True while the lease of the worker lasts.

        Returns:
            The call; `Refused` if the configuration lacks a value required by the plan; `OperatorRefused` if no key of
            the keyring opens a sealed output.
        """
        try:
            built = self._build(key, epoch, life_of(journal, move), journal, move)
        except Unsealable as error:
            # The operator may restore the key: the saga waits, and nothing is rolled back.
            self._log_unsealable(str(error), key)
            return OperatorRefused(
                f"no key opens {error}", "put the former key back into material.outputs of the keyring"
            )
        if isinstance(built, Refused):
            return built
        began_us = log_of(journal, move).began_at
        return replace(built, age_s=max(0.0, (now_us - began_us) / 1_000_000) if began_us else 0.0, is_held=is_held)

    async def call(self, call: Call) -> Answer:
        """Makes a call whose intent is committed; returns the answer with secret outputs sealed."""
        with metrics.PROVISIONER_CALL_S.labels(call.step, call.verb).time():
            answer = await self._ask(call)
        metrics.PROVISIONER_CALLS.labels(call.step, call.verb, answer_word(answer)).inc()
        if isinstance(answer, Done) or (isinstance(answer, Unknown) and answer.outputs):
            names = self._traits[call.kind].secret_outputs_of(call.settings)
            context = _seal_context(call.generation, call.key, call.step)
            return replace(answer, outputs=self._sealer.seal(context, answer.outputs, names))
        return answer

    def sealed_outputs(self, key: str, generation: int, step: Step, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns outputs as the journal stores them: values declared secret are sealed, as those of an answer.

        Args:
            key: Key of the saga.
            generation: Generation of the life.
            step: Step of the outputs.
            outputs: Outputs in clear text.
        """
        return self._sealer.seal(_seal_context(generation, key, step.name), outputs, step.traits.secret_outputs)

    def audit_messages(
        self, key: str, journal: Journal, move: Called, answer: Answer, now_us: int
    ) -> list[OutboxMessage]:
        """Returns the audit line of an answer, for the next commit; empty for a look-up, since nothing was changed.

        Args:
            key: Key of the saga.
            journal: Journal after the answer was settled; `lines` numbers the audit lines of the key.
            move: Move of the call.
            answer: Answer of the call.
            now_us: Time of the answer, microseconds UTC.
        """
        if isinstance(move, LookUp):
            return []
        verb = Verb.DELETE if isinstance(move, Undo) else move.verb
        line = audit.line(
            line_id=f"{key}/step/{journal.lines}",
            key=key,
            what="step",
            verdict=f"{verb} {answer_word(answer)}",
            why=f"{move.step.name} of generation {move.generation}, intent {move.n}{_cause(answer)}",
            at_us=now_us,
            material=self._audit_key,
        )
        return [OutboxMessage(AUDIT.name, journal.lines, codec.dump(line))]

    def _build(self, key: str, epoch: int, life: Life, journal: Journal, move: Called) -> Call | Refused:
        log = log_of(journal, move)
        # `previous_outputs`: outputs of a step already undone. The undo of a later step may still refer to them.
        outputs_by_step = {
            name: self._sealer.open(
                _seal_context(life.generation, key, name), step_log.outputs or step_log.previous_outputs
            )
            for name, step_log in life.steps.items()
        }
        # The inputs of the journalled intent, not of the newest desired version: a repeat must send equal values.
        enabled = bool(log.inputs.get("enabled", True))
        configuration = log.inputs.get("configuration", {})
        given = facts(life, key, move.step, enabled=enabled, configuration=configuration, outputs=outputs_by_step)
        settings, missing = substitute(move.step.settings, given)
        if missing:
            return Refused(f"missing: {', '.join(missing)}")
        verb = Verb.READ if isinstance(move, LookUp) else Verb.DELETE if isinstance(move, Undo) else move.verb
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
            # Former outputs are for references only: an undone step has no outputs of its own.
            outputs=outputs_by_step[move.step.name] if log.outputs else {},
            enabled=enabled,
            timeout_s=move.step.timeout_s,
            locations=locations_of(log),
            repeats=log.state in REPEATED,
            own_credentials=not _has_tenant_credentials(move.step),
            open_verb=Verb(log.verb) if log.open and log.verb else None,
            succeeded=log.succeeded,
            earlier_create_open=log.earlier_create_open,
            retried=log.retried,
        )

    def _log_unsealable(self, context: str, key: str) -> None:
        """Counts a call without a key and logs at most once in `_LOG_EVERY_S`: one lost key stops many sagas."""
        metrics.PROVISIONER_UNSEALABLE.inc()
        now_s = time.monotonic()
        if now_s >= self._next_log_s:
            self._next_log_s = now_s + _LOG_EVERY_S
            self._log.error("no key of material.outputs opens what was sealed", place=context, key=key)

    async def _ask(self, call: Call) -> Answer:
        try:
            async with asyncio.timeout(call.timeout_s + _SLACK_S):
                return await self._step_handlers[call.kind].call(call)
        except TimeoutError:
            return Unknown("no answer in time")
        except Exception as error:  # noqa: BLE001 - the rule above
            self._log.exception("call failed in a way nobody foresaw", key=call.key, step=call.step, verb=call.verb)
            return Unknown(type(error).__name__)


def _has_tenant_credentials(step: Step) -> bool:
    """True if the credentials of a step come from the tenant's configuration; a refusal then judges the tenant."""
    wanted = {name: step.settings[name] for name in step.traits.credentials if name in step.settings}
    return any(path.partition(".")[0] == "configuration" for path, _ in references(wanted))


def _cause(answer: Answer) -> str:
    """Returns the reason of a failed answer for the audit line; kinds put status and short code there, no input."""
    reason = getattr(answer, "reason", "")  # `Done` and `Absent` have no reason
    return f": {reason[:WORDS_MAX]}" if reason else ""


def _seal_context(generation: int, key: str, step: str) -> str:
    """Returns the context to which sealed outputs are bound; a sealed value opens in no other context."""
    return f"{key}/{generation}/{step}"
