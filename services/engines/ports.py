"""Chooses free TCP ports on 127.0.0.1 for servers with a start of several seconds.

Rule: every port is below the kernel's ephemeral range. The kernel may give a port of the ephemeral range to an outgoing
connection of any process: between the check here and the bind of the server, or between the death and the restart of a
server. For this reason `bind` to port 0 is no alternative.
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
    """Returns `count` different ports, each free now.

    No port is reserved: a later bind may still fail.

    Raises:
        OSError: Fewer free ports were found in `_TRIES` tries.
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
    """True if a server could bind the port now."""
    with socket.socket() as probe:
        # Servers set SO_REUSEADDR; without the option a connection in TIME_WAIT would make the port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """True if a server accepts connections on the port within 1 s."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _ephemeral_low() -> int:
    """Returns the lowest port of the kernel's ephemeral range."""
    try:
        return int(_EPHEMERAL.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return _EPHEMERAL_DEFAULT
