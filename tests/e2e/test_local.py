"""`lifecycle status`, `logs`, `restart` and `down` beside a running `lifecycle up`."""

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from services.cli.exits import Exit
from tests.e2e import outsider
from tests.e2e.outsider import Up
from tests.support.eventually import eventually
from tests.support.programs import need
from tests.support.terminal import COLUMNS, on_terminal
from tests.unit.test_cli_commands import lifecycle

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.timeout(400)]

_PROCESSES = {"kafka", "postgres", "simulator", "ingress", "ledger", "provisioner", "reconciler"}


@pytest.fixture(scope="module")
def running() -> Iterator[Up]:
    with outsider.folder() as state_dir, outsider.up(state_dir) as one:
        yield one


def test_status_lists_every_process_as_ready(running: Up) -> None:
    status, found = running.lifecycle("status")
    assert status == Exit.OK, found
    assert {one["service"]: (one["state"], one["pid"]) for one in found["processes"]} == {
        name: ("ready", pid) for name, pid in running.endpoints["pids"].items()
    }
    assert {one["service"] for one in found["processes"]} == _PROCESSES
    assert found["pid"] == running.process.pid
    assert all(Path(one["log"]).exists() and one["up_s"] >= 0 for one in found["processes"])


def test_an_install_is_measured_from_delivery_to_active_and_promtool_accepts_every_page(running: Up) -> None:
    org, integration = "6a3d2d2f-1e6b-4c1b-9b63-4d7c2a1a3a22", "8eae5b41-ab4f-4b46-8b9b-e1a5a4e3c222"
    assert running.lifecycle("send", "installed", "--org", org, "--integration", integration)[0] == Exit.OK
    wanted = {
        "ledger": "lifecycle_ledger_published_seconds_count 1.0",
        "provisioner": 'lifecycle_provisioner_converged_seconds_count{direction="up"} 1.0',
        "reconciler": 'lifecycle_reconciler_tenants{reason="",stage="active"} 1.0',
    }
    for service, sample in wanted.items():
        eventually(partial(shows, running, service, sample), 90)
    assert "lifecycle_provisioner_first_call_seconds_count 1.0" in exposition(running, "provisioner")
    assert 'lifecycle_provisioner_circuits_open{step="crm"} 0.0' in exposition(running, "provisioner")
    pages = {service: exposition(running, service) for service in running.endpoints["metrics"]}
    assert pages.keys() >= {"simulator", "ingress", "ledger", "provisioner", "reconciler"}
    for service, page in pages.items():
        assert f'service="{service}"' in page
        assert "process_start_time_seconds" in page
    need("promtool")
    judged = {
        service: subprocess.run(
            ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False, timeout=30
        )
        for service, page in pages.items()
    }
    assert {name: (done.returncode, done.stderr) for name, done in judged.items()} == dict.fromkeys(judged, (0, ""))


def shows(running: Up, service: str, sample: str) -> bool:
    """True if a service's page has this line."""
    return sample in exposition(running, service).splitlines()


def exposition(running: Up, service: str) -> str:
    """The page of a service's metrics."""
    with urllib.request.urlopen(running.endpoints["metrics"][service], timeout=5) as answer:
        page: str = answer.read().decode()
        return page


@pytest.mark.parametrize("service", ["ledger", pytest.param("ingress", marks=pytest.mark.long), "postgres"])
def test_a_restarted_service_is_ready_on_its_port_and_the_endpoints_file_stays(running: Up, service: str) -> None:
    before = running.endpoints
    seen: list[bool] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            seen.append(running.file.exists())

    watcher = threading.Thread(target=watch)
    watcher.start()
    status, told = running.lifecycle("restart", service)
    over.set()
    watcher.join()
    assert status == Exit.OK, told
    assert seen
    assert all(seen)
    eventually(lambda: running.endpoints["pids"][service] == told["pid"])
    now = running.endpoints
    assert told["before"] == before["pids"][service] != told["pid"]
    assert {name: value for name, value in now.items() if name != "pids"} == {
        name: value for name, value in before.items() if name != "pids"
    }
    assert not outsider.is_running(told["before"])


