"""The values of a board: what a panel shows, apart from the program that shows it.

A board is written once, as a table of panels, in this package. `grafana.py` writes a board as JSON for Grafana, and
`make boards` asks a real Prometheus for every query of a board and draws the answers. Neither needs the other.

Rule: a query names metrics without the labels of their origin (`lifecycle_ingress_in_flight`, `up{job="ledger"}`).
`with_origin` adds the variables `$namespace` and `$instance`, so no panel can forget them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Form(StrEnum):
    """Forms of a panel, by Grafana's names."""

    NUMBER = "stat"
    LINES = "timeseries"


class Unit(StrEnum):
    """Units of a panel, by Grafana's names."""

    COUNT = "short"
    RATIO = "percentunit"
    SECONDS = "s"
    PER_SECOND = "ops"
    BYTES = "bytes"
    CORES = "none"


class Colour(StrEnum):
    """Colours of a threshold, by Grafana's names, which are readable in the light and in the dark theme."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit from which a value has a colour.

    Attributes:
        at: The least value with this colour; None for the colour below all other limits.
        colour: The colour.
    """

    at: float | None
    colour: Colour


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a panel.

    Attributes:
        expr: PromQL, without the labels of the origin.
        legend: Grafana's legend format, with labels as `{{label}}`.
    """

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of a board.

    Attributes:
        title: The title; unique in a board.
        description: What the panel shows, and what a reader should do about a strange value.
        unit: The unit of all queries.
        queries: The queries.
        form: A number or lines over time.
        width: Columns of the 24 that a board has.
        thresholds: Limits, rising; the first has no value.
        runbooks: Names of runbooks below docs/runbooks, without the suffix.
        stacked: True if the lines are stacked upon each other.
        empty_when_healthy: Reason why the queries return nothing while nothing is wrong; empty if they always return
            samples.
        decimals: Digits after the point of a number; None for Grafana's own choice.
        not_played: Reason why the day that tries the boards has no samples for this panel; empty if the day has.
    """

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    form: Form = Form.LINES
    width: int = 8
    thresholds: tuple[Threshold, ...] = (Threshold(None, Colour.GREEN),)
    runbooks: tuple[str, ...] = ()
    stacked: bool = False
    empty_when_healthy: str = ""
    decimals: int | None = None
    not_played: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of panels under a question that the panels answer.

    Attributes:
        title: The question.
        panels: The panels, from left to right; a panel that does not fit begins a new line.
    """

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A board.

    Attributes:
        uid: Grafana's identity of the board, and the name of its file.
        title: The title.
        description: Who looks at the board, and when.
        jobs: Services of the board, by the scrape job; the variable `$instance` lists their instances.
        rows: The rows.
    """

    uid: str
    title: str
    description: str
    jobs: tuple[str, ...]
    rows: tuple[Row, ...] = field(default=())

    def panels(self) -> Iterator[Panel]:
        """Yields the panels in the order of the rows."""
        for row in self.rows:
            yield from row.panels


def bad_from(yellow: float | None, red: float) -> tuple[Threshold, ...]:
    """Returns limits of a value that is worse the greater it is; `yellow` is None without a yellow range."""
    middle = () if yellow is None else (Threshold(yellow, Colour.YELLOW),)
    return (Threshold(None, Colour.GREEN), *middle, Threshold(red, Colour.RED))


def bad_below(red: float, yellow: float) -> tuple[Threshold, ...]:
    """Returns limits of a value that is better the greater it is: red below `red`, green from `yellow` on."""
    return (Threshold(None, Colour.RED), Threshold(red, Colour.YELLOW), Threshold(yellow, Colour.GREEN))


_SELECTOR: Final = re.compile(
    r"\b(?P<name>(?:lifecycle_[a-z0-9_]+|process_[a-z0-9_]+|up))\b(?!\s*\()(?P<labels>\{[^}]*\})?"
)
_RECORDED: Final = re.compile(r"\blifecycle:[a-z_]+:[a-z0-9_]+\b(?P<labels>\{[^}]*\})?")
_ORIGIN: Final = 'namespace=~"$namespace",instance=~"$instance"'


def with_origin(expr: str) -> str:
    """Returns a query with the variables of the origin in every selector.

    Series of recording rules (`lifecycle:WHAT:OPERATION`) have no instance any more, unless OPERATION says so; they are
    chosen by namespace alone.
    """

    def add(found: re.Match[str]) -> str:
        labels = (found["labels"] or "{}")[1:-1].strip().rstrip(",")
        return f"{found['name']}{{{labels}{',' if labels else ''}{_ORIGIN}}}"

    def add_namespace(found: re.Match[str]) -> str:
        name, labels = found.group().partition("{")[0], (found["labels"] or "{}")[1:-1]
        origin = _ORIGIN if name.endswith("_by_instance") else _ORIGIN.partition(",")[0]
        return f"{name}{{{labels}{',' if labels else ''}{origin}}}"

    return _RECORDED.sub(add_namespace, _SELECTOR.sub(add, expr))


def recorded_in(expr: str) -> frozenset[str]:
    """Returns the names of the recording rules in a query."""
    return frozenset(found.group().partition("{")[0] for found in _RECORDED.finditer(expr))


def metrics_of(expr: str) -> frozenset[str]:
    """Returns the names of the metrics in a query."""
    return frozenset(found["name"] for found in _SELECTOR.finditer(expr))
