"""Sends a single request to Genesys, and reads the answer within limits of time and size.

Rule: no server, and no proxy before a server, can hold up a caller for ever or fill the memory. The time-outs of the
HTTP client limit each read alone, and a slow server may send a byte at a time.
"""

import asyncio
from typing import Any, Final

import httpx2

from services.adapters.http_client import NoAnswer, read_body

ANSWER_MAX_BYTES: Final = 16 << 20
"""Size limit of a body, after decompression. A page of 100 integrations has less than 1 MiB."""
_READS: Final = 3
"""Longest exchange, in time-outs of the client's single read: 30 s by default."""


async def exchange(http: httpx2.AsyncClient, method: str, url: str, **request: Any) -> httpx2.Response:
    """Send a request once; return the answer with the whole body.

    Args:
        http: HTTP client, from `connections`.
        method: HTTP method.
        url: Absolute URL.
        request: Further arguments of `AsyncClient.stream`.

    Raises:
        NoAnswer: no complete answer came, or the body is longer than `ANSWER_MAX_BYTES`.
    """
    read_s = http.timeout.read
    try:
        async with (
            asyncio.timeout(None if read_s is None else _READS * read_s),
            http.stream(method, url, **request) as answer,
        ):
            body = await read_body(answer, ANSWER_MAX_BYTES)
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        raise NoAnswer(type(error).__name__) from None
    # The body is decompressed already.
    headers = [(name, text) for name, text in answer.headers.multi_items() if name != "content-encoding"]
    return httpx2.Response(answer.status_code, headers=headers, content=body)
