"""`lifecycle doctor` with real Kafka, PostgreSQL and HTTP services."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition

from schemas import codec
from schemas.tenant import Stage, Tenant
from schemas.times import rfc3339
from schemas.topics import LEDGER_APP, RECEIVED, TENANTS, named
from services.adapters.kafka import topics
from services.adapters.process import health, metrics
from services.adapters.process.clock import now_us
from services.cli import keyring_contents
from services.cli.doctor import Finding, Health, _run_checks
from services.cli.doctor.finding import Check, CheckContext, well
from services.provisioner.telemetry import show_circuits
from tests.support.genesys_server import FakeGenesys, serving
from tests.support.samples import KEY, SAMPLES
from tests.support.troubles import TroubledWorld, world

_ORG, _INTEGRATION = KEY.split(":")


@pytest.fixture
def environ(tmp_path: Path, kafka_bootstrap: str, topic_prefix: str, database_url: str) -> dict[str, str]:
    """A whole installation's settings, its topics made; nothing runs."""
    topics.apply({"bootstrap.servers": kafka_bootstrap}, prefix=topic_prefix, partitions=2, replication=1)
    keyring_contents.init(tmp_path / "keyring.json")
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
        "TOPIC_PREFIX": topic_prefix,
        "TOPIC_PARTITIONS": "2",
        "TOPIC_REPLICATION": "1",
        "DATABASE_URL": database_url,
        "KEYRING_FILE": str(tmp_path / "keyring.json"),
        "ORGS_DIR": str(tmp_path / "orgs"),
        "STATE_DIR": str(tmp_path / "state"),
        "OAUTH_CLIENT_SECRET": "secret",
        **dict.fromkeys(("MIDDLEWARE_URL", "SUBSCRIPTIONS_URL", "OAUTH_URL"), "http://127.0.0.1:9"),
    }


def examine(environ: Mapping[str, str], folder: Path, *, deep: bool) -> list[Finding]:
    """The findings of the command, and no other output."""
    words = ("doctor", "--json", *(("--deep",) if deep else ()))
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), **environ}
    argv = [sys.executable, "-X", "faulthandler", "-m", "services.cli.main", *words]
    done = subprocess.run(argv, env=own, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stderr, done.returncode) in {("", 0), ("", 1)}
    return [Finding(one["what"], Health(one["health"]), one["detail"], one["cure"]) for one in json.loads(done.stdout)]


def looked(environ: Mapping[str, str], folder: Path, *, deep: bool = False) -> dict[str, Finding]:
    """The worst finding of each name."""
    found = examine(environ, folder, deep=deep)
    assert all(one.cure for one in found if one.health is not Health.WELL), "every finding has a remedy"
    return {one.what: one for one in sorted(found, key=lambda one: one.health is Health.FAULT)}


@contextmanager
def answering(statuses: Mapping[str, int]) -> Iterator[str]:
    """The base URL of a server that answers each path with its status."""

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses[self.path])
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def write(environ: Mapping[str, str], topic: str, value: bytes, **headers: str) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": environ["KAFKA_BOOTSTRAP_SERVERS"]})
    told: list[tuple[str, Any]] = [(name, text.encode()) for name, text in headers.items()]
    producer.produce(environ["TOPIC_PREFIX"] + topic, value, KEY.encode(), headers=told)
    assert producer.flush(20) == 0


@pytest.mark.timeout(300)
def test_a_cluster_with_logins_is_well_and_each_fault_leaves_the_other_findings_unchanged(
    database_url: str, tmp_path: Path
) -> None:
    with world(tmp_path, database_url) as made:
        whole = {**made.well, "KAFKA_BOOTSTRAP_SERVERS": made.sasl, "KAFKA_CONFIG": made.config("full")}
        found = looked(whole, tmp_path)
        assert {found[name].health for name in ("kafka", "topics", "postgresql", "tenants' database")} == {Health.WELL}
        names = _names(whole, tmp_path)
        both = {**whole, **_of(made, "kafka password wrong"), **_of(made, "postgres password wrong")}
        found = looked(both, tmp_path)
        assert names <= found.keys()
        assert "login" in found["kafka"].detail
        assert "password" in found["postgresql"].detail
        assert found["keyring"].health is Health.FAULT  # there is none
        found = looked({**whole, **_of(made, "postgres no right")}, tmp_path)
        assert found["postgresql"].health is Health.FAULT
        assert "CREATEROLE" in found["tenants' database"].cure


