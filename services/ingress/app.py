"""Who answers which path: the webhook's its receiver, everything else a Starlette site.

Rule: whatever fails while a request is judged, its sender is answered, once; this is the one place that catches.
"""

import asyncio
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import httptools
from starlette.applications import Starlette

from services.ingress import answers
from services.ingress.receive import Receiver
from services.ingress.request import Request
from services.ingress.site import visited
from services.ingress.telling import Telling

_PREFIX: Final = "/v1/genesys/lifecycle/"
_BARE: Final = frozenset({"/v1/genesys/lifecycle", "/api/v1/genesys/lifecycle"})
DEFAULT: Final = "default"
"""The endpoint of the bare paths."""

_USUAL_BYTES: Final = 256
"""Targets up to this length are worth remembering; what an attacker sends in their place costs no memory."""


def endpoint_of(target: bytes) -> str | None:
    """The endpoint that a request's target names; None when it is not a webhook's.

    Raises:
        httptools.HttpParserInvalidURLError: it is no target at all.
        UnicodeDecodeError: nor is it.
    """
    url: Any = httptools.parse_url(target)  # its stubs know of no target without a path
    path = unquote((url.path or b"/").decode("ascii"))
    if path.startswith(_PREFIX):
        return path[len(_PREFIX) :]
    return DEFAULT if path in _BARE else None


_usual = lru_cache(maxsize=256)(endpoint_of)


class Application:
    """Answers every request of one process."""

    def __init__(self, receiver: Receiver, site: Starlette, telling: Telling) -> None:
        self._receiver = receiver
        self._site = site
        self._telling = telling
        self.answered = telling.answered
        self.held_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def hear(self, request: Request) -> None:
        """The head is whole: note whose path it is, and `refusal` when that can be said already."""
        target = request.target
        try:
            request.endpoint = _usual(target) if len(target) <= _USUAL_BYTES else endpoint_of(target)
            if request.endpoint is not None:
                self._receiver.hear(request)
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            request.refusal = answers.FRAMING
        except Exception:  # noqa: BLE001 - see above
            self._telling.broken()
            request.refusal = answers.BROKEN

    def take(self, request: Request) -> None:
        """Answer a request that is whole, or has a `refusal`."""
        try:
            if request.refusal is not None:
                request.answer(request.refusal)
            elif request.endpoint is not None:
                self._receiver.take(request.endpoint, request)
            else:
                task = self._loop.create_task(self._visit(request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except Exception:  # noqa: BLE001 - see above
            self._telling.broken()
            request.answer(answers.BROKEN)

    async def _visit(self, request: Request) -> None:
        try:
            request.answer(await visited(self._site, request))
        except Exception:  # noqa: BLE001 - see above
            self._telling.broken()
            request.answer(answers.BROKEN)
