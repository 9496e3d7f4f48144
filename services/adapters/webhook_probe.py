"""Sends a signed probe to a webhook's URL as Genesys would, and says how the way there failed.

Rules:
- Each probe has a connection of its own, so that a balancer may lead each to another ingress.
- Redirects are not followed: the sender follows none.
- A proxy of the environment is used, except for this machine.
"""

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

import httpx2

from services.adapters.http_client import LOOPBACK, NoAnswer, no_cookies, read_body
from services.adapters.http_dates import http_date_us

TIMEOUT_S: Final = 3.0
"""The sender gives up on an attempt after this time (the guide)."""
_WHOLE_S: Final = 3.5
"""Longest attempt. `TIMEOUT_S` limits each single read, and a slow server may send a byte at a time."""
_ANSWER_MAX_BYTES: Final = 1 << 20


class WayFault(StrEnum):
    """How a request got no answer."""

    URL = "url"
    DNS = "dns"
    CONNECTION = "connection"
    TLS = "tls"
    TIMEOUT = "timeout"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """The answer to a probe, or the fault of the way.

    Attributes:
        status: HTTP status; 0 without an answer.
        said: Member `status` of the JSON body: text of an accepted request, the number of a problem; else None.
        fault: Why no answer came; None with an answer.
        detail: The fault in words of TLS or of the system.
        clock_off_s: `Date` of the answer less our clock at that time; None without a readable `Date`.
        took_s: Time to the answer or to the fault.
    """

    status: int
    said: Any
    fault: WayFault | None
    detail: str
    clock_off_s: float | None
    took_s: float


class ProbeSender:
    """Sends probes. A context manager; use from one thread."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        """Prepare; nothing connects yet.

        Args:
            now_us: Clock, microseconds UTC.
        """
        self._now_us = now_us
        self._loop = asyncio.Runner()
        self._client = httpx2.AsyncClient(
            timeout=TIMEOUT_S,
            follow_redirects=False,
            mounts=dict.fromkeys(LOOPBACK),
            limits=httpx2.Limits(max_keepalive_connections=0),
            cookies=no_cookies(),
        )

    def send(self, url: str, raw: bytes, headers: Mapping[str, str]) -> ProbeAnswer:
        """Send a probe and wait for the answer, at most about three seconds."""
        begun_s = time.monotonic()

        def failed(fault: WayFault, detail: str = "") -> ProbeAnswer:
            return ProbeAnswer(0, None, fault, detail, None, time.monotonic() - begun_s)

        try:
            answer, body = self._loop.run(self._post(url, raw, {**headers, "Connection": "close"}))
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            return failed(WayFault.URL, str(error))
        except httpx2.TimeoutException as error:
            return failed(
                WayFault.TIMEOUT, "no connection" if isinstance(error, httpx2.ConnectTimeout) else "no answer"
            )
        except TimeoutError:
            return failed(WayFault.TIMEOUT, "no whole answer")
        except NoAnswer as none:
            return failed(WayFault.CUT, none.reason)
        except httpx2.HTTPError as error:
            return failed(*_cause(error))
        return ProbeAnswer(
            answer.status_code,
            _said(body),
            None,
            "",
            _clock_off_s(answer, self._now_us()),
            time.monotonic() - begun_s,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._client.aclose())
        self._loop.close()

    async def _post(self, url: str, raw: bytes, headers: Mapping[str, str]) -> tuple[httpx2.Response, bytes]:
        async with (
            asyncio.timeout(_WHOLE_S),
            self._client.stream("POST", url, content=raw, headers=headers) as answer,
        ):
            return answer, await read_body(answer, _ANSWER_MAX_BYTES)


def _cause(error: BaseException) -> tuple[WayFault, str]:
    """Return the fault behind an error of the library, from the chain of its causes."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return WayFault.TLS, found.verify_message
        if isinstance(found, ssl.SSLError):
            return WayFault.TLS, (found.reason or str(found)).lower().replace("_", " ")
        if isinstance(found, socket.gaierror):
            return WayFault.DNS, found.strerror or ""
        found = found.__cause__ or found.__context__
    if isinstance(error, httpx2.ConnectError):
        return WayFault.CONNECTION, str(error)
    return WayFault.CUT, str(error) or type(error).__name__


def _said(raw: bytes) -> Any:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return body.get("status") if isinstance(body, dict) else None


def _clock_off_s(answer: httpx2.Response, now_us: int) -> float | None:
    date_us = http_date_us(answer.headers.get("date", ""))
    return None if date_us is None else (date_us - now_us) / 1_000_000