def _of(made: TroubledWorld, trouble: str) -> Mapping[str, str]:
    return made.troubles[trouble].environ


def _names(environ: Mapping[str, str], folder: Path) -> set[str]:
    """Names of what was looked at; a clock is looked at where its server answers."""
    return {name for name in looked(environ, folder) if not name.startswith("clock")}


def test_a_ledger_group_with_offsets_and_no_member_is_a_fault(environ: dict[str, str], tmp_path: Path) -> None:
    assert looked(environ, tmp_path)["ledger's backlog"].health is Health.SKIPPED
    write(environ, RECEIVED.name, b"{}")
    group = environ["TOPIC_PREFIX"] + LEDGER_APP
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": environ["KAFKA_BOOTSTRAP_SERVERS"], "group.id": group, "enable.auto.commit": False}
    )
    consumer.commit(
        offsets=[TopicPartition(named(RECEIVED, environ["TOPIC_PREFIX"]), number, 0) for number in range(2)],
        asynchronous=False,
    )
    consumer.close()
    found = looked(environ, tmp_path)["ledger's backlog"]
    assert found.health is Health.FAULT
    assert found.detail == f"no ledger is at work (group {group}); 1 record not read yet"


async def test_the_brake_of_a_running_reconciler_is_reported(environ: dict[str, str], tmp_path: Path) -> None:
    metrics.RECONCILER_BRAKE.set(1)
    show_circuits([], lambda: ["crm a.example", "crm b.example"], lambda: ["middleware"])
    try:
        async with (
            health.serve("reconciler", lambda: {"view": "", "rights": "none"}, host="127.0.0.1", port=0) as port,
            health.serve("provisioner", dict, host="127.0.0.1", port=0) as another,
        ):
            urls = {
                "reconciler": f"http://127.0.0.1:{port}",
                "provisioner": f"http://127.0.0.1:{another}",
                "ledger": "http://127.0.0.1:9",
            }
            known = environ | {"SERVICE_URLS": json.dumps(urls)}
            found = await asyncio.to_thread(examine, known, tmp_path, deep=False)
            told = {(one.what, one.detail) for one in found if one.health is Health.FAULT}
            (tmp_path / "state").mkdir(exist_ok=True)
            (tmp_path / "state" / "endpoints.json").write_text(
                json.dumps({"metrics": {name: f"{url}/metrics" for name, url in urls.items()}})
            )
            left = tmp_path / "state" / "environment.json"
            left.write_text(json.dumps({"KAFKA_BOOTSTRAP_SERVERS": environ["KAFKA_BOOTSTRAP_SERVERS"]}))
            by_file = await asyncio.to_thread(examine, environ, tmp_path, deep=False)
            left.write_text(json.dumps({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}))
            of_another = await asyncio.to_thread(looked, environ, tmp_path)
    finally:
        metrics.RECONCILER_BRAKE.set(0)
        show_circuits([], list, list)
    away = "outside systems of step crm that are left alone, because they do not answer or refuse us: 2"
    assert ("provisioner", away) in told
    assert ("provisioner", "the system middleware refuses the operator's credentials or set-up") in told
    assert ("reconciler", "not ready: rights: none") in told
    assert ("reconciler", "the brake holds a run that would remove too many tenants") in told
    assert ("ledger", "http://127.0.0.1:9: nothing listens there, or its host has no address") in told
    assert told <= {(one.what, one.detail) for one in by_file}, "the endpoints file of `up` does as well"
    assert of_another["services"].health is Health.SKIPPED, "the services of another Kafka's `up` are not shown"
    assert "reconciler" not in of_another


