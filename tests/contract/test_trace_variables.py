"""OpenTelemetry's standard variables: docs/traces.md says of each whether the services honour it."""

from fnmatch import fnmatch

from services.adapters.process.settings import TraceSettings
from tests.support.opentelemetry_names import STANDARD, tables


def matching(name: str, table: frozenset[str]) -> set[str]:
    """The most exact rows of a table for a variable: its name, else the longest pattern."""
    found = sorted((one for one in table if fnmatch(name, one)), key=len)
    return set(found[-1:])


def test_each_standard_variable_is_honoured_or_named_as_not_honoured() -> None:
    honoured, refused = tables()
    assert len(STANDARD) > 60
    unnamed = {name for name in STANDARD if not matching(name, honoured) | matching(name, refused)}
    assert not unnamed
    twice = {name for name in STANDARD if matching(name, honoured) and matching(name, refused)}
    # The pattern of traces alone has an exception, which is named in full.
    assert twice == {"OTEL_EXPORTER_OTLP_TRACES_INSECURE"}


def test_each_row_is_a_variable_that_exists() -> None:
    for table in tables():
        assert all(any(fnmatch(name, row) for name in STANDARD) for row in table)


def test_each_variable_that_the_services_judge_is_honoured() -> None:
    honoured, _ = tables()
    judged = {name.upper() for name in TraceSettings.model_fields if name.startswith("otel_")}
    assert "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL" in judged
    assert judged <= honoured
