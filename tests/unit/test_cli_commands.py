"""Exit status and messages of `lifecycle` without an engine: one number, one meaning, never a traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import httpx2
import pytest

from services.adapters.genesys.client import connections
from services.adapters.process.environment import read
from services.adapters.process.settings import SECTIONS, Settings, readers
from services.cli.demo.demo import isolated_environment
from services.cli.exits import Exit
from services.cli.local.wiring import (
    OUTSIDE,
    SERVICES,
    Addresses,
    Folders,
    LocalPorts,
    endpoints,
    environment,
    own,
    shared,
    with_port,
)
from services.cli.main import main

SECRETS = {
    "DATABASE_URL",
    "DATABASE_PASSWORD",
    "TENANT_DATABASE_URL",
    "TENANT_DATABASE_PASSWORD",
    "OAUTH_CLIENT_SECRET",
}
_NOWHERE = "127.0.0.1:1"
_AT = ("--url", f"http://{_NOWHERE}/v1/genesys/lifecycle")


def lifecycle(*words: str, cwd: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    clean = {"PATH": os.environ["PATH"], "HOME": str(cwd), **environ}
    argv = [sys.executable, "-m", "services.cli.main", *words]
    return subprocess.run(argv, env=clean, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


class CommandLine(Protocol):
    """Runs the program's own `main` in this process, from its command line to its exit status."""

    def __call__(self, *words: str, cwd: Path, **environ: str) -> "subprocess.CompletedProcess[str]": ...


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """For the tests with many command lines: a process of Python for each would take a minute."""

    def ran(*words: str, cwd: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
        with monkeypatch.context() as patch:
            for name in set(os.environ) - {"PATH"}:
                patch.delenv(name)
            for name, value in {"HOME": str(cwd), **environ}.items():
                patch.setenv(name, value)
            patch.chdir(cwd)
            patch.setattr(sys, "argv", ["lifecycle", *words])
            with pytest.raises(SystemExit) as ended:
                main()
        return subprocess.CompletedProcess(words, int(ended.value.code or 0), *capsys.readouterr())

    return ran


@pytest.mark.parametrize("command", [("up",), ("provisioner",), ("sagas", "list")])
def test_a_database_url_with_an_unescaped_password_is_refused(command: tuple[str, ...], tmp_path: Path) -> None:
    environ = {"KAFKA_BOOTSTRAP_SERVERS": _NOWHERE, "DATABASE_URL": "postgresql://u:canary@1@db/d"}
    done = lifecycle(*command, cwd=tmp_path, **environ)
    assert done.returncode == Exit.UNUSABLE
    assert done.stderr.startswith("lifecycle: DATABASE_URL: an @, a / or a ? stands in its user or password; ")
    assert "canary" not in done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_with_a_bad_environment_reports_every_fault_and_ends_with_2(service: str, tmp_path: Path) -> None:
    faults = {"PORT": "here", "METRICS_PORT": "99999", "TOPIC_PARTITIONS": "0", "LOG_LEVEL": "loud"}
    done = lifecycle(service, cwd=tmp_path, **faults)
    assert done.returncode == Exit.UNUSABLE
    assert {line.split(":")[1].strip() for line in done.stderr.splitlines()} == {
        name for name in faults if service in readers(name.lower())
    }


def test_a_command_without_kafka_settings_names_the_remedy(tmp_path: Path) -> None:
    done = lifecycle("tenants", "list", cwd=tmp_path)
    assert done.returncode == Exit.UNUSABLE
    assert "KAFKA_BOOTSTRAP_SERVERS" in done.stderr
    assert "lifecycle up" in done.stderr


def test_an_unreachable_kafka_is_reported_once_with_status_3(tmp_path: Path) -> None:
    done = lifecycle("topics", "plan", cwd=tmp_path, KAFKA_BOOTSTRAP_SERVERS=_NOWHERE)
    assert done.returncode == Exit.UNREACHABLE
    assert len(done.stderr.splitlines()) == 1
    assert f"{_NOWHERE} (KAFKA_BOOTSTRAP_SERVERS)" in done.stderr


def test_rights_are_printed_without_a_connection(tmp_path: Path) -> None:
    done = lifecycle("topics", "acls", "--json", cwd=tmp_path, TOPIC_PREFIX="acme-")
    assert done.returncode == Exit.OK, done.stderr
    named = {right["name"] for one in json.loads(done.stdout) for right in one["rights"]}
    assert all(name.startswith("acme-lifecycle") for name in named)
    users = lifecycle("topics", "acls", "--format", "strimzi", "--cluster", "main", cwd=tmp_path)
    assert users.stdout.count('strimzi.io/cluster: "main"\n') == users.stdout.count("kind: KafkaUser\n") == 6


def test_rights_of_an_unknown_service_are_refused(tmp_path: Path) -> None:
    done = lifecycle("topics", "acls", "--principal", "ledgre=me", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (Exit.UNUSABLE, "")
    assert "no service 'ledgre'; there are ingress, hints, ledger" in done.stderr


@pytest.mark.parametrize("words", [("--version",), ("version",)], ids=" ".join)
def test_the_version_is_printed_by_option_and_command(words: tuple[str, ...], tmp_path: Path) -> None:
    done = lifecycle(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (Exit.OK, version("genesys-lifecycle") + "\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a FILE of tenants to adopt, or say --release KEY; one of both"),
        (("f", "--release", "x"), "name a FILE of tenants to adopt, or say --release KEY; one of both"),
        (("--release", "x", "--dry-run"), "--dry-run: goes with a FILE"),
        (("--release", "x", "--as-of", "now"), "--as-of: goes with a FILE"),
        (
            ("f", "--differing", "kep"),
            "--differing: 'kep' is no choice; the nearest: keep; there are leave, keep, update",
        ),
        (("f", "--as-of", "yesterday"), "--as-of: 'yesterday' is no RFC 3339 date-time with an offset"),
        (("f", "--as-of", "2999-01-01T00:00:00Z"), "--as-of: 2999-01-01T00:00:00Z is still to come"),
        (("f",), "--by: say who rules, by --by or LIFECYCLE_OPERATOR; the audit trail keeps the name"),
        (("f", "--by", "YOU"), "--by: say who rules, by --by or LIFECYCLE_OPERATOR; the audit trail keeps the name"),
        (("absent", "--by", "Ada"), "absent: No such file or directory"),
    ],
)
def test_an_adoption_without_a_clear_wish_is_refused_before_anything_is_asked(
    program: CommandLine, words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / "f").touch()
    done = program("adopt", *words, cwd=tmp_path, KAFKA_BOOTSTRAP_SERVERS=_NOWHERE)
    assert (done.returncode, done.stderr) == (Exit.UNUSABLE, f"lifecycle: {said}\n")


def test_an_unreachable_ingress_ends_send_with_3(tmp_path: Path) -> None:
    lifecycle("keyring", "init", "keyring.json", cwd=tmp_path)
    words = ("send", "installed", "--url", f"http://{_NOWHERE}/v1/genesys/lifecycle")
    assert lifecycle(*words, cwd=tmp_path, KEYRING_FILE="keyring.json").returncode == Exit.UNREACHABLE


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--org", "nope"),
        ("--integration", "{}"),
        ("--tenant", "../x"),
        ("--url", "nonsense"),
        ("--url", "ftp://localhost/v1"),
        ("--url", "http://[::1/v1"),
        ("--url", "http://localhost:port/v1"),
    ],
)
def test_an_unusable_option_of_send_is_named(option: str, value: str, tmp_path: Path, program: CommandLine) -> None:
    program("keyring", "init", "keyring.json", cwd=tmp_path)
    words = ("send", "installed", "--url", f"http://{_NOWHERE}/v1/genesys/lifecycle", option, value)
    done = program(*words, cwd=tmp_path, KEYRING_FILE="keyring.json")
    assert done.returncode == Exit.UNUSABLE
    assert done.stderr.startswith(f"lifecycle: {option}: ")
    assert len(done.stderr.splitlines()) == 1


