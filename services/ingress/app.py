"""Routes requests: a webhook's path to the receiver, a hint's path to the hints, all else to the operations app.

Rule: a request is answered once, even if our own code fails. Only this module catches every exception: an exception
leaving `on_headers` would fail the parser, and be answered 400 as broken framing; an exception leaving `on_request`
would leave the sender without an answer.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import httptools
from starlette.applications import Starlette

from schemas import hint
from services.ingress.hints import Hints
from services.ingress.http import answers, headers
from services.ingress.http.asgi_bridge import call_asgi
from services.ingress.http.date_field import DateField
from services.ingress.http.request import Request
from services.ingress.receive import Receiver
from services.ingress.telemetry import Telemetry

_ENDPOINT_PREFIX: Final = "/v1/genesys/lifecycle/"
_DEFAULT_PATHS: Final = frozenset({"/v1/genesys/lifecycle", "/api/v1/genesys/lifecycle"})
DEFAULT: Final = "default"
"""The endpoint of the paths that name none."""

_ASTERISK: Final = b"*"
"""The target of a request to the server itself (RFC 9112, 3.2.4)."""

_SCHEMES: Final = frozenset({"http", "https"})

_CACHED_TARGET_MAX_BYTES: Final = 256
"""Longer targets are not cached, so an attacker's targets cannot fill the memory."""


def endpoint_of(target: bytes) -> str | None:
    """Returns the endpoint named by a request's target; None for any path but a webhook's.

    Raises:
        httptools.HttpParserInvalidURLError: no valid target, neither http nor https, or a URL with a user (RFC 9110,
            4.2.4).
        UnicodeDecodeError: a target with bytes outside ASCII.
    """
    path = _path_of(target)
    if path.startswith(_ENDPOINT_PREFIX):
        return path[len(_ENDPOINT_PREFIX) :]
    return DEFAULT if path in _DEFAULT_PATHS else None


def hint_endpoint_of(target: bytes) -> str | None:
    """Returns the endpoint for hints named by a valid target; None for any path but a hint's."""
    path = _path_of(target)
    return path[len(hint.PATH) :] if path.startswith(hint.PATH) else None


def _path_of(target: bytes) -> str:
    url: Any = httptools.parse_url(target)  # httptools' stubs wrongly say that a path is never None
    if url.schema is not None and (url.userinfo is not None or url.schema.decode("ascii").lower() not in _SCHEMES):
        raise httptools.HttpParserInvalidURLError
    return unquote((url.path or b"/").decode("ascii"))


_cached_endpoint_of = lru_cache(maxsize=256)(endpoint_of)


class Application:
    """Answers every request of a process, as the `RequestHandler` of all connections.

    Attributes:
        held_bytes: Bytes of incomplete bodies on all connections; the connections keep the sum.
        date: The `Date` line of every answer.
        draining: True once the process is to end; each answer then ends the connection.
    """

    def __init__(
        self,
        receiver: Receiver,
        hints: Hints,
        operations_app: Starlette,
        telemetry: Telemetry,
        now_us: Callable[[], int],
    ) -> None:
        self._receiver = receiver
        self._hints = hints
        self._operations_app = operations_app
        self._telemetry = telemetry
        self.on_answered = telemetry.answered
        self.held_bytes = 0
        self.date = DateField(now_us)
        self.draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def on_headers(self, request: Request) -> None:
        """Sets the endpoint of a request with a complete head, and `refusal` where the head alone decides."""
        target = request.target
        if self.draining:
            request.keep_alive = False
        try:
            by_name = headers.fields_of(request)
            # The rules of HTTP come first, on every path: the path must not decide if a request is well-framed.
            request.refusal = headers.edge(request, by_name)
            if request.refusal is not None:
                return
            if target == _ASTERISK:
                request.refusal = answers.OPTIONS if request.method == b"OPTIONS" else answers.TARGET
                return
            request.endpoint = (
                _cached_endpoint_of(target) if len(target) <= _CACHED_TARGET_MAX_BYTES else endpoint_of(target)
            )
            if request.endpoint is not None:
                self._receiver.on_headers(request, by_name)
                return
            request.hint_endpoint = hint_endpoint_of(target)
            if request.hint_endpoint is not None:
                self._hints.on_headers(request, by_name)
            else:
                request.refusal = headers.size(by_name)
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            request.refusal = answers.FRAMING
        except Exception:  # noqa: BLE001 - every request is answered, see the top of the file
            self._telemetry.broken()
            request.refusal = answers.BROKEN

    def on_request(self, request: Request) -> None:
        """Answers a request that is complete or has a `refusal`."""
        try:
            if request.refusal is not None:
                request.answer(request.refusal)
            elif request.endpoint is not None:
                self._receiver.accept(request.endpoint, request)
            elif request.hint_endpoint is not None:
                self._hints.accept(request.hint_endpoint, request)
            else:
                task = self._loop.create_task(self._call_operations_app(request))
                # The loop keeps weak references only: a task without a strong reference may be collected unfinished.
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except Exception:  # noqa: BLE001 - every request is answered, see the top of the file
            self._telemetry.broken()
            request.answer(answers.BROKEN)

    async def _call_operations_app(self, request: Request) -> None:
        try:
            request.answer(await call_asgi(self._operations_app, request))
        except Exception:  # noqa: BLE001 - every request is answered, see the top of the file
            self._telemetry.broken()
            request.answer(answers.BROKEN)
