"""The rules of deploy/prometheus: each alert fires, stays silent, has its page, and names what exists.

Rule: promtool, amtool and Alertmanager judge their own files. Where Debian's packages are not installed, those tests
are skipped.
"""

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from services.adapters.process import metrics
from services.adapters.tables.exits import WorkerExit
from services.cli.local.wiring import SERVICES
from tests.support import alert_files, compose_file
from tests.support.alert_files import FOLDER, HEADINGS, RULES, RUNBOOKS, Alert
from tests.support.document_texts import TOP
from tests.support.programs import need
from tests.support.provisioner_process import free_port

ALERTS: Final = alert_files.alerts()
TESTS: Final = sorted((FOLDER / "tests").glob("*.yaml"))
SHORT: Final = {"reconciler", "targets"}
"""Tests of the rules that go through minutes, not through hours and days."""
BOARDS: Final = TOP / "deploy" / "grafana" / "boards"

STATES: Final = {
    "LifecycleBrakeEngaged", "LifecycleKeyringBroken", "LifecycleNotReady", "LifecycleRegistryAway",
    "LifecycleServiceDown", "LifecycleSpoolClosed", "LifecycleTargetDown",
}  # fmt: skip
"""Alerts about something that is so or not: they have no number to tell."""

WHOLE: Final = (
    "lifecycle_provisioner_unwell_tenants", "lifecycle_provisioner_sagas", "lifecycle_provisioner_oldest_saga_seconds",
    "lifecycle_provisioner_oldest_due_timestamp_seconds",
    "lifecycle_provisioner_outbox_oldest_seconds", "lifecycle_provisioner_registry_up", "lifecycle_reconciler_tenants",
    "lifecycle_reconciler_brake_engaged", "lifecycle_reconciler_held_organisations",
    "lifecycle_provisioner_held_removals",
)  # fmt: skip
"""Gauges that every instance shows alike: two workers do not make six of three."""

TABLES: Final = metrics.TABLES
"""The tables of the metrics, by which names, labels, values and buckets are judged."""

OF_PROMETHEUS: Final = {"job", "instance", "namespace"}
"""Labels that Prometheus adds."""

OF_THE_PROCESS: Final = {"process_start_time_seconds"}
"""What prometheus_client's collector of the process shows."""

_METRIC: Final = re.compile(r"(?<![\w:])(?:lifecycle|process)_[a-z_]+")
_SELECTED: Final = re.compile(r"(?<![\w:])(lifecycle_[a-z_]+)\{([^}]*)\}")
_MATCHER: Final = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')
_PANELS: Final = re.compile(r"^- Board \*([^*]+)\*: ((?:\*\*[^*]+\*\*[,.]\s*)+)", re.MULTILINE)


def called(*argv: str | Path) -> str:
    """What a program of Prometheus says; skipped where it is not installed."""
    need(str(argv[0]))
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def cases() -> tuple[Mapping[str, Any], ...]:
    """Every question that the tests of the rules ask about an alert."""
    files = [yaml.load(path.read_text(), yaml.CSafeLoader) for path in TESTS]
    return tuple(case for file in files for test in file["tests"] for case in test["alert_rule_test"])


def names_in(expr: str) -> set[str]:
    """The metrics of an expression, without what it groups by or names in a text."""
    return set(_METRIC.findall(expr))


def exported() -> dict[str, Any]:
    """The names of all samples that a service may show, each with the row of its table."""
    rows = [row for table in TABLES for row in table.declared]
    assert rows, "the tables of metrics are not there"
    return {
        row.name + suffix: row
        for row in rows
        for suffix in (("_bucket", "_count", "_sum") if row.kind == "histogram" else ("",))
    }


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=() if path.stem in SHORT else pytest.mark.long) for path in TESTS],
)
def test_the_alerts_fire_and_stay_silent(path: Path) -> None:
    called("promtool", "test", "rules", path)


def test_promtool_takes_rules_and_configuration() -> None:
    called("promtool", "check", "rules", *RULES)
    called("promtool", "check", "config", FOLDER / "prometheus.yaml")


def test_the_operators_rule_is_one_that_promtool_takes(tmp_path: Path) -> None:
    made = yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text())
    assert (made["apiVersion"], made["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert [rule for group in made["spec"]["groups"] for rule in group["rules"]] == list(alert_files.rules())
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(made["spec"]))
    called("promtool", "check", "rules", tmp_path / "rules.yaml")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert.name}-{alert.severity}")
