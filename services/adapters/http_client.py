"""Calls outside systems over HTTP: one request, one whole JSON answer, and honesty about what was sent.

Rule: a failure says whether the request may have taken effect. A host is resolved once, by us; the caller judges the
addresses and the connection goes to the one it was given, under the name's own certificate. No redirect is followed, no
proxy of the environment is used, and no answer is read beyond its cap.
"""

import asyncio
import json
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import httpx2

ANSWER_MAX_BYTES: Final = 1 << 20
_IDLE_S: Final = 2.0
"""Idle connections go before a server's own patience ends: a race there would make an answer unknown."""
_CONNECT_SHARE: Final = 0.8
"""Of the time allowed: not connected by then is known to be not sent."""
_HTML: Final = ("text/html", "application/xhtml")
_ZIPPED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
LOOPBACK: Final = ("all://127.0.0.1", "all://localhost")
"""Where no proxy of the environment leads (as `mounts` of a client that takes one elsewhere)."""


class NotSent(Exception):
    """Nothing was sent, so nothing was done.

    Attributes:
        passing: True unless the URL itself cannot be used.
        untrusted: True if the system's certificate was not accepted.
    """

    def __init__(self, reason: str, *, passing: bool = True, untrusted: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.passing = passing
        self.untrusted = untrusted


class NoAnswer(Exception):
    """The request went out and no whole answer came back: it may have taken effect."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request.

    Attributes:
        url: Absolute.
        body: Sent as JSON; None for no body.
        form: Sent as a form instead.
        address: Where to connect instead of resolving the URL's host; the name stays in `Host` and in TLS.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    form: Mapping[str, str] | None = field(default=None, repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)
    address: str | None = None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One whole answer; `body` is None where the answer is not JSON, and `other` is True if it is something else."""

    status: int
    headers: Mapping[str, str]
    body: Any = field(repr=False)
    other: bool = False

    @property
    def is_html(self) -> bool:
        """True if the answer says that it is HTML."""
        return self.other and self.headers.get("content-type", "").strip().lower().startswith(_HTML)


Resolver = Callable[[str, float], Awaitable[list[str]]]
"""From a host name, within some seconds, to every address it has; raises `NotSent`."""


async def resolve(host: str, timeout_s: float) -> list[str]:
    """Every address of a host name, as text.

    Raises:
        NotSent: there is none, or nobody answered in time.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise NotSent("the name service did not answer") from None
    except OSError as error:
        known = "the name service did not answer" if error.errno == socket.EAI_AGAIN else "the host has no address"
        raise NotSent(known) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class HttpClient:
    """Sends requests from one event loop; close it, or use it as a context."""

    def __init__(self, *, connections: int, trust: ssl.SSLContext | None = None) -> None:
        """Prepare.

        Args:
            connections: At most this many at once to named systems.
            trust: TLS trust; None is the machine's.
        """
        self._trust = trust or httpx2.create_ssl_context()
        limits = httpx2.Limits(max_connections=connections, keepalive_expiry=_IDLE_S)
        self._shared = self._client(limits)

    async def send(self, request: HttpRequest, timeout_s: float) -> HttpResponse:
        """Send one request.

        Args:
            request: What to send.
            timeout_s: For everything, from connecting to the last byte.

        Raises:
            NotSent: nothing was sent.
            NoAnswer: it was, and no whole answer came.
        """
        if request.address is None:
            return await _exchange(self._shared, request, timeout_s)
        # A connection proved one name's certificate: it is never shared, since two names may have one address.
        async with self._client(httpx2.Limits(max_keepalive_connections=0)) as alone:
            return await _exchange(alone, request, timeout_s)

    async def close(self) -> None:
        """End every connection."""
        await self._shared.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _client(self, limits: httpx2.Limits) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(verify=self._trust, limits=limits, follow_redirects=False, trust_env=False)


async def _exchange(client: httpx2.AsyncClient, request: HttpRequest, timeout_s: float) -> HttpResponse:
    try:
        built = _build(client, request, timeout_s)
        async with asyncio.timeout(timeout_s):
            answer = await client.send(built, stream=True)
            try:
                return await _read(answer)
            finally:
                await answer.aclose()
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
        untrusted = _is_untrusted(error)
        raise NotSent("certificate not accepted" if untrusted else type(error).__name__, untrusted=untrusted) from None
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, UnicodeError) as error:
        raise NotSent(type(error).__name__, passing=False) from None
    except (httpx2.HTTPError, TimeoutError) as error:
        raise NoAnswer(type(error).__name__) from None


def _build(client: httpx2.AsyncClient, request: HttpRequest, timeout_s: float) -> httpx2.Request:
    url = httpx2.URL(request.url)
    headers = dict(request.headers)
    headers["Accept-Encoding"] = "identity"  # a cap on what is read is then a cap on what it becomes
    patience = httpx2.Timeout(timeout_s, connect=timeout_s * _CONNECT_SHARE)
    extensions: dict[str, Any] = {"timeout": patience.as_dict()}
    if request.address is not None:
        headers["Host"] = url.netloc.decode("ascii")
        extensions["sni_hostname"] = url.host
        url = url.copy_with(host=request.address)
    form = None if request.form is None else dict(request.form)
    built = client.build_request(
        request.method, url, headers=headers, json=request.body, data=form, extensions=extensions
    )
    if request.basic is not None:
        built = next(httpx2.BasicAuth(*request.basic).auth_flow(built))
    return built


async def _read(answer: httpx2.Response) -> HttpResponse:
    """Read an answer up to its cap, which holds for what it is decoded to as well.

    Raises:
        NoAnswer: it is longer, or cannot be decoded.
    """
    read, decode = bytearray(), _decoder(answer.headers.get("content-encoding", ""))
    async for part in answer.aiter_raw():
        read += decode(part, ANSWER_MAX_BYTES + 1 - len(read))
        if len(read) > ANSWER_MAX_BYTES:
            raise NoAnswer("the answer is too long")
    try:
        body = json.loads(read) if read else None
    except (ValueError, RecursionError):
        body = None
    headers = {name.lower(): text for name, text in answer.headers.items()}
    return HttpResponse(
        answer.status_code, headers, body, other=body is None and bool(read.strip()) and read.strip() != b"null"
    )


def _decoder(coding: str) -> Callable[[bytes, int], bytes]:
    """What undoes a content coding, up to a number of bytes: a proxy may compress although it was asked not to."""
    if coding.strip().lower() not in _ZIPPED:
        return lambda part, _: part
    unzip = zlib.decompressobj(wbits=_GZIP_OR_ZLIB)

    def decode(part: bytes, at_most: int) -> bytes:
        try:
            return unzip.decompress(unzip.unconsumed_tail + part, at_most)
        except zlib.error:
            raise NoAnswer("the answer cannot be decompressed") from None

    return decode


def _is_untrusted(error: BaseException | None) -> bool:
    """True if a certificate that was not accepted is behind an error."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