@contextmanager
def answering_404() -> Iterator[str]:
    """The URL of a server on this machine that knows nothing."""

    class Nothing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            return

        def do_GET(self) -> None:
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Nothing) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_webhook_to_this_machine_bypasses_the_proxy(tmp_path: Path) -> None:
    lifecycle("keyring", "init", "keyring.json", cwd=tmp_path)
    with answering_404() as url:
        proxied = {"HTTP_PROXY": f"http://{_NOWHERE}", "KEYRING_FILE": "keyring.json"}
        assert lifecycle("send", "installed", "--url", url, cwd=tmp_path, **proxied).returncode == Exit.REFUSED


async def test_a_local_genesys_bypasses_the_proxy_and_the_real_genesys_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://{_NOWHERE}")
    with answering_404() as url:
        async with connections() as client:
            assert (await client.get(url)).status_code == 404
            with pytest.raises(httpx2.ConnectError):
                await client.get("https://api.mypurecloud.invalid")


def test_a_keyring_is_made_private_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "keyring.json"
    assert lifecycle("keyring", "init", str(path), cwd=tmp_path).returncode == Exit.OK
    made = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert lifecycle("keyring", "init", str(path), cwd=tmp_path).returncode == Exit.UNUSABLE
    assert path.read_text() == made


