"""The shipped provisioner before a real simulator and a real PostgreSQL, and what must be so when its work has ended.

Rule: what exists is read from the simulator and from PostgreSQL. The provisioner's own journal is believed of nothing;
it has to say the same.
"""

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import httpx2
import psycopg
from psycopg import sql

from schemas.outcome import Outcome, State
from schemas.saga import Journal, Life, Phase, Presence, StepVerdict
from services.core.saga.calls import resource_name
from services.core.saga.plan import schema_name
from tests.support.eventually import eventually
from tests.support.provisioner_process import Scene, key
from tests.support.simulator_process import Outside, outside

SHIPPED: Final = ("services.cli.main", "provisioner")
SYSTEMS: Final = ("middleware", "crm", "schemas", "subscriptions", "tokens")
STEPS: Final = {system: "schema" if system == "schemas" else system for system in ("archive", *SYSTEMS)}
"""Outside system to the step of the shipped plan that calls it, in the order of creation."""

PATHS: Final = {
    "middleware": "/middleware/",
    "crm": "/crm/acme.salesforce.com/connections/",
    "subscriptions": "/subscriptions/",
}
"""Systems that speak the REST contract, and what stands before a resource's name there."""

_CLIENT: Final = ("somebody", "s" * 32)
_ORGS: Final = 4
_ORG_DIGITS: Final = slice(1, 11)


class Stage(NamedTuple):
    """One installation of the service and the world it works on."""

    scene: Scene
    world: Outside

    def keys(self, count: int) -> list[str]:
        """Keys that no other test has: roles, which are named after keys, are shared by all databases of a run."""
        first = int(self.scene.prefix[_ORG_DIGITS], 16)
        return [key(number, org=first + number % _ORGS) for number in range(count)]


@contextmanager
def staged(kafka: str, prefix: str, database: str, folder: Path, **simulator: str) -> Iterator[Stage]:
    """A world with these settings, and what the service needs to know of it; no provisioner runs yet."""
    secret = {"oauth_client_secret": "s" * 32}
    with (
        Scene(kafka, prefix, database, folder, program=SHIPPED) as scene,
        outside(folder, database, keyring_file=str(folder / "keyring.json"), **secret, **simulator) as world,
    ):
        scene.environment |= {
            "TENANT_DATABASE_URL": world.tenants_url,
            "MIDDLEWARE_URL": f"{world.url}/middleware",
            "SUBSCRIPTIONS_URL": f"{world.url}/subscriptions",
            "OAUTH_URL": f"{world.url}/oauth",
            "OAUTH_CLIENT_SECRET": secret["oauth_client_secret"],
            "ARCHIVE_URL": f"{world.url}/archive",
            "EGRESS_MAP": json.dumps({"*.salesforce.com": f"{world.url}/crm/{{host}}"}),
            "STATE_DIR": str(folder / "provisioner"),
        }
        yield Stage(scene, world)


def done(outcome: Outcome) -> bool:
    """It is as desired."""
    return outcome.state is State.DONE and outcome.reason is None


def rolled_back(outcome: Outcome) -> bool:
    """It was given up, and compensated."""
    return outcome.state is State.ROLLED_BACK


def failed(outcome: Outcome) -> bool:
    """Its teardown stands."""
    return outcome.state is State.FAILED


def restored(outcome: Outcome) -> bool:
    """It was given up, and is as it was before."""
    return outcome.state is State.DONE and outcome.reason == "update_refused"


def ended(stage: Stage, keys: Iterable[str], version: int, check: Callable[[Outcome], bool] = done) -> None:
    """Wait for the end of a version of every key."""
    for of in keys:
        said = stage.scene.ended(of, version)
        assert check(said), (of, said, stage.world.calls(of))


def becomes(stage: Stage, keys: Iterable[str], version: int, check: Callable[[Outcome], bool] = done) -> None:
    """Wait until a version of every key has ended like this, whatever was said of that version before."""
    for of in keys:
        eventually(lambda: any(check(said) and said.desired_version >= version for said in stage.scene.outcomes(of)))  # noqa: B023 - called at once


