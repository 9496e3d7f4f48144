"""Structured logs: one JSON object a line on standard error, UTC, with key and event ids, no bodies and no secrets.

Rule: a field that may hold a secret is not passed here. What carries these names is dropped all the same.
"""

import faulthandler
import io
import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

_NEVER = frozenset(
    {"body", "secret", "configuration", "signature", "authorization", "password", "token", "installed_by"}
)

Logger = structlog.typing.FilteringBoundLogger


class _Forgiving(io.TextIOBase):
    """Standard error, whose reader may be gone and whose disk may be full: a line is lost then, and nothing else."""

    def write(self, text: str) -> int:
        """Write it if that can be done."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Likewise."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()

    def __del__(self) -> None:
        """Nothing is owed: io's own would flush once more, when this module's names are gone."""


def _without_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in _NEVER & event.keys():
        del event[name]
    return event


def configure(service: str, level: str) -> Logger:
    """Set the process up once and return its logger; libraries' own logs pass through the same renderer.

    A crash inside a library's C code leaves the stacks of Python's threads on standard error: all that is known of it.
    """
    with suppress(RuntimeError, ValueError, OSError, AttributeError):  # standard error may be closed, or no file
        faulthandler.enable()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _without_secrets,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Forgiving())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_Forgiving())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logger: Logger = structlog.get_logger(service=service)
    return logger
