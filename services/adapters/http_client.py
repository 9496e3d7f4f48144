"""Sends HTTP requests to outside systems, and distinguishes requests that were not sent from unknown results.

Rules:
- A failure states if the request may have taken effect: `NotSent` means no, `NoAnswer` means perhaps. A saga may
  repeat the former freely, but must read the state back after the latter.
- A host name is resolved once, by `resolve`. The caller judges the addresses and puts the chosen one into
  `HttpRequest.address`. The client connects there and checks the certificate against the name: a second resolution
  could return a different, unjudged address (DNS rebinding).
- Redirects are not followed and proxies of the environment are not used: both would lead to unjudged addresses.
- A response is read up to a size limit only.
- No cookie is stored: connections are shared by the tenants of a system.
"""

import asyncio
import json
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, Self

import httpx2

ANSWER_MAX_BYTES: Final = 1 << 20
"""Size limit of a response body, after decompression."""
_IDLE_S: Final = 2.0
"""Time without use after which a connection is closed, seconds.

Shorter than a server's own keep-alive time: if a server closes while a request is sent, the result is unknown.
"""
_CONNECT_SHARE: Final = 0.8
"""Part of the allowed time that connecting may take.

Connecting times out before the whole request does, so a slow connection is reported as `NotSent`, not as `NoAnswer`.
"""
_HTML: Final = ("text/html", "application/xhtml")
_ZIPPED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
"""zlib's value for detecting a gzip or a zlib header."""
LOOPBACK: Final = ("all://127.0.0.1", "all://localhost")
"""URL patterns that must bypass a proxy of the environment; keys of a client's `mounts`."""


class NotSent(Exception):
    """The request was not sent and had no effect.

    Attributes:
        reason: The reason in a few words, without URL or secrets.
        passing: True if a later try may succeed; False if the URL itself cannot be used.
        untrusted: True if the system's certificate was not accepted.
    """

    def __init__(self, reason: str, *, passing: bool = True, untrusted: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.passing = passing
        self.untrusted = untrusted


class NoAnswer(Exception):
    """The request may have been sent and may have taken effect, but no complete response came back.

    Attributes:
        reason: The reason in a few words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """An HTTP request.

    Attributes:
        method: HTTP method.
        url: Absolute URL.
        headers: Header fields in addition to the client's own.
        body: Value of a JSON body; None for no body.
        form: Fields of a form body, in place of `body`.
        basic: User and password of HTTP basic authentication.
        query: Encoded query in addition to the URL's; the caller's own, so a judgement of the URL does not see it.
        address: IP address to connect to. The URL's host name stays in `Host` and in TLS. None resolves the host.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    form: Mapping[str, str] | None = field(default=None, repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)
    query: str = field(default="", repr=False)
    address: str | None = None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A complete HTTP response.

    Attributes:
        status: HTTP status.
        headers: Header fields by lower-case name.
        body: The parsed JSON; None for an empty body, for `null`, and for a body that is not JSON.
        other: True if the body is not empty and not JSON.
        text: The body as text, if the body is not JSON; else empty.
    """

    status: int
    headers: Mapping[str, str]
    body: Any = field(repr=False)
    other: bool = False
    text: str = field(default="", repr=False)

    @property
    def is_html(self) -> bool:
        """True if the body is not JSON and `Content-Type` declares HTML."""
        return self.other and self.headers.get("content-type", "").strip().lower().startswith(_HTML)


Resolver = Callable[[str, float], Awaitable[list[str]]]
"""Resolves a host name, within a number of seconds, to all of its addresses; raises `NotSent`. See `resolve`."""


async def resolve(host: str, timeout_s: float) -> list[str]:
    """Return all addresses of a host name, as text, without duplicates.

    Raises:
        NotSent: the host has no address, or the name service did not answer within `timeout_s`.
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
    """An HTTP client for one event loop. Call `close` at the end, or use the client as a context manager."""

    def __init__(self, *, connections: int, trust: ssl.SSLContext | None = None) -> None:
        """Prepare the client; nothing connects yet.

        Args:
            connections: Greatest count of shared connections, for requests without an `address`.
            trust: TLS trust; None uses the machine's certificates.
        """
        self._trust = trust or httpx2.create_ssl_context()
        limits = httpx2.Limits(max_connections=connections, keepalive_expiry=_IDLE_S)
        self._shared = self._client(limits)

    async def send(self, request: HttpRequest, timeout_s: float) -> HttpResponse:
        """Send a request and return the complete response, whatever its status.

        Args:
            request: The request.
            timeout_s: Time limit from connecting to the last byte, seconds.

        Raises:
            NotSent: the request was not sent.
            NoAnswer: the request may have been sent, and no complete response came.
        """
        if request.address is None:
            return await _exchange(self._shared, request, timeout_s)
        # A connection of its own for each such request: a pool would share connections by address, but TLS has proved
        # only one of several names with the same address.
        async with self._client(httpx2.Limits(max_keepalive_connections=0)) as alone:
            return await _exchange(alone, request, timeout_s)

    async def close(self) -> None:
        """Close the shared connections."""
        await self._shared.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _client(self, limits: httpx2.Limits) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            verify=self._trust, limits=limits, follow_redirects=False, trust_env=False, cookies=no_cookies()
        )