def test_doctor_names_missing_settings_and_their_cures(tmp_path: Path) -> None:
    done = lifecycle("doctor", "--json", cwd=tmp_path)
    assert done.returncode == Exit.DEVIATION
    faults = {one["what"]: one for one in json.loads(done.stdout) if one["health"] == "fault"}
    assert set(faults) == {"keyring", "kafka", "plan", "postgresql"}
    assert all(one["cure"] for one in faults.values())


def test_an_unusable_setting_hides_no_other_finding(tmp_path: Path) -> None:
    def names(**environ: str) -> set[str]:
        return {one["what"] for one in json.loads(lifecycle("doctor", "--json", cwd=tmp_path, **environ).stdout)}

    assert names(PORT="here", KAFKA_CONFIG="{") == names()


def test_doctor_lists_every_setting_with_its_reason(tmp_path: Path) -> None:
    listed = json.loads(lifecycle("doctor", "--settings", "--json", cwd=tmp_path).stdout)
    assert all(one["name"].isupper() and one["meaning"] for one in listed)
    readers_of = {one["name"]: one["services"] for one in listed}
    assert readers_of["DATABASE_URL"] == ["provisioner", "simulator"]
    assert readers_of["ACK_TIMEOUT_S"] == ["ingress"]
    assert readers_of["LOG_LEVEL"] == list(SECTIONS)
    assert readers_of["SERVICE_URLS"] == []
    assert len(readers_of) == len(listed) == len(Settings.model_fields)


def test_the_settings_of_a_service_stand_together_under_its_name(tmp_path: Path) -> None:
    tables = lifecycle("doctor", "--settings", cwd=tmp_path).stdout.strip().split("\n\n")
    titles = [table.splitlines()[0].strip() for table in tables]
    assert (titles[0], titles[-1]) == ("Read by every service", "Read by the operators' commands alone")
    assert len(titles) == len(set(titles))
    for service, name in (("ingress", "DRAIN_S"), ("ledger", "STANDBY_REPLICAS"), ("provisioner", "ARCHIVE_URL")):
        (table,) = (table for table in tables if f"\n{name} " in table)
        assert table.startswith(f"Read by {service}")


