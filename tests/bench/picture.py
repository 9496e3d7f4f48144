"""Draws what `--json` has: `python -m tests.bench.picture FILE.svg < FIGURES`; another ending gives another format.

Rule: it runs where matplotlib is and nothing else (uv's group `bench`), so it imports figures and verdicts alone.
The same figures give the same bytes: no date, no chance in the identifiers.
"""

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.bench.figures import Name, Slice, Storm
from tests.bench.verdict import Gate, Weight, quartiles, ratios

_INK, _FAINT, _GATE = "#24292f", "#d0d7de", "#b42318"
_SHADES: Final = {64: ("#2f6f9f", "white"), 256: ("#9cc4de", _INK)}
_LINES: Final = {Weight.DECIDES: "-", Weight.PRINTED: ":"}
_SERVERS: Final = {Name.ASGI: "#b6bec8", Name.STARLETTE: "#6b7785", Name.ACKED: "#2f6f9f", Name.SPOOLED: "#d08a1e"}
_STYLE: Final = {
    "svg.hashsalt": "genesys-lifecycle",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "figure.facecolor": "white",
}


def main(file: Path) -> None:
    """Draw the figures that come on standard input."""
    told = json.load(sys.stdin)
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    matplotlib.rcParams.update(_STYLE)
    pyplot = importlib.import_module("matplotlib.pyplot")
    drawn = {"bench": throughput, "bench-latency": latency}[told["command"]](pyplot, told)
    drawn.savefig(
        file,
        bbox_inches="tight",
        pad_inches=0.15,
        metadata={"Date": None, "Creator": None} if file.suffix == ".svg" else None,
    )


def throughput(pyplot: Any, told: Any) -> Any:
    """A bar a gate: the ratio's median, its quartiles as whiskers, what is required as a line."""
    slices = [Slice(**each) for each in told["slices"]]
    gates = [Gate(**each) for each in told["gates"]]
    seen = [gate for gate in gates if ratios(slices, gate.of, gate.over, gate.connections)]
    near, far = [gate for gate in seen if gate.least <= 1], [gate for gate in seen if gate.least > 1]
    panels = [panel for panel in (near, far) if panel]
    figure, axes = pyplot.subplots(
        len(panels),
        figsize=(8.6, 1.3 + 0.42 * len(seen)),
        squeeze=False,
        gridspec_kw={"height_ratios": [len(panel) for panel in panels], "hspace": 0.35},
    )
    for panel, axis in zip(panels, axes[:, 0], strict=True):
        _bars(axis, panel, slices)
    first, last = axes[0, 0], axes[-1, 0]
    first.set_title(f"Throughput: {gates[0].of} ÷ another server", loc="left", pad=30, weight="bold")
    last.set_xlabel("ratio inside a round: median and quartiles")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=shade) for shade, _ in _SHADES.values()]
    handles += [pyplot.Line2D([], [], color=_GATE, linestyle=style, linewidth=2) for style in _LINES.values()]
    names = [*(f"{count} connections" for count in _SHADES), "at least", "at least, printed only"]
    first.legend(handles, names, ncols=4, loc="lower left", bbox_to_anchor=(-0.01, 1.0), frameon=False, fontsize=9)
    return figure


def _bars(axis: Any, gates: Sequence[Gate], slices: Sequence[Slice]) -> None:
    groups = list(dict.fromkeys(gate.over for gate in gates))
    for gate in gates:
        height = groups.index(gate.over) + 0.4 * (list(_SHADES).index(gate.connections) - 0.5)
        seen = quartiles(ratios(slices, gate.of, gate.over, gate.connections))
        shade, ink = _SHADES[gate.connections]
        axis.barh(height, seen.middle, 0.36, color=shade)
        whiskers = [[seen.middle - seen.low], [seen.high - seen.middle]]
        axis.errorbar(seen.middle, height, xerr=whiskers, color=_INK, capsize=3, linewidth=1)
        number = f"{seen.middle:.2f}"
        axis.annotate(
            number, (0, height), (5, 0), textcoords="offset points", va="center_baseline", color=ink, fontsize=9
        )
        axis.plot(
            [gate.least] * 2, [height - 0.2, height + 0.2], color=_GATE, linestyle=_LINES[gate.weight], linewidth=2
        )
    axis.set_yticks(range(len(groups)), [f"÷ {group}" for group in groups])
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color=_FAINT, linewidth=0.7)
    axis.set_xlim(left=0)
    axis.margins(x=0.08)


def latency(pyplot: Any, told: Any) -> Any:
    """A row a case and server: p50, p99 and the slowest, on a logarithmic scale."""
    storms = [Storm(**each) for each in told["storms"]]
    cases = [case for case in told["cases"] if any(storm.case == case for storm in storms)]
    figure, axis = pyplot.subplots(figsize=(8.6, 1.2 + 0.62 * len(cases)))
    for row, case in enumerate(cases):
        if row % 2:
            axis.axhspan(row - 0.5, row + 0.5, color="#f6f8fa", zorder=0)
        runs = {server: [s for s in storms if (s.case, s.server) == (case, server)] for server in _SERVERS}
        present = [server for server, own in runs.items() if own]
        for height, server in enumerate(present):
            _dots(axis, row + 0.22 * (height - (len(present) - 1) / 2), runs[server], _SERVERS[server])
        for limit in told["lines"]:
            if limit["case"] == case:
                axis.plot([limit["most_ms"]] * 2, [row - 0.45, row + 0.45], color=_GATE, linewidth=2)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axis.set_yticks(range(len(cases)), cases)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(cases) - 0.5, -0.5)
    axis.grid(axis="x", color=_FAINT, linewidth=0.7)
    axis.set_xlabel("milliseconds from the instant a request was due to the end of its answer, logarithmic")
    axis.set_title("How long a sender waits", loc="left", pad=46, weight="bold")
    handles = [pyplot.Line2D([], [], color=colour, linewidth=4) for colour in _SERVERS.values()]
    marks = [("o", "white", "p50"), ("o", _INK, "p99"), ("|", _INK, "slowest")]
    handles += [pyplot.Line2D([], [], color=_INK, marker=m, markerfacecolor=f, linestyle="") for m, f, _ in marks]
    handles += [pyplot.Line2D([], [], color=_GATE, linewidth=2)]
    names = [*map(str, _SERVERS), *(name for _, _, name in marks), "most allowed"]
    axis.legend(handles, names, ncols=4, loc="lower left", bbox_to_anchor=(-0.01, 1.0), frameon=False, fontsize=9)
    return figure


def _dots(axis: Any, height: float, storms: Sequence[Storm], colour: str) -> None:
    p50, p99 = median(storm.p50_ms for storm in storms), median(storm.p99_ms for storm in storms)
    slowest = max(storm.max_ms for storm in storms)
    axis.plot([p50, slowest], [height] * 2, color=colour, linewidth=1.5, zorder=2)
    axis.plot(p50, height, "o", color=colour, markerfacecolor="white", markersize=6, zorder=3)
    axis.plot(p99, height, "o", color=colour, markersize=6, zorder=3)
    axis.plot(slowest, height, "|", color=colour, markersize=9, markeredgewidth=2, zorder=3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
