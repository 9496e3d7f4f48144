"""A plain API for tenants, over real HTTP in this process: ids of its own, no idempotency, no epoch.

It does as real APIs do: POST makes, whatever was made before. A test tells it how to answer, and which answers to lose.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.http_thread import Written, answering

Row = dict[str, Any]
Says = Callable[[Row | None], Written]


@dataclass
class TenantsApi:
    """The API.

    Attributes:
        rows: What exists, by id.
        says: `METHOD` or `METHOD path` to how it answers, after the effect, given the row; well without an entry.
        deaf: Methods that have no effect.
        loses: Method to the number of answers still to be lost, after the effect.
        hidden: How many listings still leave everything out.
        asks: Method and path with query of each request, in order.
        sent: Headers of each request, in order.
    """

    url: str = ""
    page_size: int = 2
    rows: dict[str, Row] = field(default_factory=dict)
    says: dict[str, Says] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    loses: dict[str, int] = field(default_factory=dict)
    hidden: int = 0
    made: int = 0
    tokens: int = 0
    asks: list[tuple[str, str]] = field(default_factory=list)
    sent: list[dict[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    expires_in: Any = 3600
    before: Callable[[str, str], None] = lambda _method, _path: None

    def refs(self) -> list[str]:
        """The names of ours that exist."""
        return sorted(row["ref"] for row in self.rows.values())

    def methods(self, *left_out: str) -> list[str]:
        """The methods of the requests, but for these."""
        return [method for method, _ in self.asks if method not in left_out]

    def answer(self, method: str, path: str, body: bytes) -> Written | None:
        """Take effect, unless deaf, and answer; None loses the answer."""
        self.asks.append((method, path))
        self.before(method, path)
        parts = urlsplit(path)
        if parts.path == "/oauth/token":
            self.tokens += 1
            return shows({"access_token": f"t{self.tokens}", "expires_in": self.expires_in})
        row_id = parts.path.removeprefix("/v1/tenants").strip("/")
        sent = json.loads(body) if body else None
        self.bodies.append(sent)
        row = self._take_effect(method, row_id, sent)
        lost = self.loses.get(method, 0)
        if lost:
            self.loses[method] = lost - 1
            return None
        says = self.says.get(f"{method} {parts.path}") or self.says.get(method)
        if says is not None and not (method == "GET" and not row_id and f"{method} {parts.path}" not in self.says):
            return says(row)
        return self._well(method, row_id, row, parse_qs(parts.query))

    def _take_effect(self, method: str, row_id: str, sent: Any) -> Row | None:
        row = self.rows.get(row_id)
        if method in self.deaf:
            return row
        if method == "POST":
            self.made += 1
            row = {"id": self.made, **sent}
            self.rows[str(self.made)] = row
        elif method == "PATCH" and row is not None:
            row |= sent
        elif method == "DELETE":
            self.rows.pop(row_id, None)
        return row

    def _well(self, method: str, row_id: str, row: Row | None, query: dict[str, list[str]]) -> Written:
        if method == "GET" and not row_id:
            page = int(query.get("page", ["1"])[0])
            first = (page - 1) * self.page_size
            items = [] if self.hidden else list(self.rows.values())[first : first + self.page_size]
            self.hidden -= 1 if self.hidden else 0
            return shows({"items": items})
        if method == "POST":
            return shows(row, 201)
        if row is None:
            return shows({"error": "not_found"}, 404)
        return (204, {}, b"") if method == "DELETE" else shows(row)


def shows(body: Any, status: int = 200, **headers: str) -> Written:
    """An answer in JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": "application/json", **named}, json.dumps(body).encode()


@contextmanager
def tenants_api() -> Iterator[TenantsApi]:
    """A running API."""
    api = TenantsApi()

    def answer(request: BaseHTTPRequestHandler, body: bytes) -> Written | None:
        api.sent.append({name.lower(): value for name, value in request.headers.items()})
        return api.answer(request.command, request.path, body)

    with answering(answer) as api.url:
        yield api