@pytest.mark.parametrize(
    "words", [("send", "gone"), ("demo", "--story", "z"), ("reconcile",)], ids=["event", "story", "when"]
)
def test_unusable_arguments_end_with_2(words: tuple[str, ...], tmp_path: Path) -> None:
    done = lifecycle(*words, cwd=tmp_path)
    assert done.returncode == Exit.UNUSABLE
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("tenants", "list"), ("tenants", "show", "a"), ("tenants", "timeline", "a"), ("sagas", "list"),
        ("sagas", "show", "a"), ("sagas", "retry", "a"), ("reconcile", "--now"), ("topics", "plan"),
        ("topics", "apply"), ("keyring", "list"), ("keyring", "add", "a"), ("keyring", "rotate", "a"),
        ("keyring", "remove", "a"),        ("keyring", "rotate-material", "seal"), ("doctor",), ("send", "installed"),
        ("orgs", "list"), ("orgs", "check"), ("orgs", "add", "a"), ("orgs", "remove", "a"),
        ("webhook", "plan"), ("webhook", "apply"), ("webhook", "verify"), ("plan", "check"),
        ("plan", "show", "--for", "a"), ("plan", "show", "--configuration", "a"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_missing_state_folder_is_refused_by_every_command(
    words: tuple[str, ...], tmp_path: Path, program: CommandLine
) -> None:
    environ = {"KAFKA_BOOTSTRAP_SERVERS": _NOWHERE, "KEYRING_FILE": "keyring.json"}
    done = program(*words, "--state-dir", "nope", cwd=tmp_path, **environ)
    assert done.returncode == Exit.UNUSABLE
    assert done.stderr.startswith("lifecycle: --state-dir: nope: no such folder"), done.stderr
    assert done.stdout == ""


_THERE = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:2",
    "TOPIC_PREFIX": "there-",
    "DATABASE_URL": "postgresql://u:canary@there/x",
    "TENANT_DATABASE_URL": "postgresql://u:canary@there/y",
    "KEYRING_FILE": "there.json",
}


@pytest.mark.parametrize("words", [("tenants", "list"), ("sagas", "list"), ("doctor",)], ids=" ".join)
@pytest.mark.parametrize("name", [*_THERE, "keyring_file"])
def test_a_state_folder_contradicted_by_the_environment_is_refused(
    name: str, words: tuple[str, ...], tmp_path: Path, program: CommandLine
) -> None:
    (tmp_path / "environment.json").write_text(json.dumps(_THERE))
    done = program(*words, "--state-dir", ".", cwd=tmp_path, **{name: "postgresql://u:canary@here/z"})
    assert done.returncode == Exit.UNUSABLE
    assert f"{name.upper()} of the environment is not that of the `up` there" in done.stderr
    assert "canary" not in done.stderr