def exists(stage: Stage, lives: Mapping[str, int | None], *, whole: bool = True) -> None:
    """Each key has one thing of the generation named in each system, or none, and nobody says otherwise.

    Args:
        stage: With all its sagas at rest.
        lives: Every key that the test ever published a version of.
        whole: Whether the registry was never restored, so that it has said everything that it counts.
    """
    kept = _journals(stage)
    assert set(kept) == set(lives)
    _outside(stage, lives, kept)
    _database(stage, lives, kept)
    for of, generation in lives.items():
        _registry(kept[of], generation)
        if whole:
            _has_said(stage, of, kept[of].seq)
    bound = [(f"tenant-{of[-12:]}",) for of in sorted(lives, key=lambda of: of[-12:]) if lives[of]]
    eventually(lambda: stage.scene.rows("SELECT tenant_id FROM lifecycle.bindings ORDER BY 1") == bound)
    eventually(lambda: stage.scene.rows("SELECT count(*) FROM lifecycle.outbox") == [(0,)])


def journal(stage: Stage, of: str) -> Journal:
    """The registry's journal of a key; empty before its first version is stored."""
    found = stage.scene.rows("SELECT journal::text FROM lifecycle.sagas WHERE key = %s", of)
    return Journal.model_validate_json(found[0][0]) if found else Journal()


def _journals(stage: Stage) -> dict[str, Journal]:
    """Of every key, once nobody works on any; what is written beside a journal has to agree with it."""
    query = "SELECT key, phase, generation, lease_until IS NULL, journal::text FROM lifecycle.sagas"

    def at_rest() -> dict[str, tuple[list[Any], Journal]] | None:
        found = {of: (rest, Journal.model_validate_json(text)) for of, *rest, text in stage.scene.rows(query)}
        return found if all(rest[-1] for rest, _ in found.values()) else None

    kept = eventually(at_rest)  # an ended life is looked up again, and that takes a lease
    assert kept is not None
    for of, (rest, own) in kept.items():
        assert rest[:2] == [own.phase, own.generation], of
    return {of: own for of, (_, own) in kept.items()}


def _outside(stage: Stage, lives: Mapping[str, int | None], kept: Mapping[str, Journal]) -> None:
    inventory = httpx2.get(f"{stage.world.url}/inventory", timeout=20).raise_for_status().json()
    assert all(set(inventory[system]) <= set(lives) for system in inventory)
    for of, generation in lives.items():
        there = {system: [one["generation"] for one in inventory[system].get(of, [])] for system in SYSTEMS}
        assert there == dict.fromkeys(SYSTEMS, [generation] if generation else []), (of, stage.world.calls(of))
        over = kept[of].generation - (1 if generation else 0)
        archived = sorted(one["generation"] for one in inventory["archive"].get(of, []))
        assert archived == list(range(1, over + 1)), of


def _database(stage: Stage, lives: Mapping[str, int | None], kept: Mapping[str, Journal]) -> None:
    wanted = sorted(schema_name(of, generation) for of, generation in lives.items() if generation)
    possible = [schema_name(of, number) for of in lives for number in range(1, kept[of].generation + 1)]
    schemas = "SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, 't_')"
    roles = "SELECT rolname::text FROM pg_roles WHERE rolname = ANY(%s)"
    assert sorted(name for (name,) in stage.scene.rows(schemas)) == wanted
    assert sorted(name for (name,) in stage.scene.rows(roles, possible)) == wanted


def _registry(kept: Journal, generation: int | None) -> None:
    assert (kept.life.generation if kept.life else None) == generation, kept
    if kept.life:
        assert kept.phase is Phase.ACTIVE
        assert _at_rest(kept.life), kept
    else:
        assert kept.phase in {Phase.EMPTY, Phase.ROLLED_BACK}


def _has_said(stage: Stage, of: str, seq: int) -> None:
    numbers = list(range(1, seq + 1))
    if _said(stage.scene.said, of) != numbers:
        eventually(lambda: _said(stage.scene.outcomes(of), of) == numbers)


def _said(outcomes: list[Outcome], of: str) -> list[int]:
    """Numbers of the outcomes of a key; a number that is there twice has two that differ."""
    return sorted(seq for seq, _ in {(said.seq, said.model_dump_json()) for said in outcomes if said.key == of})


