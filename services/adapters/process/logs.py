"""Structured logs: a JSON object a line on standard error, UTC, with key and event ids, without bodies and secrets.

Rules: callers pass no field that may hold a secret; as a second defence, fields with the names in `_NEVER` are dropped.
A log line that cannot be written is lost, and never fails the work it describes.
"""

import faulthandler
import io
import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

from services.adapters.process import tracing

_NEVER = frozenset(
    {"body", "secret", "configuration", "signature", "authorization", "password", "token", "installed_by"}
)

Logger = structlog.typing.FilteringBoundLogger


class _LossyStderr(io.TextIOBase):
    """Standard error that drops a line if the pipe's reader is gone or the disk is full, in place of raising."""

    def write(self, text: str) -> int:
        """Write the text, or drop it on an error; return the text's length in both cases."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or ignore an error."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()

    def __del__(self) -> None:
        """Do nothing. The inherited method would flush at interpreter exit, when this module's names are gone."""


def _without_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in _NEVER & event.keys():
        del event[name]
    return event


def _with_trace_id(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    trace_id = tracing.trace_id()
    if trace_id is not None:
        event.setdefault("trace_id", trace_id)
    return event


def configure(service: str, level: str) -> Logger:
    """Configure logging once for the process, and return the service's logger.

    Log records of libraries, from WARNING on, pass through the same JSON renderer. `faulthandler` prints the Python
    stacks of all threads if C code of a library crashes; nothing else would be known about the crash.

    Args:
        service: Value of the field `service` in each line of the returned logger.
        level: Least level of the service's own lines: debug, info, warning or error.
    """
    with suppress(RuntimeError, ValueError, OSError, AttributeError):  # standard error may be closed, or no file
        faulthandler.enable()
    shared: list[structlog.typing.Processor] = [
        _with_trace_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _without_secrets,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _LossyStderr())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_LossyStderr())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    # `force` replaces handlers that an imported library has installed.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logger: Logger = structlog.get_logger(service=service)
    return logger
