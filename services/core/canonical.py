"""One spelling for equal JSON (RFC 8785), and the keyed hash by which configurations are compared unread."""

import hmac

import rfc8785

from schemas.values import Json


def configuration_mac(configuration: Json, key: bytes) -> str:
    """HMAC-SHA256 over the canonical JSON, in hex; `key` is `material.configuration`.

    Raises:
        ValueError: it is not I-JSON (an integer beyond 2^53-1, NaN, an unpaired surrogate).
    """
    return hmac.digest(key, rfc8785.dumps(configuration), "sha256").hex()
