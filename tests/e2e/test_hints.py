"""Hints from outside, without a webhook: `lifecycle up`, the documented curl line, and an hour between two runs."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import outsider
from tests.e2e.outsider import Up
from tests.support.eventually import eventually
from tests.support.programs import need

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.timeout(400)]

ORG, INTEGRATION = "98765432-1234-5678-9abc-def012345678", "a1b2c3d4-e5f6-7890-abcd-ef1234567890"
PAUSED, GONE = (f"00000000-0000-4000-9000-{number:012}" for number in (1, 2))
SOON_S = 60
_FIVE = {"middleware": 1, "crm": 1, "schemas": 1, "subscriptions": 1, "tokens": 1}
PAGE = Path(__file__).parents[2] / "docs" / "connect-genesys.md"
QUEUED = '{"status":"queued"}'


@pytest.fixture(scope="module")
def running() -> Iterator[Up]:
    with (
        outsider.folder() as state_dir,
        outsider.up(
            state_dir, RECONCILE_INTERVAL_S="3600", RECONCILE_AUDIT_INTERVAL_S="0", RECONCILE_SECOND_LOOK_S="2"
        ) as one,
    ):
        yield one
        assert one.stop() == 0, one.log.read_text()


def genesys(running: Up, integration: str, method: str = "PUT", **told: Any) -> None:
    """Change the simulated Genesys as its administrator would; no webhook is sent."""
    url = f"{running.endpoints['simulator']}/genesys/control/orgs/{ORG}/integrations/{integration}"
    data = json.dumps(told).encode() if method == "PUT" else None
    with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=5) as answer:
        assert answer.status == 200


def hint(running: Up, secret: str, action: str, integration: str = INTEGRATION) -> str:
    """The output of the documented shell lines, with another action and integration in the audit."""
    (text,) = re.findall(r"^```sh\n(audit=.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    shown = text.replace('"action":"Create"', f'"action":"{action}"').replace(INTEGRATION, integration)
    assert f'"{action}"' in shown
    assert shown.count(integration) == 2
    environ = {
        "PATH": os.environ["PATH"],
        "SECRET": secret,
        "URL": f"{running.endpoints['ingress']}/v1/genesys/audit/genesys-audit",
    }
    done = subprocess.run(["sh", "-euc", shown], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def stands(running: Up, integration: str, **values: Any) -> None:
    def found() -> bool:
        tenant = outsider.tenant(running, f"{ORG}:{integration}")
        assert {name: tenant.get(name) for name in values} == values, tenant
        return True

    eventually(found, SOON_S)


def whole_run_since(running: Up, at_s: float) -> None:
    """Return after a whole run: from then on, and for an hour, nothing but a hint leads to a read."""
    eventually(lambda: last_run_s(running) > at_s, SOON_S)


def last_run_s(running: Up) -> float:
    name = "lifecycle_reconciler_last_run_timestamp_seconds "
    try:
        with urllib.request.urlopen(running.endpoints["metrics"]["reconciler"], timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0.0  # between two processes
    return max([float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)], default=0.0)


@pytest.fixture(scope="module")
def secret(running: Up) -> str:
    """The secret of a new endpoint of hints, once the ingress knows it."""
    status, made = running.lifecycle("keyring", "add", "genesys-audit", "--hint", "--org", ORG, "--show-secret")
    assert status == 0
    eventually(lambda: hint(running, made["secret"], "Create") == QUEUED)
    return str(made["secret"])


@pytest.mark.long
def test_hints_alone_install_disable_and_remove_tenants_in_seconds(running: Up, secret: str) -> None:
    need("curl")
    whole_run_since(running, 0)
    for integration in (PAUSED, GONE):
        genesys(running, integration, tenantId=f"tenant_{integration[-1]}", configuration=outsider.GUIDE)
        assert hint(running, secret, "Create", integration) == QUEUED
    for integration in (PAUSED, GONE):
        stands(running, integration, stage="active", enabled=True, tenant_id=f"tenant_{integration[-1]}")
        assert outsider.inventory(running, f"{ORG}:{integration}") == _FIVE
    assert '"status":401' in hint(running, "x" * 40, "Delete", GONE).replace(" ", "")

    # A key is read once in 5 minutes, by one process: another one need not wait for that.
    began_s = time.time()
    os.kill(running.endpoints["pids"]["reconciler"], signal.SIGTERM)
    whole_run_since(running, began_s)
    genesys(running, PAUSED, enabled=False)
    genesys(running, GONE, "DELETE")
    assert hint(running, secret, "Disable", PAUSED) == hint(running, secret, "Delete", GONE) == QUEUED
    stands(running, PAUSED, stage="active", enabled=False)
    stands(running, GONE, stage="deprovisioned", installed=False)
    assert outsider.inventory(running, f"{ORG}:{GONE}") == {"archive": 1}
