"""Tables in Markdown, for the terminal and for docs/performance.md alike, and the part of that file they replace. Pure.

Rule: a command rewrites what is between its own two marks and nothing else; what stands around is written by hand.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from statistics import median
from typing import Final

from tests.bench.figures import Slice, Storm
from tests.bench.verdict import GateResult, Standing, in_words, quartiles, ratios

_MIB: Final = 1 << 20
_LOUD: Final = {standing: str(standing) for standing in Standing} | {
    Standing.FAILS: "**FAILS**",
    Standing.NOISY: "**NOISY**",
}


class NoRegion(Exception):
    """The file has no such marks."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[int] = (0,)) -> str:
    """A table whose columns also line up as plain text.

    Args:
        head: Names of the columns.
        rows: As many cells each.
        words: Columns that stand to the left; the others are numbers.
    """
    lines = [list(head), *map(list, rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(head))]
    rule = ["-" * width if column in words else "-" * (width - 1) + ":" for column, width in enumerate(widths)]

    def written(cells: Sequence[str]) -> str:
        placed = (
            cell.ljust(widths[column]) if column in words else cell.rjust(widths[column])
            for column, cell in enumerate(cells)
        )
        return "| " + " | ".join(placed) + " |"

    return "\n".join(map(written, (lines[0], rule, *lines[1:])))


def gates(verdicts: Iterable[GateResult]) -> str:
    """The table of gates."""
    rows = [
        (each.gate, each.measured or "-", each.required, ": ".join(filter(None, (_LOUD[each.standing], each.why))))
        for each in verdicts
    ]
    return table(("gate", "measured", "required", "verdict"), rows, words=(0, 3))


def summary(verdicts: Iterable[GateResult]) -> str:
    """The number of gates by standing."""
    counted = Counter(each.standing for each in verdicts)
    text = ", ".join(f"{counted[standing]} {_LOUD[standing].strip('*')}" for standing in Standing if counted[standing])
    noisy = " What is noisy was NOT judged: run it again on a quieter machine." if counted[Standing.NOISY] else ""
    return f"Gates: {text}.{noisy}"


def throughput(slices: Sequence[Slice], connections: int, over: Sequence[str]) -> str:
    """Throughput of each server at some connections, the fastest first: medians over the rounds, quartiles in brackets.

    Args:
        slices: All of them.
        connections: Of this table.
        over: Servers that the others are compared with.
    """
    head = ("", "req/s", "CPU µs", "beside µs", "RSS MiB", *(f"÷ {name}" for name in over), "not 2xx", "strangers")
    here = [each for each in slices if each.connections == connections]
    speeds = {name: quartiles(each.per_s for each in here if each.server == name) for name in {e.server for e in here}}
    rows = []
    for server, speed in sorted(speeds.items(), key=lambda item: -item[1].middle):
        own = [each for each in here if each.server == server]
        beside_us = median(each.beside_us for each in own)
        rows.append(
            (
                server,
                f"{speed.middle:,.0f} [{speed.low:,.0f}-{speed.high:,.0f}]",
                f"{median(each.cpu_us for each in own):.0f}",
                f"{beside_us:.0f}" if beside_us else "-",
                f"{own[-1].rss_bytes / _MIB:.0f}",
                *("1" if server == name else _ratio(here, server, name, connections) for name in over),
                f"{sum(each.refused + each.broken for each in own):,}",
                f"{median(each.strangers_cores for each in own):.2f}",
            )
        )
    return table(head, rows)


def latency(storms: Sequence[Storm], cases: Iterable[str]) -> str:
    """Latency of each server in each case; percentiles are medians over the rounds, the slowest is of all."""
    head = ("", "", "p50 ms", "p99 ms", "slowest ms", "answers", "connections", "strangers")
    rows = []
    for case in cases:
        here = [storm for storm in storms if storm.case == case]
        for server in sorted({storm.server for storm in here}):
            own = [storm for storm in here if storm.server == server]
            said = sum((Counter(storm.said) for storm in own), Counter[str]())
            rows.append(
                (
                    case,
                    server,
                    f"{median(storm.p50_ms for storm in own):,.1f}",
                    f"{median(storm.p99_ms for storm in own):,.1f}",
                    f"{max(storm.max_ms for storm in own):,.1f}",
                    ", ".join(f"{count:,} x {words}" for words, count in sorted(said.items())),
                    f"{own[-1].connections:,}",
                    f"{median(storm.strangers_cores for storm in own):.2f}",
                )
            )
    return table(head, rows, words=(0, 1, 5))


def replaced(text: str, region: str, content: str) -> str:
    """A file's text with another content between the marks of a region.

    Raises:
        NoRegion: the marks are not there, in this order.
    """
    begin, end = f"<!-- {region}: begin -->\n", f"<!-- {region}: end -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise NoRegion(f"no {begin.strip()} … {end}")
    return f"{before}{begin}{content.strip()}\n{end}{after}"


def _ratio(slices: Sequence[Slice], of: str, over: str, connections: int) -> str:
    found = ratios(slices, of, over, connections)
    return in_words(quartiles(found)) if found else "-"
