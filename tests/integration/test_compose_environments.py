"""The environments of docker-compose.yml, run without containers, carry a tenant to `active` and are scraped.

Rule: nothing is set here that the compose file and the image do not set, but locations: folders, hosts and ports.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import psycopg
import pytest
from psycopg import sql

from services.cli.local.wiring import SERVICES
from services.engines import child_process
from services.engines.ports import HOST, free_ports
from tests.support import compose_file
from tests.support.eventually import eventually
from tests.support.programs import need

pytestmark = [pytest.mark.engines, pytest.mark.timeout(240)]

PASSWORD: Final = "p@ss/w:rd#1 %25'\"\\"
READY_S: Final = 90.0
JOURNEY_S: Final = 60.0
OBSERVERS: Final = {"prometheus": "prometheus:9090", "alertmanager": "alertmanager:9093"}
PROGRAMS: Final = {"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}
"""Service of the compose file to its program on Debian, which is the package's name too."""


@dataclass
class Composed:
    """The compose file's services as processes of this machine."""

    folder: Path
    locations: Mapping[str, str]
    ports: Mapping[str, int]
    prefix: str
    running: dict[str, child_process.Child] = field(default_factory=dict)

    def environment(self, service: str) -> dict[str, str]:
        given = compose_file.environment(service, {"POSTGRES_PASSWORD": PASSWORD})
        for there, here in self.locations.items():
            given = {name: text.replace(there, here) for name, text in given.items()}
        own = {
            "PATH": os.environ["PATH"],
            "TOPIC_PREFIX": self.prefix,
            "STATE_DIR": str(self.folder / f"state-{service}"),
        }
        if service in self.ports:
            own |= {"PORT": str(self.ports[service]), "METRICS_PORT": str(self.ports[service])}
        if service == "simulator":
            own["SIMULATOR_DATABASE_PORT"] = str(self.ports["database"])
        return given | own

    def start(self, service: str) -> None:
        argv = (sys.executable, "-m", "services.cli.main", *compose_file.services()[service]["command"])
        log = self.folder / f"{service}.log"
        self.running[service] = child_process.start(
            argv, env=self.environment(service), log_path=log, cwd=compose_file.TOP
        )

    def observe(self, service: str, addresses: Mapping[str, str]) -> None:
        """Starts Prometheus or Alertmanager by the command and the files of the compose file, at other addresses."""
        command = compose_file.file()["services"][service]["command"]
        for path, (source, writable) in compose_file.mounts(service).items():
            here = self.folder / service / path.lstrip("/")
            if writable:
                here.mkdir(parents=True)
            else:
                shutil.copytree(compose_file.TOP / source, here)
            command = [word.replace(f"={path}", f"={here}") for word in command]
        config = Path(command[0].removeprefix("--config.file="))
        text = config.read_text()
        for there, address in addresses.items():
            text = text.replace(there, address)
        config.write_text(text)
        argv = (PROGRAMS[service], *command, f"--web.listen-address={addresses[OBSERVERS[service]]}")
        log = self.folder / f"{service}.log"
        self.running[service] = child_process.start(argv, env={"PATH": os.environ["PATH"]}, log_path=log)

    def is_well(self, service: str) -> bool:
        """True if the health check of the container would say so."""
        assert self.running[service].poll() is None, child_process.last_lines(self.folder / f"{service}.log")
        page = compose_file.services()[service]["healthcheck"]["test"][-1]
        argv = (sys.executable, str(compose_file.TOP / "deploy" / "alive.py"), page)
        return subprocess.run(argv, env=self.environment(service), timeout=30, check=False).returncode == 0

    def run(self, service: str, *command: str) -> "subprocess.CompletedProcess[str]":
        """A command in a container of a service."""
        argv = (sys.executable, "-m", "services.cli.main", *command)
        env = self.environment(service)
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)

    def tenants(self) -> list[dict[str, Any]]:
        """The view, as the doctor's container reads it."""
        done = self.run("doctor", "tenants", "list", "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def set_up(self) -> None:
        """The work of the container `setup`, with our interpreter instead of the installed program."""
        given = compose_file.services()["setup"]
        program = f"{sys.executable} -m services.cli.main"
        script = given["command"][0].replace("lifecycle ", f"{program} ")
        argv = (*given["entrypoint"], script)
        subprocess.run(argv, env=self.environment("setup"), timeout=60, check=True, capture_output=True)


@pytest.fixture
def stack(kafka_bootstrap: str, topic_prefix: str, database_admin_url: str, tmp_path: Path) -> Iterator[Composed]:
    """Everything but the services themselves: ports, folders, and a database whose password is an odd one."""
    (tmp_path / "keyring").mkdir()
    numbers = free_ports(len(SERVICES) + 1)
    ports = dict(zip((*SERVICES, "database"), numbers, strict=True))
    name = f"composed_{secrets.token_hex(6)}"
    server = urlsplit(database_admin_url)
    urls = {
        f"http://{service}:{port}": f"http://{HOST}:{ports[service]}" for service in SERVICES for port in (8080, 9100)
    }
    locations = urls | {
        "/var/lib/lifecycle": str(tmp_path),
        "kafka:19092": kafka_bootstrap,
        "//lifecycle@postgres:5432/lifecycle": f"//{name}@{server.hostname}:{server.port}/{name}",
        "//lifecycle@simulator:5432/lifecycle": f"//{name}@{HOST}:{ports['database']}/{name}",
    }
    with psycopg.connect(database_admin_url, autocommit=True) as session, ExitStack() as after:
        role = sql.Identifier(name)
        session.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(role, PASSWORD))
        session.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
        after.callback(session.execute, sql.SQL("DROP ROLE {}").format(role))
        after.callback(session.execute, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(role))
        made = Composed(tmp_path, locations, ports, topic_prefix)
        try:
            yield made
        finally:
            for running in made.running.values():
                running.kill()


