"""`lifecycle webhook` by its real command line, against the simulator's Genesys and a real ingress."""

import asyncio
import json
import os
import re
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from schemas.times import instant, rfc3339
from schemas.topics import RECEIVED
from services.adapters.process.environment import read
from services.adapters.process.settings import Settings
from services.cli.doctor.finding import Finding, Health
from services.cli.exits import Exit
from services.cli.files import replace
from services.cli.webhook_findings import findings
from services.cli.webhook_registration import registration
from tests.support.eventually import eventually
from tests.support.ingress_process import PATH, Ingress, ingress, make_topics, now_us
from tests.support.programs import need
from tests.support.simulator_process import Outside, outside
from tests.support.terminal import COLUMNS, on_terminal

pytestmark = pytest.mark.engines

ORG = "98765432-1234-5678-9abc-def012345678"
IDS = [f"a1b2c3d4-e5f6-7890-abcd-{number:012d}" for number in range(4)]
S = 1_000_000


@dataclass
class World:
    """A Genesys with the integrations of one organisation, an ingress, and the keyring of both."""

    outside: Outside
    ingress: Ingress
    keyring: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ingress.port}{PATH}"

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.keyring.parent),
            "KEYRING_FILE": str(self.keyring),
            "ORGS_DIR": str(self.outside.orgs),
            "GENESYS_LOGIN_URL": f"{self.outside.url}/genesys/login",
            "GENESYS_API_URL": f"{self.outside.url}/genesys",
        }

    def popen(self, *words: str) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-m", "services.cli.main", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, env=self.environ, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        process = self.popen(*words)
        stdout, stderr = process.communicate(timeout=120)
        assert "Traceback" not in stderr
        for secret in self.secrets():
            assert secret not in stdout + stderr, "a secret is printed"
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)

    def webhook(self, *words: str, url: str | None = None) -> "subprocess.CompletedProcess[str]":
        return self.run("webhook", *words, "--org", ORG, "--url", url or self.url)

    def content(self) -> Any:
        return json.loads(self.keyring.read_text())

    def secrets(self) -> set[str]:
        """Every secret of an endpoint, of the keyring and of Genesys."""
        endpoints = self.content()["endpoints"].values()
        found = {one[which]["secret"] for one in endpoints for which in ("current", "previous") if one[which]}
        return found | {held["secret"] for held in self.held().values()}

    def held(self) -> dict[str, Any]:
        """What the simulator's Genesys has written down, by integration."""
        found: dict[str, Any] = {}
        for line in (self.outside.folder / "state" / "simulator.jsonl").read_text().splitlines():
            table, row, value = json.loads(line)
            if table == "webhooks":
                found[row.partition(":")[2]] = value
        return found

    def control(self, integration: str, **body: Any) -> httpx2.Response:
        url = f"{self.outside.url}/genesys/control/orgs/{ORG}/integrations/{integration}"
        return httpx2.put(url, json=body, timeout=10).raise_for_status()

    def queued(self) -> float:
        return self.ingress.metric("lifecycle_ingress_answers_total", reason="queued")

    def received(self) -> list[dict[str, Any]]:
        """The bodies of all deliveries. One after a refused attempt has the sender's retry marks."""
        return [json.loads(record.value() or b"") for record in self.ingress.records(RECEIVED)]

    def fingerprint(self) -> str:
        listed = json.loads(self.run("keyring", "list", "--json").stdout)
        return str(next(one["fingerprint"] for one in listed if one["endpoint"] == "default"))


@pytest.fixture
def world(kafka_bootstrap: str, tmp_path: Path) -> Iterator[World]:
    prefix = f"t{secrets.token_hex(5)}-"
    make_topics(kafka_bootstrap, prefix)
    keyring = tmp_path / "secrets" / "keyring.json"
    made = subprocess.run(
        [sys.executable, "-m", "services.cli.main", "keyring", "init", str(keyring)], capture_output=True, check=False
    )
    assert made.returncode == Exit.OK
    with (
        outside(tmp_path / "outside") as simulator,
        ingress(kafka_bootstrap, prefix, tmp_path, KEYRING_FILE=str(keyring)) as running,
    ):
        eventually(lambda: running.get("/readyz").status == 200)
        found = World(simulator, running, keyring)
        for identity in IDS[:2]:
            found.control(identity, tenantId=f"acme-{identity[-1]}")
        yield found


