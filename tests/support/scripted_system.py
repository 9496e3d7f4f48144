"""A system that answers as a test tells it, over real HTTP: it keeps one resource a path."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from tests.support import http_thread
from tests.support.http_thread import Written

PAGE: Final = b"<!doctype html><title>Sign in</title>"
HTML: Final = {"Content-Type": "text/html"}
TEXT: Final = {"Content-Type": "text/plain"}
JSON: Final = {"Content-Type": "application/json"}

Says = Callable[[dict[str, Any] | None], Written]


def shows(body: Any, status: int = 200) -> Written:
    """An answer in JSON."""
    return status, JSON, json.dumps(body).encode()


@dataclass
class System:
    """A system that keeps resources by path.

    Attributes:
        says: Method to how it answers, given the resource as it is now; well where it says nothing else.
        deaf: Methods that have no effect.
        calls: Methods, in order of arrival.
        traces: The header `traceparent` of each call; None where a call had none.
    """

    url: str = ""
    says: dict[str, Says] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    there: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    traces: list[str | None] = field(default_factory=list)

    def answer(self, method: str, path: str, body: bytes) -> Written:
        """Take effect, unless deaf, and answer."""
        self.calls.append(method)
        was_there = path in self.there
        if method == "PUT" and method not in self.deaf:
            self.there[path] = json.loads(body)
        row = self.there.get(path)
        if method == "DELETE" and method not in self.deaf:
            self.there.pop(path, None)
        if method in self.says:
            return self.says[method](row)
        if method == "PUT" or row is not None:
            return (204, {}, b"") if method == "DELETE" else shows(row, 200 if was_there else 201)
        return shows({"error": "not_found"}, 404)

    @property
    def enabled(self) -> list[bool]:
        """Of each resource there is."""
        return [row["enabled"] for row in self.there.values()]


@contextmanager
def answering() -> Iterator[System]:
    """A running system."""
    found = System()

    def answer(request: BaseHTTPRequestHandler, body: bytes) -> Written:
        found.traces.append(request.headers.get("traceparent"))
        return found.answer(request.command, request.path, body)

    with http_thread.answering(answer) as found.url:
        yield found