async def _exchange(client: httpx2.AsyncClient, request: HttpRequest, timeout_s: float) -> HttpResponse:
    """Send a request, and turn the library's errors into `NotSent` or `NoAnswer`."""
    # The order of the clauses matters: HTTPError is a base class of errors above it that prove nothing was sent.
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
    url = httpx2.URL(f"{request.url}?{request.query}" if request.query else request.url)
    headers = dict(request.headers)
    headers["Accept-Encoding"] = "identity"  # so that received bytes and body have the same size
    limits = httpx2.Timeout(timeout_s, connect=timeout_s * _CONNECT_SHARE)
    extensions: dict[str, Any] = {"timeout": limits.as_dict()}
    if request.address is not None:
        # The URL then names the address, so the host name must be given for `Host` and for TLS (SNI and certificate).
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
    """Read a response up to the size limit.

    Raises:
        NoAnswer: the body is longer, or cannot be decompressed.
    """
    read = await read_body(answer, ANSWER_MAX_BYTES)
    try:
        body = json.loads(read) if read else None
    except (ValueError, RecursionError):
        # RecursionError: deeply nested JSON. A body that is not JSON is reported by `other`, not by an exception.
        body = None
    headers = {name.lower(): text for name, text in answer.headers.items()}
    other = body is None and bool(read.strip()) and read.strip() != b"null"
    text = read.decode("utf-8", "replace").strip() if other else ""
    return HttpResponse(answer.status_code, headers, body, other, text)


async def read_body(answer: httpx2.Response, at_most: int) -> bytes:
    """Return the decompressed body of a streamed response.

    Args:
        answer: The response, with nothing read of the body.
        at_most: Size limit of the decompressed body, bytes.

    Raises:
        NoAnswer: the body is longer, or cannot be decompressed.
    """
    # Raw bytes and our own decompression: the library would decompress without a limit.
    read, decode = bytearray(), _decoder(answer.headers.get("content-encoding", ""))
    async for part in answer.aiter_raw():
        # One byte above the limit is let through, to notice a body that exceeds the limit.
        read += decode(part, at_most + 1 - len(read))
        if len(read) > at_most:
            raise NoAnswer("the answer is too long")
    return bytes(read)


def no_cookies() -> CookieJar:
    """Return a cookie jar that stays empty, for a client with many owners: a cookie must not pass between them."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def _decoder(coding: str) -> Callable[[bytes, int], bytes]:
    """Return a function to decompress parts of a body, up to a number of bytes each time.

    Needed although the request asks for no compression: a proxy may compress all the same.
    """
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
    """True if the error was caused by a certificate that TLS did not accept."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
