"""One request: a signed POST becomes a record, or is refused and changes nothing.

Rule: the order is fixed: caps, header shape, secret by endpoint, MAC over the raw bytes, parse, time, binding, durable
write, answer. Nothing is parsed or written for a request that has not proved itself; nothing authentic is filtered.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from schemas import webhook
from schemas.topics import DEAD_LETTERS, RECEIVED, named
from schemas.values import Key
from schemas.webhook import Malformed, UnknownEvent
from services.core.freshness import Row, judge
from services.core.signature import verify
from services.ingress import answers, head, records
from services.ingress.answers import Answer
from services.ingress.body import Body, Receive, Scope, Send
from services.ingress.gates import Gate, Gates
from services.ingress.memory import RECHECK_MAX, RECHECK_US, WRITTEN_MAX, WRITTEN_US, Recently
from services.ingress.records import Attempt
from services.ingress.telling import Telling
from services.ingress.writer import Fate, Writer

BEGUN: Final = "begun_s"
"""Key of `scope["state"]` under which the protocol notes when the first byte came, seconds of the loop's clock."""

_UNTIMELY: Final = {Row.FUTURE: answers.FUTURE, Row.STALE: answers.STALE, Row.UNMARKED: answers.UNMARKED}
_NOT_NOW: Final = {Fate.UNWRITTEN: answers.KAFKA, Fate.REFUSED: answers.SATURATED}


class Receiver:
    """Answers the POST paths. One per process."""

    def __init__(
        self, gates: Gates, writer: Writer, telling: Telling, *, topic_prefix: str, now_us: Callable[[], int]
    ) -> None:
        self._gates = gates
        self._writer = writer
        self._telling = telling
        self._now_us = now_us
        self._received = named(RECEIVED, topic_prefix)
        self._dead_letters = named(DEAD_LETTERS, topic_prefix)
        self._written = Recently(WRITTEN_MAX, WRITTEN_US)
        self._buried = Recently(WRITTEN_MAX, WRITTEN_US)
        self._asked = Recently(RECHECK_MAX, RECHECK_US)
        self.draining = False

    async def __call__(self, endpoint: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request to an endpoint's path."""
        loop = asyncio.get_running_loop()
        begun_s = scope.get("state", {}).get(BEGUN) or loop.time()
        try:
            answer, reusable = await self._answer(endpoint, scope, Body(scope, receive))
        except Exception:  # noqa: BLE001 - whatever fails, the sender is answered; this is the one place that catches
            self._telling.broken()
            answer, reusable = answers.BROKEN, False
        self._telling.answered(answer, loop.time() - begun_s, endpoint if endpoint in self._gates() else None)
        await send(answer.start if reusable else answer.start_and_close)
        await send(answer.body)

    async def _answer(self, endpoint: str, scope: Scope, body: Body) -> tuple[Answer, bool]:
        """The answer, and whether the connection can be used again."""
        seen = self._closed() or head.read(scope)
        if isinstance(seen, Answer):
            return seen, await body.drop()
        raw = await body.read()
        if isinstance(raw, Answer):
            return raw, await body.drop()
        return await self._prove(endpoint, seen, raw), True

    def _closed(self) -> Answer | None:
        if self.draining:
            return answers.DRAINING
        return answers.SATURATED if self._writer.full else None

    async def _prove(self, endpoint: str, seen: head.Head, raw: bytes) -> Answer:
        now_us = self._now_us()
        gate = self._gates().get(endpoint)
        authentic = verify(None if gate is None else gate.secrets, seen.claim, raw, now_us)
        if gate is None or not authentic:
            return answers.FORGED if gate else answers.NO_ENDPOINT
        tried = records.attempt(endpoint, seen, raw, now_us)
        try:
            told = webhook.parse(raw)
        except UnknownEvent as unknown:
            return self._refusal(gate, tried, unknown) or await self._bury(tried, unknown.key, unknown, answers.PARKED)
        except Malformed as fault:
            return await self._bury(tried, None, fault, answers.malformed(fault.field, fault.rule))
        return self._refusal(gate, tried, told) or await self._write(tried, told)

    def _refusal(self, gate: Gate, tried: Attempt, told: webhook.Delivery | UnknownEvent) -> Answer | None:
        """What speaks against an authentic delivery: its time, or whom it speaks for."""
        bound = told.key is None or gate.binding.covers(told.key)
        parked = isinstance(told, UnknownEvent)
        verdict = judge(
            now_us=tried.received_us,
            header_us=tried.head.stated_us,
            # Without a readable time of its own (an unknown event may have none) nothing but a fresh header vouches.
            signed_us=tried.received_us if told.at_us is None else told.at_us,
            marked=told.marked and told.at_us is not None,
            known=told.at_us is not None and self._knows(self._buried if parked else self._written, tried),
        )
        if not verdict.accepted:
            if verdict.recheck and bound and told.key is not None:
                self._ask(told.key, verdict.row, tried.received_us)
            return _UNTIMELY[verdict.row]
        return None if bound else answers.UNBOUND

    async def _write(self, tried: Attempt, told: webhook.Delivery) -> Answer:
        known = self._knows(self._written, tried)
        noted = partial(self._note, self._written, tried)
        fate = await self._writer.write(self._received, records.delivery(tried, told.key), noted)
        if told.odd_marks:
            self._telling.odd_marks()
        if fate is not Fate.WRITTEN:
            return _NOT_NOW[fate]
        return answers.DUPLICATE_HANDLED if known else answers.QUEUED

    async def _bury(self, tried: Attempt, key: Key | None, fault: Malformed, answer: Answer) -> Answer:
        """To dead letters, once for equal bytes; answered so only when it is there."""
        if self._knows(self._buried, tried):
            return answer
        reason = "unknown_event" if isinstance(fault, UnknownEvent) else "malformed"
        letter = records.dead_letter(tried, key, reason, fault)
        fate = await self._writer.write(self._dead_letters, letter, partial(self._note, self._buried, tried))
        return answer if fate is Fate.WRITTEN else _NOT_NOW[fate]

    def _ask(self, key: Key, row: Row, now_us: int) -> None:
        """Ask for a re-check, at most once per key in five minutes; the refusal does not wait for it."""
        self._asked.forget(now_us)
        if key in self._asked:
            self._telling.recheck(row, "asked_before")
            return
        if self._asked.full:
            self._telling.recheck(row, "no_room")
            return
        self._asked.add(key, now_us)
        wish = records.recheck(key, row, now_us)
        room = self._writer.post(self._received, wish, partial(self._heard, key))
        if not room:
            self._asked.discard(key)
        self._telling.recheck(row, "no_room" if not room else "asked" if key in self._asked else "unwritten")

    def _heard(self, key: Key, written: bool) -> None:  # noqa: FBT001 - a report's one word
        if not written:
            self._asked.discard(key)

    @staticmethod
    def _knows(memory: Recently, tried: Attempt) -> bool:
        memory.forget(tried.received_us)
        return tried.digest in memory

    @staticmethod
    def _note(memory: Recently, tried: Attempt, written: bool) -> None:  # noqa: FBT001 - a report's one word
        if written:
            memory.add(tried.digest, tried.received_us)
