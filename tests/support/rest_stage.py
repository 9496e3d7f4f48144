"""The shipped provisioner with a plan of kind `rest` before the simulator's plain tenants API."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2

from schemas.outcome import Outcome
from schemas.saga import Journal, Phase
from services.core.saga.calls import resource_name
from tests.support.eventually import eventually
from tests.support.provisioner_stage import Stage, done, journal, staged

STYLES: Final = ("v1", "bare", "slow")
"""The styles of the API: 201 with a number, 201 with Location alone, 202 with a job."""
_ID: Final = {"v1": "body.id", "bare": "last_segment(headers.location) || body.id", "slow": "body.id"}
_JOB: Final = """
ready = "body.state == 'done'"
ready_within = "PT1M"
poll_s = 0.2

[step.job]
path = "/jobs/{resource.job}"
outputs = { id = "body.tenant" }
"""
_PLAN: Final = """
[[step]]
name = "account"
kind = "rest"
undo = "reverse"
url = "URL/accounts/STYLE"
url_from = "operator"
timeout_s = 5
settles_within = "SETTLES"
outputs = { id = "ID"JOB_ID }
secret_outputs = []
JOB

[step.auth]
type = "client_credentials"
token_url = "URL/accounts/oauth/token"
client_id = "lifecycle"
client_secret = "{secrets.accounts}"

[step.create]
path = "/tenants"
body = { ref = "{tenant.name}", enabled = "{tenant.enabled}" }

[step.read]
path = "/tenants/{resource.id}"

[step.find]
path = "/tenants"
query = { size = "3" }
items = "body.items"
match = { ref = "{tenant.name}" }
page = "page"

[step.update]
path = "/tenants/{resource.id}"
body = { enabled = "{tenant.enabled}" }

[step.delete]
path = "/tenants/{resource.id}"

[[step]]
name = "middleware"
kind = "http"
undo = "reverse"
url = "{settings.middleware_url}"
url_from = "operator"
body = { account = "{steps.account.id}" }
"""


@contextmanager
def rest_staged(
    kafka: str, prefix: str, database: str, folder: Path, style: str, settles: str = "PT1S"
) -> Iterator[Stage]:
    """A world whose provisioner has a plan for this style; no provisioner runs yet."""
    secrets = folder / "secrets"
    secrets.mkdir()
    (secrets / "accounts").write_text("hush\n")
    with staged(kafka, prefix, database, folder) as stage:
        text = _PLAN.replace("JOB_ID", ', job = "body.id"' if style == "slow" else "")
        text = text.replace("JOB", _JOB if style == "slow" else "").replace("SETTLES", settles)
        plan = folder / "rest.toml"
        plan.write_text(text.replace("URL", stage.world.url).replace("STYLE", style).replace('"ID"', f'"{_ID[style]}"'))
        stage.scene.environment |= {"PLAN_FILE": str(plan), "SECRETS_DIR": str(secrets), "RETRY_MOST_S": "1"}
        yield stage


def accounts(stage: Stage) -> list[dict[str, Any]]:
    """Every account that exists."""
    base = f"{stage.world.url}/accounts"
    form = {"grant_type": "client_credentials"}
    token = httpx2.post(f"{base}/oauth/token", data=form, auth=("t", "s")).raise_for_status().json()["access_token"]
    answer = httpx2.get(f"{base}/v1/tenants?size=9999", headers={"Authorization": f"Bearer {token}"}, timeout=20)
    rows: list[dict[str, Any]] = answer.raise_for_status().json()["items"]
    return rows


def account_exists(stage: Stage, lives: Mapping[str, int | None]) -> None:
    """Each key has one account and one middleware tenant of the generation named, or none; the journal agrees."""
    refs = sorted(row["ref"] for row in accounts(stage))
    wanted = sorted(resource_name(of, generation) for of, generation in lives.items() if generation)
    assert refs == wanted, (refs, wanted, {of: _history(stage, of) for of in lives})
    for of, generation in lives.items():
        kept = _at_rest(stage, of)
        assert (kept.life.generation if kept.life else None) == generation, kept
        assert kept.phase is Phase.ACTIVE or kept.phase in {Phase.EMPTY, Phase.ROLLED_BACK}
        there = [row["generation"] for row in stage.world.inventory("middleware", of)]
        assert there == ([generation] if generation else [])


def _history(stage: Stage, of: str) -> list[Any]:
    answer = httpx2.get(f"{stage.world.url}/calls", params={"key": of}).raise_for_status()
    return [(call["at"][14:23], call["system"], call["verb"], call["outcome"]) for call in answer.json()]


def ended(stage: Stage, keys: Iterable[str], version: int, check: Callable[[Outcome], bool] = done) -> None:
    """Wait for the end of a version of every key."""
    for of in keys:
        said = stage.scene.ended(of, version)
        assert check(said), (of, said, stage.world.calls(of), journal(stage, of))


def is_under_way(stage: Stage, of: str, verb: str) -> bool:
    """True if the intent of this call of the account is committed, and no answer is."""
    if stage.scene.rows("SELECT to_regclass('lifecycle.sagas')") == [(None,)]:
        return False
    life = journal(stage, of).life
    log = life.steps.get("account") if life else None
    return log is not None and log.open and log.verb == verb


def _at_rest(stage: Stage, of: str) -> Journal:
    def rests() -> bool:
        return stage.scene.rows("SELECT lease_until IS NULL FROM lifecycle.sagas WHERE key = %s", of) == [(True,)]

    eventually(rests)
    return journal(stage, of)


def pause(seconds: float) -> None:
    """Let so much time pass, where the passing of time itself is what is tried."""
    time.sleep(seconds)