@pytest.mark.long
def test_a_paused_process_is_not_ready_and_a_restart_kills_it(running: Up) -> None:
    before = running.endpoints["pids"]["reconciler"]
    os.kill(before, signal.SIGSTOP)
    status, found = running.lifecycle("status")
    assert status == Exit.DEVIATION
    assert {one["state"] for one in found["processes"] if one["service"] == "reconciler"} == {"not ready"}
    status, told = running.lifecycle("restart", "reconciler")
    assert (status, told["before"]) == (Exit.OK, before)
    assert running.lifecycle("status")[0] == Exit.OK


def test_the_process_that_takes_webhooks_holds_no_secret_of_the_provisioner(running: Up) -> None:
    given = {name: _environment(running.endpoints["pids"][name]) for name in ("ingress", "provisioner", "ledger")}
    secrets = ("DATABASE_URL", "TENANT_DATABASE_URL", "OAUTH_CLIENT_SECRET")
    assert all(given["provisioner"][name] for name in secrets)
    for service in ("ingress", "ledger"):
        assert "KAFKA_BOOTSTRAP_SERVERS" in given[service]
        assert [name for name in secrets if name in given[service]] == []
        values = "\n".join(given[service].values())
        assert all(given["provisioner"][name] not in values for name in secrets)


def _environment(pid: int) -> dict[str, str]:
    texts = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").rstrip("\0").split("\0")
    return dict(text.split("=", 1) for text in texts)


def test_logs_show_the_end_of_a_log_and_follow_it(running: Up) -> None:
    path = running.state_dir / "logs" / "ledger.log"
    done = lifecycle("logs", "ledger", "-n", "2", "--state-dir", str(running.state_dir), cwd=running.state_dir)
    assert (done.returncode, done.stdout.splitlines()) == (Exit.OK, path.read_text().splitlines()[-2:])
    argv = [sys.executable, "-m", "services.cli.main", "logs", "ledger", "-f", "-n", "0"]
    follower = subprocess.Popen(
        [*argv, "--state-dir", str(running.state_dir)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert follower.stdout is not None
    line = '{"at": "2026-01-01T00:00:00.000000Z", "event": "a line of this test"}'
    written = threading.Event()

    def write() -> None:
        while not written.wait(0.2):  # until the follower stands at the end of the file
            with path.open("a", encoding="utf-8") as log:
                log.write(line + "\n")

    writer = threading.Thread(target=write)
    writer.start()
    assert follower.stdout.readline().rstrip() == line
    written.set()
    writer.join()
    follower.send_signal(signal.SIGINT)
    assert follower.wait(30) == Exit.INTERRUPTED
    follower.stdout.close()
    assert follower.stderr is not None
    follower.stderr.close()


def test_on_a_terminal_every_line_fits_and_log_lines_are_sentences(running: Up) -> None:
    # Who worked with what was restarted above may still be on its way back.
    eventually(lambda: running.lifecycle("status")[0] == Exit.OK)
    status, said = on_terminal("status", "--state-dir", str(running.state_dir), cwd=running.state_dir)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said)
    assert status == Exit.OK, plain
    assert all(len(line) <= COLUMNS for line in plain.splitlines()[1:])
    words = ("logs", "provisioner", "-n", "5", "--state-dir", str(running.state_dir))
    said = on_terminal(*words, cwd=running.state_dir, NO_COLOR="1")[1]
    assert '{"' not in said
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} (info|warning|error) ", said, re.MULTILINE), said


