"""The archive as an object store over HTTP, so that it can fail like everything else: GET, HEAD and PUT of one object.

Rule: an object is in the archive's folder whole or not at all. Whose it is stands in its path:
`{org}/{integration}/g{generation}/{name}`; nothing outside that shape is touched.
"""

import re
from functools import partial
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas.values import UUID_PATTERN, key_of
from services.core.saga.calls import Verb
from services.simulator.faults import System
from services.simulator.wire import abort
from services.simulator.world import Arrival, CallOutcome, OutsideWorld, Reply

_SHAPE: Final = re.compile(rf"({UUID_PATTERN})/({UUID_PATTERN})/g(\d{{1,9}})/([a-z]+(?:\.[a-z]+)*)", re.ASCII)


def routes(world: OutsideWorld, folder: Path) -> list[Route]:
    """The store."""
    return [Route("/archive/{path:path}", partial(_object, world, folder), methods=["GET", "PUT"])]


async def _object(world: OutsideWorld, folder: Path, request: Request) -> Response:
    found = _SHAPE.fullmatch(request.path_params["path"])
    if found is None:
        return Response(status_code=400 if request.method == "PUT" else 404)
    org, integration, generation, name = found.groups()
    path = folder / org / integration / f"g{generation}" / name
    verb = Verb.CREATE if request.method == "PUT" else Verb.READ
    call = Arrival(System.ARCHIVE, verb, key_of(org, integration), int(generation), 0, "")
    body = await request.body()
    reply = await world.receive(call, partial(_write, path, body) if verb is Verb.CREATE else partial(_look, path))
    if reply is None:
        return await abort(request)
    shown = path.read_bytes() if reply.outcome is CallOutcome.DONE and verb is Verb.READ else b""
    return Response(shown, reply.status)


def _write(path: Path, body: bytes) -> Reply:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(body)
    fresh.replace(path)
    return Reply(201, None, CallOutcome.DONE)


def _look(path: Path) -> Reply:
    return Reply(200, None, CallOutcome.DONE) if path.is_file() else Reply(404, None, CallOutcome.ABSENT)
