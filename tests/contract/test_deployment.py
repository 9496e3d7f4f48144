"""The compose file and the image say what the services understand; no daemon is needed to know that."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.webhook import BODY_MAX_BYTES
from services.adapters import health
from services.adapters.settings import Settings
from services.cli.wiring import SERVICES

TOP = Path(__file__).parents[2]
COMPOSE = (TOP / "docker-compose.yml").read_text()
NGINX = (TOP / "deploy" / "nginx" / "lifecycle.conf").read_text()
DOCKERFILE = (TOP / "deploy" / "Dockerfile").read_text()
FOREIGN = ("kafka", "postgres")
CHECKER = "check-jsonschema<0.38"
FETCH_S = 100


def sections() -> dict[str, str]:
    """The text of each service, by name."""
    services = COMPOSE.split("\nservices:\n")[1].split("\nvolumes:\n")[0]
    parts = re.split(r"^  ([a-z]+):\n", services, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_service_of_the_journey_is_composed_under_its_own_command() -> None:
    found = sections()
    assert set(found) == {*SERVICES, *FOREIGN, "setup"}
    for name in SERVICES:
        assert f"    command: [{name}]\n" in found[name]


def test_every_variable_is_one_that_the_services_read() -> None:
    shared = COMPOSE.split("x-environment:")[1].split("\n\n")[0]
    ours = "\n".join([shared, *(text for name, text in sections().items() if name not in FOREIGN)])
    names = set(re.findall(r"^ +([A-Z][A-Z_]+):", ours, flags=re.MULTILINE))
    assert {"KAFKA_BOOTSTRAP_SERVERS", "EGRESS_MAP", "GENESYS_API_URL"} <= names
    assert names <= {name.upper() for name in Settings.model_fields}
    image = set(re.findall(r"\b([A-Z][A-Z_]+)=", DOCKERFILE.split("ENV PATH=")[1].split("USER")[0]))
    assert image - {"PYTHONUNBUFFERED"} <= {name.upper() for name in Settings.model_fields}


def test_the_ingress_which_listens_to_others_is_given_no_egress_map() -> None:
    found = sections()
    assert [name for name, text in found.items() if "EGRESS_MAP" in text] == ["provisioner"]


def test_every_image_is_pinned_and_every_port_is_this_machines_alone() -> None:
    images = re.findall(r"^\s+image: (\S+)$", COMPOSE, flags=re.MULTILINE)
    assert sorted(images) == ["apache/kafka:4.3.1", "genesys-lifecycle", "postgres:18"]
    ports = re.findall(r"^\s+ports: \[(.*)\]$", COMPOSE, flags=re.MULTILINE)
    assert len(ports) == 3
    assert all(port.startswith('"127.0.0.1:') for port in ports)


def test_every_volume_is_declared_and_mounted() -> None:
    declared = set(re.findall(r"^  ([a-z]+):$", COMPOSE.split("\nvolumes:\n")[1], flags=re.MULTILINE))
    mounted = set(re.findall(r"\b([a-z]+):/var/lib/", COMPOSE))
    assert declared == mounted


def test_the_image_runs_as_nobody_special_without_the_tools_that_built_it() -> None:
    build, final = DOCKERFILE.split("\nFROM ")[1:]
    assert "AS build" in build
    assert re.search(r"^USER 10001:10001$", final, flags=re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*alive\.py", final, flags=re.MULTILINE)
    assert "uv " not in final
    wanted = re.search(r'"uv>=([\d.]+)"', (TOP / "pyproject.toml").read_text())
    assert wanted
    assert f"uv=={wanted[1]}" in build
    assert "--locked" in build


def test_what_the_image_is_built_from_is_let_in() -> None:
    allowed = (TOP / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [
        part
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, flags=re.MULTILINE)
        for part in line.split()
    ]
    assert copied
    assert allowed[0] == "*"
    for path in copied:
        assert f"!{path}" in allowed
        assert (TOP / path).exists()


def nginx_says(name: str) -> str:
    """The one value of a directive of the nginx file."""
    (found,) = re.findall(rf"^ *{name} (.*);", NGINX, flags=re.MULTILINE)
    return str(found)


def test_nginx_waits_no_longer_than_an_answer_may_take() -> None:
    settings = Settings()
    rate, burst = re.findall(r"rate=(\d+)r/s", NGINX), re.findall(r"burst=(\d+)", NGINX)
    second_try_s, connect_s, read_s = (
        float(nginx_says(name).removesuffix("ms")) / 1000
        for name in ("proxy_next_upstream_timeout", "proxy_connect_timeout", "proxy_read_timeout")
    )
    assert read_s > settings.ack_timeout_s + settings.spool_timeout_s, "an answer is waited for"
    assert int(burst[0]) / int(rate[0]) + second_try_s + connect_s + read_s <= 2.7
    assert f"{settings.keep_alive_s:.0f} s" in NGINX
    assert settings.keep_alive_s > 60, "nginx closes an idle connection first"
    assert nginx_says("client_max_body_size") == f"{BODY_MAX_BYTES // 1024}k"
    assert "non_idempotent" in nginx_says("proxy_next_upstream")


async def test_a_container_is_well_while_its_service_answers() -> None:
    async with health.serve(dict[str, str], host="127.0.0.1", port=0) as port:
        assert await _asked(METRICS_PORT=str(port)) == 0
        assert await _asked(PORT=str(port), METRICS_PORT="9") == 0
    assert await _asked(METRICS_PORT=str(port)) == 1


async def _asked(**ports: str) -> int:
    script = TOP / "deploy" / "alive.py"
    asked = await asyncio.create_subprocess_exec(sys.executable, str(script), env=ports)
    return await asked.wait()


def test_the_compose_file_keeps_the_compose_specification() -> None:
    tool = [sys.executable, "-m", "uv", "tool", "run", "--from", CHECKER, "check-jsonschema"]
    environ = {name: text for name, text in os.environ.items() if name != "VIRTUAL_ENV"}
    environ["UV_SYSTEM_CERTS"] = "true"  # what pyproject.toml says for the project, a tool run must be told
    try:
        there = subprocess.run([*tool, "--version"], env=environ, capture_output=True, timeout=FETCH_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{CHECKER} could not be fetched")
    if there.returncode != 0:
        pytest.skip(f"{CHECKER} could not be fetched")
    argv = [*tool, "--builtin-schema", "vendor.compose-spec", str(TOP / "docker-compose.yml")]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=FETCH_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
