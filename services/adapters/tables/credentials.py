"""Translates librdkafka's security settings into Faust's credentials: an operator describes the cluster once.

Faust's consumer is aiokafka, not librdkafka, and supports fewer settings. Rule: an unsupported security setting is
refused at the start. An ignored setting would open a connection that is less secure than the operator asked for.
"""

import ssl
from collections.abc import Mapping
from typing import Final

import faust
from faust.types.auth import CredentialsT

from services.adapters.process.errors import Unusable

_UNDERSTOOD: Final = frozenset(
    {
        *("security.protocol", "ssl.ca.location", "ssl.certificate.location", "ssl.key.location"),
        *("ssl.key.password", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password"),
    }
)
_MECHANISMS: Final = frozenset({"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})


def credentials(config: Mapping[str, str]) -> CredentialsT | None:
    """Returns the credentials of Faust's consumer; None for a connection without TLS and SASL.

    Args:
        config: librdkafka's settings; settings that do not concern security are ignored.

    Raises:
        Unusable: A security setting is not supported by the consumer, or a file of TLS cannot be read.
    """
    unknown = sorted(
        name for name in config if name.startswith(("ssl.", "sasl.", "security.")) and name not in _UNDERSTOOD
    )
    if unknown:
        raise Unusable("\n".join(f"KAFKA_CONFIG: {name}: the ledger's consumer does not know it" for name in unknown))
    match config.get("security.protocol", "plaintext").lower():
        case "plaintext":
            return None
        case "ssl":
            return faust.SSLCredentials(context=_context(config))
        case "sasl_plaintext":
            return _sasl(config, None)
        case "sasl_ssl":
            return _sasl(config, _context(config))
        case other:
            raise Unusable(f"KAFKA_CONFIG: security.protocol: {other} is none of plaintext, ssl, sasl_…")


def _sasl(config: Mapping[str, str], context: ssl.SSLContext | None) -> CredentialsT:
    mechanism = config.get("sasl.mechanism", config.get("sasl.mechanisms", "PLAIN"))
    if mechanism not in _MECHANISMS:
        raise Unusable(f"KAFKA_CONFIG: sasl.mechanism: {mechanism} is none of {', '.join(sorted(_MECHANISMS))}")
    return faust.SASLCredentials(
        username=config.get("sasl.username", ""),
        password=config.get("sasl.password", ""),
        ssl_context=context,
        mechanism=mechanism,
    )


def _context(config: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.get("ssl.ca.location"))
        if certificate := config.get("ssl.certificate.location"):
            context.load_cert_chain(certificate, config.get("ssl.key.location"), config.get("ssl.key.password"))
    except OSError as error:
        raise Unusable(f"KAFKA_CONFIG: ssl: {error}") from None
    return context
