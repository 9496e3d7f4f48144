"""The gates of `make bench-latency`, by case. Pure."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

from tests.bench.figures import Name, Stop, Storm
from tests.bench.verdict import GateResult, Weight, none, not_2xx, slowest, times, unanswered

P99_CASE: Final = "4,000/s"
P99_TIMES_MOST: Final = 4.0
"""Of bare Starlette's, in the same round."""

STORM_CASE: Final = "20,000 at once"
STORM_MOST_MS: Final = 3_000.0
"""The sender's timeout; see the guide."""

STORM_WEIGHTS: Final = {Name.SPOOLED: Weight.DECIDES, Name.ACKED: Weight.PRINTED}
"""Without a spool 503 is the answer that is due where Kafka has not acknowledged in time."""

STOPPED_CASE: Final = "broker stopped"
STOPPED_MOST_MS: Final = 2_700.0
"""No answer takes longer, whatever fails (spec, section 2)."""


def judge(storms: Sequence[Storm], stops: Mapping[Name, Stop], *, cores_shared: bool) -> list[GateResult]:
    """Judges each gate.

    Args:
        storms: Every run of every case.
        stops: What stopping the broker cost, by server.
        cores_shared: Whether server and sender were on one core.
    """
    of, over = Name.ACKED, Name.STARLETTE
    steady = [storm for storm in storms if storm.case == P99_CASE]
    found = [
        times(f"{P99_CASE}: p99, {of} ÷ {over}", steady, (of, over), P99_TIMES_MOST, cores_shared=cores_shared),
    ]
    for name, weight in STORM_WEIGHTS.items():
        stormy = [storm for storm in storms if (storm.case, storm.server) == (STORM_CASE, name)]
        refused = [not_2xx(storm) for storm in stormy]
        found += [
            slowest(f"{STORM_CASE}, {name}: slowest answer", stormy, STORM_MOST_MS, weight),
            none(f"{STORM_CASE}, {name}: answers that are not 2xx", refused, weight),
        ]
    for name in STORM_WEIGHTS:
        own = [stops[name]] if name in stops else []
        found += [
            slowest(f"{STOPPED_CASE}, {name}: slowest answer", [stop.storm for stop in own], STOPPED_MOST_MS),
            none(f"{STOPPED_CASE}, {name}: without an answer", [unanswered(stop.storm) for stop in own]),
            none(f"{STOPPED_CASE}, {name}: answered 200 and lost", [stop.lost for stop in own]),
        ]
    return found


def lines(storms: Sequence[Storm]) -> list[dict[str, Any]]:
    """The limits that the picture draws, milliseconds by case."""
    p99_ms = [storm.p99_ms for storm in storms if (storm.case, storm.server) == (P99_CASE, Name.STARLETTE)]
    return [
        *({"case": P99_CASE, "most_ms": P99_TIMES_MOST * median(p99_ms)} for _ in p99_ms[:1]),
        {"case": STORM_CASE, "most_ms": STORM_MOST_MS},
        {"case": STOPPED_CASE, "most_ms": STOPPED_MOST_MS},
    ]
