"""The traces of `lifecycle up`, read back from an OTLP receiver, and the story of a key in the logs of all services."""

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from services.cli.exits import Exit
from tests.e2e import outsider
from tests.e2e.outsider import Up
from tests.support.eventually import eventually
from tests.support.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver
from tests.unit.test_cli_commands import lifecycle

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.timeout(400)]

_JOURNEY_S = 120
_STEPS = {"middleware", "crm", "schema", "subscriptions", "tokens"}


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as one:
        yield one


@pytest.fixture(scope="module")
def running(receiver: OtlpReceiver) -> Iterator[Up]:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "LOG_LEVEL": "debug",
        "LEASE_S": "3",
        "RETRY_FIRST_S": "0.2",
        "RECONCILE_SECOND_LOOK_S": "2",
    }
    with outsider.folder() as state_dir, outsider.up(state_dir, **environ) as one:
        yield one


def key_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}:00000000-0000-4000-9000-{number:012}"


def install(running: Up, number: int, trace: str | None = None) -> str:
    org, _, integration = key_of(number).partition(":")
    secret, tenant = outsider.secret_of(running), f"tenant_{number}"
    answer = outsider.post(running, "installed", secret, org=org, integration=integration, tenant=tenant, trace=trace)
    assert answer == (200, {"status": "queued"})
    return key_of(number)


def is_active(running: Up, key: str) -> None:
    eventually(lambda: outsider.tenant(running, key).get("stage") == "active", _JOURNEY_S)


def fault(running: Up, **fields: object) -> None:
    body = json.dumps(fields).encode()
    asked = urllib.request.Request(
        running.endpoints["simulator"] + "/faults", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=5) as answer:
        assert answer.status < 300


_DELIVERY = ("lifecycle-ingress", "POST /v1/genesys/lifecycle/{endpoint}")
_OBSERVATION = ("lifecycle-reconciler", "send lifecycle.received")


def tree(receiver: OtlpReceiver, key: str, begin: tuple[str, str]) -> list[ReceivedSpan]:
    """The spans of one trace, of which every span but the first hangs on the first."""
    # A delivery that is refused is a trace of one span.
    spans = [span for span in receiver.spans(key) if span.attributes.get("http.response.status_code") != 401]
    assert len({span.trace for span in spans}) == 1
    roots = [span for span in spans if not span.parent]
    assert [(root.service, root.name) for root in roots] == [begin]
    known = {span.span for span in spans}
    assert all(span.parent in known for span in spans if span.parent)
    assert len(known) == len(spans)
    return spans


def names(spans: list[ReceivedSpan], service: str) -> set[str]:
    return {span.name for span in spans if span.service == f"lifecycle-{service}"}


def is_whole(receiver: OtlpReceiver, key: str, begin: tuple[str, str] = _DELIVERY) -> list[ReceivedSpan]:
    def found() -> list[ReceivedSpan]:
        spans = tree(receiver, key, begin)
        assert {"process lifecycle.received", "process lifecycle.outcomes"} <= names(spans, "ledger")
        steps = {span.attributes["lifecycle.step"] for span in spans if "lifecycle.step" in span.attributes}
        assert "store lifecycle.desired" in names(spans, "provisioner")
        assert steps >= _STEPS
        # The outcome of the last step has come back to the ledger.
        assert sum(span.name == "process lifecycle.outcomes" for span in spans) >= 2
        return spans

    return eventually(found, 30)


def test_one_install_is_one_tree_and_a_retry_is_linked_to_the_try_before(running: Up, receiver: OtlpReceiver) -> None:
    fault(running, system="tokens", fault="error", verb="create", key=key_of(1), times=1)
    key = install(running, 1)
    is_active(running, key)
    spans = is_whole(receiver, key)
    first, second = [span for span in spans if span.name == "create tokens"]
    assert (first.links, first.attributes["lifecycle.answer"]) == ((), "retryable")
    assert first.fault
    assert (second.links, second.attributes["lifecycle.answer"]) == (((first.trace, first.span),), "done")
    assert second.fault == ""
    once = [span for span in spans if span.attributes.get("lifecycle.step") in _STEPS - {"tokens"}]
    assert all(span.links == () for span in once)
    (root,) = (span for span in spans if not span.parent)
    assert root.attributes["http.response.status_code"] == 200
    assert root.attributes["lifecycle.key"] == key
    (received,) = (span for span in spans if span.name == "process lifecycle.received")
    assert received.attributes["lifecycle.verdict"] == "new"


