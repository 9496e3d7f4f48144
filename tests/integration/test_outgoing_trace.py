"""The `traceparent` of a step's requests: to the operator's systems alone, and to nobody while traces are off."""

from collections.abc import Iterator

import pytest

from schemas.codec import traceparent
from services.adapters.http_client import HttpClient, resolve
from services.adapters.process import tracing
from services.adapters.process.environment import read
from services.adapters.process.settings import ProvisionerSettings
from services.adapters.process.tracing import SpanKind
from services.core.saga.calls import Done, Verb
from services.provisioner.kinds.http import HttpKind
from services.provisioner.kinds.outbound import Outbound
from tests.support import compose_file
from tests.support.eventually import eventually
from tests.support.otlp_receiver import OtlpReceiver, otlp_receiver
from tests.support.scripted_system import System, answering
from tests.support.simulator_process import a_call

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
UNSAMPLED = f"00-{'a' * 32}-{'b' * 16}-00"


@pytest.fixture
def system() -> Iterator[System]:
    with answering() as running:
        yield running


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    with otlp_receiver() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


async def _called(system: System, origin: str, parent: str) -> list[str | None]:
    """The `traceparent` of every request of one call."""
    url = system.url if origin == "operator" else "https://acme.salesforce.com"
    async with HttpClient(connections=4) as client:
        kind = HttpKind(
            Outbound(client, resolve, allow=("*.salesforce.com",), egress_map={"*.salesforce.com": system.url})
        )
        with tracing.working("create step", SpanKind.CLIENT, parent):
            answer = await kind.call(a_call(Verb.CREATE, settings={"url": url, "url_from": origin}))
    assert isinstance(answer, Done)
    return system.traces


@pytest.mark.parametrize(("origin", "told"), [("operator", True), ("event", False)])
async def test_only_the_operators_systems_are_told_of_the_trace(
    system: System, receiver: OtlpReceiver, origin: str, *, told: bool
) -> None:
    asked = read({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, ProvisionerSettings)
    with tracing.exporting("provisioner", asked):
        seen = await _called(system, origin, PARENT)
    # The exporter has ended, and the span was sent before.
    (span,) = eventually(receiver.spans)
    assert (span.trace, span.parent, span.service) == ("a" * 32, "b" * 16, "lifecycle-provisioner")
    own = f"00-{span.trace}-{span.span}-01"
    assert traceparent([("traceparent", own.encode())]) == own
    assert seen
    assert set(seen) == ({own} if told else {None})


async def test_a_trace_that_is_not_sampled_goes_on_and_makes_no_span(system: System, receiver: OtlpReceiver) -> None:
    asked = read({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, ProvisionerSettings)
    with tracing.exporting("provisioner", asked):
        seen = await _called(system, "operator", UNSAMPLED)
    assert set(seen) == {UNSAMPLED}
    assert receiver.spans() == []


async def test_while_traces_are_off_no_request_names_one(system: System) -> None:
    assert set(await _called(system, "operator", PARENT)) == {None}


async def test_the_exporter_goes_by_its_standard_variables(
    system: System, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # docker-compose.yml sets every variable, and an unset one to an empty text.
    for name, text in compose_file.environment("provisioner", {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}).items():
        if name.startswith("OTEL_"):
            monkeypatch.setenv(name, text)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=a%20key")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,service.name=other")
    with tracing.exporting("provisioner", read({"OTEL_TRACES_EXPORTER": "otlp"}, ProvisionerSettings)):
        await _called(system, "operator", PARENT)
    (span,) = eventually(receiver.spans)
    assert (span.service, span.resource["deployment.environment.name"]) == ("lifecycle-provisioner", "prod")
    (headers,) = receiver.headers
    assert (headers["x-api-key"], headers["content-encoding"]) == ("a key", "gzip")
