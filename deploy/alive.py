"""Asks the service of this container whether it is alive, or for another page of its health; the status is the answer.

Rule: the image asks for live, not ready: orchestrators replace what is not healthy, and a container whose Kafka is away
is not made well by being replaced. Whoever replaces nothing may ask for more: `alive.py /readyz`.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException

TIMEOUT_S = 1.5


def answers(port: int, page: str) -> bool:
    """True if a service answers on this port, and says yes."""
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", page)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    # A service listens on one of the two: on PORT when it has a public one, else on METRICS_PORT.
    ports = [int(os.environ[name]) for name in ("PORT", "METRICS_PORT") if os.environ.get(name)]  # noqa: TID251
    asked = sys.argv[1] if len(sys.argv) > 1 else "/livez"
    sys.exit(0 if any(answers(port, asked) for port in ports) else 1)