@pytest.mark.parametrize(
    "words", [("rotate", "default"), ("add", "acme"), ("remove", "default", "--yes")], ids=" ".join
)
def test_the_keyring_of_another_installation_is_not_changed_for_a_state_folder(
    words: tuple[str, ...], tmp_path: Path, program: CommandLine
) -> None:
    for name in ("production.json", "there.json"):
        program("keyring", "init", name, cwd=tmp_path)
    (tmp_path / "environment.json").write_text(json.dumps(_THERE))
    before = [(tmp_path / name).read_bytes() for name in ("production.json", "there.json")]
    done = program("keyring", *words, "--state-dir", ".", cwd=tmp_path, KEYRING_FILE="production.json")
    assert done.returncode == Exit.UNUSABLE
    assert [(tmp_path / name).read_bytes() for name in ("production.json", "there.json")] == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("demo", "--story", "z"), "--story: no story z; there are a, b"),
        (("send", "instaled"), "EVENT: 'instaled' is no event; the nearest: installed, uninstalled"),
        (("send", "installed", "--endpoint", "defualt", *_AT), "the nearest: default; it has default"),
        (("send", "installed", "--endpoints-file", "nope"), "--endpoints-file: nope: no such file"),
        (("send", "installed", "--endpoints-file", "a", "--state-dir", "b"), "--endpoints-file says already where"),
        (("send", "installed", "--configuration", "[]", *_AT), "--configuration: must be a JSON object"),
        (("sagas", "list", "--state", "faild"), "is not one of 'failed'"),
        (("sagas", "list", "--limit", "0"), "--limit"),
        (("sagas", "retry"), "name the keys, or say --failed"),
        (("sagas", "retry", "a", "--failed"), "name the keys, or say --failed"),
        (("reconcile", "--now", "a", "--org", "b"), "--org: KEY names the tenants already"),
        (("reconcile",), "--report, --refuse or --remove-orphans"),
        (("reconcile", "--now", "--report"), "--report: --now says already what to do; say only one"),
        (("reconcile", "--now", "--outside"), "--outside: goes with --report"),
        (("reconcile", "--now", "--by", "Ada"), "--by: goes with --approve, --refuse or --remove-orphans"),
        (("reconcile", "--report", "--approve", "x"), "--approve: a --report changes nobody; say --now --approve"),
        (("replay", "nope.jsonl"), "nope.jsonl: No such file or directory"),
        (("keyring", "list", "a.json", "--state-dir", "b"), "--state-dir: the FILE is named already"),
        (("keyring", "rotate-material", "seel"), "is not one of 'audit', 'seal', 'outputs'"),
        (("keyring", "rotate", "default", "--overlap", "soon"), "--overlap: 'soon' is neither 0"),
        (("orgs", "add", "acme"), "ORG: 'acme' is no organisation id, which is a UUID"),
        (("orgs", "add", "acme", "--clear", "name"), "--clear: goes with --replace"),
        (("webhook", "plan"), "--url: missing, and no `lifecycle up` runs here"),
        (("webhook", "plan", *_AT), "ORGS_DIR: orgs has no file of an organisation"),
        (("webhook", "apply", "--wait", "2h", *_AT), "--wait: '2h' is neither 0"),
        (("ledger", "--recover-only", "--republish"), "--republish: --recover-only ends before"),
        (("ledger", "--recover-only", "--accept-loss"), "--accept-loss: --recover-only ends before"),
        (("logs", "ledger", "--tail", "-1"), "--tail"),
        (("tenants", "list", "--stag", "active"), "--stage"),
    ],
    ids=lambda given: given if isinstance(given, str) else " ".join(given),
)  # fmt: skip
def test_an_empty_or_contradictory_option_is_refused(
    words: tuple[str, ...], said: str, tmp_path: Path, program: CommandLine
) -> None:
    program("keyring", "init", "keyring.json", cwd=tmp_path)
    done = program(*words, cwd=tmp_path, KEYRING_FILE="keyring.json", COLUMNS="400")
    assert done.returncode == Exit.UNUSABLE, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--url", "http://hooks.acme.example/v1/genesys/lifecycle"), "--url: must be an https URL"),
        (("--url", "https://u:canary@hooks.acme.example/v1"), "--url: must be an https URL"),
        (("--url", "https://[::1/v1"), "--url: is no URL"),
        ((*_AT, "--endpoint", "acme"), "--endpoint: 'acme', and the URL's path names 'default'"),
        ((*_AT, "--integration", "nope"), "--integration: 'nope' is no UUID"),
        ((*_AT, "--org", "98765433"), "--org: '98765433': no such organisation"),
        (_AT, "98765432-1234-5678-9abc-def012345678: its file names no integration_types"),
        ((*_AT, "--rotate-secret", "--overlap", "5m"), "--overlap: less than 25m"),
        ((*_AT, "--rotate-secret", "--no-probe"), "--no-probe: "),
    ],
    ids=lambda given: given if isinstance(given, str) else " ".join(given),
)
def test_an_unusable_option_of_a_registration_is_named(
    words: tuple[str, ...], said: str, tmp_path: Path, program: CommandLine
) -> None:
    program("keyring", "init", "keyring.json", cwd=tmp_path)
    org = "98765432-1234-5678-9abc-def012345678"
    (tmp_path / "orgs").mkdir()
    (tmp_path / "orgs" / f"{org}.json").write_text(json.dumps({"org_id": org, "client_id": "c", "client_secret": "s"}))
    done = program("webhook", "apply", "--yes", *words, cwd=tmp_path, KEYRING_FILE="keyring.json", COLUMNS="400")
    assert done.returncode == Exit.UNUSABLE
    assert done.stderr.startswith(f"lifecycle: {said}")
    assert "canary" not in done.stderr


