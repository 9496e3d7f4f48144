"""A registry restored from a backup: no saga runs before it is accepted, and afterwards no resource is left over."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, LiteralString

import psycopg
import pytest

from schemas.topics import DESIRED, OUTCOMES, named
from tests.support.eventually import eventually
from tests.support.own_broker import set_to
from tests.support.provisioner_process import desired, end, gone
from tests.support.provisioner_stage import Stage, ended, exists, staged

_BACK_UP: Final[tuple[LiteralString, ...]] = (
    "CREATE SCHEMA backup",
    "CREATE TABLE backup.bindings AS TABLE lifecycle.bindings",
    "CREATE TABLE backup.sagas AS TABLE lifecycle.sagas",
    "CREATE TABLE backup.plans AS TABLE lifecycle.plans",
)
_RESTORE: Final[tuple[LiteralString, ...]] = (
    "TRUNCATE lifecycle.sagas, lifecycle.bindings, lifecycle.outbox, lifecycle.plans",
    "INSERT INTO lifecycle.bindings TABLE backup.bindings",
    "INSERT INTO lifecycle.sagas TABLE backup.sagas",
    "INSERT INTO lifecycle.plans TABLE backup.plans",
)
_CRM: Final = {"crmEndpoint": "https://acme.salesforce.com"}
_OTHER_CRM: Final = {"crmEndpoint": "https://other.salesforce.com"}
_LOOKS_S: Final = 12.0
"""Longer than two looks at a registry that cannot be used."""


@pytest.fixture
def stage(kafka_bootstrap: str, topic_prefix: str, database_url: str, tmp_path: Path) -> Iterator[Stage]:
    with staged(kafka_bootstrap, topic_prefix, database_url, tmp_path) as made:
        yield made


def _told(stage: Stage, words: str) -> str:
    """The registry's line of `/readyz`, once these words are in it."""
    said = stage.scene.ready(stage.scene.port)[1].get("registry", "")
    return said if words in said else ""


def _publish_again(stage: Stage, keys: list[str]) -> None:
    """Put what was said first of these keys into the outbox, as if it had been there when the backup was made."""
    with psycopg.connect(stage.scene.database, autocommit=True) as session:
        for of in keys:
            first = min(stage.scene.outcomes(of), key=lambda said: said.seq)
            session.execute(
                "INSERT INTO lifecycle.outbox (key, topic, seq, value) VALUES (%s, %s, %s, %s)",
                (of, OUTCOMES.name, first.seq, first.model_dump_json(by_alias=True).encode()),
            )


@pytest.mark.timeout(240)
@pytest.mark.long
def test_changes_since_the_backup_are_found_again(stage: Stage) -> None:
    changed, went, came, again, stays, dead, moved = keys = stage.keys(7)
    before = [changed, went, again, stays, dead, moved]
    process = stage.scene.start()
    stage.scene.publish_desired([desired(of, 1, configuration=_CRM | {"note": "nul: \0"}) for of in before])
    ended(stage, before, 1)
    for statement in _BACK_UP:
        stage.scene.run(statement)

    for version in range(2, 6):
        stage.scene.publish_desired([desired(changed, version, configuration=_CRM | {"syncInterval": version})])
        ended(stage, [changed], version)
    stage.scene.publish_desired([gone(of, 2) for of in (went, again, dead)] + [desired(came, 1)])
    ended(stage, [went, again, dead], 2)
    ended(stage, [came], 1)
    stage.scene.publish_desired([desired(again, 3), desired(dead, 3), desired(moved, 2, configuration=_OTHER_CRM)])
    ended(stage, [again, dead], 3)
    ended(stage, [moved], 2)
    assert end(process) == 0
    for statement in _RESTORE:
        stage.scene.run(statement)
    _publish_again(stage, before)
    stage.scene.publish_desired(
        [gone(dead, 4), gone(moved, 3)]
    )  # of one no row knows the second life, of one the new endpoint

    process = stage.scene.start(METRICS_PORT=str(stage.scene.port))
    fault = eventually(lambda: _told(stage, "older than what was said from it"))
    assert "--accept-older-registry" in fault
    time.sleep(_LOOKS_S)
    assert _told(stage, "older than what was said from it"), "it hid its own age"
    epochs = stage.scene.rows("SELECT key, epoch FROM lifecycle.sagas ORDER BY key")
    assert epochs == stage.scene.rows("SELECT key, epoch FROM backup.sagas ORDER BY key"), "something was claimed"
    assert end(process) == 0

    newest = {of: max(said.seq for said in stage.scene.outcomes(of)) for of in keys}
    stage.scene.said.clear()
    process = stage.scene.start("--accept-older-registry")
    for of, version in ((dead, 4), (moved, 3), (changed, 5), (again, 3), (came, 1)):
        ended(stage, [of], version)
    lives = {changed: 1, went: None, came: 1, again: 2, dead: None, stays: 1, moved: None}
    exists(stage, lives, whole=False)
    for of in lives.keys() - {stays}:  # of whose row nothing is older, and which repeats itself
        assert all(said.seq > newest[of] for said in stage.scene.outcomes(of))
    # It is as new as what is said from it now, for everybody.
    assert end(process) == 0
    stage.scene.start(METRICS_PORT=str(stage.scene.port))
    eventually(lambda: stage.scene.ready(stage.scene.port)[0] == 200)
    stage.scene.publish_desired([gone(of, 9) for of in keys])
    ended(stage, keys, 9)
    exists(stage, dict.fromkeys(keys), whole=False)


