"""The body of a request: read up to the cap, or dropped so that the sender, who may still be writing, sees the answer.

Rule: never more in memory than the cap. How long a sender may take is the protocol's to watch: it ends the body and
leaves the answer (`ENDED`).
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from schemas.webhook import BODY_MAX_BYTES
from services.ingress import answers
from services.ingress.answers import Answer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

DROPPED_MAX_BYTES: Final = 16 * 1024 * 1024

ENDED: Final = "ended"
"""Key of `scope["state"]` under which the protocol leaves the answer to a request whose body it had to end."""


class Body:
    """One request's body; read it or drop it, at most once each."""

    __slots__ = ("_more", "_receive", "_scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._more = True

    async def read(self) -> bytes | Answer:
        """The whole body, or the answer that refuses it: too large, too late, broken off."""
        body = await self._next()
        if self._more:
            body = await self._rest(body)
        if len(body) > BODY_MAX_BYTES:
            return answers.BODY_TOO_LARGE
        return self._ended() or body

    async def _rest(self, first: bytes) -> bytes:
        parts, size = [first], len(first)
        while self._more and size <= BODY_MAX_BYTES:
            parts.append(await self._next())
            size += len(parts[-1])
        return b"".join(parts)

    async def drop(self) -> bool:
        """Read what is left and forget it.

        Returns:
            Whether the body ended as it should; only then can the connection be used again.
        """
        if self._more and any(name == b"expect" for name, _ in self._scope["headers"]):
            return False  # this sender waits for our answer before it writes: asking for the body would be a lie
        size = 0
        while self._more and size <= DROPPED_MAX_BYTES:
            size += len(await self._next())
        return not self._more and self._ended() is None

    async def _next(self) -> bytes:
        message = await self._receive()
        self._more = message.get("more_body", False)
        if message["type"] == "http.disconnect":
            self._scope.setdefault("state", {}).setdefault(ENDED, answers.FRAMING)
        part: bytes = message.get("body", b"")
        return part

    def _ended(self) -> Answer | None:
        state = self._scope.get("state")
        return state.get(ENDED) if state else None
