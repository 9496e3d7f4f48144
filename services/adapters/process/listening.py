"""Opens a listening socket, with an error that names the settings of the address."""

import socket

from services.adapters.process.errors import Unusable


def listen(host: str, port: int, *, setting: str, backlog: int) -> socket.socket:
    """Listen on an IPv4 or IPv6 address.

    Args:
        host: Name or address; a host with a colon is an IPv6 address.
        port: Port; 0 takes a free port.
        setting: Name of the port's setting, for the error text.
        backlog: Greatest count of connections waiting to be accepted.

    Raises:
        Unusable: the address is not available.
    """
    # `create_server` does not derive the family from the host.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as error:
        raise Unusable(f"HOST, {setting}: {host}, {port}: {error.strerror}") from None
