"""Free TCP ports on 127.0.0.1 for servers that take seconds to bind them.

Rule: taken below the kernel's ephemeral range. A port from inside it may become the source of anybody's outgoing
connection between our look and the server's bind, or between a server's death and its restart.
"""

import secrets
import socket
from pathlib import Path

HOST = "127.0.0.1"
_LOWEST = 12_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_EPHEMERAL_DEFAULT = 32_768
_TRIES = 200


def free_ports(count: int) -> tuple[int, ...]:
    """Different ports nobody listens on now.

    Raises:
        OSError: None was found.
    """
    found: set[int] = set()
    top = _ephemeral_low()
    for _ in range(_TRIES):
        port = _LOWEST + secrets.randbelow(max(top - _LOWEST, 1))
        if is_free(port):
            found.add(port)
        if len(found) == count:
            return tuple(found)
    raise OSError(f"no {count} free ports on {HOST} between {_LOWEST} and {top}")


def is_free(port: int) -> bool:
    """Whether a server could bind the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Whether somebody accepts connections on the port."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _ephemeral_low() -> int:
    try:
        return int(_EPHEMERAL.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return _EPHEMERAL_DEFAULT
