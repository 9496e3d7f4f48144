"""The rules of metrics are kept by the tables, and a breach of each would be seen."""

import pytest

from services.adapters.process import logs, metrics_page
from services.adapters.process.metric_table import ZEROS_MOST, MetricTable
from services.adapters.process.metrics import TABLES, exposition
from services.ingress.http import answers
from services.ingress.telemetry import Telemetry
from tests.metric_rules import ENUMERATIONS, breaches, main, makers, unused

WELL = "Something that is counted."


def table() -> MetricTable:
    return MetricTable("lifecycle_ledger_", "ledger")


def test_the_tables_keep_the_rules_and_match_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0, capsys.readouterr().err
    assert metrics_page.main(["--check"]) == 0


def test_a_table_within_the_rules_passes() -> None:
    made = table()
    made.counter("lifecycle_ledger_records_total", WELL, kind=("delivery",))
    made.gauge("lifecycle_ledger_in_flight", WELL)
    made.callback_gauge("lifecycle_ledger_lag_seconds", WELL, partition="partitions of the topic")
    made.histogram("lifecycle_ledger_call_seconds", WELL, (1,), step="steps of the plan")
    assert breaches([made], {}) == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lifecycle_saga_lag_seconds", "the name is not lifecycle_ledger_, then lower-case words"),
        ("lifecycle_ledger_Lag_seconds", "the name is not lifecycle_ledger_, then lower-case words"),
        ("lifecycle_ledger_lag", "the last word is no unit"),
        ("lifecycle_ledger_lag_ms", "the last word is no unit"),
        ("lifecycle_ledger_lag_total", "a counter ends in _total, and nothing else does"),
    ],
)
def test_a_wrong_name_is_reported(name: str, told: str) -> None:
    made = table()
    made.gauge(name, WELL)
    assert f"{name}: {told}" in breaches([made], {})


def test_a_state_is_refused_as_unit_of_a_histogram() -> None:
    made = table()
    made.histogram("lifecycle_ledger_running", WELL, (1,))
    assert breaches([made], {}) == ["lifecycle_ledger_running: the last word is no unit"]


def test_a_counter_without_total_is_reported() -> None:
    made = table()
    made.fast_counter("lifecycle_ledger_records", WELL)
    assert breaches([made], {}) == ["lifecycle_ledger_records: a counter ends in _total, and nothing else does"]


@pytest.mark.parametrize("meaning", ["", "Lag.", "no capital at its beginning.", "Without a full stop"])
def test_a_help_text_other_than_a_sentence_is_reported(meaning: str) -> None:
    made = table()
    made.gauge("lifecycle_ledger_lag_seconds", meaning)
    assert breaches([made], {}) == ["lifecycle_ledger_lag_seconds: the help text is no sentence"]


@pytest.mark.parametrize("label", ["tenant", "key", "org", "host", "url", "system", "integration"])
def test_a_label_that_grows_with_customers_is_reported(label: str) -> None:
    made = table()
    made.gauge("lifecycle_ledger_lag_seconds", WELL, **{label: "all of them"})
    assert breaches([made], {}) == [f"lifecycle_ledger_lag_seconds: {label}: is no bounded label"]


@pytest.mark.parametrize("values", [(), "", ("a", "a")])
def test_a_label_without_values_is_reported(values: tuple[str, ...] | str) -> None:
    made = table()
    made.gauge("lifecycle_ledger_lag_seconds", WELL, kind=values)
    assert breaches([made], {}) == ["lifecycle_ledger_lag_seconds: kind: has no values, or one twice"]


@pytest.mark.parametrize("values", [("up",), ("up", "down", "left"), "directions"])
def test_values_that_differ_from_their_enumeration_are_reported(values: tuple[str, ...] | str) -> None:
    made = table()
    made.gauge("lifecycle_ledger_lag_seconds", WELL, direction=values)
    wanted = {("lifecycle_ledger_lag_seconds", "direction"): frozenset({"up", "down"})}
    assert breaches([made], wanted) == ["lifecycle_ledger_lag_seconds: direction: is not down, up"]
    assert breaches([], ENUMERATIONS), "a label that is gone is seen as well"


@pytest.mark.parametrize(
    "line",
    [
        "from prometheus_client import Counter",
        "from prometheus_client.metrics import Gauge",
        "from services.adapters.process.fast_metrics import FastCounter",
    ],
)
def test_a_metric_beside_the_tables_is_reported(line: str) -> None:
    assert len(list(makers("a module", line))) == 1


def test_a_module_that_only_reads_metrics_passes() -> None:
    text = "from prometheus_client.parser import text_string_to_metric_families\nfrom collections import Counter"
    assert list(makers("a module", text)) == []


def test_an_unused_metric_is_reported() -> None:
    assert unused(["LAG_S", "LAG"], ["metrics.LAG_S.set(1)"]) == ["metrics.LAG: nothing sets it"]


def test_a_service_shows_its_own_metrics_alone() -> None:
    for service in ("ingress", "hints", "ledger", "provisioner", "reconciler", "simulator"):
        shown = exposition(service).decode()
        for one in TABLES:
            for metric in one.declared:
                assert (f"# HELP {metric.name} " in shown) is (service in one.services), metric.name
        assert "process_start_time_seconds" in shown
        assert "_created" not in shown


def shown(made: MetricTable) -> set[str]:
    return {
        f"{sample.name} {','.join(sample.labels.values())} {sample.value:g}"
        for family in made.registry.collect()
        for sample in family.samples
    }


def test_a_counter_with_few_label_values_is_at_zero_before_its_first_event() -> None:
    made = table()
    made.counter("lifecycle_ledger_ends_total", WELL, reason=("poison", "loss"), state=("on", "off"))
    made.fast_counter("lifecycle_ledger_records_total", WELL, kind=("delivery",))
    made.counter("lifecycle_ledger_rebalances_total", WELL)
    assert shown(made) == {
        *(
            f"lifecycle_ledger_ends_total {reason},{state} 0"
            for reason in ("poison", "loss")
            for state in ("on", "off")
        ),
        "lifecycle_ledger_records_total delivery 0",
        "lifecycle_ledger_rebalances_total  0",
    }


def test_a_counter_with_many_or_undeclared_label_values_has_no_zeros() -> None:
    made = table()
    made.counter("lifecycle_ledger_ends_total", WELL, reason=tuple(f"r{at}" for at in range(ZEROS_MOST + 1)))
    made.counter("lifecycle_ledger_calls_total", WELL, step="steps of the plan", result=("done", "refused"))
    assert shown(made) == set()


def test_every_answer_of_the_ingress_is_at_zero_before_it_is_first_given() -> None:
    Telemetry(logs.configure("test", "error"))
    text = exposition("ingress").decode()
    for name, table_of_answers in (("answers", answers.TABLE), ("hints", answers.HINTS)):
        for answer in table_of_answers:
            labels = f'reason="{answer.reason}",status="{answer.label}"'
            assert f"lifecycle_ingress_{name}_total{{{labels}}}" in text
