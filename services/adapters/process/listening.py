"""A socket that listens, or a fault of the settings that named its address."""

import socket

from services.adapters.process.settings import Unusable


def listen(host: str, port: int, *, setting: str, backlog: int) -> socket.socket:
    """Listen on an address of either family.

    Args:
        host: Name or address; one with a colon is of IPv6.
        port: 0 takes a free one.
        setting: Name of the one that gave the port, for the fault.
        backlog: Connections that may wait to be accepted.

    Raises:
        Unusable: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as error:
        raise Unusable(f"HOST, {setting}: {host}, {port}: {error.strerror}") from None
