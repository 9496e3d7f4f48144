"""Writes docs/metrics.md, the reference page of metrics, from the tables of metrics.

`make metrics-page` writes the page. `make check` compares only, and fails if the page differs.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from services.adapters.process.generated import write_or_compare
from services.adapters.process.metric_table import DeclaredMetric, LabelValues, MetricTable
from services.adapters.process.metrics import TABLES

PAGE: Final = Path(__file__).parents[3] / "docs" / "metrics.md"

_HEAD: Final = """# Metrics

<!-- Written by `make metrics-page` from services/adapters/process/metrics.py; `make check` refuses another page. -->

Every service shows its metrics at `/metrics`: the ingress and the simulator at the port of their HTTP server, every
other service at `METRICS_PORT`. A name is `lifecycle_SERVICE_WHAT_UNIT`; times are in seconds, counters end in
`_total`. Beside these, each service shows `process_*` of prometheus_client (CPU, memory, open files, start time).

No label has a value that grows with customers: no key, organisation, tenant or host. Those are in the logs, in
`lifecycle tenants` and in `lifecycle sagas`.

A counter begins at 0 for each combination of its label values where these are declared and at most 50, and for each
answer of the ingress; any other series appears with its first event, and that event has no rate.

Gauges of the whole registry or of the public view are equal in every worker that shows them: take their maximum, never
their sum.
"""


def page() -> str:
    """Returns the text of the page."""
    return "\n".join((_HEAD, *(part for table in TABLES for part in _section(table))))


def _section(table: MetricTable) -> Iterator[str]:
    services = "every service" if len(table.services) > 1 else f"the {table.services[0]}"
    yield f"## `{table.prefix}*`\n"
    yield f"Shown by {services}.\n"
    rows = [("name", "kind", "labels", "meaning"), ("---",) * 4, *map(_row, table.declared)]
    yield "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"


def _row(metric: DeclaredMetric) -> tuple[str, ...]:
    labels = "<br>".join(f"`{label}`: {_values(values)}" for label, values in metric.labels.items())
    buckets = f" Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}." if metric.buckets else ""
    return f"`{metric.name}`", metric.kind, labels, metric.meaning + buckets


def _values(values: LabelValues) -> str:
    if isinstance(values, str):
        return values
    return ", ".join(f"`{value}`" if value else "(empty)" for value in values)


def main(arguments: Sequence[str]) -> int:
    """Runs the program; returns 1 if a check finds a difference, else 0."""
    return write_or_compare({PAGE: page().rstrip() + "\n"}, arguments, "metrics-page")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