def test_every_alert_has_a_test_that_fires_it_and_one_that_does_not(alert: Alert) -> None:
    asked = [case for case in cases() if case["alertname"] == alert.name]
    severities = [{fired["exp_labels"]["severity"] for fired in case["exp_alerts"]} for case in asked]
    assert any(alert.severity in found for found in severities)
    assert any(alert.severity not in found for found in severities)
    for case in asked:
        for fired in case["exp_alerts"]:
            assert fired["exp_annotations"].keys() == alert.annotations.keys()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert.name}-{alert.severity}")
def test_every_alert_says_what_a_person_needs(alert: Alert) -> None:
    assert alert.severity in {"page", "ticket"}
    assert alert.labels["service"] in {*SERVICES, "{{ $labels.job }}"}
    assert alert.annotations.keys() == {"summary", "description", "runbook_url"}
    page = f"{RUNBOOKS.relative_to(TOP)}/{alert.name}.md"
    assert alert.annotations["runbook_url"] == f"{{{{ with $externalLabels.runbooks }}}}{{{{ . }}}}/{{{{ end }}}}{page}"
    has_number = "$value" in alert.annotations["summary"] + alert.annotations["description"]
    assert has_number is (alert.name not in STATES)
    assert len(alert.annotations["summary"]) <= 120


def test_a_name_with_two_severities_has_each_once() -> None:
    found = [(alert.name, alert.severity) for alert in ALERTS]
    assert len(found) == len(set(found))


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {alert.name for alert in ALERTS} | {"README"}


