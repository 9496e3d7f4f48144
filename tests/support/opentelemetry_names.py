"""The names of OpenTelemetry's standard variables: those its packages declare, and those docs/traces.md names."""

import re
from typing import Final

from opentelemetry import environment_variables as of_the_api
from opentelemetry.sdk import environment_variables as of_the_sdk

from tests.support.document_texts import read

STANDARD: Final = frozenset(name for of in (of_the_api, of_the_sdk) for name in vars(of) if name.startswith("OTEL_"))
"""Every variable that the API and the SDK for Python declare."""


def tables() -> tuple[frozenset[str], frozenset[str]]:
    """Returns the names, or patterns with `*`, that docs/traces.md has as honoured, and as not honoured."""
    honoured, _, rest = read("docs/traces.md").partition("\nNot honoured")
    return _named(honoured), _named(rest.partition("\n## ")[0])


def _named(text: str) -> frozenset[str]:
    rows = [line for line in text.splitlines() if line.startswith("| `OTEL_")]
    return frozenset(name for row in rows for name in re.findall(r"`(OTEL_[A-Z_]+\*?)`", row))