@pytest.mark.parametrize("text", ["[]", "{", '{"metrics": []}', "1"])
def test_a_damaged_endpoints_file_is_reported(text: str, environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    left = {"KAFKA_BOOTSTRAP_SERVERS": environ["KAFKA_BOOTSTRAP_SERVERS"]}
    (tmp_path / "state" / "environment.json").write_text(json.dumps(left))
    (tmp_path / "state" / "endpoints.json").write_text(text)
    assert looked(environ, tmp_path)["services"].health is Health.SKIPPED


async def test_a_reconciler_without_any_successful_run_is_not_well(environ: dict[str, str], tmp_path: Path) -> None:
    unanswered = metrics.RECONCILER_ORGANISATIONS.labels(result="unanswered")
    metrics.RECONCILER_ORGANISATIONS.labels(result="read").set(7)

    async def told() -> set[str]:
        async with health.serve("reconciler", lambda: {"view": ""}, host="127.0.0.1", port=0) as port:
            known = environ | {"SERVICE_URLS": json.dumps({"reconciler": f"http://127.0.0.1:{port}"})}
            found = await asyncio.to_thread(examine, known, tmp_path, deep=False)
        return {one.detail for one in found if one.what == "reconciler" and one.health is Health.FAULT}

    try:
        assert not await told(), "no run has ended yet"
        metrics.RECONCILER_LAST_RUN.set(time.time())
        assert await told() == {"no whole run has ever left nothing unread, unwritten or held back"}
        metrics.RECONCILER_UNREAD_KEYS.set(40)
        unanswered.set(2)
        assert await told() == {
            "no whole run has ever left nothing unread, unwritten or held back",
            "40 keys could not be read, or not whole, in its last whole run",
            "2 organisations gave no information, or not all, in its last whole run",
        }
        metrics.RECONCILER_LAST_SUCCESS.set(time.time())
        metrics.RECONCILER_UNREAD_KEYS.set(0)
        unanswered.set(0)
        assert not await told()
    finally:
        for gauge in (
            metrics.RECONCILER_LAST_RUN,
            metrics.RECONCILER_LAST_SUCCESS,
            metrics.RECONCILER_UNREAD_KEYS,
            unanswered,
        ):
            gauge.set(0)


def test_no_secret_of_a_url_is_shown(environ: dict[str, str], tmp_path: Path) -> None:
    away = "http://user:canary@127.0.0.1:9/path?key=canary#canary"
    names = ("MIDDLEWARE_URL", "SUBSCRIPTIONS_URL", "OAUTH_URL", "GENESYS_LOGIN_URL", "GENESYS_API_URL", "ARCHIVE_URL")
    chosen = environ | dict.fromkeys(names, away) | {"SERVICE_URLS": json.dumps({"ledger": away})}
    found = examine(chosen, tmp_path, deep=False)
    assert not [one for one in found if "canary" in one.detail + one.cure]
    told = {one.what: one.detail for one in found}
    assert told["ledger"].startswith("http://127.0.0.1:9/path: ")
    assert told["step middleware"].startswith("http://127.0.0.1:9/path: ")


def test_unwell_tenants_are_named(environ: dict[str, str], tmp_path: Path) -> None:
    assert looked(environ, tmp_path)["tenants"].health is Health.WELL
    (sample,) = (one for one in SAMPLES if isinstance(one, Tenant))
    failed = sample.model_copy(update={"stage": Stage.DEPROVISIONING_FAILED, "flags": ()})
    write(environ, TENANTS.name, codec.dump(failed))
    found = looked(environ, tmp_path)["tenants"]
    assert found.health is Health.FAULT
    assert found.detail == f"1 of 1 are unwell (1 deprovisioning_failed): {KEY}"


@pytest.mark.parametrize(
    ("taken_s", "health"),
    [(-1, Health.WELL), (120, Health.FAULT), (-600, Health.WELL)],
    ids=["now", "ahead", "spooled"],
)
def test_the_clock_of_kafka_is_read_from_the_newest_delivery(
    taken_s: int, health: Health, environ: dict[str, str], tmp_path: Path
) -> None:
    write(environ, RECEIVED.name, b"{}", received_at=rfc3339(now_us() + taken_s * 1_000_000))
    assert looked(environ, tmp_path)["clock of Kafka"].health is health


def test_settings_missing_for_the_plan_are_named_and_the_operators_systems_are_probed(
    environ: dict[str, str], tmp_path: Path
) -> None:
    with answering({"/well": 404, "/ill": 503}) as url:
        chosen = environ | {"MIDDLEWARE_URL": f"{url}/well", "SUBSCRIPTIONS_URL": f"{url}/ill"}
        found = looked(chosen, tmp_path)
    assert found["step middleware"].health is Health.WELL, "it answers; what it may do for us is not asked"
    assert found["step subscriptions"].detail.endswith("HTTP 503")
    assert found["step tokens"].detail.endswith("no connection opens")
    told = examine(_without(environ, "OAUTH_URL", "MIDDLEWARE_URL"), tmp_path, deep=False)
    assert {one.detail.split(": ")[-1].split(" ")[0] for one in told if one.what == "plan"} == {
        "OAUTH_URL",
        "MIDDLEWARE_URL",
    }
    missing = looked(environ | {"PLAN_FILE": str(tmp_path / "none.toml")}, tmp_path)
    assert missing["plan"].health is Health.FAULT
    assert missing["operator's systems"].health is Health.SKIPPED


def _without(environ: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: text for name, text in environ.items() if name not in names}


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_the_archive_is_probed_at_its_url(scheme: str, environ: dict[str, str], tmp_path: Path) -> None:
    if scheme == "file":
        archive = tmp_path / "archive"
        assert looked(environ | {"ARCHIVE_URL": archive.as_uri()}, tmp_path)["archive"].health is Health.SKIPPED
        archive.mkdir()
        assert looked(environ | {"ARCHIVE_URL": archive.as_uri()}, tmp_path)["archive"].health is Health.WELL
    else:
        away = looked(environ | {"ARCHIVE_URL": "http://127.0.0.1:9/archive"}, tmp_path)["archive"]
        assert away.health is Health.FAULT


async def test_deep_logs_in_to_genesys_for_every_organisation(environ: dict[str, str], tmp_path: Path) -> None:
    genesys = FakeGenesys(_ORG)
    genesys.add(_INTEGRATION)
    (tmp_path / "orgs").mkdir()
    file = {"org_id": _ORG, "client_id": "id", "client_secret": "secret", "region": None}
    (tmp_path / "orgs" / f"{_ORG}.json").write_text(json.dumps(file))
    async with serving(genesys):
        known = environ | {"GENESYS_LOGIN_URL": f"{genesys.url}/login", "GENESYS_API_URL": genesys.url}
        found = await asyncio.to_thread(looked, known, tmp_path, deep=True)
        shallow = await asyncio.to_thread(looked, known, tmp_path)
        genesys.org_id = "another"
        other = await asyncio.to_thread(looked, known, tmp_path, deep=True)
    nowhere = await asyncio.to_thread(looked, environ, tmp_path)
    assert found["Genesys"].health is Health.WELL
    assert shallow["Genesys"].health is Health.SKIPPED
    assert "another organisation" in other["Genesys"].detail
    assert "region" in nowhere["organisations"].detail


def test_a_check_that_hangs_or_raises_hides_no_other_finding() -> None:
    def raises(_: CheckContext) -> Iterator[Finding]:
        raise KeyError("a bug")

    def hangs(_: CheckContext) -> Iterator[Finding]:
        threading.Event().wait()
        yield well("never", "")

    def works(_: CheckContext) -> Iterator[Finding]:
        yield well("works", "well")

    from services.adapters.process.settings import Settings

    asked = CheckContext(Settings(), {}, "", now_us)
    began_s = time.monotonic()
    found = _run_checks(asked, (Check("hangs", hangs, 0.3), Check("raises", raises), Check("works", works)))
    assert time.monotonic() - began_s < 10
    assert [(one.what, one.health) for one in found] == [
        ("hangs", Health.FAULT),
        ("raises", Health.FAULT),
        ("works", Health.WELL),
    ]
    assert all(one.cure for one in found[:2])