def test_a_webhook_is_planned_registered_and_verified(world: World) -> None:
    planned = world.webhook("plan", "--json")
    assert planned.returncode == Exit.DEVIATION
    assert {one["key"]: one["secret"] for one in json.loads(planned.stdout)["webhooks"]} == {
        f"{ORG}:{identity}": "absent" for identity in IDS[:2]
    }
    asked = world.webhook("apply")
    assert asked.returncode == Exit.UNUSABLE
    assert "--yes" in asked.stderr
    assert world.held() == {}
    done = world.webhook("apply", "--yes")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        Exit.OK,
        f"2 registered, 0 failed; signed with the secret {world.fingerprint()}",
    )
    policy = {"maxRetries": 5, "initialDelayMs": 1000, "backoffMultiplier": 2.0}
    events = ["installed", "uninstalled", "enabled", "disabled", "configuration_updated"]
    secret = world.content()["endpoints"]["default"]["current"]["secret"]
    wanted = {"url": world.url, "events": events, "retryPolicy": policy, "timeoutMs": 3000, "secret": secret}
    assert world.held() == dict.fromkeys(IDS[:2], wanted)
    again = world.webhook("apply", "--yes", "--json")
    assert again.returncode == Exit.OK
    assert {one["result"] for one in json.loads(again.stdout)["webhooks"]} == {"unchanged"}
    assert world.webhook("plan").returncode == Exit.OK
    verified = world.webhook("verify", "--json")
    assert verified.returncode == Exit.OK, verified.stdout
    assert {one["health"] for one in json.loads(verified.stdout)} == {"well"}
    assert world.received() == [], "no probe is a delivery"
    for url in (world.url, f"https://nowhere.invalid{PATH}"):
        status, shown = on_terminal("webhook", "verify", "--url", url, cwd=Path.cwd(), **world.environ)
        assert (status, "Traceback" in shown) == (Exit.OK if url == world.url else Exit.DEVIATION, False)
        assert max(map(len, shown.splitlines())) <= COLUMNS
    world.control(IDS[0], enabled=False, webhook=True)
    eventually(lambda: world.queued() and world.received())


def test_a_plan_shows_what_differs_within_80_columns_and_no_secret(world: World) -> None:
    assert world.webhook("apply", "--yes").returncode == Exit.OK
    token = httpx2.post(
        f"{world.outside.url}/genesys/login/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=tuple(
            json.loads((world.outside.orgs / f"{ORG}.json").read_text())[n] for n in ("client_id", "client_secret")
        ),
    ).json()["access_token"]
    changed = world.held()[IDS[0]] | {"events": ["installed"], "timeoutMs": 9000, "secret": "canary-" + "x" * 40}
    httpx2.put(
        f"{world.outside.url}/genesys/api/v2/integrations/{IDS[0]}/webhooks",
        json=changed,
        headers={"Authorization": f"Bearer {token}"},
    ).raise_for_status()
    planned = world.webhook("plan")
    assert planned.returncode == Exit.DEVIATION
    assert "canary" not in planned.stdout
    lines = planned.stdout.splitlines()
    assert lines[0] == f"{ORG}:{IDS[0]}"
    assert lines[1:3] == [
        "  events      - installed",
        "              + installed, uninstalled, enabled, disabled, configuration_updated",
    ]
    assert lines[3:5] == ["  timeout     - 9,000 ms", "              + 3,000 ms"]
    assert lines[5].endswith(", a secret that is not in the keyring")
    assert lines[6] == f"              + {world.fingerprint()}, the current secret"
    assert lines[7:9] == [f"{ORG}:{IDS[1]}", f"  as it should be; secret: {world.fingerprint()}, the current secret"]
    assert lines[9:] == ["2 webhooks read, 1 to tell Genesys of"]
    assert max(map(len, lines)) <= 80
    only = world.webhook("plan", "--integration", IDS[1].upper())
    assert only.returncode == Exit.OK
    path = world.outside.orgs / f"{ORG}.json"
    former = json.loads(path.read_text())
    kind = former.pop("integration_type")
    for types, found in ((["another", kind], 2), (["another"], 0)):
        path.write_text(json.dumps({**former, "integration_types": types, "name": "Acme"}))
        listed = world.run("webhook", "plan", "--org", "Acme", "--url", world.url, "--json")
        assert listed.returncode == (Exit.DEVIATION if found else Exit.NOT_FOUND), listed.stderr
        assert not found or len(json.loads(listed.stdout)["webhooks"]) == found


