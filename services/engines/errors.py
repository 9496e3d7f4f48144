"""What may go wrong with an engine, in words an operator can act on."""

INSTEAD = (
    "Instead, name servers that already run with KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL, "
    "or set LIFECYCLE_ENGINES=docker where a Docker engine answers."
)


class EngineError(Exception):
    """An engine cannot be had; the text says what was tried and what to set instead."""


class DownloadError(EngineError):
    """The pinned files of an engine are neither in the cache nor to be fetched."""


class StartError(EngineError):
    """A process ended before it answered, or did not answer in time; the text ends with its last log lines."""
