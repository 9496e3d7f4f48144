"""The Grafana boards: as deploy/boards makes them, with nothing that a reader would miss.

The rules are those of Grafana's own board linter, and ours: a panel without a unit or a description, a query without
the variables of its origin, or a link to a runbook that does not exist is a fault.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from deploy.boards import grafana, overview
from deploy.boards.asked import rules_in
from deploy.boards.panel import Board, Colour, Form, Panel, metrics_of, recorded_in, with_origin
from deploy.boards.queries import counted
from services.adapters.process import metrics
from services.adapters.process.metric_table import MetricKind
from tests.support.programs import need

TOP: Final = Path(__file__).parents[2]
RULES: Final = TOP / "deploy" / "prometheus" / "rules"
RUNBOOKS: Final = TOP / "docs" / "runbooks"
LEAST_WORDS: Final = 5
READY: Final = ("ingress", "provisioner", "reconciler")
CENSUS: Final = frozenset({
    "lifecycle_provisioner_unwell_tenants", "lifecycle_provisioner_sagas", "lifecycle_provisioner_oldest_saga_seconds",
    "lifecycle_provisioner_oldest_due_timestamp_seconds", "lifecycle_provisioner_outbox_records",
    "lifecycle_provisioner_outbox_oldest_seconds", "lifecycle_provisioner_held_removals",
    "lifecycle_provisioner_counted_removals", "lifecycle_provisioner_allowed_removals",
})  # fmt: skip
"""Gauges that keep their last value while the registry is away."""


_CENSUS_AT: Final = "lifecycle_provisioner_census_timestamp_seconds"
_ENDED: Final = "lifecycle:convergences:total_by_instance"
_ENDED_BADLY: Final = "lifecycle:bad_convergences:total_by_instance"


def _answers(status: str, reason: str) -> str:
    return f'lifecycle_ingress_answers_total{{status="{status}",reason="{reason}"}}'


def _check(job: str, check: str) -> str:
    return f'lifecycle_ready_check{{job="{job}",check="{check}"}}'


def _breaker(state: str) -> str:
    return f'lifecycle_ingress_breaker{{job="ingress",state="{state}"}}'


def every_panel() -> Iterator[tuple[Board, Panel]]:
    for board in grafana.BOARDS:
        for panel in board.panels():
            yield board, panel


of_every_panel: Final = pytest.mark.parametrize(
    ("board", "panel"),
    [pytest.param(board, panel, id=f"{board.uid}/{panel.title}") for board, panel in every_panel()],
)


def exported() -> frozenset[str]:
    """Returns the name of every series that a service exports, from the table of metrics."""
    names = {f"process_{name}" for name in ("cpu_seconds_total", "resident_memory_bytes", "start_time_seconds")} | {
        "up"
    }
    for metric in (row for table in metrics.TABLES for row in table.declared):
        parts = ("_bucket", "_count", "_sum") if metric.kind is MetricKind.HISTOGRAM else ("",)
        names |= {metric.name + part for part in parts}
    return frozenset(names)


def test_the_files_are_what_the_tables_make() -> None:
    wanted = {f"{board.uid}.json": grafana.board_json(board) for board in grafana.BOARDS}
    found = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in grafana.FOLDER.glob("*.json")}
    assert found == wanted


def test_five_boards_have_names_of_their_own() -> None:
    assert len({board.uid for board in grafana.BOARDS}) == len({board.title for board in grafana.BOARDS}) == 5


@of_every_panel
def test_a_panel_explains_itself(board: Board, panel: Panel) -> None:
    assert len(panel.description.split()) >= LEAST_WORDS
    assert panel.description.endswith((".", "`."))
    assert [other.title for other in board.panels()].count(panel.title) == 1
    assert panel.thresholds[0].at is None
    limits = [limit.at for limit in panel.thresholds[1:] if limit.at is not None]
    assert limits == sorted(set(limits))


@of_every_panel
def test_a_panel_asks_for_what_is_exported(board: Board, panel: Panel) -> None:
    asked = frozenset[str]().union(*(metrics_of(query.expr) for query in panel.queries))
    recorded = frozenset[str]().union(*(recorded_in(query.expr) for query in panel.queries))
    assert asked | recorded, board.uid
    assert asked <= exported()
    assert recorded <= {rule.get("record") for rule in rules_in(RULES)}


@of_every_panel
def test_a_runbook_that_a_panel_links_exists(board: Board, panel: Panel) -> None:
    missing = [name for name in panel.runbooks if not (RUNBOOKS / f"{name}.md").is_file()]
    assert not missing, board.uid


def test_every_selector_has_the_variables_of_its_origin() -> None:
    for _, panel in every_panel():
        for query in panel.queries:
            written = with_origin(query.expr)
            selectors = re.findall(r"\b(?:lifecycle_\w+|process_\w+|up)\{[^}]*\}", written)
            assert selectors or recorded_in(written)
            assert all('namespace=~"$namespace"' in each and 'instance=~"$instance"' in each for each in selectors)


@pytest.mark.parametrize(
    ("expr", "wanted"),
    [
        ("up", 'up{namespace=~"$namespace",instance=~"$instance"}'),
        ('up{job="a"} == 0', 'up{job="a",namespace=~"$namespace",instance=~"$instance"} == 0'),
        (
            "max by (step) (lifecycle_a_b)",
            'max by (step) (lifecycle_a_b{namespace=~"$namespace",instance=~"$instance"})',
        ),
        ("rate(lifecycle_a_total{}[1m])", 'rate(lifecycle_a_total{namespace=~"$namespace",instance=~"$instance"}[1m])'),
        ("lifecycle:a:rate5m", 'lifecycle:a:rate5m{namespace=~"$namespace"}'),
        (
            "lifecycle:a:total_by_instance",
            'lifecycle:a:total_by_instance{namespace=~"$namespace",instance=~"$instance"}',
        ),
        ("group_up", "group_up"),
    ],
)
def test_the_origin_is_added_to_a_query(expr: str, wanted: str) -> None:
    assert with_origin(expr) == wanted


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    need("promtool")
    rules: list[dict[str, Any]] = []
    for board in grafana.BOARDS:
        written = grafana.board_json(board)
        asked = [target["expr"] for panel in written["panels"] for target in panel.get("targets", ())]
        asked += [annotation["expr"] for annotation in written["annotations"]["list"]]
        name = board.uid.replace("-", "_")
        rules += [{"record": f"query:{name}:{at}", "expr": concrete(each)} for at, each in enumerate(asked)]
    file = tmp_path / "queries.yaml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    checked = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout + checked.stderr


def numbers_of_the_first_rows() -> dict[str, Panel]:
    return {panel.title: panel for row in overview.BOARD.rows[:2] for panel in row.panels}


def test_the_overview_begins_with_two_rows_of_numbers_that_can_turn_red() -> None:
    panels = numbers_of_the_first_rows().values()
    assert {panel.form for panel in panels} == {Form.NUMBER}
    assert [sum(panel.width for panel in row.panels) for row in overview.BOARD.rows[:2]] == [24, 24]
    assert all(Colour.RED in {limit.colour for limit in panel.thresholds} and panel.runbooks for panel in panels)


@pytest.mark.parametrize(
    ("fault", "title", "metric"),
    [
        ("deliveries are refused", "Refused or not written now", "lifecycle_ingress_answers_total"),
        ("Kafka is slow", "Spooled now", "lifecycle_ingress_answers_total"),
        ("Kafka is away", "Services without Kafka", "lifecycle_ready_check"),
        ("the registry is away", "Workers without the registry", "lifecycle_provisioner_registry_up"),
        ("Genesys refuses", "Organisations not read", "lifecycle_reconciler_organisations"),
        ("the ledger ends", "Ends of the ledger", "lifecycle_ledger_ends_total"),
    ],
)
def test_each_fault_shows_on_the_overview(fault: str, title: str, metric: str) -> None:
    panel = numbers_of_the_first_rows()[title]
    assert metric in metrics_of(panel.queries[0].expr), fault


def test_the_overview_watches_no_check_that_readiness_has_not() -> None:
    text = "".join((TOP / "services" / name / "main.py").read_text(encoding="utf-8") for name in READY)
    asked = re.search(r'check=~"([a-z|]+)"', overview.WITHOUT_KAFKA)
    assert asked is not None
    assert [check for check in asked[1].split("|") if f'"{check}":' not in text] == []


@of_every_panel
def test_a_panel_of_the_census_ends_when_the_census_is_old(board: Board, panel: Panel) -> None:
    for query in panel.queries:
        if CENSUS & metrics_of(query.expr):
            assert query.expr == counted(query.expr.removesuffix(counted(""))), board.uid


@pytest.mark.parametrize(
    ("title", "series", "wanted"),
    [
        ("Refused or not written now", {_answers("200", "queued"): "0+9x9", _answers("401", "forged"): "0+1x9"}, 0.1),
        ("Refused or not written now", {_answers("200", "queued"): "0+0x9"}, None),
        ("Spooled now", {_answers("200", "queued"): "0+3x9", _answers("200", "spooled"): "0+1x9"}, 0.25),
        ("Services without Kafka", {_check("ingress", "kafka"): "1x9", _breaker("closed"): "1x9"}, 0),
        ("Services without Kafka", {_check("ingress", "kafka"): "1x9", _breaker("closed"): "1 1 1 1 1 1 1 0 1 1"}, 1),
        ("Services without Kafka", {_check("provisioner", "outbox"): "0x9", _check("provisioner", "intake"): "0x9"}, 1),
        ("Workers without the registry", {"lifecycle_provisioner_registry_up": "0x9"}, 1),
        ("Workers without the registry", {"lifecycle_provisioner_registry_up": "1x9"}, 0),
        ("Organisations not read", {'lifecycle_reconciler_organisations{result="unanswered"}': "800x9"}, 800),
        ("Unwell tenants", {_CENSUS_AT: "0+60x9"}, 0),
        ("Unwell tenants", {_CENSUS_AT: "0+60x9", 'lifecycle_provisioner_unwell_tenants{step="crm"}': "3x9"}, 3),
        ("Unwell tenants", {_CENSUS_AT: "400x9", 'lifecycle_provisioner_unwell_tenants{step="crm"}': "3x9"}, None),
        ("Tenants converged in 120 s", {_ENDED: "0+1x9", _ENDED_BADLY: "0+0x9"}, 1),
        ("Tenants converged in 120 s", {_ENDED: "7x9", _ENDED_BADLY: "0x9"}, None),
    ],
)
def test_a_number_of_the_overview_says_what_is(
    title: str, series: dict[str, str], wanted: float | None, tmp_path: Path
) -> None:
    need("promtool")
    expr = concrete(with_origin(numbers_of_the_first_rows()[title].queries[0].expr))
    samples = [] if wanted is None else [{"labels": "{}", "value": wanted}]
    asked = {"expr": f"round({expr}, 0.001)", "eval_time": "9m", "exp_samples": samples}
    given = [{"series": name, "values": values} for name, values in series.items()]
    file = tmp_path / "numbers.yaml"
    file.write_text(
        json.dumps({"tests": [{"interval": "1m", "input_series": given, "promql_expr_test": [asked]}]}),
        encoding="utf-8",
    )
    tried = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stdout + tried.stderr


def concrete(expr: str) -> str:
    """Returns a query with values in place of Grafana's variables."""
    for name, value in (("$__rate_interval", "1m"), ("$__interval", "1m"), ("$__range", "1h")):
        expr = expr.replace(name, value)
    return expr.replace("$namespace", ".*").replace("$instance", ".*")
