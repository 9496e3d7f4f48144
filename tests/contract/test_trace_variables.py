"""Each standard variable of OpenTelemetry is in docs/traces.md, and what is honoured is in docker-compose.yml."""

import re
from fnmatch import fnmatch
from typing import Final

from services.adapters.process.environment import read
from services.adapters.process.settings import SECTIONS, TraceSettings
from tests.support import compose_file
from tests.support.document_texts import read as text_of
from tests.support.opentelemetry_names import STANDARD, tables

TRACING: Final = {service: section for service, section in SECTIONS.items() if issubclass(section, TraceSettings)}


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


def composed(service: str) -> set[str]:
    """OpenTelemetry's variables in the environment of a service of docker-compose.yml."""
    return {name for name in compose_file.services()[service]["environment"] if name.startswith("OTEL_")}


def test_every_service_that_traces_and_no_other_is_composed_with_the_variables_of_the_document() -> None:
    (but,) = re.findall(r"^`docker-compose.yml` passes .*?\n\n", text_of("docs/traces.md"), re.MULTILINE | re.DOTALL)
    withheld = set(re.findall(r"`(OTEL_[A-Z_]+)`", but))
    honoured, _ = tables()
    assert withheld < honoured
    wanted = {name for name in honoured if not name.endswith("*")} - withheld
    assert len(wanted) >= 10
    for service in compose_file.services():
        assert composed(service) == (wanted if service in {*TRACING, "doctor"} else set()), service


def test_composed_services_trace_once_the_shell_names_a_receiver() -> None:
    shell = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
    for service, section in TRACING.items():
        assert {text for name, text in compose_file.environment(service).items() if name in composed(service)} == {""}
        assert not read(compose_file.environment(service), section).traces_on
        given = read(compose_file.environment(service, shell), section)
        assert (given.traces_on, given.otel_traces_sampler_arg) == (True, 0.01)
