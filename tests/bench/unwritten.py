"""The ingress without Kafka: `python -m tests.bench.unwritten PORT`; what remains is what Kafka costs.

It is the whole ingress with a producer that acknowledges at the next turn of the loop. Set KEYRING_FILE.
"""

import os
import sys
from functools import lru_cache
from typing import Any

from services.adapters.process import logs
from services.adapters.process.clock import now_us
from services.adapters.process.environment import read
from services.adapters.process.settings import IngressSettings
from services.adapters.secrets import keyring
from services.ingress.app import Application
from services.ingress.endpoints import credentials
from services.ingress.hints import Hints
from services.ingress.http.asgi_bridge import operations_app
from services.ingress.http.connection import Connection
from services.ingress.receive import Receiver
from services.ingress.telemetry import Telemetry
from services.ingress.writer import WriteLimits, Writer
from tests.bench import bare
from tests.support.ingress_site import InstantProducer


def unwritten() -> Application:
    """The application."""
    found = read(os.environ, IngressSettings)
    telling = Telemetry(logs.configure("ingress", "error"))
    held = credentials(keyring.load(found.keyring_file))
    writer = Writer(
        InstantProducer(), WriteLimits(1.2, 0.4, 20_000, 1 << 26), telling.unwritten, topic_fault=lambda _: ""
    )
    receiver = Receiver(lambda: held.endpoints, writer, telling, topic_prefix="", now_us=now_us)
    hints = Hints(lambda: held.hints, writer, telling, topic_prefix="", now_us=now_us)
    return Application(receiver, hints, operations_app(dict), telling, now_us)


def connection(**uvicorns: Any) -> Connection:
    """One connection of the one application."""
    return Connection(_application(), **uvicorns)


@lru_cache
def _application() -> Application:
    return unwritten()


if __name__ == "__main__":
    bare.run(lambda: bare.asgi, int(sys.argv[1]), http=connection)
