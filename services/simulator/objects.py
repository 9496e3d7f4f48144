"""The archive as an object store over HTTP, for faults of the archive: GET, HEAD and PUT of an object.

Rule: an object is in the archive's folder whole or not at all. The path names key and generation of the object:
`{org}/{integration}/g{generation}/{name}`. A path of any form but this is refused before the file system is touched.
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
from services.simulator.world import CallOutcome, IncomingCall, OutsideWorld, Reply

_SHAPE: Final = re.compile(rf"({UUID_PATTERN})/({UUID_PATTERN})/g(\d{{1,9}})/([a-z]+(?:\.[a-z]+)*)", re.ASCII)


def routes(world: OutsideWorld, folder: Path) -> list[Route]:
    """Returns the route of the store; `folder` contains the objects."""
    return [Route("/archive/{path:path}", partial(_object, world, folder), methods=["GET", "PUT"])]


async def _object(world: OutsideWorld, folder: Path, request: Request) -> Response:
    match = _SHAPE.fullmatch(request.path_params["path"])
    if match is None:
        return Response(status_code=400 if request.method == "PUT" else 404)
    org, integration, generation, name = match.groups()
    path = folder / org / integration / f"g{generation}" / name
    verb = Verb.CREATE if request.method == "PUT" else Verb.READ
    # Neither epoch nor idempotency key: an object store knows neither, and a repeated PUT writes an equal object.
    call = IncomingCall(System.ARCHIVE, verb, key_of(org, integration), int(generation), 0, "")
    body = await request.body()
    reply = await world.receive(call, partial(_write, path, body) if verb is Verb.CREATE else partial(_look, path))
    if reply is None:
        return await abort(request)
    # No await since the effect, so the object that `_look` found still exists.
    content = path.read_bytes() if reply.outcome is CallOutcome.DONE and verb is Verb.READ else b""
    return Response(content, reply.status)


def _write(path: Path, body: bytes) -> Reply:
    """Writes an object by rename: a reader never sees half an object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(body)
    fresh.replace(path)
    return Reply(201, None, CallOutcome.DONE)


def _look(path: Path) -> Reply:
    return Reply(200, None, CallOutcome.DONE) if path.is_file() else Reply(404, None, CallOutcome.ABSENT)
