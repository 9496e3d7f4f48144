"""uvicorn's server with a graceful end: unready first, then deaf to new connections, then finishing what was begun.

Rule: the first SIGTERM or SIGINT begins to drain, a second one stops waiting. It returns; it raises no signal again.
While it drains it takes deliveries as before, each as the last one of its connection: a balancer that has not seen yet
that it is unready loses nothing (docs/decisions/0028).
"""

import asyncio
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Final

import uvicorn

from services.adapters.process.settings import Settings
from services.ingress.http.connection import Connection

_TICK_S: Final = 0.1
"""uvicorn's own."""


@dataclass(frozen=True, slots=True)
class LifecycleHooks:
    """What else happens at the turns of the server's life.

    Attributes:
        started: Called once it answers, and a signal finds its handler.
        drain: Called once, when the end begins.
    """

    started: Callable[[], None]
    drain: Callable[[], None]


class Server(uvicorn.Server):
    """One ingress' server."""

    def __init__(self, config: uvicorn.Config, settings: Settings, turns: LifecycleHooks) -> None:
        """Wire beginning and end."""
        super().__init__(config)
        self._settings = settings
        self._turns = turns
        self._asked_to_end = False
        self._drained_s: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer.

        Args:
            sockets: Those that listen already.
        """
        await super().startup(sockets)
        self._turns.started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end; called between any two instructions, so it sets flags alone."""
        del frame
        if self._asked_to_end:
            self.should_exit = True
            self.force_exit = self.force_exit or sig == signal.SIGINT
        self._asked_to_end = True

    async def on_tick(self, counter: int) -> bool:
        """Watch deadlines, and the end; ten times a second."""
        now_s = asyncio.get_running_loop().time()
        receive_s = self._settings.receive_timeout_s - _TICK_S
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.expire(now_s, receive_s, self._settings.keep_alive_s)
        if self._asked_to_end:
            self._watch_the_end(now_s)
        return await super().on_tick(counter)

    def _watch_the_end(self, now_s: float) -> None:
        if self._drained_s is None:
            self._turns.drain()
            self._drained_s = now_s + self._settings.drain_s
        elif now_s >= self._drained_s:
            self.should_exit = True  # whoever waits for an answer gets it: uvicorn waits for connections
