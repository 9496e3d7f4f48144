"""Draws boards from the answers of a Prometheus: `python -m deploy.boards.draw FOLDER < DATA`, a PNG a board.

Layout, units and limits are those of the board; bands mark the phases of the workload. It runs where matplotlib is and
nothing else (uv's group `bench`), so it imports nothing of ours.
"""

import importlib
import json
import math
import re
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

_INK, _FAINT, _GROUND = "#1f2329", "#d8dde3", "#f4f5f7"
_COLOURS: Final = {"green": "#2e9e5b", "yellow": "#d9a514", "red": "#c93a3a"}
_LINES: Final = (
    "#2f6f9f",
    "#d08a1e",
    "#2e9e5b",
    "#8a5fb0",
    "#5b6b7b",
    "#1aa3a3",
    "#b0708a",
    "#7a8f2a",
    "#444c99",
    "#8c6d4f",
)
"""Colours of series; red is for limits alone."""
_COLUMN_IN: Final = 0.75
_ROW_IN: Final = 0.34
_HEAD_IN: Final = 0.9
_STYLE: Final = {
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 8,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.facecolor": "white",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#eceff2",
    "axes.axisbelow": True,
    "figure.facecolor": _GROUND,
}
_LABELS_MOST: Final = 8
_LABEL_ROWS: Final = 3
_LETTER_IN, _HANDLE_IN = 0.055, 0.4
"""Inches of a letter of a legend, and of the line and space beside a name."""
_LABEL: Final = re.compile(r"\{\{(\w+)\}\}")
_TICKS_S: Final = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 3_600)
_TICKS_MOST: Final = 8
_DAY_S: Final = 86_400


class Times(NamedTuple):
    """The time that the pictures show.

    Attributes:
        phases: Name, begin and end of each phase, seconds since 1970.
        step_s: Seconds between two samples.
        clock: True for axes with the time of day in place of the time since the begin.
    """

    phases: Sequence[Any]
    step_s: float
    clock: bool

    @property
    def begin(self) -> float:
        """The left end of every axis."""
        return self.phases[0][1] if self.phases else 0.0

    @property
    def end(self) -> float:
        """The right end of every axis."""
        return self.phases[-1][2] if self.phases else 1.0