def test_a_tenant_becomes_active_in_the_environments_of_the_compose_file(stack: Composed) -> None:
    stack.set_up()
    for service in SERVICES:
        stack.start(service)
    for service in SERVICES:
        eventually(lambda service=service: stack.is_well(service), READY_S)  # type: ignore[misc]
    url = f"http://{HOST}:{stack.ports['ingress']}/v1/genesys/lifecycle/default"
    sent = stack.run("ingress", "send", "installed", "--url", url)
    assert sent.returncode == 0, sent.stderr
    eventually(lambda: [tenant["stage"] for tenant in stack.tenants()] == ["active"], JOURNEY_S)
    compared = stack.run("reconciler", "reconcile", "--now")
    assert compared.returncode == 0, compared.stderr
    examined = stack.run("doctor", "doctor")
    assert examined.returncode == 0, examined.stdout
    rotated = stack.run("doctor", "keyring", "rotate", "default")
    assert rotated.returncode == 0, rotated.stderr
    # Every process looks for a changed keyring twice a second; a sender that signs with the new secret may be earlier.
    eventually(lambda: stack.run("ingress", "send", "disabled", "--url", url).returncode == 0, JOURNEY_S)
    eventually(lambda: [tenant["enabled"] for tenant in stack.tenants()] == [False], JOURNEY_S)


@pytest.mark.long
def test_the_composed_prometheus_sees_every_service_and_the_alertmanager(stack: Composed) -> None:
    need(*PROGRAMS.values())
    stack.set_up()
    for service in SERVICES:
        stack.start(service)
    observers = zip(OBSERVERS.values(), free_ports(len(OBSERVERS)), strict=True)
    addresses = {there: f"{HOST}:{port}" for there, port in observers}
    for service, port in stack.ports.items():
        addresses |= {f"{service}:{number}": f"{HOST}:{port}" for number in (8080, 9100)}
    for service in PROGRAMS:
        stack.observe(service, addresses)
    prometheus, alertmanager = (addresses[there] for there in OBSERVERS.values())
    up = dict.fromkeys(set(SERVICES) - {"simulator"}, "up")
    eventually(lambda: health_by_job(prometheus) == up, READY_S)
    told = answered(prometheus, "v1/alertmanagers")["data"]["activeAlertmanagers"]
    assert [manager["url"] for manager in told] == [f"http://{alertmanager}/api/v2/alerts"]
    groups = answered(prometheus, "v1/rules")["data"]["groups"]
    assert {Path(group["file"]).name for group in groups} == {"alerts.yaml", "recording.yaml"}
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
    eventually(lambda: answered(alertmanager, "v2/status")["cluster"]["status"] == "disabled", READY_S)
    assert answered(alertmanager, "v2/receivers") == [{"name": "page"}, {"name": "ticket"}]


def health_by_job(prometheus: str) -> dict[str, str]:
    """The health of the one target of each job."""
    targets = answered(prometheus, "v1/targets")["data"]["activeTargets"]
    return {target["labels"]["job"]: target["health"] for target in targets}


def answered(address: str, page: str) -> Any:
    """A page of the API of Prometheus or Alertmanager, which may be on its way up."""
    try:
        return httpx2.get(f"http://{address}/api/{page}", timeout=5.0, trust_env=False).json()
    except (httpx2.TransportError, ValueError) as error:
        raise AssertionError(f"{address}: {error}") from error
