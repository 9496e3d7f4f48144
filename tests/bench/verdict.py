"""Judgement of the figures: quartiles, ratios inside a round, and the standing of each gate. Pure.

Rule: a gate compares with another server of the same round; no absolute throughput is ever judged, a shared machine's
speed moves by half. Where the machine was not quiet enough to tell, the verdict is "noisy", and that is no "fails".
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median, quantiles
from typing import Final

from tests.bench.figures import BROKEN, UNANSWERED, Slice, Storm

SPREAD_MAX: Final = 0.25
"""Of a ratio, upper less lower quartile ÷ median; beyond it the rounds contradict each other."""

STRANGERS_MAX_CORES: Final = 0.15
"""What others may use on average before they are part of the result."""

ROUNDS_LEAST: Final = 3
"""Fewer have no quartiles worth the name."""


class Standing(StrEnum):
    """Result of a gate."""

    HOLDS = "holds"
    FAILS = "fails"
    NOISY = "noisy"
    NOT_RUN = "not run"
    MISSED = "missed"
    """A gate that is only printed and would fail."""


class Weight(StrEnum):
    """Purpose of a gate."""

    DECIDES = "decides"
    PRINTED = "printed"


_FAILED: Final = {Weight.DECIDES: Standing.FAILS, Weight.PRINTED: Standing.MISSED}
_IN_WORDS: Final = {Weight.DECIDES: "", Weight.PRINTED: " (printed only)"}


@dataclass(frozen=True, slots=True)
class Gate:
    """Throughput of one server ÷ that of another in the same round, at least so much."""

    of: str
    over: str
    connections: int
    least: float
    weight: Weight = Weight.DECIDES


@dataclass(frozen=True, slots=True)
class Quartiles:
    """A quarter of the values is below `low`, a quarter above `high`."""

    low: float
    middle: float
    high: float

    @property
    def spread(self) -> float:
        """The distance of the quartiles, relative to the median."""
        return (self.high - self.low) / self.middle if self.middle else 0.0


@dataclass(frozen=True, slots=True)
class GateResult:
    """One line of the table of gates.

    Attributes:
        gate: What is demanded, in words.
        measured: What was seen.
        required: The limit.
        standing: Whether it holds.
        why: Where it is noisy or was not run: the reason.
    """

    gate: str
    measured: str
    required: str
    standing: Standing
    why: str = ""


def quartiles(values: Iterable[float]) -> Quartiles:
    """Of at least one value; between two values, in proportion."""
    known = sorted(values)
    if len(known) == 1:
        return Quartiles(known[0], known[0], known[0])
    return Quartiles(*quantiles(known, n=4, method="inclusive"))


def percentile(values: Iterable[float], percent: int) -> float:
    """The least value that so many percent of all do not exceed."""
    known = sorted(values)
    return known[max(0, math.ceil(len(known) * percent / 100) - 1)]


def ratios(slices: Iterable[Slice], of: str, over: str, connections: int) -> list[float]:
    """Throughput of one ÷ that of the other, in each round that has both."""
    speeds = {(each.round, each.server): each.per_s for each in slices if each.connections == connections}
    rounds = sorted({number for number, _ in speeds})
    return [
        speeds[number, of] / speeds[number, over]
        for number in rounds
        if speeds.get((number, of)) is not None and speeds.get((number, over))
    ]


def noise(seen: Quartiles, rounds: int, strangers: Iterable[float], *, cores_shared: bool) -> str:
    """The reason why these figures cannot be judged; empty text when they can."""
    taken = median(strangers)
    reasons = (
        (cores_shared, "server and sender share the only core"),
        (rounds < ROUNDS_LEAST, f"{rounds} of at least {ROUNDS_LEAST} rounds"),
        (seen.spread > SPREAD_MAX, f"quartiles {seen.spread:.0%} apart"),
        (taken > STRANGERS_MAX_CORES, f"strangers took {taken:.2f} core"),
    )
    return "; ".join(text for is_so, text in reasons if is_so)


def judge(gate: Gate, slices: Sequence[Slice], *, cores_shared: bool) -> GateResult:
    """Judges a gate."""
    name = f"{gate.of} ÷ {gate.over}, {gate.connections} connections"
    required = f"≥ {gate.least:.2f}{_IN_WORDS[gate.weight]}"
    found = ratios(slices, gate.of, gate.over, gate.connections)
    if not found:
        return GateResult(name, "", required, Standing.NOT_RUN, "one of the two did not run")
    seen = quartiles(found)
    both = [s for s in slices if s.server in {gate.of, gate.over} and s.connections == gate.connections]
    why = noise(seen, len(found), [s.strangers_cores for s in both], cores_shared=cores_shared)
    standing = Standing.NOISY if why else Standing.HOLDS if seen.middle >= gate.least else _FAILED[gate.weight]
    return GateResult(name, in_words(seen), required, standing, why)


def refusals(slices: Iterable[Slice]) -> list[str]:
    """Every slice with an answer that was not 2xx, or with none: what was compared was not the same work."""
    return [
        f"round {each.round}, {each.server}, {each.connections} connections: "
        f"{each.refused} not 2xx, {each.broken} without an answer"
        for each in slices
        if each.refused or each.broken
    ]


def times(gate: str, storms: Sequence[Storm], pair: tuple[str, str], most: float, *, cores_shared: bool) -> GateResult:
    """Judges if the p99 of one server is at most so many times that of another, in the same round."""
    required = f"≤ {most:.2f}"
    p99_ms = {(storm.round, storm.server): storm.p99_ms for storm in storms}
    of, over = pair
    found = [p99_ms[number, of] / p99_ms[number, over] for number in sorted({number for number, _ in p99_ms})]
    if not found:
        return GateResult(gate, "", required, Standing.NOT_RUN)
    seen = quartiles(found)
    strangers = [storm.strangers_cores for storm in storms if storm.server in pair]
    why = noise(seen, len(found), strangers, cores_shared=cores_shared)
    standing = Standing.NOISY if why else Standing.HOLDS if seen.middle <= most else Standing.FAILS
    return GateResult(gate, in_words(seen), required, standing, why)


def slowest(gate: str, storms: Sequence[Storm], most_ms: float, weight: Weight = Weight.DECIDES) -> GateResult:
    """Judges if no answer took longer. Strangers only slow a run down: a gate that holds in spite of them holds."""
    required = f"≤ {most_ms:,.0f} ms{_IN_WORDS[weight]}"
    if not storms:
        return GateResult(gate, "", required, Standing.NOT_RUN)
    seen_ms = max(storm.max_ms for storm in storms)
    worst = max(storm.strangers_cores for storm in storms)
    noisy = seen_ms > most_ms and worst > STRANGERS_MAX_CORES
    standing = Standing.HOLDS if seen_ms <= most_ms else Standing.NOISY if noisy else _FAILED[weight]
    return GateResult(
        gate, f"{seen_ms:,.0f} ms", required, standing, f"strangers took {worst:.2f} core" if noisy else ""
    )


def none(gate: str, counts: Sequence[int], weight: Weight = Weight.DECIDES) -> GateResult:
    """Judges if an event never happened, in as many runs as there are counts. No noise excuses a failure."""
    required = f"0{_IN_WORDS[weight]}"
    if not counts:
        return GateResult(gate, "", required, Standing.NOT_RUN)
    return GateResult(gate, f"{sum(counts):,}", required, _FAILED[weight] if any(counts) else Standing.HOLDS)


def not_2xx(storm: Storm) -> int:
    """The number of requests with another answer, or with none."""
    return sum(count for words, count in storm.said.items() if not words.startswith("2"))


def unanswered(storm: Storm) -> int:
    """The number of requests without an answer."""
    return storm.said.get(UNANSWERED, 0) + storm.said.get(BROKEN, 0)


def in_words(seen: Quartiles) -> str:
    """Median and quartiles of a ratio."""
    return f"{seen.middle:.2f} [{seen.low:.2f}-{seen.high:.2f}]"


def exit_status(verdicts: Iterable[GateResult], faults: Sequence[str]) -> int:
    """0 without a failed gate; a noisy gate did not fail."""
    return 1 if faults or any(verdict.standing is Standing.FAILS for verdict in verdicts) else 0