def carry_late(source: Path, target: Path, stop: threading.Event) -> None:
    """Replaces the ingress' keyring by the operator's, two seconds after each change: as a mounted secret comes."""
    known = source.read_text()
    while not stop.wait(0.05):
        if (text := source.read_text()) != known:
            known = text
            stop.wait(2)
            replace(target, text)


@pytest.mark.long
def test_a_rotation_under_load_refuses_not_a_single_delivery(world: World) -> None:
    assert world.webhook("apply", "--yes").returncode == Exit.OK
    stop = threading.Event()

    def changes(identity: str) -> int:
        count = 0
        while not stop.is_set():
            count += 1
            world.control(identity, configuration={"n": count}, webhook=True)
        return count

    former = world.content()["endpoints"]["default"]["current"]["secret"]
    of_ingress, world.keyring = world.keyring, world.keyring.with_name("operators.json")
    replace(world.keyring, of_ingress.read_text())
    with ThreadPoolExecutor(3) as pool:
        carried = pool.submit(carry_late, world.keyring, of_ingress, stop)
        running = [pool.submit(changes, identity) for identity in IDS[:2]]
        try:
            eventually(lambda: world.queued() > 50)
            for _ in range(2):
                rotated = world.webhook("apply", "--rotate-secret", "--yes", "--json")
                assert rotated.returncode == Exit.OK, rotated.stderr
                assert json.loads(rotated.stdout)["rotated"] is True
                before = world.queued()
                eventually(lambda: world.queued() > before + 50)  # noqa: B023 - called at once
                # The next rotation waits for the end of the former secret; a day is too long for a test.
                content = world.content()
                content["endpoints"]["default"]["previous"]["not_after"] = rfc3339(now_us())
                replace(world.keyring, json.dumps(content))
        finally:
            stop.set()
        carried.result()
        told = sum(future.result() for future in running)
    assert world.content()["endpoints"]["default"]["current"]["secret"] != former
    assert {held["secret"] for held in world.held().values()} == {
        world.content()["endpoints"]["default"]["current"]["secret"]
    }
    eventually(lambda: len(world.received()) >= told)
    assert len(world.received()) == told
    assert all("retryCount" not in body["metadata"] for body in world.received()), "a first attempt was refused"


@pytest.mark.long
def test_a_rotation_that_fails_at_genesys_is_resumed_with_the_same_secret(world: World) -> None:
    assert world.webhook("apply", "--yes").returncode == Exit.OK
    first = world.content()["endpoints"]["default"]["current"]["secret"]
    world.outside.fault("genesys", "refuse", verb="update", key=f"{ORG}:{IDS[1]}")
    failed = world.webhook("apply", "--rotate-secret", "--yes")
    assert failed.returncode == Exit.REFUSED
    assert f"{ORG}:{IDS[1]}" in failed.stdout
    assert "Both secrets count until " in failed.stderr
    assert "makes no further secret" in failed.stderr
    endpoint = world.content()["endpoints"]["default"]
    assert endpoint["previous"]["secret"] == first
    assert instant(endpoint["previous"]["not_after"]) > now_us() + 23 * 3600 * S
    assert {one["secret"] for one in world.held().values()} == {first, endpoint["current"]["secret"]}
    for identity in IDS[:2]:
        world.control(identity, enabled=False, webhook=True)
    eventually(lambda: len(world.received()) == 2)
    assert all("retryCount" not in body["metadata"] for body in world.received()), "both secrets prove deliveries"
    world.outside.heal()
    resumed = world.webhook("apply", "--rotate-secret", "--yes", "--json")
    assert resumed.returncode == Exit.OK, resumed.stderr
    told = json.loads(resumed.stdout)
    assert told["rotated"] is False
    assert {one["key"]: one["result"] for one in told["webhooks"]} == {
        f"{ORG}:{IDS[0]}": "unchanged",
        f"{ORG}:{IDS[1]}": "registered",
    }
    assert world.content()["endpoints"]["default"] == endpoint
    early = world.webhook("apply", "--rotate-secret", "--yes")
    assert early.returncode == Exit.REFUSED
    assert "rotate after that" in early.stderr
    assert world.content()["endpoints"]["default"] == endpoint, "nothing is cut off"