def _at_rest(life: Life) -> bool:
    """Every step is there and as intended; one that refused a change, and its restoration, is as it was before."""
    return set(life.steps) == set(STEPS.values()) and all(
        log.presence is Presence.PRESENT
        and not log.open
        and (log.applied == log.intended or log.verdict is StepVerdict.REFUSED)
        for log in life.steps.values()
    )


def calls(stage: Stage, of: str) -> list[dict[str, Any]]:
    """Every call of a key that changed something, or tried to, in order of effect."""
    found = httpx2.get(f"{stage.world.url}/calls", params={"key": of}).raise_for_status().json()
    return [call for call in found if call["verb"] != "read"]


def told(stage: Stage, system: str, of: str) -> dict[str, Any]:
    """The last request to a system that speaks the REST contract, about the first life of a key."""
    answer = httpx2.get(_url(stage, system, of), headers=_headers(stage, of)).raise_for_status()
    body: dict[str, Any] = answer.json()["desired"]
    return body


def make(stage: Stage, system: str, of: str, *, owner: str) -> None:
    """Make what the first life of a key will want to make, in the owner's name and behind the provisioner's back."""
    headers, name = _headers(stage, owner), resource_name(of, 1)
    if system == "schemas":
        schema = sql.Identifier(schema_name(of, 1))
        made = ["CREATE ROLE {}"] if owner == of else []
        _run(stage, *(sql.SQL(text).format(schema) for text in [*made, "CREATE SCHEMA {}"]))
        comment(stage, of, comment_of(owner))
    elif system == "tokens":
        form = {"grant_type": "client_credentials", "scope": f"tenant:{name}"}
        url = f"{stage.world.url}/oauth/token"
        httpx2.post(url, data=form, headers=headers, auth=_CLIENT).raise_for_status()
    else:
        body = {"name": name, "key": owner, "generation": 1, "enabled": True}
        httpx2.put(_url(stage, system, of), json=body, headers=headers).raise_for_status()


def remove(stage: Stage, system: str, of: str, *, owner: str) -> None:
    """Remove it in the owner's name, behind the provisioner's back; of a schema the role stays."""
    headers = _headers(stage, owner)
    if system == "schemas":
        _run(stage, sql.SQL("DROP SCHEMA {}").format(sql.Identifier(schema_name(of, 1))))
    elif system == "tokens":
        base = f"{stage.world.url}/oauth"
        grant = httpx2.get(f"{base}/grants/{resource_name(of, 1)}", headers=headers, auth=_CLIENT).raise_for_status()
        token = {"token": grant.json()["access_token"]}
        httpx2.post(f"{base}/revoke", data=token, headers=headers, auth=_CLIENT).raise_for_status()
    else:
        httpx2.delete(_url(stage, system, of), headers=headers).raise_for_status()


def comment_of(owner: str) -> str:
    """The comment by which a schema says that it is of the first life of a key."""
    return json.dumps({"key": owner, "generation": 1})


def comment(stage: Stage, of: str, text: str) -> None:
    """Comment on the schema of the first life of a key."""
    schema = sql.Identifier(schema_name(of, 1))
    _run(stage, sql.SQL("COMMENT ON SCHEMA {} IS {}").format(schema, sql.Literal(text)))


def remove_role(stage: Stage, of: str) -> None:
    """Remove the role of the first life of a key."""
    _run(stage, sql.SQL("DROP ROLE {}").format(sql.Identifier(schema_name(of, 1))))


def _headers(stage: Stage, owner: str) -> dict[str, str]:
    """As a worker would send them that had the newest lease of a key, for an intent that nobody else has."""
    is_there = stage.scene.rows("SELECT to_regclass('lifecycle.sagas')") != [(None,)]
    epochs = stage.scene.rows("SELECT epoch FROM lifecycle.sagas WHERE key = %s", owner) if is_there else []
    return {
        "Lifecycle-Key": quote(owner, safe=":"),
        "Lifecycle-Generation": "1",
        "Lifecycle-Epoch": str(epochs[0][0] if epochs else 0),
        "Idempotency-Key": secrets.token_hex(8),
    }


def _url(stage: Stage, system: str, of: str) -> str:
    return f"{stage.world.url}{PATHS[system]}{resource_name(of, 1)}"


def _run(stage: Stage, *statements: sql.Composed) -> None:
    with psycopg.connect(stage.scene.database, autocommit=True) as session:
        for statement in statements:
            session.execute(statement)