@pytest.mark.parametrize("name", sorted({alert.name for alert in ALERTS}))
def test_a_runbook_is_one_page_with_the_same_headings(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n\n## ")
    assert tuple(alert_files.sections(name)) == HEADINGS
    assert all(part.strip() for part in alert_files.sections(name).values())
    assert len(text.splitlines()) <= 60
    seen = alert_files.sections(name)["See more"]
    assert "`lifecycle " in seen
    assert _PANELS.search(seen)


def test_the_panels_that_a_runbook_names_are_on_their_boards() -> None:
    boards = {}
    for path in BOARDS.glob("*.json"):
        board = json.loads(path.read_text())
        inner = [one for panel in board["panels"] for one in (panel, *panel.get("panels", ()))]
        boards[board["title"].removeprefix("Lifecycle / ")] = {panel["title"] for panel in inner}
    if not boards:
        return  # the boards are not in this repository yet
    for alert in ALERTS:
        for board, panels in _PANELS.findall(alert_files.sections(alert.name)["See more"]):
            assert set(re.findall(r"\*\*([^*]+)\*\*", " ".join(panels.split()))) <= boards[board], alert.name


def test_every_metric_that_a_rule_names_is_exported() -> None:
    known = exported().keys() | OF_THE_PROCESS
    assert {name for rule in alert_files.rules() for name in names_in(rule["expr"])} <= known


def test_every_recorded_name_is_made_by_a_rule() -> None:
    made = {rule["record"] for rule in alert_files.rules() if "record" in rule}
    used = {name for rule in alert_files.rules() for name in re.findall(r"lifecycle:[\w:]+", json.dumps(rule))}
    assert made == used


def test_what_a_rule_selects_by_is_a_label_with_such_a_value() -> None:
    known, seen = exported(), set()
    for rule in alert_files.rules():
        for metric, matchers in _SELECTED.findall(rule["expr"]):
            row = known[metric]
            for label, text in _MATCHER.findall(matchers):
                seen.add((metric, label))
                if label == "le":
                    assert float(text) in row.buckets, rule
                elif label not in OF_PROMETHEUS and not isinstance(values := row.labels[label], str):
                    assert all(any(re.fullmatch(one, value) for value in values) for one in text.split("|")), rule
    assert {label for _, label in seen} >= {"status", "reason", "verdict", "state", "stage", "why", "le"}


def test_what_every_instance_shows_alike_is_never_summed() -> None:
    seen = set()
    for rule in alert_files.rules():
        text = " ".join(rule["expr"].split())
        for name in WHOLE:
            for found in re.finditer(rf"\b{name}\b", text):
                assert re.search(r"max by \([a-z, ]+\) \( ?(?:(?:max_over_time|changes)\()?$", text[: found.start()]), (
                    name,
                    text,
                )
                seen.add(name)
    assert seen == set(WHOLE)


def test_prometheus_scrapes_the_services_of_the_compose_file_under_their_names() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    found = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    assert found.keys() == set(SERVICES) - {"simulator"}
    for service, targets in found.items():
        port = compose_file.environment(service)["PORT" if service == "ingress" else "METRICS_PORT"]
        assert targets == [f"{service}:{port}"]


def test_a_page_wakes_somebody_and_a_ticket_does_not() -> None:
    file = FOLDER / "alertmanager.yaml"
    called("amtool", "check-config", file)
    for labels, receiver in (("severity=page", "page"), ("severity=ticket", "ticket"), ("alertname=X", "ticket")):
        assert called("amtool", "config", "routes", "test", f"--config.file={file}", labels).strip() == receiver


def test_inhibitions_name_alerts_that_exist() -> None:
    rules = yaml.safe_load((FOLDER / "alertmanager.yaml").read_text())["inhibit_rules"]
    named = set(re.findall(r"\bLifecycle[A-Z]\w+", json.dumps(rules)))
    assert named
    assert named <= {alert.name for alert in ALERTS}


# Cause, then what is held back with it, then what is told all the same; labels as the rules give them.
HELD_BACK: Final[tuple[tuple[dict[str, str], list[dict[str, str]], list[dict[str, str]]], ...]] = (
    (
        {"alertname": "LifecycleServiceDown", "severity": "page", "service": "provisioner"},
        [{"alertname": "LifecycleTenantsUnwell", "severity": "page", "service": "provisioner"}],
        [
            {"alertname": "LifecycleDeliveryBudgetBurn", "severity": "page", "service": "ingress"},
            {"alertname": "LifecycleServiceDown", "severity": "ticket", "service": "reconciler"},
        ],
    ),
    (
        {"alertname": "LifecycleServiceDown", "severity": "page", "service": "ledger"},
        [
            {"alertname": "LifecycleConvergenceBudgetBurn", "severity": "page", "service": "provisioner"},
            {"alertname": "LifecycleTargetDown", "severity": "ticket", "service": "ledger", "job": "ledger"},
            {"alertname": "LifecycleLedgerEnds", "severity": "page", "service": "ledger", "reason": "stall"},
            {"alertname": "LifecycleLedgerEnds", "severity": "ticket", "service": "ledger", "reason": "undelivered"},
        ],
        [
            {"alertname": "LifecycleSystemAway", "severity": "ticket", "service": "provisioner"},
            {"alertname": "LifecycleLedgerEnds", "severity": "page", "service": "ledger", "reason": "loss"},
            {"alertname": "LifecycleLedgerEnds", "severity": "page", "service": "ledger", "reason": "poison"},
        ],
    ),
    (
        {"alertname": "LifecycleRegistryAway", "severity": "page", "service": "provisioner"},
        [
            {"alertname": "LifecycleSagasNotDriven", "severity": "page", "service": "provisioner"},
            {"alertname": "LifecycleTenantsUnwell", "severity": "ticket", "service": "provisioner", "step": "crm"},
            {"alertname": "LifecycleNotReady", "severity": "ticket", "service": "provisioner", "check": "registry"},
        ],
        [
            {"alertname": "LifecycleSagasNotDriven", "severity": "page", "service": "provisioner", "namespace": "b"},
            {"alertname": "LifecycleNotReady", "severity": "ticket", "service": "reconciler", "check": "view"},
        ],
    ),
    (
        {"alertname": "LifecycleKafkaBreakerOpen", "severity": "page", "service": "ingress"},
        [
            {"alertname": "LifecycleKafkaSlow", "severity": "ticket", "service": "ingress"},
            {"alertname": "LifecycleSpoolNotEmpty", "severity": "ticket", "service": "ingress"},
            {"alertname": "LifecycleLedgerLags", "severity": "page", "service": "ledger"},
            {"alertname": "LifecycleLedgerEnds", "severity": "ticket", "service": "ledger", "reason": "undelivered"},
            {"alertname": "LifecycleLedgerEnds", "severity": "page", "service": "ledger", "reason": "stall"},
        ],
        [
            {"alertname": "LifecycleLedgerEnds", "severity": "page", "service": "ledger", "reason": "loss"},
            {"alertname": "LifecycleLedgerEnds", "severity": "page", "service": "ledger", "reason": "poison"},
            {"alertname": "LifecycleDeliveryBudgetBurn", "severity": "page", "service": "ingress"},
            {"alertname": "LifecycleSpoolClosed", "severity": "ticket", "service": "ingress"},
        ],
    ),
    (
        {"alertname": "LifecycleSystemRefusesOperator", "severity": "page", "service": "provisioner", "step": "crm"},
        [{"alertname": "LifecycleSystemAway", "severity": "ticket", "service": "provisioner", "step": "crm"}],
        [{"alertname": "LifecycleSystemAway", "severity": "ticket", "service": "provisioner", "step": "tokens"}],
    ),
    (
        {"alertname": "LifecycleTenantsUnwell", "severity": "page", "service": "provisioner"},
        [{"alertname": "LifecycleTenantsUnwell", "severity": "ticket", "service": "provisioner", "step": "crm"}],
        [{"alertname": "LifecycleDeprovisioningFailed", "severity": "ticket", "service": "provisioner"}],
    ),
    (
        {"alertname": "LifecycleGenesysUnread", "severity": "ticket", "service": "reconciler"},
        [
            {"alertname": "LifecycleReconcileTooOld", "severity": "ticket", "service": "reconciler"},
            {"alertname": "LifecycleSyncTooOld", "severity": "ticket", "service": "reconciler"},
        ],
        [
            {"alertname": "LifecycleBrakeEngaged", "severity": "ticket", "service": "reconciler"},
            {"alertname": "LifecycleTargetDown", "severity": "ticket", "service": "reconciler", "job": "reconciler"},
        ],
    ),
    (
        {"alertname": "LifecycleBrakeEngaged", "severity": "ticket", "service": "reconciler"},
        [{"alertname": "LifecycleSyncTooOld", "severity": "ticket", "service": "reconciler"}],
        [{"alertname": "LifecycleReconcileTooOld", "severity": "ticket", "service": "reconciler"}],
    ),
    (
        {"alertname": "LifecycleKafkaSlow", "severity": "ticket", "service": "ingress"},
        [
            {"alertname": "LifecycleDuplicatesAboveBaseline", "severity": "ticket", "service": "ledger"},
            {"alertname": "LifecycleSpoolNotEmpty", "severity": "ticket", "service": "ingress"},
        ],
        [
            {"alertname": "LifecycleSpoolNotEmpty", "severity": "page", "service": "ingress"},
            {"alertname": "LifecycleLedgerLags", "severity": "page", "service": "ledger"},
        ],
    ),
)


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    """The address of a real Alertmanager with our configuration, which knows of no alert."""
    need("prometheus-alertmanager")
    address = f"127.0.0.1:{free_port()}"
    argv = ["prometheus-alertmanager", f"--config.file={FOLDER / 'alertmanager.yaml'}", f"--storage.path={tmp_path}"]
    argv += [f"--web.listen-address={address}", "--cluster.listen-address="]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(argv, stdout=log, stderr=log) as running:
        try:
            asked(address, "/-/ready")
            yield address
        finally:
            running.terminate()


def asked(address: str, path: str, body: object = None) -> bytes:
    """What Alertmanager answers; it is waited for while it starts."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://{address}{path}", data, {"Content-Type": "application/json"}, method="POST" if data else "GET"
    )
    deadline_s = time.monotonic() + 20
    while True:
        with suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
            return bytes(answer.read())
        assert time.monotonic() < deadline_s, path
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("cause", "held", "told"), HELD_BACK, ids=[f"{cause['alertname']}-{cause['service']}" for cause, _, _ in HELD_BACK]
)
def test_a_cause_holds_back_its_consequences_and_nothing_else(
    alertmanager: str, cause: dict[str, str], held: list[dict[str, str]], told: list[dict[str, str]]
) -> None:
    sent = [{"namespace": "a", **labels} for labels in (cause, *held, *told)]
    asked(alertmanager, "/api/v2/alerts", [{"labels": labels} for labels in sent])
    shown = json.loads(asked(alertmanager, "/api/v2/alerts"))
    state = {json.dumps(alert["labels"], sort_keys=True): bool(alert["status"]["inhibitedBy"]) for alert in shown}
    found = [state[json.dumps(labels, sort_keys=True)] for labels in sent]
    assert found == [False, *[True] * len(held), *[False] * len(told)]


def test_the_reasons_of_an_ended_ledger_are_explained_by_their_names() -> None:
    rows = re.findall(r"^\| (\d\d) \| `(\w+)` \|", (TOP / "docs" / "exit-statuses.md").read_text(), re.MULTILINE)
    assert {(int(status), name) for status, name in rows} == {(end.value, end.name.lower()) for end in WorkerExit}


def test_the_tests_of_the_rules_evaluate_every_group_in_order() -> None:
    groups = [group["name"] for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    for path in TESTS:
        assert yaml.safe_load(path.read_text())["group_eval_order"] == groups