@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/1/nowhere"])
def test_an_impossible_state_folder_is_refused(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = lifecycle("up", "--state-dir", folder, cwd=tmp_path)
    assert done.returncode == Exit.UNUSABLE
    assert done.stderr.startswith("lifecycle: --state-dir: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "why"),
    [("/proc/1/nowhere/e.json", ""), ("folder", "is a folder"), ("kept/below", "its folder cannot be made")],
)
def test_an_unwritable_endpoints_file_is_refused_before_up_starts(file: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "kept").touch()
    done = lifecycle("up", "--endpoints-file", file, cwd=tmp_path)
    assert done.returncode == Exit.UNUSABLE
    assert done.stderr.startswith("lifecycle: --endpoints-file: ")
    assert why in done.stderr
    assert not (tmp_path / ".lifecycle").exists()


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A state folder whose `up` was killed: the files say that it is ready, and none of its processes runs."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    endpoints = {
        "kafka": _NOWHERE,
        "ingress": f"http://{_NOWHERE}",
        "keyring": "keyring.json",
        "pids": {"ledger": ended.pid},
    }
    (tmp_path / "endpoints.json").write_text(json.dumps(endpoints))
    (tmp_path / "environment.json").write_text(json.dumps({"KAFKA_BOOTSTRAP_SERVERS": _NOWHERE}))
    return tmp_path


@pytest.mark.parametrize("words", [("tenants", "list"), ("send", "installed")], ids=" ".join)
def test_a_command_reports_that_its_up_was_killed(words: tuple[str, ...], killed: Path) -> None:
    done = lifecycle(*words, "--state-dir", ".", cwd=killed)
    assert done.returncode == Exit.UNREACHABLE
    assert "none of its processes runs" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_doctor_reports_a_killed_up_and_runs_the_other_checks(killed: Path) -> None:
    done = lifecycle("doctor", "--json", "--state-dir", ".", cwd=killed)
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert (done.returncode, done.stderr) == (Exit.DEVIATION, "")
    assert found["up"]["health"] == "fault"
    assert "none of its processes runs" in found["up"]["detail"]
    assert {"python", "keyring", "kafka", "postgresql", "services"} <= found.keys()


def test_files_of_a_killed_up_are_removed_before_the_next_engines_start(killed: Path) -> None:
    assert lifecycle("up", "--state-dir", ".", cwd=killed, LIFECYCLE_ENGINES="nonsense").returncode != Exit.OK
    assert not (killed / "endpoints.json").exists()
    assert not (killed / "environment.json").exists()


def test_help_names_every_exit_status(tmp_path: Path) -> None:
    told = " ".join(lifecycle("--help", cwd=tmp_path, COLUMNS="200").stdout.split())
    assert all(f"{status.value} " in told for status in Exit)