def main(folder: Path) -> None:
    """Draws the boards of the data on standard input."""
    told = json.load(sys.stdin)
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    matplotlib.rcParams.update(_STYLE)
    pyplot = importlib.import_module("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    for uid, board in told["boards"].items():
        figure = draw(pyplot, board, Times(told["phases"], told["step_s"], told["clock"]))
        figure.savefig(folder / f"{uid.removeprefix('lifecycle-')}.png", dpi=90, metadata={"Software": None})
        pyplot.close(figure)


def draw(pyplot: Any, board: Any, times: Times) -> Any:
    """Returns a board as a figure."""
    names = _names_of(times.phases)
    foot_in = 0.25 + 0.2 * len(names)
    width, height = 24 * _COLUMN_IN, board["height"] * _ROW_IN + _HEAD_IN + foot_in
    figure = pyplot.figure(figsize=(width, height))
    figure.text(0.008, 1 - 0.32 / height, board["title"], fontsize=15, weight="bold")
    figure.text(0.008, 1 - 0.6 / height, board["description"], fontsize=9, color="#5b6570")
    for panel in board["panels"]:
        if "row" in panel:
            y = 1 - (_HEAD_IN + (panel["top"] + 0.75) * _ROW_IN) / height
            figure.text(0.008, y, panel["row"], fontsize=11, weight="bold")
            continue
        left, top, wide, high = panel["place"]
        box = (left / 24, 1 - (_HEAD_IN + (top + high) * _ROW_IN) / height, wide / 24, high * _ROW_IN / height)
        if panel["form"] == "stat":
            _number(figure, panel, box, times)
        else:
            _lines(figure, panel, box, times, height)
    for at, name in enumerate(names):
        figure.text(0.008, (foot_in - 0.2 * (at + 1)) / height, name, fontsize=8, color="#5b6570")
    return figure


def _names_of(phases: Sequence[Any]) -> list[str]:
    """Returns the lines below a board: number and name of each phase, six to a line; a single phase has no number."""
    if len(phases) == 1:
        return [phases[0][0]]
    words = [f"{number}  {name}" for number, (name, _, _) in enumerate(phases, start=1)]
    return ["     ".join(words[at : at + 6]) for at in range(0, len(words), 6)]


def _number(figure: Any, panel: Any, box: tuple[float, float, float, float], times: Times) -> None:
    x, y, w, h = box
    axes = figure.add_axes((x + 0.004, y + 0.06 * h, w - 0.008, 0.88 * h))
    value = newest([points for found in panel["series"] for _, points in found], times)
    axes.set_facecolor(_GROUND if value is None else _colour(panel["limits"], value))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    text = (panel["empty"] or "no data") if value is None else _text(value, panel["unit"], panel["decimals"])
    ink = _INK if value is None else "white"
    axes.text(
        0.5,
        0.42,
        text,
        ha="center",
        va="center",
        fontsize=9 if value is None else 20,
        color=ink,
        weight="bold",
        wrap=True,
    )
    axes.text(0.03, 0.93, panel["title"], ha="left", va="top", fontsize=8.5, color=ink, transform=axes.transAxes)


def _lines(figure: Any, panel: Any, box: tuple[float, float, float, float], times: Times, height: float) -> None:
    x, y, w, h = box
    foot, head = 0.62 / height, 0.3 / height
    axes = figure.add_axes((x + 0.03, y + foot, w - 0.038, h - foot - head))
    axes.set_title(panel["title"], loc="left", fontsize=9, weight="bold", pad=5)
    lines = [
        (label(legend or panel["title"], labels), points)
        for legend, found in zip(panel["legends"], panel["series"], strict=True)
        for labels, points in found
        if points
    ]
    lines.sort(key=lambda line: -max(value for _, value in line[1]))
    colours = colours_of([name for name, _ in lines])
    _bands(axes, times)
    if panel["stacked"]:
        _stack(axes, lines, colours, times)
    else:
        for name, points in lines:
            xs, ys = with_gaps(points, times.begin, times.step_s)
            axes.plot(xs, ys, label=name, color=colours[name], linewidth=1.2)
            axes.plot(*lone(xs, ys), linestyle="", marker="o", markersize=2.5, color=colours[name])
    top = max((value for _, points in lines for _, value in points), default=1.0)
    for limit, colour in panel["limits"]:
        if limit is not None and limit <= top * 1.5:
            axes.axhline(limit, color=_COLOURS[colour], linewidth=1, linestyle="--")
    axes.set_xlim(0, times.end - times.begin)
    axes.set_ylim(bottom=0)
    if panel["unit"] == "s" and top >= 120:
        # Whole minutes or hours, never 4.17 of them.
        axes.yaxis.set_major_locator(
            importlib.import_module("matplotlib.ticker").MaxNLocator(5, steps=[1, 1.2, 3, 6, 10])
        )
    axes.yaxis.set_major_formatter(lambda value, _: _text(value, panel["unit"], None))
    ticks = ticks_of(times)
    axes.set_xticks([at for at, _ in ticks], [text for _, text in ticks])
    axes.tick_params(length=0, labelsize=7)
    if not lines:
        axes.text(0.5, 0.5, panel["empty"] or "no data", ha="center", va="center", transform=axes.transAxes)
        return
    _legend(axes, (w - 0.038) * 24 * _COLUMN_IN)


def _stack(axes: Any, lines: Sequence[Any], colours: Mapping[str, str], times: Times) -> None:
    """Draws the lines upon each other, in a stack for each run of samples without a gap."""
    runs = list[list[float]]()
    for at in sorted({at for _, points in lines for at, _ in points}):
        if not runs or at - runs[-1][-1] > 1.5 * times.step_s:
            runs.append([])
        runs[-1].append(at)
    values = [dict(map(tuple, points)) for _, points in lines]
    for number, run in enumerate(runs):
        xs = [at - times.begin for at in run]
        rows = [[found.get(at, 0.0) for at in run] for found in values]
        if len(run) == 1:  # a lone sample has no width
            xs, rows = [xs[0], xs[0] + times.step_s / 2], [[*row, *row] for row in rows]
        axes.stackplot(
            xs, rows, labels=[name for name, _ in lines] if number == 0 else (),
            colors=[colours[name] for name, _ in lines], alpha=0.75,
        )  # fmt: skip


def _legend(axes: Any, width_in: float) -> None:
    """Draws the names of the highest lines below a panel, in as many columns as its width has room for."""
    handles, names = axes.get_legend_handles_labels()
    shown = list(dict(zip(names, handles, strict=True)).items())[:_LABELS_MOST]
    longest = max(len(name) for name, _ in shown)
    columns = max(1, min(4, int(width_in / (_HANDLE_IN + _LETTER_IN * longest))))
    shown = shown[: columns * _LABEL_ROWS]
    most = int((width_in / columns - _HANDLE_IN) / _LETTER_IN)
    axes.legend(
        [handle for _, handle in shown], [_cut(name, most) for name, _ in shown], loc="upper left",
        bbox_to_anchor=(0, -0.1), ncol=columns, fontsize=6.5, frameon=False, borderaxespad=0.2, columnspacing=1.0,
        handlelength=1.2,
    )  # fmt: skip


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def newest(series: Sequence[Sequence[Any]], times: Times) -> float | None:
    """Returns the value of a number at the end of the picture; None if its series ended before."""
    ends = [points[-1] for points in series if points]
    return next((value for at, value in reversed(ends) if at > times.end - 1.5 * times.step_s), None)


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Returns the colour of each line by its name: equal in every picture, unless two names want one colour."""
    found, free = dict[str, str](), list(_LINES)
    for name in sorted(set(names)):
        wanted = _LINES[zlib.crc32(name.encode()) % len(_LINES)]
        found[name] = wanted if wanted in free or not free else free[0]
        if found[name] in free:
            free.remove(found[name])
    return found


def ticks_of(times: Times) -> list[tuple[float, str]]:
    """Returns the marks of the axis of time: seconds since the begin, and the text."""
    length = times.end - times.begin
    step = next((each for each in _TICKS_S if length / each <= _TICKS_MOST), _TICKS_S[-1])
    if not times.clock:
        return [(at, f"{at // 60}:{at % 60:02}") for at in range(0, int(length) + 1, step)]
    first = -int(-times.begin // step) * step
    return [
        (at - times.begin, time.strftime("%H:%M:%S", time.gmtime(at))) for at in range(first, int(times.end) + 1, step)
    ]


def with_gaps(points: Sequence[Any], begin: float, step_s: float) -> tuple[list[float], list[float]]:
    """Returns the points with a gap where samples are missing, so that no line joins what was not measured."""
    xs, ys = list[float](), list[float]()
    for at, value in points:
        if xs and at - begin - xs[-1] > 1.5 * step_s:
            xs.append(xs[-1])
            ys.append(math.nan)
        xs.append(at - begin)
        ys.append(value)
    return xs, ys


def lone(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """Returns the points between two gaps, which no line would show."""
    around = [math.nan, *ys, math.nan]
    found = [
        (x, y)
        for x, (before, y, after) in zip(xs, zip(around, ys, around[2:], strict=False), strict=True)
        if math.isnan(before) and math.isnan(after) and not math.isnan(y)
    ]
    return [x for x, _ in found], [y for _, y in found]


def _bands(axes: Any, times: Times) -> None:
    """Draws a band and a number for each phase; a single phase needs no mark."""
    begin = times.begin
    for number, (_, first, last) in enumerate(times.phases if len(times.phases) > 1 else (), start=1):
        if number % 2 == 0:
            axes.axvspan(first - begin, last - begin, color="#eef2f6", zorder=0, linewidth=0)
        axes.text(
            (first + last) / 2 - begin, 0.99, str(number), fontsize=6, color="#8a949e", ha="center", va="top",
            transform=axes.get_xaxis_transform(), clip_on=True,
        )  # fmt: skip


def label(legend: str, labels: Mapping[str, str]) -> str:
    """Returns Grafana's legend format with the values of the labels; Prometheus leaves out a label without a value."""
    return _LABEL.sub(lambda found: labels.get(found[1], ""), legend).strip() or "value"


def _colour(limits: Sequence[Any], value: float) -> str:
    found = limits[0][1]
    for limit, colour in limits[1:]:
        if value >= limit:
            found = colour
    return _COLOURS[found]


def _text(value: float, unit: str, decimals: int | None) -> str:
    """Returns a value with its unit, short."""
    if unit == "percentunit":
        return f"{value * 100:g} %" if decimals is None else f"{value * 100:.{decimals}f} %"
    if unit == "s":
        return _seconds(value)
    if unit == "bytes":
        for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return f"{value:g} B"
    suffix = "/s" if unit == "ops" else ""
    for size, name in ((1_000_000, "M"), (1_000, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}{suffix}"
    return f"{value:.{decimals}f}{suffix}" if decimals is not None else f"{value:.3g}{suffix}"


def _seconds(value: float) -> str:
    if value and abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    for size, name in ((_DAY_S, "d"), (3_600, "h"), (60, "min")):
        if abs(value) >= 2 * size:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g} s"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
