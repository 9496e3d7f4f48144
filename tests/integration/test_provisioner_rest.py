"""The generic saga faults for a `rest` plan, before an API with ids of its own, no idempotency and no epochs.

The simulator's tenants API makes a second tenant for every repeated POST. Whatever happens, each key has one account
while it is installed, and none afterwards.
"""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from schemas.tenant import Desired
from tests.support.eventually import eventually
from tests.support.provisioner_process import desired, end, gone
from tests.support.provisioner_stage import SHIPPED, Stage, restored, rolled_back
from tests.support.rest_stage import STYLES, account_exists, accounts, ended, is_under_way, pause, rest_staged

ENDINGS: Final = (None, "lost_answer", "error", "refuse", "down")
DYING: Final = ("tests.support.provisioner_dying",)
ALL_MARKS: Final = bool(os.environ.get("LIFECYCLE_ALL_MARKS"))
UNDER_WAY_S: Final = 2.0
LEASE_S: Final = 1.5


pytestmark = pytest.mark.timeout(280)


@pytest.fixture(params=[STYLES[0], *(pytest.param(style, marks=pytest.mark.long) for style in STYLES[1:])])
def style(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def stage(kafka_bootstrap: str, topic_prefix: str, database_url: str, tmp_path: Path, style: str) -> Iterator[Stage]:
    with rest_staged(kafka_bootstrap, topic_prefix, database_url, tmp_path, style) as made:
        yield made


def test_lost_answers_make_no_account_twice_and_leave_none(stage: Stage) -> None:
    cases = [(verb, times) for verb in ("create", "update", "delete", "read") for times in (1, 2)]
    keys = stage.keys(len(cases))
    stage.scene.start()

    def strike(during: str) -> None:
        for of, (verb, times) in zip(keys, cases, strict=True):
            if verb in {during, "read"}:
                stage.world.fault("accounts", "lost_answer", verb=verb, key=of, times=times)

    strike("create")
    stage.scene.publish_desired([desired(of, 1) for of in keys])
    ended(stage, keys, 1)
    account_exists(stage, dict.fromkeys(keys, 1))
    strike("update")
    stage.scene.publish_desired([desired(of, 2, enabled=False) for of in keys])
    ended(stage, keys, 2)
    account_exists(stage, dict.fromkeys(keys, 1))
    assert {row["enabled"] for row in accounts(stage)} == {False}
    strike("delete")
    stage.scene.publish_desired([gone(of, 3) for of in keys])
    ended(stage, keys, 3)
    account_exists(stage, dict.fromkeys(keys))
    assert "hush" not in stage.scene.logs()
    kept = stage.scene.rows("SELECT journal::text FROM lifecycle.sagas") + stage.scene.rows(
        "SELECT row::text FROM lifecycle.plans row"
    )
    assert "hush" not in str(kept)


@pytest.mark.long
def test_every_failure_of_every_call_ends_as_desired_or_rolled_back(stage: Stage) -> None:
    cases = [(verb, fault) for verb in ("create", "update", "delete") for fault in ("refuse", "error", "down")]
    keys = stage.keys(len(cases) + 1)
    *keys, later = keys
    stage.scene.start()

    def strike(during: str) -> None:
        for of, (verb, fault) in zip(keys, cases, strict=True):
            if verb == during:
                stage.world.fault("accounts", fault, verb=verb, key=of, times=1)

    strike("create")
    # A step behind the account is refused: the account is compensated.
    stage.world.fault("middleware", "refuse", verb="create", key=later, times=1)
    stage.scene.publish_desired([desired(of, 1) for of in (*keys, later)])
    refused = [of for of, case in zip(keys, cases, strict=True) if case == ("create", "refuse")] + [later]
    ended(stage, refused, 1, rolled_back)
    ended(stage, [of for of in keys if of not in refused], 1)
    lives = dict.fromkeys(keys, 1) | dict.fromkeys(refused)
    account_exists(stage, lives)
    strike("update")
    changed = [of for of, (verb, _) in zip(keys, cases, strict=True) if verb == "update"]
    stage.scene.publish_desired([desired(of, 2, enabled=False) for of in changed])
    for of, (verb, fault) in zip(keys, cases, strict=True):
        if verb == "update":
            ended(stage, [of], 2, restored if fault == "refuse" else _done)
    account_exists(stage, lives)
    strike("delete")
    stage.scene.publish_desired([gone(of, 3) for of in (*keys, later)])
    for of in (*keys, later):
        eventually(partial(_is_over, stage, of))
    account_exists(stage, dict.fromkeys((*keys, later)))


def test_an_uninstall_during_each_create_and_update_leaves_no_account(stage: Stage) -> None:
    cases = [(verb, fault) for verb in ("create", "update") for fault in ENDINGS]
    keys = stage.keys(len(cases))
    updates = [of for of, (verb, _) in zip(keys, cases, strict=True) if verb == "update"]
    stage.scene.start()
    stage.scene.publish_desired([desired(of, 1) for of in updates])
    ended(stage, updates, 1)
    for of, (verb, fault) in zip(keys, cases, strict=True):
        stage.world.fault("accounts", "slow", verb=verb, key=of, seconds=UNDER_WAY_S, times=1)
        if fault is not None:
            stage.world.fault("accounts", fault, verb=verb, key=of, times=1)
    stage.scene.publish_desired([desired(of, 2, enabled=of not in updates) for of in keys])
    for of, (verb, _) in zip(keys, cases, strict=True):
        eventually(partial(is_under_way, stage, of, verb))
        stage.scene.publish_desired([gone(of, 3)])
    for of in keys:
        eventually(partial(_is_over, stage, of))
    account_exists(stage, dict.fromkeys(keys))


@pytest.mark.parametrize("verb", [pytest.param("read", marks=pytest.mark.long), "create"])
def test_a_stopped_worker_that_goes_on_makes_no_second_account(stage: Stage, verb: str) -> None:
    """Stopped during its `find`, it must not POST afterwards; stopped during its POST, the account is found."""
    (of,) = stage.keys(1)
    stopped = stage.scene.start()
    stage.world.fault("accounts", "slow", verb=verb, key=of, seconds=1.0, times=1)
    # The first listing has no reference to a key, so `slow` strikes a listing of any key.
    if verb == "read":
        stage.world.fault("accounts", "slow", verb="read", seconds=1.0, times=1)
    stage.scene.publish_desired([desired(of, 1)])
    eventually(partial(is_under_way, stage, of, "create"))
    stopped.send_signal(signal.SIGSTOP)
    stage.scene.start()
    ended(stage, [of], 1)
    account_exists(stage, {of: 1})
    stopped.send_signal(signal.SIGCONT)
    pause(LEASE_S)
    account_exists(stage, {of: 1})
    stage.scene.publish_desired([gone(of, 2)])
    ended(stage, [of], 2)
    account_exists(stage, {of: None})


@pytest.mark.long
@pytest.mark.parametrize("style", ["v1"])
def test_an_account_later_than_settles_within_is_removed_by_the_next_update_and_the_uninstall(stage: Stage) -> None:
    updated, removed = keys = stage.keys(2)
    killed = stage.scene.start()
    for of in keys:
        stage.world.fault("accounts", "slow", verb="create", key=of, seconds=12.0, times=1)
    stage.scene.publish_desired([desired(of, 1) for of in keys])
    for of in keys:
        eventually(partial(is_under_way, stage, of, "create"))
    pause(0.5)  # the POST is at the system
    killed.kill()
    stage.scene.start()
    ended(stage, keys, 1)
    eventually(lambda: len(accounts(stage)) == 4)
    stage.scene.publish_desired([desired(updated, 2, enabled=False), gone(removed, 2)])
    ended(stage, keys, 2)
    account_exists(stage, {updated: 1, removed: None})


def _deaths(marks: int) -> Iterator[tuple[int, str]]:
    every = 1 if ALL_MARKS else 4
    for at in range(1, marks + 1, every):
        for when in ("before", "after", "returned"):
            yield at, when


@pytest.mark.long
@pytest.mark.parametrize(("at", "when"), list(_deaths(9)))
@pytest.mark.parametrize("style", ["v1", "slow"])
def test_a_worker_killed_at_any_mark_makes_no_account_twice_and_leaves_none(stage: Stage, at: int, when: str) -> None:
    """Install, disable, uninstall; the worker of the first two dies once, at this mark of its journal."""
    (of,) = stage.keys(1)
    _dies(stage, of, at, when)


@pytest.mark.parametrize("style", ["v1"])
@pytest.mark.parametrize("when", ["returned"])
def test_a_worker_killed_around_its_create_makes_no_account_twice(stage: Stage, when: str) -> None:
    (of,) = stage.keys(1)
    _dies(stage, of, 1, when)


def _dies(stage: Stage, of: str, at: int, when: str) -> None:
    scene = stage.scene
    fixed_port = {"METRICS_PORT": str(scene.port)}
    scene.program = DYING
    worker = scene.start(DIES=when, DIES_AT=str(at), **fixed_port)
    scene.program = SHIPPED
    chapters: tuple[tuple[Desired, int | None], ...] = (
        (desired(of, 1), 1),
        (desired(of, 2, enabled=False), 1),
        (gone(of, 3), None),
    )
    for version, life in chapters:
        scene.publish_desired([version])
        eventually(lambda: worker.poll() is not None or _has_ended(stage, version))  # noqa: B023 - called at once
        if worker.poll() is not None:
            worker = scene.start(**fixed_port)
        ended(stage, [of], version.version)
        account_exists(stage, {of: life})
    assert end(worker) == 0


def _has_ended(stage: Stage, version: Desired) -> bool:
    return any(
        said.desired_version == version.version and said.state.value != "working"
        for said in stage.scene.outcomes(version.key)
    )


def _done(outcome: object) -> bool:
    return getattr(outcome, "reason", "") is None


def _is_over(stage: Stage, of: str) -> bool:
    return stage.scene.rows("SELECT phase FROM lifecycle.sagas WHERE key = %s", of) == [("empty",)]
