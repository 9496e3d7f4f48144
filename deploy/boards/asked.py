"""Asks a Prometheus for every query of the boards and rules, over the time of a workload.

Rule: a query returns samples, or is declared empty-when-healthy with a reason and returns samples in the part with
faults. Every exported metric stands on a board, in a rule, or on the list of those that need not, with a reason.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import yaml

from deploy.boards.grafana import BOARDS
from deploy.boards.panel import Board, Panel, metrics_of, with_origin
from deploy.boards.scaled import windows

UNUSED: Final[Mapping[str, str]] = {
    "lifecycle_simulator": "the simulator is no part of a real installation",
}
"""Beginnings of names that no board and no rule needs, each with the reason."""

STEP_S: Final = 2.0
"""Seconds between two samples of a picture."""
_SUFFIXES: Final = ("_bucket", "_count", "_sum", "_created")
Series = list[tuple[dict[str, str], list[tuple[float, float]]]]
"""Series of an answer: labels, and points of (seconds since 1970, value)."""


@dataclass(slots=True)
class Answered:
    """Answers to the queries of a panel.

    Attributes:
        board: The board.
        panel: The panel.
        series: Series by the index of the query.
        errors: Texts of Prometheus about queries that it refuses.
    """

    board: Board
    panel: Panel
    series: list[Series] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """True if a query of the panel returned no sample."""
        return any(not any(points for _, points in found) for found in self.series)


@dataclass(frozen=True, slots=True)
class Database:
    """A running Prometheus.

    Attributes:
        url: Base URL.
        client: HTTP client.
    """

    url: str
    client: httpx2.Client

    def over_time(self, expr: str, begin_s: float, end_s: float, step_s: float = STEP_S) -> Series:
        """Returns the series of a query from `begin_s` to `end_s`, seconds since 1970.

        Raises:
            ValueError: Prometheus refuses the query.
        """
        fields = {"query": expr, "start": str(begin_s), "end": str(end_s), "step": str(step_s)}
        return [
            (one["metric"], [(float(at), float(value)) for at, value in one["values"] if value != "NaN"])
            for one in self._get("/api/v1/query_range", fields)["result"]
        ]

    def exported(self) -> frozenset[str]:
        """Returns the names of all metrics of ours that were scraped; parts of histograms as one name."""
        found = set()
        for name in self._get("/api/v1/label/__name__/values", {}):
            whole = next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)
            if name.startswith("lifecycle_") and ":" not in name and not name.endswith("_created"):
                found.add(whole)
        return frozenset(found)

    def alerts_fired(self, begin_s: float, end_s: float) -> frozenset[str]:
        """Returns the names of the alerts that fired in a time."""
        found = self.over_time('ALERTS{alertstate="firing"}', begin_s, end_s, 1.0)
        return frozenset(labels["alertname"] for labels, points in found if points)

    def until_watching(self, targets: int, deadline_s: float = 60.0) -> None:
        """Waits until Prometheus has scraped every target, and no alert fires that told of targets not yet scraped.

        Prometheus scrapes for the first time five seconds after the start, and evaluates rules at once.

        Args:
            targets: Number of targets.
            deadline_s: Longest wait in seconds.

        Raises:
            TimeoutError: it took longer.
        """
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            with suppress(httpx2.TransportError, ValueError):
                up = self._get("/api/v1/query", {"query": "up == 1"})["result"]
                firing = self._get("/api/v1/query", {"query": 'ALERTS{alertstate="firing"}'})["result"]
                if len(up) == targets and not firing:
                    return
            time.sleep(0.2)
        raise TimeoutError(f"Prometheus at {self.url} did not scrape {targets} targets within {deadline_s:g} s")

    def _get(self, path: str, fields: Mapping[str, str]) -> Any:
        answer = self.client.get(self.url + path, params=dict(fields))
        told = answer.json()
        if told.get("status") != "success":
            raise ValueError(told.get("error", f"status {answer.status_code}"))
        return told["data"]


def concrete(expr: str, window_s: float, range_s: float, scale: int = 1) -> str:
    """Returns a query with values in place of Grafana's variables, and with its own windows divided by the scale.

    Args:
        expr: The query, with the variables of the origin.
        window_s: Seconds of a window for rates.
        range_s: Seconds of the shown range.
        scale: Divisor of the windows that the query names itself; none gets shorter than `window_s`.
    """
    # Grafana's variables stand in brackets too, but are no durations: they come after.
    expr = windows(expr, scale, window_s) if scale > 1 else expr
    for name, value in (("__rate_interval", window_s), ("__interval", window_s), ("__range", range_s)):
        expr = expr.replace(f"${name}", f"{int(value)}s")
    return expr.replace("$namespace", ".*").replace("$instance", ".*")


def ask(database: Database, begin_s: float, end_s: float, window_s: float, scale: int = 1) -> Iterator[Answered]:
    """Asks for every panel of every board, and yields the answers.

    Args:
        database: The Prometheus.
        begin_s: Begin of the workload, seconds since 1970.
        end_s: End of the workload.
        window_s: Seconds of a window for rates: at least four scrapes.
        scale: Divisor of the windows that queries name themselves.
    """
    for board in BOARDS:
        for panel in board.panels():
            answered = Answered(board, panel)
            for query in panel.queries:
                try:
                    expr = concrete(with_origin(query.expr), window_s, end_s - begin_s, scale)
                    answered.series.append(database.over_time(expr, begin_s, end_s))
                except ValueError as fault:
                    answered.series.append([])
                    answered.errors.append(f"{query.expr}: {fault}")
            yield answered


def rules_in(folder: Path) -> list[dict[str, Any]]:
    """Returns every rule in the rule files of a folder."""
    files = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.yaml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def unused(exported: frozenset[str], rules: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the exported metrics that neither a board nor a rule asks for, and that the list does not excuse."""
    asked = {
        name
        for board in BOARDS
        for panel in board.panels()
        for query in panel.queries
        for name in metrics_of(query.expr)
    }
    asked |= {name for rule in rules for name in metrics_of(rule["expr"])}
    asked |= {name.removesuffix(suffix) for name in asked for suffix in _SUFFIXES if name.endswith(suffix)}
    return sorted(name for name in exported - asked if not name.startswith(tuple(UNUSED)))
