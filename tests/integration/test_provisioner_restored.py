"""A registry that was restored from a backup: nothing is driven from it before it is accepted, then nothing is left."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, LiteralString

import pytest

from tests.eventually import eventually
from tests.provisioner_process import desired, end, gone
from tests.provisioner_stage import Stage, ended, exists, staged

_BACK_UP: Final[tuple[LiteralString, ...]] = (
    "CREATE SCHEMA backup",
    *(f"CREATE TABLE backup.{table} AS TABLE lifecycle.{table}" for table in ("bindings", "sagas", "outbox", "plans")),
)
_RESTORE: Final[tuple[LiteralString, ...]] = (
    "TRUNCATE lifecycle.sagas, lifecycle.bindings, lifecycle.outbox, lifecycle.plans",
    "INSERT INTO lifecycle.bindings TABLE backup.bindings",
    "INSERT INTO lifecycle.sagas TABLE backup.sagas",
    "INSERT INTO lifecycle.plans TABLE backup.plans",
)


@pytest.fixture
def stage(kafka_bootstrap: str, topic_prefix: str, database_url: str, tmp_path: Path) -> Iterator[Stage]:
    with staged(kafka_bootstrap, topic_prefix, database_url, tmp_path) as made:
        yield made


def _told(stage: Stage, words: str) -> str:
    """What `/readyz` says of the registry, once these words are in it."""
    said = stage.scene.ready(stage.scene.port)[1].get("registry", "")
    return said if words in said else ""


@pytest.mark.timeout(240)
def test_what_happened_since_the_backup_is_found_again(stage: Stage) -> None:
    changed, went, came, again, stays, dead = keys = stage.keys(6)
    crm = "https://acme.salesforce.com"
    process = stage.scene.start()
    stage.scene.wish([desired(of, 1) for of in (changed, went, again, stays, dead)])
    ended(stage, [changed, went, again, stays, dead], 1)
    for statement in _BACK_UP:
        stage.scene.run(statement)

    for version in range(2, 6):
        stage.scene.wish([desired(changed, version, configuration={"crmEndpoint": crm, "syncInterval": version})])
        ended(stage, [changed], version)
    stage.scene.wish([gone(went, 2), gone(again, 2), gone(dead, 2), desired(came, 1)])
    ended(stage, [went, again, dead], 2)
    ended(stage, [came], 1)
    stage.scene.wish([desired(again, 3), desired(dead, 3)])
    ended(stage, [again, dead], 3)
    assert end(process) == 0
    for statement in _RESTORE:
        stage.scene.run(statement)
    stage.scene.wish([gone(dead, 4)])  # and its second life is in no row

    process = stage.scene.start(METRICS_PORT=str(stage.scene.port))
    fault = eventually(lambda: _told(stage, "older than what was said from it"))
    assert "--accept-older-registry" in fault
    epochs = stage.scene.rows("SELECT key, epoch FROM lifecycle.sagas ORDER BY key")
    assert epochs == stage.scene.rows("SELECT key, epoch FROM backup.sagas ORDER BY key"), "nothing was claimed"
    assert end(process) == 0

    before = {of: max(said.seq for said in stage.scene.outcomes(of)) for of in keys}
    stage.scene.said.clear()
    process = stage.scene.start("--accept-older-registry")
    ended(stage, [dead], 4)
    ended(stage, [changed], 5)
    ended(stage, [again], 3)
    ended(stage, [came], 1)
    exists(stage, {changed: 1, went: None, came: 1, again: 2, dead: None, stays: 1}, whole=False)
    for of in keys:
        assert all(said.seq > before[of] for said in stage.scene.outcomes(of))
    # It is as new as what is said from it now, for everybody.
    assert end(process) == 0
    stage.scene.start(METRICS_PORT=str(stage.scene.port))
    eventually(lambda: stage.scene.ready(stage.scene.port)[0] == 200)
    stage.scene.wish([gone(of, 9) for of in keys])
    ended(stage, keys, 9)
    exists(stage, dict.fromkeys(keys), whole=False)


@pytest.mark.timeout(240)
def test_an_empty_registry_adopts_what_there_is(stage: Stage) -> None:
    one, two = stage.keys(2)
    process = stage.scene.start()
    stage.scene.wish([desired(one, 1), desired(two, 1)])
    ended(stage, [one, two], 1)
    stage.scene.wish([gone(two, 2)])
    ended(stage, [two], 2)
    stage.scene.wish([desired(two, 3)])
    ended(stage, [two], 3)
    assert end(process) == 0
    stage.scene.run("DROP SCHEMA lifecycle CASCADE")
    stage.scene.said.clear()
    stage.scene.start("--accept-older-registry")
    ended(stage, [one], 1)
    ended(stage, [two], 3)
    exists(stage, {one: 1, two: 2}, whole=False)
    stage.scene.wish([gone(one, 4), gone(two, 4)])
    ended(stage, [one, two], 4)
    exists(stage, {one: None, two: None}, whole=False)
