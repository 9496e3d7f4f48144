"""Asks the service of this container whether it is alive; the status is the answer.

Rule: live, not ready. A container whose Kafka is away is not made well by being replaced.
"""

# ruff: noqa: INP001 - it is copied into the image and run by name; nothing imports it
import os
import sys
from http.client import HTTPConnection, HTTPException

TIMEOUT_S = 1.5


def alive(port: int) -> bool:
    """Whether a service answers here that it lives."""
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    # A service listens on one of the two: on PORT when it has a public one, else on METRICS_PORT.
    ports = [int(os.environ[name]) for name in ("PORT", "METRICS_PORT") if os.environ.get(name)]  # noqa: TID251
    sys.exit(0 if any(alive(port) for port in ports) else 1)