class TestTheEnvironmentOfALocalInstallation:
    ports = LocalPorts(simulator=1, simulator_database=2, ingress=3, ledger=4, provisioner=5, reconciler=6)
    engines = Addresses("127.0.0.1:9092", "postgresql://lifecycle:s%40cret@127.0.0.1:5432/lifecycle")

    def made(self, tmp_path: Path, **environ: str) -> dict[str, str]:
        return shared(environ, Folders(tmp_path), self.ports, self.engines, "client-secret")

    def test_the_tenants_database_is_reached_through_the_proxy_of_the_simulator(self, tmp_path: Path) -> None:
        assert self.made(tmp_path)["TENANT_DATABASE_URL"] == "postgresql://lifecycle:s%40cret@127.0.0.1:2/lifecycle"

    def test_variables_of_the_operator_are_kept_unless_up_must_set_them(self, tmp_path: Path) -> None:
        made = self.made(tmp_path, TOPIC_PREFIX="x-", RECONCILE_SECOND_LOOK_S="2", HOST="0.0.0.0", HOME="/home")
        assert (made["TOPIC_PREFIX"], made["RECONCILE_SECOND_LOOK_S"], made["HOST"]) == ("x-", "2", "127.0.0.1")
        assert "HOME" not in made

    @pytest.mark.parametrize("name", sorted(OUTSIDE))
    def test_an_outside_system_of_the_operator_replaces_the_simulator(self, name: str, tmp_path: Path) -> None:
        assert self.made(tmp_path)[name]
        assert self.made(tmp_path, **{name: "theirs"})[name] == "theirs"
        assert name not in isolated_environment({name: "theirs"}), "the demo touches nothing of the operator's"

    def test_the_operators_proxy_is_not_used_for_this_machine(self, tmp_path: Path) -> None:
        ours = "127.0.0.1,localhost"
        assert [self.made(tmp_path)[name] for name in ("NO_PROXY", "no_proxy")] == [ours, ours]
        assert self.made(tmp_path, NO_PROXY="a", no_proxy="corp")["NO_PROXY"] == f"corp,{ours}"

    def test_every_service_has_a_port_and_a_folder_of_its_own(self, tmp_path: Path) -> None:
        made = [own(service, Folders(tmp_path), self.ports) for service in SERVICES]
        assert len({one["STATE_DIR"] for one in made}) == len(SERVICES)
        assert len({one.get("PORT") or one["METRICS_PORT"] for one in made}) == len(SERVICES)

    def given(self, service: str, tmp_path: Path, **environ: str) -> dict[str, str]:
        return environment(service, environ, self.made(tmp_path, **environ), Folders(tmp_path), self.ports)

    @pytest.mark.parametrize("service", SERVICES)
    def test_a_service_is_given_the_settings_of_its_own_section_and_can_read_them(
        self, service: str, tmp_path: Path
    ) -> None:
        names = {name.upper(): "1" for name in Settings.model_fields}
        given = self.given(service, tmp_path, **names)
        settings = {name for name in given if name.lower() in Settings.model_fields}
        assert settings == {name.upper() for name in SECTIONS[service].model_fields}
        assert read(self.given(service, tmp_path), SECTIONS[service]).host == "127.0.0.1"

    def test_the_ingress_is_given_no_secret_of_a_database_a_system_or_a_cloud(self, tmp_path: Path) -> None:
        cloud = {"AWS_SECRET_ACCESS_KEY": "canary", "PGPASSWORD": "canary", "CRM_SECRET": "canary", "TOKEN": "canary"}
        lower = {name.lower(): "canary" for name in SECRETS}
        environ = {**dict.fromkeys(SECRETS, "canary"), **cloud, **lower}
        for service in ("ingress", "ledger", "reconciler"):
            given = self.given(service, tmp_path, **environ)
            shown = "\n".join(given.values())
            assert [text for text in ("canary", "s%40cret", "client-secret") if text in shown] == [], service
            assert not SECRETS & {name.upper() for name in given}
        given = self.given("provisioner", tmp_path, **environ)
        assert SECRETS | {"AWS_SECRET_ACCESS_KEY", "PGPASSWORD"} <= given.keys()
        assert not {"CRM_SECRET", "TOKEN"} & given.keys()

    def test_every_service_is_given_what_a_program_on_this_machine_needs(self, tmp_path: Path) -> None:
        names = "PATH HOME TMPDIR LANG LC_ALL TZ PYTHONPATH HTTPS_PROXY https_proxy SSL_CERT_FILE SSL_CERT_DIR"
        machine = dict.fromkeys([*names.split(), "XDG_CACHE_HOME", "LD_LIBRARY_PATH", "LIFECYCLE_QUICK"], "x")
        for service in SERVICES:
            assert machine.items() <= self.given(service, tmp_path, **machine).items()

    def test_the_endpoints_file_has_the_keys_of_the_contract(self, tmp_path: Path) -> None:
        found: dict[str, Any] = endpoints(Folders(tmp_path), self.ports, self.engines, {"ledger": 7})
        assert set(found) == {"kafka", "ingress", "console", "database", "simulator", "keyring", "metrics", "pids"}
        assert found["ingress"] == "http://127.0.0.1:3"
        assert found["metrics"]["ledger"] == "http://127.0.0.1:4/metrics"


