"""The compose file and the image agree with the services: environments, volumes, ports, health. No Docker needed."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from schemas.webhook import BODY_MAX_BYTES
from services.adapters.process import health
from services.adapters.process.environment import read
from services.adapters.process.settings import SECTIONS, HintsSettings, ProvisionerSettings, Settings
from services.cli.local.wiring import SERVICES
from tests.support import compose_file
from tests.support.alert_files import EXAMPLE, RULES
from tests.support.compose_file import TOP
from tests.support.opentelemetry_names import STANDARD
from tests.support.programs import need

NGINX = (TOP / "deploy" / "nginx" / "lifecycle.conf").read_text()
DOCKERFILE = (TOP / "deploy" / "Dockerfile").read_text()
CHECKER = "check-jsonschema<0.38"
FETCH_S = 100
TOOLS = {"setup", "doctor"}
HINTS = "hints-sqs"
AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
"""Read by boto3 by itself."""
PASSWORDS = ("lifecycle-laptop", "p@ss/w:rd#1", "50%25", "a b'c\\d\"e", "?=&", "$HOME ${X}")


def test_every_service_of_the_journey_is_composed_under_its_own_command() -> None:
    found = compose_file.services()
    assert found.keys() == {*SERVICES, *TOOLS, HINTS}
    for name in (*SERVICES, "doctor"):
        assert found[name]["command"] == [name]
    assert found[HINTS]["command"] == ["hints", "sqs"]


def test_every_variable_of_the_compose_file_is_a_setting_of_the_services() -> None:
    # OpenTelemetry's exporter reads some by itself (tests/contract/test_trace_variables.py).
    names = {name.upper() for name in Settings.model_fields} | STANDARD | AWS
    for service in compose_file.services():
        assert compose_file.services()[service]["environment"].keys() <= names
    assert compose_file.image().keys() - {"PYTHONUNBUFFERED", "PATH"} <= names


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("service", [*SERVICES, *sorted(TOOLS), HINTS])
def test_the_composed_environments_are_usable_with_any_password(service: str, password: str) -> None:
    settings = read(compose_file.environment(service, {"POSTGRES_PASSWORD": password}), Settings)
    if service == "ingress":
        assert settings.egress_fault == ""
    for url, host in ((settings.database_url, "postgres"), (settings.tenant_database_url, "simulator")):
        if url is not None:
            said = conninfo_to_dict(url)
            assert (said["host"], said["port"], said["dbname"]) == (host, "5432", "lifecycle")
            assert (said["user"], said["password"]) == ("lifecycle", password)


def test_the_database_is_made_with_the_password_that_the_services_are_given() -> None:
    made = compose_file.file({"POSTGRES_PASSWORD": "p@ss"})["services"]["postgres"]["environment"]
    assert made["POSTGRES_PASSWORD"] == "p@ss"


def test_only_the_services_that_need_a_database_are_given_its_url() -> None:
    given = {name: read(compose_file.environment(name), Settings) for name in compose_file.services()}
    assert {name for name in given if given[name].database_url} == {"simulator", "provisioner", "doctor"}
    assert {name for name in given if given[name].tenant_database_url} == {"provisioner", "doctor"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_given_variables_of_its_own_section_alone(service: str) -> None:
    given = compose_file.services()[service]["environment"].keys()
    # `docker compose exec ingress lifecycle send` tells the simulator's Genesys.
    sender = {"SIMULATOR_URL"} if service == "ingress" else set()
    assert given - sender - STANDARD <= {name.upper() for name in SECTIONS[service].model_fields}
    secrets = {name for name in given if name.endswith(("_PASSWORD", "_SECRET", "DATABASE_URL"))}
    assert secrets == {
        "provisioner": {
            *("DATABASE_URL", "DATABASE_PASSWORD", "OAUTH_CLIENT_SECRET"),
            *("TENANT_DATABASE_URL", "TENANT_DATABASE_PASSWORD"),
        },
        "simulator": {"DATABASE_URL", "DATABASE_PASSWORD"},
    }.get(service, set())


def test_the_composed_provisioner_can_ask_genesys_before_a_removal() -> None:
    asks = read(compose_file.environment("provisioner", {"CONFIRM_REMOVALS": "always"}), ProvisionerSettings)
    assert asks.confirm_removals == "always"
    assert asks.genesys_api_url is not None
    volume, _ = compose_file.mounts("reconciler")[str(asks.orgs_dir)]
    assert compose_file.mounts("provisioner")[str(asks.orgs_dir)] == (volume, False)
    assert read(compose_file.environment("provisioner"), ProvisionerSettings).confirm_removals == "off"


def test_the_reader_of_the_queue_starts_with_its_profile_alone_and_is_given_the_queue() -> None:
    found = compose_file.services()[HINTS]
    assert found["profiles"] == [HINTS]
    assert compose_file.file()["services"]["setup"].get("profiles") is None, "it waits for the topics"
    assert found["depends_on"] == compose_file.services()["ledger"]["depends_on"]
    assert compose_file.mounts(HINTS) == {}, "neither keyring nor organisations"
    assert found["environment"].keys() - AWS <= {name.upper() for name in HintsSettings.model_fields}
    queue = "https://sqs.eu-west-1.amazonaws.com/123456789012/lifecycle-hints"
    shell = {"HINTS_SQS_QUEUE_URL": queue, "HINTS_SQS_ORGS": "one,two", "AWS_SECRET_ACCESS_KEY": "s"}
    given = compose_file.environment(HINTS, shell)
    settings = read(given, HintsSettings)
    assert (settings.hints_sqs_queue_url, settings.hints_sqs_orgs, settings.hints_sqs_accounts) == (
        queue,
        ("one", "two"),
        ("*",),
    )
    assert given["AWS_SECRET_ACCESS_KEY"] == "s"
    unset = read(compose_file.environment(HINTS), HintsSettings)
    assert (unset.hints_sqs_queue_url, unset.hints_sqs_region) == (None, None)
    text = (TOP / "docs" / "connect-genesys.md").read_text()
    assert f"docker compose --profile {HINTS} up -d" in text


def test_the_composed_ingress_is_given_no_egress_map() -> None:
    assert "EGRESS_MAP" not in compose_file.environment("ingress")
    assert compose_file.environment("ingress")["HOST"] == "0.0.0.0"


def test_the_doctor_is_given_the_environment_of_every_service_and_reaches_each() -> None:
    doctor, own = (
        compose_file.environment("doctor"),
        {f"SIMULATOR_{what}" for what in ("DATABASE_PORT", "WEBHOOK_URL", "ARCHIVE_DIR")},
    )
    for service in SERVICES:
        given = compose_file.environment(service)
        assert {name: text for name, text in given.items() if name not in own} == {
            name: doctor.get(name) for name in given.keys() - own
        }
        theirs = {
            path: volume for path, (volume, _) in compose_file.mounts(service).items() if not path.endswith("/state")
        }
        assert theirs.items() <= {path: volume for path, (volume, _) in compose_file.mounts("doctor").items()}.items()
    assert json.loads(doctor["SERVICE_URLS"]).keys() == set(SERVICES)
    for service, url in json.loads(doctor["SERVICE_URLS"]).items():
        port = doctor["PORT"] if service in {"ingress", "simulator"} else doctor["METRICS_PORT"]
        assert url == f"http://{service}:{port}"


def test_only_tools_mount_the_keyring_writable() -> None:
    path = str(Path(compose_file.image()["KEYRING_FILE"]).parent)
    writers = {name for name in compose_file.services() if compose_file.mounts(name).get(path, ("", False))[1]}
    assert writers == TOOLS
    assert compose_file.services()["doctor"]["profiles"] == ["tools"]


def test_one_service_builds_the_image_and_no_service_pulls_it() -> None:
    found = compose_file.services()
    assert [name for name, service in found.items() if "build" in service] == ["setup"]
    assert {service["image"] for service in found.values()} == {"genesys-lifecycle"}
    assert {service["pull_policy"] for service in found.values()} == {"never"}
    for name in SERVICES:
        assert "setup" in found[name]["depends_on"]


def test_foreign_images_are_pinned_and_ports_are_bound_to_loopback() -> None:
    found = compose_file.file()["services"]
    assert {found[name]["image"] for name in compose_file.FOREIGN} == {
        *("apache/kafka:4.3.1", "postgres:18"),
        *("prom/prometheus:v3.15.0", "prom/alertmanager:v0.34.1", "grafana/grafana:13.2.3"),
    }
    ports = [port for service in found.values() for port in service.get("ports", ())]
    assert sorted(ports) == [
        *("127.0.0.1:3000:3000", "127.0.0.1:8080:8080", "127.0.0.1:8081:8080"),
        *("127.0.0.1:9090:9090", "127.0.0.1:9092:9092", "127.0.0.1:9093:9093"),
    ]


def test_ports_can_be_changed_and_kafka_advertises_the_changed_port() -> None:
    shell = {"INGRESS_PORT": "18080", "SIMULATOR_PORT": "18081", "KAFKA_PORT": "19094"}
    shell |= {"GRAFANA_PORT": "13000", "PROMETHEUS_PORT": "19090", "ALERTMANAGER_PORT": "19093"}
    found = compose_file.file(shell)["services"]
    ports = [port for service in found.values() for port in service.get("ports", ())]
    assert sorted(ports) == [
        *("127.0.0.1:13000:3000", "127.0.0.1:18080:8080", "127.0.0.1:18081:8080"),
        *("127.0.0.1:19090:9090", "127.0.0.1:19093:9093", "127.0.0.1:19094:9092"),
    ]
    assert found["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].endswith("PLAINTEXT_HOST://127.0.0.1:19094")
    # Links of alerts and boards lead to the changed ports too.
    for name in ("prometheus", "alertmanager"):
        port = shell[f"{name.upper()}_PORT"]
        assert found[name]["command"][-1] == f"--web.external-url=http://127.0.0.1:{port}/"
    assert found["grafana"]["environment"]["GF_SERVER_ROOT_URL"] == "http://127.0.0.1:13000/"


def test_the_log_of_every_service_is_bounded() -> None:
    for service in compose_file.file()["services"].values():
        assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}


def test_healthchecks_ask_for_readiness_once_a_second_at_the_start() -> None:
    for name in SERVICES:
        assert compose_file.services()[name]["healthcheck"]["test"][-1] == "/readyz"
    for name in (*SERVICES, *compose_file.FOREIGN):
        assert compose_file.file()["services"][name]["healthcheck"]["start_interval"] == "1s"
    assert "--start-interval=1s" in DOCKERFILE


def test_every_volume_is_declared_and_mounted() -> None:
    read = compose_file.file()
    mounted = {
        volume.partition(":")[0] for service in read["services"].values() for volume in service.get("volumes", ())
    }
    assert {name for name in mounted if not name.startswith("./")} == read["volumes"].keys()


@pytest.mark.parametrize("name", sorted(compose_file.OBSERVERS))
def test_an_observer_starts_with_its_profile_alone_and_changes_nothing_but_its_own_data(name: str) -> None:
    found = compose_file.file()["services"][name]
    assert found["profiles"] == ["observe"]
    assert (found["read_only"], found["cap_drop"], found["tmpfs"]) == (True, ["ALL"], ["/tmp"])
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert int(found["user"].split(":")[0]) > 0
    mounted = compose_file.mounts(name)
    assert [source for source, writable in mounted.values() if writable] == [name]
    folders = [source for source, _ in mounted.values() if source != name]
    assert folders
    assert all((TOP / folder).is_dir() for folder in folders)


def test_nothing_of_the_composition_waits_for_an_observer() -> None:
    for service in compose_file.file()["services"].values():
        assert not compose_file.OBSERVERS & set(service.get("depends_on", ()))


def test_prometheus_and_alertmanager_read_files_that_are_mounted() -> None:
    files = {name: compose_file.mounted(name, option(name, "config.file")) for name in ("prometheus", "alertmanager")}
    assert files["prometheus"] == TOP / "deploy" / "prometheus" / "prometheus.yaml"
    assert option("prometheus", "storage.tsdb.path") == writable("prometheus")
    assert option("alertmanager", "storage.path") == writable("alertmanager")
    read = yaml.safe_load(files["prometheus"].read_text())
    assert read["alerting"]["alertmanagers"][0]["static_configs"] == [{"targets": [inside("alertmanager")]}]
    folder = files["prometheus"].parent
    assert {path for pattern in read["rule_files"] for path in folder.glob(pattern)} == set(RULES)


def test_the_alertmanager_of_the_composition_judges_as_the_example_and_sends_nothing() -> None:
    ours = yaml.safe_load(compose_file.mounted("alertmanager", option("alertmanager", "config.file")).read_text())
    example = yaml.safe_load(EXAMPLE.read_text())
    assert ours.keys() == example.keys()
    assert (ours["route"], ours["inhibit_rules"]) == (example["route"], example["inhibit_rules"])
    assert ours["receivers"] == [{"name": receiver["name"]} for receiver in example["receivers"]]
    assert all(len(receiver) > 1 for receiver in example["receivers"]), "the example says how somebody is told"


def test_the_programs_take_the_files_as_the_containers_have_them(tmp_path: Path) -> None:
    for name, argv in (("prometheus", ["promtool", "check", "config"]), ("alertmanager", ["amtool", "check-config"])):
        need(argv[0])
        root = tmp_path / name
        for path, (source, changeable) in compose_file.mounts(name).items():
            if not changeable:
                shutil.copytree(TOP / source, root / path.lstrip("/"))
        argv.append(str(root / option(name, "config.file").lstrip("/")))
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_prometheus_and_the_boards_where_its_provisioning_says() -> None:
    grafana = compose_file.file()["services"]["grafana"]["environment"]
    folder = "/etc/grafana/provisioning"
    (source,) = yaml.safe_load(compose_file.mounted("grafana", f"{folder}/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert (source["url"], source["isDefault"]) == (f"http://{inside('prometheus')}", True)
    (provider,) = yaml.safe_load(compose_file.mounted("grafana", f"{folder}/dashboards/lifecycle.yaml").read_text())[
        "providers"
    ]
    boards = sorted(compose_file.mounted("grafana", provider["options"]["path"]).glob("*.json"))
    assert len(boards) == 5
    assert compose_file.mounted("grafana", grafana["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]) in boards


def test_grafana_is_looked_at_without_a_login_and_lets_nobody_sign_in() -> None:
    grafana = compose_file.file()["services"]["grafana"]["environment"]
    assert (grafana["GF_AUTH_ANONYMOUS_ENABLED"], grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"]) == ("true", "Viewer")
    assert grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert (grafana["GF_AUTH_BASIC_ENABLED"], grafana["GF_AUTH_DISABLE_LOGIN_FORM"]) == ("false", "true")


def test_the_addresses_of_the_observers_are_said_where_people_read() -> None:
    for text in ((TOP / "docker-compose.yml").read_text(), (TOP / "docs" / "observability.md").read_text()):
        assert "docker compose --profile observe up -d" in text
        for name in compose_file.OBSERVERS:
            (port,) = compose_file.file()["services"][name]["ports"]
            assert f"http://{port.rpartition(':')[0]}" in text


def inside(name: str) -> str:
    """The address of a service in the network of the composition."""
    (port,) = compose_file.file()["services"][name]["ports"]
    return f"{name}:{port.rpartition(':')[2]}"


def option(name: str, flag: str) -> str:
    """The value of one flag in the command of a service."""
    begin = f"--{flag}="
    (found,) = [word for word in compose_file.file()["services"][name]["command"] if word.startswith(begin)]
    return str(found.removeprefix(begin))


def writable(name: str) -> str:
    """The one path that a service may write for good."""
    (found,) = [path for path, (_, changeable) in compose_file.mounts(name).items() if changeable]
    return found


def test_commands_in_the_header_of_the_compose_file_exist() -> None:
    header = (TOP / "docker-compose.yml").read_text().split("\nname:")[0]
    ours = re.findall(r"docker compose (?:exec|run --rm) (\w+)((?: [\w./:-]+)*)", header)
    assert {service for service, _ in ours} == {"ingress", "reconciler", "doctor"}
    for service, words in ours:
        command = words.split()
        if service != "doctor":
            assert command.pop(0) == "lifecycle"
        argv = [
            sys.executable,
            "-m",
            "services.cli.main",
            *[w for w in command if not w.startswith(("-", "http"))],
            "--help",
        ]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert all(word in done.stdout for word in command if word.startswith("--")), command
    for name in re.findall(r"\b[A-Z]+_[A-Z_]+\b", header):
        assert name == "COMPOSE_PROJECT_NAME" or f"${{{name}:-" in (TOP / "docker-compose.yml").read_text()


def test_the_image_runs_as_an_unprivileged_user_without_build_tools() -> None:
    build, final = DOCKERFILE.split("\nFROM ")[1:]
    assert "AS build" in build
    assert re.search(r"^USER 10001:10001$", final, flags=re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*alive\.py", final, flags=re.MULTILINE)
    assert "uv " not in final
    wanted = re.search(r'"uv>=([\d.]+)"', (TOP / "pyproject.toml").read_text())
    assert wanted
    assert f"uv=={wanted[1]}" in build
    assert "--locked" in build


def test_files_copied_into_the_image_are_not_ignored() -> None:
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


async def test_a_container_is_alive_while_its_service_answers_and_ready_when_readyz_says_ready() -> None:
    faults: dict[str, str] = {}
    async with health.serve("ledger", lambda: faults, host="127.0.0.1", port=0) as port:
        assert await _asked(METRICS_PORT=str(port)) == 0
        assert await _asked(PORT=str(port), METRICS_PORT="9") == 0
        assert await _asked("/readyz", METRICS_PORT=str(port)) == 0
        faults["kafka"] = "does not answer"
        assert await _asked(METRICS_PORT=str(port)) == 0
        assert await _asked("/readyz", METRICS_PORT=str(port)) == 1
    assert await _asked(METRICS_PORT=str(port)) == 1


async def _asked(*page: str, **ports: str) -> int:
    script = TOP / "deploy" / "alive.py"
    asked = await asyncio.create_subprocess_exec(sys.executable, str(script), *page, env=ports)
    return await asked.wait()


def test_the_compose_file_is_valid_by_the_compose_specification() -> None:
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
