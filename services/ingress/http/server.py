"""uvicorn's server with a graceful end: unready first, then closed to new connections, then finishing open requests.

Rule: the first SIGTERM or SIGINT begins to drain, a second signal ends the wait. `serve` returns and raises no signal
again. A draining server takes deliveries as before, each as the last of its connection: a balancer that has not
noticed `/readyz` yet loses nothing (docs/decisions/0028).
"""

import asyncio
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Final

import uvicorn

from services.adapters.process.settings import IngressSettings
from services.ingress.http.connection import Connection

_TICK_S: Final = 0.1
"""uvicorn's interval between two calls of `on_tick`."""


@dataclass(frozen=True, slots=True)
class LifecycleHooks:
    """Callbacks at the beginning and the end of the server's life.

    Attributes:
        started: Called once, when the server accepts connections and its signal handlers are in place.
        drain: Called once, when draining begins.
    """

    started: Callable[[], None]
    drain: Callable[[], None]


class Server(uvicorn.Server):
    """The HTTP server of an ingress process."""

    def __init__(self, config: uvicorn.Config, settings: IngressSettings, hooks: LifecycleHooks) -> None:
        """Prepares the server; `serve` of uvicorn runs the server.

        Args:
            config: uvicorn's configuration.
            settings: Deadlines of receiving, of idle connections and of draining.
            hooks: Called at the beginning and at the end.
        """
        super().__init__(config)
        self._settings = settings
        self._hooks = hooks
        self._exit_requested = False
        self._drained_s: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept connections, then calls `started`.

        Args:
            sockets: Sockets that listen already.
        """
        await super().startup(sockets)
        self._hooks.started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handles SIGTERM and SIGINT in place of uvicorn."""
        # A signal handler of Python's runs between any two instructions of the main thread, so it only sets flags;
        # `on_tick` acts on them. uvicorn's own handler is not called: it would record the signal and raise it again.
        del frame
        if self._exit_requested:
            self.should_exit = True
            self.force_exit = self.force_exit or sig == signal.SIGINT
        self._exit_requested = True

    async def on_tick(self, counter: int) -> bool:
        """Ends slow connections, and drains once the exit was requested; uvicorn calls this ten times a second."""
        now_s = asyncio.get_running_loop().time()
        # A tick earlier than the setting says, since the next look is a tick later.
        receive_s = self._settings.receive_timeout_s - _TICK_S
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.expire(now_s, receive_s, self._settings.keep_alive_s)
        if self._exit_requested:
            self._drain(now_s)
        return await super().on_tick(counter)

    def _drain(self, now_s: float) -> None:
        if self._drained_s is None:
            self._hooks.drain()
            self._drained_s = now_s + self._settings.drain_s
        elif now_s >= self._drained_s:
            self.should_exit = True  # uvicorn waits for connections, so open requests are still answered
