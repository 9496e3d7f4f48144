"""Errors of the engines. Each text names the attempt, the failure, and the remedy."""

INSTEAD = (
    "Instead, name servers that already run with KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL, "
    "or set LIFECYCLE_ENGINES=docker where a Docker engine answers."
)


class EngineError(Exception):
    """An engine cannot be started. The text names the attempts and the variables to set instead."""


class DownloadError(EngineError):
    """The pinned files of an engine are not in the cache and cannot be fetched."""


class StartError(EngineError):
    """A server ended before the first answer, or did not answer in time.

    For a local server the text ends with the last lines of the log.
    """