@pytest.mark.long
def test_an_ingress_with_another_keyring_stops_a_rotation_before_genesys_is_told(world: World) -> None:
    assert world.webhook("apply", "--yes").returncode == Exit.OK
    former = world.held()
    own = world.keyring.with_name("operators.json")
    own.write_text(world.keyring.read_text())
    world.keyring = own
    stopped = world.webhook("apply", "--rotate-secret", "--yes", "--wait", "1s")
    assert stopped.returncode == Exit.REFUSED
    assert "401: the ingress does not know the secret" in stopped.stderr
    assert "Both secrets count until " in stopped.stderr
    assert world.held() == former, "Genesys still signs with a secret that counts"
    world.control(IDS[0], enabled=False, webhook=True)
    eventually(lambda: len(world.received()) == 1)
    # The file reaches the ingress, as a mounted secret would.
    world.keyring.replace(own.with_name("keyring.json"))
    world.keyring = own.with_name("keyring.json")
    resumed = world.webhook("apply", "--rotate-secret", "--yes")
    assert resumed.returncode == Exit.OK, resumed.stderr
    assert {one["secret"] for one in world.held().values()} == {
        world.content()["endpoints"]["default"]["current"]["secret"]
    }


@pytest.mark.long
def test_the_former_secret_outlives_the_longest_wait_for_the_proof(world: World) -> None:
    assert world.webhook("apply", "--yes").returncode == Exit.OK
    own = world.keyring.with_name("operators.json")
    replace(own, world.keyring.read_text())
    world.keyring, begun_us = own, now_us()
    words = ("webhook", "apply", "--org", ORG, "--url", world.url, "--rotate-secret", "--yes")
    # The ingress has another file, so the proof is waited for, each time until the command is ended.
    for wait, hours in (("30m", 0.5), ("1h", 1)):
        waiting = world.popen(*words, "--overlap", "25m", "--wait", wait)
        try:
            assert waiting.stderr is not None
            assert "waiting until the ingress takes the secret" in waiting.stderr.readline()
        finally:
            waiting.terminate()
            waiting.communicate(timeout=30)
        former = world.content()["endpoints"]["default"]["previous"]
        assert instant(former["not_after"]) >= begun_us + (hours * 60 + 25) * 60 * S


def test_a_missing_answer_to_a_registration_is_read_back(world: World) -> None:
    world.outside.fault("genesys", "lost_answer", verb="update", times=2)
    done = world.webhook("apply", "--yes")
    assert done.returncode == Exit.OK, done.stderr
    assert len(world.held()) == 2


def test_nothing_is_changed_while_a_webhook_cannot_be_read(world: World) -> None:
    before = world.content()
    world.outside.fault("genesys", "refuse", verb="read", key=f"{ORG}:{IDS[0]}")
    done = world.webhook("apply", "--rotate-secret", "--yes")
    assert done.returncode == Exit.REFUSED
    assert "nothing was changed" in done.stderr
    assert (world.held(), world.content()) == ({}, before)
    world.outside.heal()
    unknown = world.webhook("plan", "--integration", IDS[3])
    assert unknown.returncode == Exit.NOT_FOUND
    world.outside.kill()
    away = world.webhook("plan")
    assert away.returncode == Exit.UNREACHABLE


def faults(world: World, url: str) -> list[Finding]:
    """The faults that `verify` finds for a URL, but for what Genesys holds; a process for each would take minutes."""
    wanted = registration(read(world.environ, Settings), [ORG], None, url, None)
    found = findings(wanted, asyncio.run(wanted.read()), {})
    return [one for one in found if one.health is Health.FAULT and one.what == "probe"]