@pytest.mark.parametrize(
    ("url", "moved"),
    [
        ("postgresql://u:p@host:1/db?sslmode=disable", "postgresql://u:p@127.0.0.1:9/db?sslmode=disable"),
        ("postgresql://host/db", "postgresql://127.0.0.1:9/db"),
        ("postgresql://u@[::1]:1/db", "postgresql://u@127.0.0.1:9/db"),
    ],
    ids=["query", "bare", "ipv6"],
)
def test_a_url_is_moved_to_another_port_unchanged_otherwise(url: str, moved: str) -> None:
    assert with_port(url, "127.0.0.1", 9) == moved


@pytest.mark.parametrize("service", ["ingress", "ledger", "provisioner", "reconciler"])
def test_kafka_settings_that_break_the_consumers_are_refused_at_start(service: str, tmp_path: Path) -> None:
    odd = {"partition.assignment.strategy": "cooperative-sticky", "group.protocol": "consumer", "isolation.level": "x"}
    done = lifecycle(service, cwd=tmp_path, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9", KAFKA_CONFIG=json.dumps(odd))
    assert done.returncode == 2
    assert [line.split(": ")[:3] for line in done.stderr.splitlines()] == [
        ["lifecycle", "KAFKA_CONFIG", name] for name in sorted(odd)
    ]


@pytest.mark.parametrize("text", ["{", "[1]", '{"A": 1}', '"x"'])
def test_a_damaged_environment_file_of_up_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text(text)
    done = lifecycle("tenants", "list", "--state-dir", ".", cwd=tmp_path)
    assert done.returncode == Exit.UNUSABLE
    assert done.stderr.startswith("lifecycle: environment.json: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_damaged_choices_file_is_named(tmp_path: Path) -> None:
    from services.cli.exits import CommandError
    from services.cli.local.stack import _first_start_choices

    for text in ("{", "{}", '{"ports": {"ingress": 1}}'):
        (tmp_path / "stack.json").write_text(text)
        with pytest.raises(CommandError, match=r"stack\.json") as failed:
            _first_start_choices(tmp_path / "stack.json")
        assert failed.value.status is Exit.UNUSABLE


def test_an_unwritable_folder_is_named_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    lifecycle("keyring", "init", "keyring.json", cwd=tmp_path)
    done = lifecycle("simulator", cwd=tmp_path, STATE_DIR="state", KEYRING_FILE="keyring.json")
    assert done.returncode == Exit.UNUSABLE
    assert done.stderr.splitlines()[-1].startswith("lifecycle: state")
    assert "Traceback" not in done.stderr


def test_an_unreachable_ingress_is_named_with_its_url(tmp_path: Path) -> None:
    lifecycle("keyring", "init", "keyring.json", cwd=tmp_path)
    url = f"http://{_NOWHERE}/v1/genesys/lifecycle"
    done = lifecycle("send", "installed", "--url", url, cwd=tmp_path, KEYRING_FILE="keyring.json")
    assert done.stderr.startswith(f"lifecycle: the ingress at {url}: ")