@pytest.mark.parametrize("command", ["restart", "logs"])
def test_an_unknown_service_name_is_refused_with_the_nearest(running: Up, command: str) -> None:
    done = lifecycle(command, "ledgr", "--state-dir", str(running.state_dir), cwd=running.state_dir)
    assert done.returncode == Exit.UNUSABLE
    assert "SERVICE: 'ledgr'" in done.stderr
    assert "the nearest: ledger" in done.stderr


@pytest.mark.long
def test_every_command_finds_a_tenant_by_name_organisation_or_short_key(running: Up) -> None:
    org, integration = "5f2c1c1e-0d5a-4b0a-8a52-3c6b1f0f2f11", "7d9f4a30-9a3e-4a35-9a8a-d0f4f3d2b111"
    sent = running.lifecycle("send", "installed", "--org", org, "--integration", integration, "--tenant", "acme_north")
    assert sent[0] == Exit.OK

    def active() -> bool:
        return bool(running.lifecycle("tenants", "list", "--stage", "active", "--org", org[:8])[1])

    eventually(active, 90)
    for name in ("acme_north", "acme_n", org, integration, "5f2c1c1e:7d9f4a30", f"{org}:{integration}".upper()):
        for words in (("tenants", "show"), ("sagas", "show")):
            status, told = running.lifecycle(*words, name)
            assert (status, told["key"]) == (Exit.OK, f"{org}:{integration}"), (words, name)
    assert running.lifecycle("tenants", "timeline", "acme_north")[1][0]["what"] == "event"
    assert running.lifecycle("sagas", "retry", "acme_north")[1] == [
        {"key": f"{org}:{integration}", "result": "nothing to try again"}
    ]
    status, told = running.lifecycle("sagas", "retry", f"{org}:{org}")
    assert (status, told[0]["result"]) == (Exit.NOT_FOUND, "no such saga")
    status, told = running.lifecycle("reconcile", "--now", "acme_north")
    assert (status, told["read"]) == (Exit.OK, [org])


def test_down_waits_until_every_process_has_ended_and_keeps_the_logs() -> None:
    with outsider.folder() as state_dir, outsider.up(state_dir) as running:
        pids = running.endpoints["pids"]
        status, told = running.lifecycle("down")
        assert (status, set(told["stopped"])) == (Exit.OK, {"up", *_PROCESSES})
        assert not any(map(outsider.is_running, pids.values()))
        assert running.process.wait(10) == 0
        assert not running.file.exists()
        again = lifecycle("down", "--state-dir", str(state_dir), cwd=state_dir)
        assert (again.returncode, again.stdout) == (Exit.OK, f"nothing runs in {state_dir}\n")
        for words in (("status",), ("restart", "ledger")):
            done = lifecycle(*words, "--state-dir", str(state_dir), cwd=state_dir)
            assert done.returncode == Exit.UNREACHABLE
            assert "nothing runs" in done.stderr
            assert "lifecycle up" in done.stderr
        assert lifecycle("logs", "ledger", "--state-dir", str(state_dir), cwd=state_dir).returncode == Exit.OK


@pytest.mark.long
def test_up_reports_progress_on_a_terminal_and_can_be_stopped_while_starting() -> None:
    with outsider.folder() as state_dir:
        asked: list[subprocess.CompletedProcess[str]] = []

        def stop() -> None:
            eventually((state_dir / "processes.json").exists, 60)
            words = ("down", "--timeout", "5m", "--state-dir", str(state_dir))
            argv = [sys.executable, "-m", "services.cli.main", *words]
            asked.append(subprocess.run(argv, capture_output=True, text=True, timeout=320, check=False))

        stopper = threading.Thread(target=stop)
        stopper.start()
        status, said = on_terminal("up", "--state-dir", str(state_dir), cwd=state_dir)
        stopper.join()
        assert status == Exit.OK, said
        assert "starting Kafka and PostgreSQL" in said
        assert asked[0].returncode == Exit.OK, asked[0].stderr
        assert not (state_dir / "processes.json").exists()