@contextmanager
def answering(status: int, *, wait_s: float = 0.0, off_s: float = 0.0, **fields: str) -> Iterator[int]:
    """The port of a server on this machine that answers every POST alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            time.sleep(wait_s)
            self.send_response(status)
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((timestamp or time.time()) + off_s)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def test_verify_names_each_fault_of_the_way_with_its_remedy(world: World) -> None:
    def one(url: str) -> tuple[str, str]:
        found = faults(world, url)
        assert all(fault.cure for fault in found)
        return found[0].detail.removeprefix(f"{url}: "), found[0].cure

    assert one(f"https://nowhere.invalid{PATH}")[0].startswith("DNS: the name nowhere.invalid has no address")
    assert "start the proxy" in one(f"http://127.0.0.1:1{PATH}")[1]
    assert one(world.url.replace("/v1/", "/v2/"))[0] == "HTTP 404: nothing is served at this path"
    with answering(200, wait_s=3.5) as port:
        assert one(f"http://127.0.0.1:{port}{PATH}")[0] == "no answer within 3 s, when Genesys gives up"
    with answering(200) as port:
        assert one(f"http://127.0.0.1:{port}{PATH}")[0] == "HTTP 200, and not from the ingress"
    with answering(403) as port:
        assert one(f"http://127.0.0.1:{port}{PATH}")[0] == "HTTP 403, and not from the ingress"
    with answering(302, location="/login") as port:
        assert "redirect" in one(f"http://127.0.0.1:{port}{PATH}")[0]
    with answering(502) as port:
        assert one(f"http://127.0.0.1:{port}{PATH}")[1].startswith("start the ingress")
    with answering(401, off_s=-200) as port:
        detail, cure = one(f"http://127.0.0.1:{port}{PATH}")
        assert re.fullmatch(r"HTTP 401: the clocks are 20\d s apart", detail)
        assert cure == "synchronise both by NTP (`timedatectl`)"


def test_verify_tells_a_wrong_secret_from_a_binding(world: World) -> None:
    content = world.content()
    content["endpoints"]["narrow"] = {
        "current": {"secret": "canary-narrow-0123456789-0123456789-abcd"},
        "previous": None,
        "integrations": [IDS[1]],
    }
    world.keyring.write_text(json.dumps(content))
    url = world.url.replace("default", "narrow")
    own = world.keyring.with_name("operators.json")
    found = eventually(lambda: [one for one in faults(world, url) if "403" in one.detail])
    (unbound,) = found
    assert unbound.detail == f"{url}: HTTP 403: the endpoint narrow may not speak for {ORG}:{IDS[0]}"
    refused = world.webhook("apply", "--yes", url=url)
    assert refused.returncode == Exit.REFUSED
    assert "may not speak for it (403)" in refused.stderr
    content["endpoints"]["default"]["current"]["secret"] = "canary-other-0123456789-0123456789-abcdef"
    own.write_text(json.dumps(content))
    world.keyring = own
    verified = world.webhook("verify")
    assert verified.returncode == Exit.DEVIATION
    (wrong, *_) = faults(world, world.url)
    assert f"→ {wrong.cure}" in verified.stdout
    assert wrong.detail.startswith(f"{world.url}: HTTP 401: the ingress does not know the secret ")
    assert "the KEYRING_FILE of the ingress" in wrong.cure


def test_verify_refuses_a_certificate_that_nobody_vouches_for(world: World, tmp_path: Path) -> None:
    need("openssl")
    pair = [str(tmp_path / name) for name in ("key.pem", "certificate.pem")]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*made, "-keyout", pair[0], "-out", pair[1]], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair[1], pair[0])
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def shake() -> None:
            while True:
                try:
                    line, _ = listening.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(line, server_side=True).close()
                except OSError:
                    line.close()

        threading.Thread(target=shake, daemon=True).start()
        (fault, *_) = faults(world, f"https://127.0.0.1:{listening.getsockname()[1]}{PATH}")
    assert ": TLS: " in fault.detail
    assert "certificate of a public authority" in fault.cure
