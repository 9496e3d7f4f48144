"""A real HTTP server that answers as the Genesys API does, and lies on request: for the tests of those who ask it.

It is not the simulator: it keeps nothing, it says what the test tells it to say.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Answer = Callable[[Request], Response | None]


@dataclass
class FakeGenesys:
    """The API. `lie` sees every request first and may answer in its place."""

    org_id: str
    integrations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Id to `{"state": intendedState, "properties": {…}}`; the order is the listing's."""
    page_size: int = 25
    lie: Answer = lambda _: None
    silent: Callable[[Request], bool] = lambda _: False
    """True for a request that gets no answer for two seconds."""
    unlisted: set[str] = field(default_factory=set)
    """Ids that are found by id alone."""
    date: Callable[[], str | None] | None = None
    """The header, None for an answer without; unset, the clock's."""
    calls: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    """Of the calls, in the same order."""
    minted: int = 0
    url: str = ""

    def add(self, identity: str, state: str = "ENABLED", **properties: Any) -> None:
        """Let an integration exist."""
        self.integrations[identity] = {"state": state, "properties": properties}

    def _now(self) -> str:
        return formatdate(usegmt=True)

    def app(self) -> Starlette:
        """The routes."""

        async def answer(request: Request) -> Response:
            self.calls.append(request.url.path)
            self.bodies.append(await request.body())
            if self.silent(request):
                await asyncio.sleep(2)
            response = self.lie(request) or self.truth(request)
            date = self._now() if self.date is None else self.date()
            if date is not None:
                response.headers["date"] = date
            return response

        return Starlette(routes=[Route("/{rest:path}", answer, methods=["GET", "POST"])])

    def truth(self, request: Request) -> Response:
        """The answers of the API when it does not lie."""
        path = request.url.path
        if path == "/login/oauth/token":
            self.minted += 1
            return JSONResponse({"access_token": f"token-{self.minted}", "token_type": "bearer", "expires_in": 86400})
        if request.headers.get("authorization") != f"Bearer token-{self.minted}":
            return JSONResponse({"code": "authentication.required", "status": 401}, 401)
        if path == "/api/v2/organizations/me":
            return JSONResponse({"id": self.org_id, "name": "org"})
        if path == "/api/v2/integrations":
            return JSONResponse(self.listing(int(request.query_params["pageNumber"])))
        return self._one(path.split("/")[4], path)

    def _one(self, identity: str, path: str) -> Response:
        if identity not in self.integrations:
            return JSONResponse({"code": "not.found", "status": 404}, 404)
        if path.endswith("/config/current"):
            return JSONResponse({"version": 1, "properties": self.integrations[identity]["properties"]})
        return JSONResponse(self._entity(identity))

    def listing(self, number: int) -> dict[str, Any]:
        """One page."""
        ids = [identity for identity in self.integrations if identity not in self.unlisted]
        first = (number - 1) * self.page_size
        more = first + self.page_size < len(ids)
        return {
            "entities": [self._entity(identity) for identity in ids[first : first + self.page_size]],
            "pageSize": self.page_size,
            "pageNumber": number,
            "total": len(ids),
            "nextUri": f"/api/v2/integrations?pageNumber={number + 1}" if more else None,
        }

    def _entity(self, identity: str) -> dict[str, Any]:
        return {
            "id": identity,
            "intendedState": self.integrations[identity]["state"],
            "integrationType": {"id": "ours"},
        }


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def serving(genesys: FakeGenesys) -> AsyncIterator[FakeGenesys]:
    """Answer on a free port of this machine; `genesys.url` is its base."""
    # With the protocol named, asyncio switches Nagle's algorithm off: else each answer waits 40 ms for its second part.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(64)
    config = uvicorn.Config(
        genesys.app(), log_config=None, access_log=False, lifespan="off", ws="none", date_header=False
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    genesys.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        yield genesys
    finally:
        server.should_exit = True
        await task
        listening.close()


@contextlib.contextmanager
def serving_beside(genesys: FakeGenesys) -> Iterator[FakeGenesys]:
    """The same in a thread with a loop of its own, for a test that has none."""
    ready, leave = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving(genesys):
            ready.set()
            await asyncio.to_thread(leave.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="genesys", daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield genesys
    finally:
        leave.set()
        thread.join(10)
