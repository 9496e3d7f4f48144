"""Draws the answers of a Prometheus as pictures of the boards.

Rule: the drawing runs in an environment of its own (uv's group `bench`, which has matplotlib) and gets the data alone.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from deploy.boards.asked import STEP_S, Answered
from deploy.boards.grafana import places
from deploy.boards.panel import Panel, Unit
from deploy.boards.workload import Phase

_SCALED_FROM_S: Final = 300


def data(
    answers: Sequence[Answered], phases: Sequence[Phase], *, clock: bool = False, scale: int = 1
) -> dict[str, Any]:
    """Returns what is drawn: boards with panels, places, limits and series; and the phases as marks.

    Args:
        answers: The answered panels.
        phases: The phases of the workload; a single one gets no mark.
        clock: True for axes with the time of day in place of the time since the begin.
        scale: Divisor of the times of the services' settings.
    """
    boards: dict[str, dict[str, Any]] = {}
    by_panel = {(each.board.uid, each.panel.title): each for each in answers}
    for each in answers:
        board = each.board
        if board.uid in boards:
            continue
        top, drawn = 0, []
        for row in board.rows:
            drawn.append({"row": row.title, "top": top})
            top += 1
            for panel, left, above, width, height in list(places(row.panels, top)):
                drawn.append({
                    "title": panel.title,
                    "form": panel.form.value,
                    "unit": panel.unit.value,
                    "stacked": panel.stacked,
                    "empty": panel.empty_when_healthy,
                    "decimals": panel.decimals,
                    "limits": _limits(panel, scale),
                    "place": [left, above, width, height],
                    "legends": [query.legend for query in panel.queries],
                    "series": by_panel[board.uid, panel.title].series,
                })  # fmt: skip
                top = max(top, above + height)
        boards[board.uid] = {"title": board.title, "description": board.description, "panels": drawn, "height": top}
    return {"boards": boards, "phases": [list(phase) for phase in phases], "clock": clock, "step_s": STEP_S}


def _limits(panel: Panel, scale: int) -> list[list[Any]]:
    """Returns the limits of a panel; those of minutes and hours are divided, as the services' settings are."""
    limits = [limit.at for limit in panel.thresholds if limit.at is not None]
    divisor = scale if panel.unit is Unit.SECONDS and max(limits, default=0) >= _SCALED_FROM_S else 1
    return [[limit.at if limit.at is None else limit.at / divisor, limit.colour.value] for limit in panel.thresholds]


def draw(boards: dict[str, Any], folder: Path) -> str:
    """Draws a picture of each board into a folder; returns the fault, or an empty text.

    Args:
        boards: As `data` returns.
        folder: Folder of the pictures; is made.
    """
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        return "no uv"
    uv_run = (uv, "run", "--quiet", "--isolated", "--frozen", "--only-group", "bench", "--python", sys.executable)
    argv = (*uv_run, "python", "-m", "deploy.boards.draw", str(folder))
    drawn = subprocess.run(argv, input=json.dumps(boards), capture_output=True, text=True, check=False)
    return drawn.stderr.strip() if drawn.returncode else ""
