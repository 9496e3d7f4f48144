"""docs/webhook.md matches the ingress: example signature, commands, fields and answers."""

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from schemas.topics import RECEIVED
from schemas.webhook_sent import SIGNATURE, TIMESTAMP
from services.adapters.process.settings import Settings
from services.core.delivery.signature import Secrets, parse_claim, verify
from services.core.delivery.timestamp_rule import HORIZON_US, WINDOW_US
from services.ingress.http import answers
from services.ingress.http.asgi_bridge import operations_app
from services.ingress.http.headers import HEADERS_MAX, TARGET_MAX_BYTES
from tests.faults import fuzz_reference
from tests.support.ingress_process import ORG, PATH, SECRET, Ingress, ingress, make_topics
from tests.support.programs import need

TOP = Path(__file__).parents[2]
TEXT = (TOP / "docs" / "webhook.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    """The one fenced block of this kind."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_example_signature_is_right() -> None:
    (secret,) = re.findall(r"the secret `([^`]+)` and the body", TEXT)
    body, signature = block("json").rstrip("\n").encode(), block("text").strip()
    claim = parse_claim(signature.encode())
    assert claim is not None
    assert verify(Secrets(secret.encode()), claim, body, 0)
    assert fuzz_reference.mac(secret.encode(), body).hex() == signature, "and by another's reckoning"
    assert fuzz_reference.SCHEMA.is_valid(json.loads(body))
    program = block("python") + f"\nprint(signature({secret!r}, {body!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == signature


def test_every_field_of_the_schema_and_every_header_is_named() -> None:
    named = set(re.findall(r"`([A-Za-z-]+)`", TEXT))
    assert {field.rpartition(".")[2] for field in fuzz_reference.FIELDS} - {"body"} <= named
    assert {SIGNATURE, TIMESTAMP, "Content-Type", "Retry-After", "Expect"} <= named


def test_exactly_the_answers_of_the_ingress_are_documented() -> None:
    table = TEXT.split("| answer | when |")[1].split("\n\n")[0]
    statuses = {int(status) for cell in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE) for status in cell_of(cell)}
    assert statuses == {answer.status for answer in answers.TABLE if answer.status != HTTPStatus.NO_CONTENT}
    good = set(re.findall(r"200 `(\w+)`", table))
    assert good == {answer.reason for answer in answers.TABLE if answer.status == HTTPStatus.OK}


def cell_of(cell: str) -> list[str]:
    return re.findall(r"\b[2-5]\d\d\b", cell)


def test_the_documented_numbers_match_the_code() -> None:
    assert f"{WINDOW_US // 1_000_000} s ahead" in TEXT
    assert f"more than {HORIZON_US // 60_000_000} minutes old" in TEXT
    assert f"longer than {TARGET_MAX_BYTES:,} bytes; more than {HEADERS_MAX} headers" in TEXT
    assert f"`KEEP_ALIVE_S` ({Settings().keep_alive_s:.0f} s)" in TEXT


def test_the_documented_paths_are_served() -> None:
    paths = {route.path for route in operations_app(dict).routes}  # type: ignore[attr-defined]
    assert "/openapi.json" in paths
    assert PATH.replace("default", "{endpoint}") in TEXT


@pytest.fixture(scope="module")
def live(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    prefix = f"t{secrets.token_hex(5)}-"
    make_topics(kafka_bootstrap, prefix)
    with ingress(kafka_bootstrap, prefix, tmp_path_factory.mktemp("ingress")) as running:
        yield running


def shell(text: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """The output that a person would see after pasting this."""
    clean = {"PATH": os.environ["PATH"], **environ}
    return subprocess.run(["sh", "-euc", text], env=clean, capture_output=True, text=True, timeout=60, check=False)


def keys(live: Ingress) -> list[bytes | None]:
    return [record.key() for record in live.records(RECEIVED)]


@pytest.mark.engines
def test_the_documented_shell_lines_send_a_delivery(live: Ingress) -> None:
    need("curl", "openssl")
    (integration,) = re.findall(r'"integrationId":"([^"]+)"', block("sh"))
    before = len(keys(live))
    done = shell(block("sh"), SECRET=SECRET, URL=f"http://127.0.0.1:{live.port}{PATH}")
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"status":"queued"}', "")
    assert keys(live)[before:] == [f"{ORG}:{integration}".encode()]


AWKWARD = (
    """{"crmEndpoint": "https://acme.salesforce.com", "note": "it's $HOME `id` \\\\ \\"é\\" !! % @ {a,b} \\u2028"}"""
)


@pytest.mark.engines
@pytest.mark.parametrize("event", ["installed", "configuration_updated"])
def test_a_printed_curl_line_sends_the_requested_event(live: Ingress, tmp_path: Path, event: str) -> None:
    need("curl")
    (tmp_path / "keyring.json").write_text(json.dumps({"endpoints": {"default": {"current": {"secret": SECRET}}}}))
    integration = f"{secrets.token_hex(4)}-e5f6-7890-abcd-ef1234567890"
    url = f"http://127.0.0.1:{live.port}{PATH}"
    words = ["send", event, "--print-curl", "--url", url, "--integration", integration, "--configuration", AWKWARD]
    argv = [sys.executable, "-m", "services.cli.main", *words]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KEYRING_FILE": str(tmp_path / "keyring.json")}
    printed = subprocess.run(argv, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert SECRET not in printed.stdout
    assert printed.stdout.count("\n") == 1, "one line"
    key = f"{ORG}:{integration}".encode()
    assert key not in keys(live), "printing sends nothing"
    done = shell(printed.stdout)
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"status":"queued"}', "")
    (record,) = (record for record in live.records(RECEIVED) if record.key() == key)
    assert json.loads(record.value() or b"")["configuration"] == json.loads(AWKWARD)
    refused = shell(printed.stdout.replace(PATH, "/v1/genesys/lifecycle/nobody"))
    assert refused.returncode != 0, "a refusal is a failure of the line"
    told = json.loads(
        subprocess.run([*argv, "--json"], env=environ, capture_output=True, cwd=tmp_path, check=True).stdout
    )
    assert set(told) == {"key", "curl"}
