"""Writes the boards as JSON for Grafana: `make boards-json`; `--check` compares instead of writing.

A board is data of Grafana 11 and later (schema 39), with no plugin. Rules, those of Grafana's own board linter among
them: every panel has a title, a description, a unit and a data source by variable; every selector has the variables of
its origin; rates use `$__rate_interval`; a board cannot be edited in place, since the next start would undo the edit.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from deploy.boards import ingress, ledger, overview, provisioning, reconciliation
from deploy.boards.panel import Board, Form, Panel, with_origin

BOARDS: Final = (overview.BOARD, ingress.BOARD, ledger.BOARD, provisioning.BOARD, reconciliation.BOARD)
FOLDER: Final = Path(__file__).parents[1] / "grafana" / "boards"
RUNBOOKS: Final = "${runbooks}/docs/runbooks"
"""Where the links to runbooks lead: below the address in the variable `runbooks`, as in the alerts."""

_COLUMNS: Final = 24
_HEIGHTS: Final = {Form.NUMBER: 4, Form.LINES: 8}
_SOURCE: Final = {"type": "prometheus", "uid": "$datasource"}
_JOBS: Final = "ingress|ledger|provisioner|reconciler"


def board_json(board: Board) -> dict[str, Any]:
    """Returns a board in Grafana's JSON."""
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": ["lifecycle"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "style": "",
        "timezone": "",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "links": [
            {
                "title": "Lifecycle",
                "type": "dashboards",
                "tags": ["lifecycle"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
            }
        ],
        "templating": {"list": list(_variables(board))},
        "annotations": {"list": list(_annotations())},
        "panels": list(_panels(board)),
    }


def _variables(board: Board) -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}
    # `allValue` also matches series without the label: only Kubernetes sets `namespace`.
    for name, query in (
        ("namespace", "label_values(lifecycle_build_info, namespace)"),
        ("instance", f'label_values(up{{job=~"{"|".join(board.jobs)}",namespace=~"$namespace"}}, instance)'),
    ):
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": query, "refId": name},
            "refresh": 2,
            "sort": 1,
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
            "hide": 0,
        }
    yield {
        "name": "runbooks",
        "label": "Runbooks at",
        "description": "The address below which this repository's docs/runbooks can be read",
        "type": "textbox",
        "query": "",
        "current": {"text": "", "value": ""},
        "hide": 0,
    }


def _annotations() -> Iterator[dict[str, Any]]:
    for name, expr, text, colour in (
        (
            "Starts",
            f'changes(process_start_time_seconds{{job=~"{_JOBS}"}}[$__interval]) > 0',
            "{{job}} {{instance}} started",
            "blue",
        ),
        (
            "Deploys",
            (
                "count by (service, version) (lifecycle_build_info) unless count by (service, version) "
                "(lifecycle_build_info offset 5m)"
            ),
            "{{service}} {{version}}",
            "purple",
        ),
    ):
        yield {
            "name": name,
            "datasource": _SOURCE,
            "enable": True,
            "expr": with_origin(expr),
            "iconColor": colour,
            "step": "30s",
            "titleFormat": name.removesuffix("s"),
            "textFormat": text,
        }


def _panels(board: Board) -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for row in board.rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": _COLUMNS, "x": 0, "y": top},
            "panels": [],
        }
        for place in places(row.panels, top + 1):
            number += 1
            yield _panel_json(place[0], number, place[1:])
            top = max(top, place[2] + place[4])


def places(panels: Sequence[Panel], top: int) -> Iterator[tuple[Panel, int, int, int, int]]:
    """Yields each panel with its place: left, top, width and height, in Grafana's grid of 24 columns."""
    left, below = 0, top
    for panel in panels:
        height = _HEIGHTS[panel.form]
        if left + panel.width > _COLUMNS:
            left, top = 0, below
        yield panel, left, top, panel.width, height
        left, below = left + panel.width, max(below, top + height)


def _panel_json(panel: Panel, number: int, place: tuple[int, int, int, int]) -> dict[str, Any]:
    left, top, width, height = place
    common: dict[str, Any] = {
        "id": number,
        "type": panel.form.value,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": {"h": height, "w": width, "x": left, "y": top},
        "links": [
            {"title": f"Runbook: {name}", "url": f"{RUNBOOKS}/{name}.md", "targetBlank": True}
            for name in panel.runbooks
        ],
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": with_origin(query.expr),
                "legendFormat": query.legend or panel.title,
                "editorMode": "code",
                "range": panel.form is Form.LINES,
                "instant": panel.form is Form.NUMBER,
            }
            for index, query in enumerate(panel.queries)
        ],
    }
    defaults: dict[str, Any] = {
        "unit": panel.unit.value,
        "noValue": panel.empty_when_healthy or "no data",
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": limit.at, "color": limit.colour.value} for limit in panel.thresholds],
        },
        "color": {"mode": "thresholds" if panel.form is Form.NUMBER else "palette-classic-by-name"},
    }
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.form is Form.LINES:
        defaults |= {
            "min": 0,
            "custom": {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 30 if panel.stacked else 5,
                # A lone sample is shown as a point, and no line joins two samples over a gap.
                "showPoints": "auto",
                "spanNulls": False,
                "stacking": {"mode": "normal" if panel.stacked else "none"},
                "thresholdsStyle": {"mode": "dashed" if len(panel.thresholds) > 1 else "off"},
            },
        }
        common["options"] = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    else:
        common["options"] = {
            "colorMode": "background",
            "graphMode": "none",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    common["fieldConfig"] = {"defaults": defaults, "overrides": []}
    return common


def main(arguments: Sequence[str]) -> int:
    """Writes the boards, or compares them; returns the exit status.

    Args:
        arguments: `--check`, or nothing.
    """
    wanted = {f"{board.uid}.json": json.dumps(board_json(board), indent=2) + "\n" for board in BOARDS}
    if "--check" not in arguments:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name, text in wanted.items():
            (FOLDER / name).write_text(text, encoding="utf-8")
        return 0
    found = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.json")}
    drifted = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    for name in drifted:
        sys.stderr.write(f"deploy/grafana/boards/{name} is not what deploy/boards makes: run `make boards-json`\n")
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