@pytest.mark.timeout(240)
@pytest.mark.long
def test_an_empty_registry_adopts_the_existing_resources(stage: Stage) -> None:
    one, two = stage.keys(2)
    process = stage.scene.start()
    stage.scene.publish_desired([desired(one, 1), desired(two, 1)])
    ended(stage, [one, two], 1)
    stage.scene.publish_desired([gone(two, 2)])
    ended(stage, [two], 2)
    stage.scene.publish_desired([desired(two, 3)])
    ended(stage, [two], 3)
    assert end(process) == 0
    stage.scene.run("DROP SCHEMA lifecycle CASCADE")
    stage.scene.empty(DESIRED)
    process = stage.scene.start("--accept-older-registry", METRICS_PORT=str(stage.scene.port))
    eventually(lambda: _told(stage, "of 2 keys something was said, and no desired version is kept"))
    assert end(process) == 0

    stage.scene.publish_desired([desired(one, 1), desired(two, 3)])  # as `lifecycle ledger --republish` does
    stage.scene.said.clear()
    process = stage.scene.start("--accept-older-registry")
    ended(stage, [one], 1)
    ended(stage, [two], 3)
    exists(stage, {one: 1, two: 2}, whole=False)
    assert end(process) == 0

    # A recovery that was begun and lost its process leaves a registry from which nothing is driven.
    stage.scene.run("INSERT INTO lifecycle.recovery DEFAULT VALUES")
    process = stage.scene.start(METRICS_PORT=str(stage.scene.port))
    eventually(lambda: _told(stage, "its recovery was begun and has not ended"))
    stage.scene.publish_desired([gone(one, 4), gone(two, 4)])
    time.sleep(2)
    assert end(process) == 0
    exists(stage, {one: 1, two: 2}, whole=False)
    stage.scene.start("--accept-older-registry")
    ended(stage, [one, two], 4)
    exists(stage, {one: None, two: None}, whole=False)


@pytest.mark.long
def test_a_topic_with_wrong_settings_is_accepted_by_no_option(stage: Stage) -> None:
    (one,) = stage.keys(1)
    process = stage.scene.start()
    stage.scene.publish_desired([desired(one, 1)])
    ended(stage, [one], 1)
    assert end(process) == 0
    stage.scene.run("TRUNCATE lifecycle.sagas, lifecycle.bindings, lifecycle.outbox, lifecycle.plans")
    outcomes = named(OUTCOMES, stage.scene.prefix)
    set_to(stage.scene.kafka, outcomes, "cleanup.policy", "compact")
    process = stage.scene.start("--accept-older-registry", METRICS_PORT=str(stage.scene.port))
    fault = eventually(lambda: _told(stage, "is not as the table says"))
    assert outcomes in fault
    time.sleep(_LOOKS_S)
    assert _told(stage, "is not as the table says"), "it was accepted"
    assert stage.scene.rows("SELECT key FROM lifecycle.sagas") == [], "it was recovered"

    # The option still counts for what it is meant for.
    set_to(stage.scene.kafka, outcomes, "cleanup.policy", "delete")
    eventually(lambda: stage.scene.ready(stage.scene.port)[0] == 200, 60)
    exists(stage, {one: 1}, whole=False)
    assert end(process) == 0