def test_the_tree_stays_one_when_the_provisioner_is_killed_in_a_call(running: Up, receiver: OtlpReceiver) -> None:
    fault(running, system="subscriptions", fault="slow", verb="create", key=key_of(2), seconds=4, times=1)
    key = install(running, 2)
    # The step before is done and told of, so the slow call is under way.
    eventually(lambda: "create schema" in names(receiver.spans(key), "provisioner"), _JOURNEY_S)
    before = running.endpoints["pids"]["provisioner"]
    os.kill(before, signal.SIGKILL)
    is_active(running, key)
    assert running.endpoints["pids"]["provisioner"] != before
    spans = is_whole(receiver, key)
    (killed, *_), *_ = (span.links for span in spans if span.name == "read subscriptions")
    # The killed worker could tell of nothing; its context was in the row, and the takeover names it.
    assert killed[0] == spans[0].trace
    assert killed[1] not in {span.span for span in spans}
    epochs = {span.attributes["lifecycle.epoch"] for span in spans if "lifecycle.epoch" in span.attributes}
    assert len(epochs) > 1


def test_a_senders_own_trace_is_a_link_after_the_proof_and_never_the_parent(
    running: Up, receiver: OtlpReceiver
) -> None:
    theirs, org = f"00-{'c' * 32}-{'d' * 16}-00", key_of(4).partition(":")[0]
    forged = f"00-{'e' * 32}-{'f' * 16}-01"
    answer = outsider.post(
        running, "installed", b"a secret that is wrong, and long", org=org, integration=org, tenant="t", trace=forged
    )
    assert answer[0] == 401
    key = install(running, 4, theirs)
    is_active(running, key)
    spans = is_whole(receiver, key)
    (root,) = (span for span in spans if not span.parent)
    assert root.links == (("c" * 32, "d" * 16),)
    assert root.trace not in {"c" * 32, "e" * 32}
    seen = {span.trace for span in receiver.spans()} | {link[0] for span in receiver.spans() for link in span.links}
    assert "e" * 32 not in seen


def test_the_answer_to_a_recheck_is_one_tree_from_the_reconciler_to_the_last_step(
    running: Up, receiver: OtlpReceiver
) -> None:
    key = key_of(5)
    org, _, integration = key.partition(":")
    told = {"tenantId": "tenant_5", "configuration": outsider.GUIDE, "webhook": False, "enabled": True}
    asked = urllib.request.Request(
        running.endpoints["simulator"] + f"/genesys/control/orgs/{org}/integrations/{integration}",
        data=json.dumps(told).encode(),
        headers={"Content-Type": "application/json"},
        method="PUT",
    )
    with urllib.request.urlopen(asked, timeout=5) as answer:
        assert answer.status < 300
    secret, old = outsider.secret_of(running), (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    # Refused as too old to be proved fresh: Genesys itself is asked about the key instead.
    status, _ = outsider.post(running, "installed", secret, org=org, integration=integration, tenant="tenant_5", at=old)
    assert status == 401
    is_active(running, key)
    spans = is_whole(receiver, key, _OBSERVATION)
    (root,) = (span for span in spans if not span.parent)
    assert (root.attributes["lifecycle.key"], root.attributes["lifecycle.cause"]) == (key, "recheck")
    (received,) = (span for span in spans if span.name == "process lifecycle.received")
    assert (received.parent, received.attributes["lifecycle.verdict"]) == (root.span, "new")


def test_the_logs_tell_the_story_of_a_key_over_all_services(running: Up, receiver: OtlpReceiver) -> None:
    key = install(running, 3)
    is_active(running, key)

    def told() -> list[dict[str, object]]:
        done = lifecycle("logs", "--key", key, "--json", "--state-dir", str(running.state_dir), cwd=running.state_dir)
        assert done.returncode == Exit.OK, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        said = [(line["service"], line["event"]) for line in lines]
        assert [pair for pair in said if pair[0] == "ingress"] == [("ingress", "answered")]
        assert ("ledger", "decided") in said
        assert ("provisioner", "outcome") in said
        assert [line["after"] for line in lines if line["event"] == "stage"][-1] == "active"
        return lines

    lines = eventually(told, 30)
    assert {line["key"] for line in lines} == {key}
    assert [line["at"] for line in lines] == sorted(str(line["at"]) for line in lines)
    # Every line of the delivery's story names the one trace, which the receiver knows.
    (trace,) = {line["trace_id"] for line in lines}
    assert trace in {span.trace for span in receiver.spans(key)}
