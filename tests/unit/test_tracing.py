"""Traces: when they are on, which are sampled, and what a header is believed."""

import os
import subprocess
import sys
from hashlib import sha256

import pytest

from schemas.codec import traceparent
from services.adapters.process import tracing
from services.adapters.process.environment import read
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import IngressSettings, Settings
from services.adapters.process.tracing import Attribute, Roots, Span, SpanKind
from services.ingress.http import headers
from services.ingress.http.request import DeliveryHeaders, Request

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


class Kept:
    """Keeps the spans it is given."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def export(self, span: Span) -> None:
        self.spans.append(span)

    def close(self) -> None:
        raise AssertionError("a span source closes no exporter")


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_standard_variables_turn_traces_on(environ: dict[str, str], *, on: bool) -> None:
    assert read(environ, IngressSettings).traces_on is on


@pytest.mark.parametrize(
    ("sampler", "ratio"),
    [
        ({}, 1.0),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, 0.0),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}, 0.01),
        ({"OTEL_TRACES_SAMPLER": "traceidratio"}, 1.0),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_on", "OTEL_TRACES_SAMPLER_ARG": "0.5"}, 1.0),
    ],
)
def test_the_sampler_is_read_as_the_specification_has_it(sampler: dict[str, str], ratio: float) -> None:
    assert read(sampler, IngressSettings).traces_ratio == ratio


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_SAMPLER": "jaeger_remote"} | ENDPOINT,
        {"OTEL_TRACES_SAMPLER_ARG": "2"} | ENDPOINT,
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "zipkin"} | ENDPOINT,
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"} | ENDPOINT,
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"} | ENDPOINT,
        {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"} | ENDPOINT,
    ],
)
def test_what_is_not_spoken_is_refused_at_the_start(environ: dict[str, str]) -> None:
    with pytest.raises(Unusable, match=next(iter(environ))):
        read(environ, IngressSettings)


@pytest.mark.parametrize(
    ("name", "text", "spoken"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", ["http/protobuf"]),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", ["http/protobuf"]),
        ("OTEL_TRACES_EXPORTER", "zipkin", ["otlp", "none"]),
        ("OTEL_TRACES_SAMPLER", "xray", ["parentbased_always_on", "always_off", "traceidratio"]),
    ],
)
def test_a_refusal_names_what_is_spoken(name: str, text: str, spoken: list[str]) -> None:
    with pytest.raises(Unusable) as refused:
        read({name: text} | ENDPOINT, IngressSettings)
    assert str(refused.value).startswith(f"{name}: ")
    assert all(f"'{word}'" in str(refused.value) for word in spoken)


def test_the_protocol_of_traces_counts_before_that_of_all_signals() -> None:
    given = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert read(given | ENDPOINT, IngressSettings).traces_on


@pytest.mark.parametrize("section", [IngressSettings, Settings])
@pytest.mark.parametrize(
    "off",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none"} | ENDPOINT,
        {"OTEL_SDK_DISABLED": "true"} | ENDPOINT,
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "zipkin"},
    ],
)
def test_variables_for_other_programs_stop_no_service_while_traces_are_off(
    off: dict[str, str], section: type[IngressSettings]
) -> None:
    foreign = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
        "OTEL_TRACES_SAMPLER": "parentbased_jaeger_remote",
        "OTEL_TRACES_SAMPLER_ARG": "endpoint=http://localhost:14250,pollingIntervalMs=5000",
    }
    found = read(foreign | off, section)
    assert not found.traces_on
    assert found.traces_ratio == 1.0


def test_without_the_extra_a_service_that_is_to_trace_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from services.adapters.process import tracing\n"
        "from services.adapters.process.environment import read\n"
        "from services.adapters.process.errors import Unusable\n"
        "from services.adapters.process.settings import LedgerSettings\n"
        "try:\n"
        f"    with tracing.exporting('ledger', read({ENDPOINT}, LedgerSettings)): print('on')\n"
        "except Unusable as fault: print(fault)\n"
        "with tracing.exporting('ledger', read({}, LedgerSettings)): print('off')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    told, off = done.stdout.splitlines()
    assert told.startswith("OTEL_TRACES_EXPORTER: traces are asked for")
    assert "genesys-lifecycle[otel]" in told
    assert off == "off"


@pytest.mark.parametrize("url", ["http://u:canary@127.0.0.1:9/v1/traces?key=canary", "collector:canary@127.0.0.1:9"])
def test_no_credential_in_the_url_of_a_receiver_that_is_away_is_logged(url: str) -> None:
    script = (
        "import os\n"
        "from services.adapters.process import logs, tracing\n"
        "from services.adapters.process.environment import read\n"
        "from services.adapters.process.settings import IngressSettings\n"
        "logs.configure('ingress', 'info')\n"
        "with tracing.exporting('ingress', read(os.environ, IngressSettings)):\n"
        "    roots = tracing.roots(1.0, tracing.SpanKind.SERVER)\n"
        "    roots.end(roots.begin(b'a' * 32, 1_000), 'POST', 0.1, None, {})\n"
    )
    environ = os.environ | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": url}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert "spans batch" in done.stderr
    assert "canary" not in done.stderr


def test_no_module_of_opentelemetry_is_imported_while_traces_are_off() -> None:
    script = (
        "import sys, services.ingress.main, services.ledger.main, services.provisioner.main, services.reconciler.main\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_equal_bytes_are_one_trace_of_several_spans_and_the_ratio_holds() -> None:
    kept = Kept()
    roots = Roots(kept, 0.01, SpanKind.SERVER)
    digest = sha256(b"a body").digest()
    first, second = roots.begin(digest, 1_000), roots.begin(digest, 2_000)
    assert first[:36] == second[:36]
    assert first != second
    begun = [roots.begin(sha256(b"%d" % number).digest(), 7) for number in range(20_000)]
    assert all(traceparent([("traceparent", header)]) == header.decode() for header in begun)
    sampled = [header for header in begun if header.endswith(b"-01")]
    assert 140 < len(sampled) < 260
    details: dict[str, Attribute] = {"lifecycle.key": "o:i"}
    for header in filter(roots.is_sampled, begun):
        roots.end(header, "POST", 0.25, None, details)
    assert [span.traceparent for span in kept.spans] == [header.decode() for header in sampled]
    assert {span.ended_us - span.begun_us for span in kept.spans} == {250_000}


def _of_ingress(header: bytes) -> bytes | None:
    """The `traceparent` that the ingress takes from a request."""
    fields = {
        b"content-type": b"application/json", b"x-genesys-signature": b"0" * 64,
        b"x-genesys-event-timestamp": b"2024-01-15T14:32:10Z", b"traceparent": header,
    }  # fmt: skip
    asked = Request(0.0, lambda _: None)
    asked.method = b"POST"
    found = headers.read(asked, fields)
    assert isinstance(found, DeliveryHeaders)
    return found.traceparent


def test_a_well_formed_header_is_a_trace_for_ingress_and_readers_alike() -> None:
    header = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
    assert _of_ingress(header) == header
    assert traceparent([("traceparent", header)]) == header.decode()


@pytest.mark.parametrize(
    "header",
    [
        b"", b"00-a-b-01", b"\xff" * 55, None,
        b"01-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"a" * 32 + b"-" + b"0" * 16 + b"-01",
        b"ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"A" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01\n",
    ],
)  # fmt: skip
def test_a_malformed_header_is_no_trace(header: bytes | None) -> None:
    assert traceparent([("endpoint", b"default"), ("traceparent", header)]) is None
    assert traceparent([]) is None
    assert header is None or _of_ingress(header) is None


def test_no_span_is_made_of_a_record_while_traces_are_off() -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    assert tracing.child(parent) is None
    with tracing.working("process", tracing.SpanKind.CONSUMER, parent) as span:
        assert span is not None
        assert tracing.trace_id() == "a" * 32
        assert tracing.outgoing() is None
    with tracing.working("process", tracing.SpanKind.CONSUMER, None) as span:
        assert span is None
        assert tracing.trace_id() is None
