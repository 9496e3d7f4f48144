"""Who answers which path: the webhook's its receiver, everything else a Starlette site.

Rule: whatever fails while a request is judged, its sender is answered, once; this is the one place that catches.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import httptools
from starlette.applications import Starlette

from services.ingress.http import answers, headers
from services.ingress.http.asgi_bridge import call_asgi
from services.ingress.http.date_field import DateField
from services.ingress.http.request import Request
from services.ingress.receive import Receiver
from services.ingress.telemetry import Telemetry

_PREFIX: Final = "/v1/genesys/lifecycle/"
_BARE: Final = frozenset({"/v1/genesys/lifecycle", "/api/v1/genesys/lifecycle"})
DEFAULT: Final = "default"
"""The endpoint of the bare paths."""

_SERVER: Final = b"*"
"""The target that is the server itself, and no path of it."""

_SCHEMES: Final = frozenset({"http", "https"})

_USUAL_BYTES: Final = 256
"""Targets up to this length are worth remembering; what an attacker sends in their place costs no memory."""


def endpoint_of(target: bytes) -> str | None:
    """The endpoint that a request's target names; None when it is not a webhook's.

    Raises:
        httptools.HttpParserInvalidURLError: it is no target at all, a URL of another scheme, or one with a user in it
            (RFC 9110, 4.2.4).
        UnicodeDecodeError: it is no target at all.
    """
    url: Any = httptools.parse_url(target)  # its stubs know of no target without a path
    if url.schema is not None and (url.userinfo is not None or url.schema.decode("ascii").lower() not in _SCHEMES):
        raise httptools.HttpParserInvalidURLError
    path = unquote((url.path or b"/").decode("ascii"))
    if path.startswith(_PREFIX):
        return path[len(_PREFIX) :]
    return DEFAULT if path in _BARE else None


_usual = lru_cache(maxsize=256)(endpoint_of)


class Application:
    """Answers every request of one process."""

    def __init__(self, receiver: Receiver, site: Starlette, telling: Telemetry, now_us: Callable[[], int]) -> None:
        self._receiver = receiver
        self._site = site
        self._telling = telling
        self.on_answered = telling.answered
        self.held_bytes = 0
        self.date = DateField(now_us)
        self.leaving = False
        """True once the process is to end: each answer is then the last one of its connection."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def on_headers(self, request: Request) -> None:
        """The head is whole: note whose path it is, and `refusal` when that can be said already."""
        target = request.target
        if self.leaving:
            request.keeps = False
        try:
            found = headers.fields_of(request)
            request.refusal = headers.edge(request, found)
            if request.refusal is not None:
                return
            if target == _SERVER:
                request.refusal = answers.OPTIONS if request.method == b"OPTIONS" else answers.TARGET
                return
            request.endpoint = _usual(target) if len(target) <= _USUAL_BYTES else endpoint_of(target)
            if request.endpoint is not None:
                self._receiver.on_headers(request, found)
            else:
                request.refusal = headers.size(found)
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            request.refusal = answers.FRAMING
        except Exception:  # noqa: BLE001 - see above
            self._telling.broken()
            request.refusal = answers.BROKEN

    def on_request(self, request: Request) -> None:
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
            request.answer(await call_asgi(self._site, request))
        except Exception:  # noqa: BLE001 - see above
            self._telling.broken()
            request.answer(answers.BROKEN)
