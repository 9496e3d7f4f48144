"""Real provisioner processes on real Kafka and PostgreSQL: every desired resource exists once, despite faults."""

import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from schemas.codec import Message
from schemas.outcome import State
from schemas.topics import DESIRED, OUTCOMES, named
from services.core.ledger.audit import is_genuine
from tests.support.eventually import eventually
from tests.support.provisioner_child import CANARY
from tests.support.provisioner_process import PARTITIONS, SECRET, Scene, desired, end, free_port, gone, key, shut
from tests.support.saga_world import STEPS
from tests.support.transactions import Copier


@pytest.fixture
def scene(kafka_bootstrap: str, topic_prefix: str, database_url: str, tmp_path: Path) -> Iterator[Scene]:
    with Scene(kafka_bootstrap, topic_prefix, database_url, tmp_path) as made:
        yield made


def test_an_install_makes_resources_and_an_uninstall_removes_them_in_reverse(scene: Scene) -> None:
    scene.start()
    scene.publish_desired([desired(key(1), 1)])
    assert scene.ended(key(1), 1).state is State.DONE
    assert scene.things(key(1)) == list(STEPS)
    scene.publish_desired([gone(key(1), 2)])
    assert scene.ended(key(1), 2).direction.value == "down"
    assert scene.things(key(1)) == []
    assert scene.calls(key(1)) == [(s, "create") for s in STEPS] + [(s, "delete") for s in reversed(STEPS)]
    said = scene.outcomes(key(1))
    assert [o.seq for o in said] == list(range(1, len(said) + 1))
    assert [(o.direction, o.state) for o in said] == [
        ("up", "working"),
        ("up", "done"),
        ("down", "working"),
        ("down", "done"),
    ]


def test_a_refused_step_is_compensated_and_a_corrected_version_becomes_active(scene: Scene) -> None:
    scene.start()
    bad = {"crmEndpoint": "https://acme.salesforce.com", "bad": "subscriptions"}
    scene.publish_desired([desired(key(1), 1, configuration=bad)])
    ended = scene.ended(key(1), 1)
    assert (ended.state, ended.step, ended.error_class) == (State.ROLLED_BACK, "subscriptions", "refused")
    assert scene.things(key(1)) == []
    scene.publish_desired([desired(key(1), 2)])
    assert scene.ended(key(1), 2).state is State.DONE
    assert scene.things(key(1)) == list(STEPS)


def test_secret_outputs_are_sealed_and_appear_in_no_log(scene: Scene) -> None:
    scene.start()
    scene.publish_desired([desired(key(1), 1)])
    scene.ended(key(1), 1)
    ((journal,),) = scene.rows("SELECT journal::text FROM lifecycle.sagas")
    assert '"$sealed"' in journal
    assert CANARY not in journal + scene.logs()


def test_every_change_outside_has_its_line_in_the_audit_trail(scene: Scene) -> None:
    scene.start()
    scene.publish_desired([desired(key(1), 1)])
    scene.ended(key(1), 1)
    scene.publish_desired([gone(key(1), 2)])
    scene.ended(key(1), 2)
    expected = [f"{verb} done" for verb in ("create", "delete") for _ in STEPS]
    lines = eventually(lambda: scene.audit(key(1)) if len(scene.audit(key(1))) >= len(expected) else [])
    assert [line.verdict for line in lines] == expected
    assert [line.id for line in lines] == [f"{key(1)}/step/{number}" for number in range(1, len(expected) + 1)]
    assert all(is_genuine(line, [SECRET.encode()]) for line in lines)


def test_an_uninstall_with_another_tenant_id_acts_on_the_recorded_tenant(scene: Scene) -> None:
    scene.start()
    scene.publish_desired([desired(key(1), 1, tenant_id="mine"), desired(key(2), 1, tenant_id="yours")])
    scene.ended(key(1), 1)
    scene.ended(key(2), 1)
    scene.publish_desired([gone(key(1), 2, tenant_id="yours")])
    assert scene.ended(key(1), 2).state is State.DONE
    assert scene.rows("SELECT DISTINCT tenant_id FROM outside.calls WHERE key = %s", key(1)) == [("mine",)]
    assert scene.things(key(1)) == []
    assert scene.things(key(2)) == list(STEPS)


def test_the_second_organisation_that_claims_a_tenant_waits_without_a_call(scene: Scene) -> None:
    scene.start()
    first, second = key(1, org=1), key(2, org=2)
    scene.publish_desired([desired(first, 1, tenant_id="acme")])
    scene.ended(first, 1)
    scene.publish_desired([desired(second, 1, tenant_id="acme")])
    held = scene.ended(second, 1)
    assert (held.state, held.reason, held.direction) == (State.HELD, "tenant_conflict", "up")
    assert scene.calls(second) == []
    scene.publish_desired([gone(first, 2)])
    scene.ended(first, 2)
    scene.publish_desired([desired(second, 2, tenant_id="acme")])
    assert scene.ended(second, 2).state is State.DONE
    assert scene.things(second) == list(STEPS)


def test_another_tenant_id_of_a_bound_key_changes_no_resource_and_is_reported(scene: Scene) -> None:
    scene.start()
    scene.publish_desired([desired(key(1), 1, tenant_id="mine")])
    scene.ended(key(1), 1)
    scene.publish_desired([desired(key(1), 2, tenant_id="other")])
    assert scene.ended(key(1), 2).reason == "tenant_changed"
    assert len(scene.calls(key(1))) == len(STEPS)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_fifty_installs_under_random_kills_make_every_resource_once(scene: Scene, seed: int) -> None:
    chance = random.Random(seed)
    keys = [key(number) for number in range(50)]
    scene.environment |= {"OUTSIDE_PAUSE_S": "0.02", "METRICS_PORT": str(scene.port)}
    scene.publish_desired([desired(of, 1) for of in keys])
    done = 0
    for _ in range(5):
        process = scene.start()
        done += chance.randrange(5, 60)
        eventually(lambda: scene.rows("SELECT count(*) FROM outside.calls")[0][0] >= done)  # noqa: B023 - called at once
        end(process, signal.SIGKILL)
    scene.start()
    for of in keys:
        assert scene.ended(of, 1).state is State.DONE
    assert scene.rows("SELECT step, count(*), sum(made) FROM outside.things GROUP BY step ORDER BY step") == [
        (step, 50, 50) for step in sorted(STEPS)
    ]
    for of in keys:
        assert {outcome.seq for outcome in scene.said if outcome.key == of} == {1, 2}
    scene.publish_desired([gone(of, 2) for of in keys])
    for of in keys:
        assert scene.ended(of, 2).direction.value == "down"
    assert scene.rows("SELECT count(*) FROM outside.things") == [(0,)]


def test_a_stopped_provisioner_finishes_its_calls_releases_its_sagas_and_exits_with_0(scene: Scene) -> None:
    scene.environment["OUTSIDE_PAUSE_S"] = "0.05"
    process = scene.start()
    keys = [key(number) for number in range(30)]
    scene.publish_desired([desired(of, 1) for of in keys])
    eventually(lambda: scene.rows("SELECT count(*) FROM outside.calls")[0][0] >= 30)
    assert end(process) == 0
    assert scene.rows("SELECT count(*) FROM lifecycle.sagas WHERE lease_until IS NOT NULL") == [(0,)]
    assert scene.rows("SELECT count(*) FROM lifecycle.outbox") == [(0,)]
    scene.start()
    for of in keys:
        assert scene.ended(of, 1).state is State.DONE
    assert scene.rows("SELECT count(*) FROM outside.calls WHERE verb = 'read'") == [(0,)]
    assert scene.rows("SELECT count(*), sum(made) FROM outside.things") == [(180, 180)]


def test_two_provisioners_share_the_work_and_repeat_no_call(scene: Scene) -> None:
    scene.environment |= {"OUTSIDE_PAUSE_S": "0.01", "SAGAS_AT_ONCE": "8"}
    ports = (scene.port, free_port())
    for port in ports:
        scene.start(METRICS_PORT=str(port))
    for port in ports:  # else the first is done before the second is there
        eventually(lambda port=port: scene.ready(port)[0] == 200)  # type: ignore[misc]
    keys = [key(number) for number in range(60)]
    scene.publish_desired([desired(of, 1) for of in keys])
    for of in keys:
        assert scene.ended(of, 1).state is State.DONE
    assert scene.rows("SELECT count(*), sum(made) FROM outside.things") == [(360, 360)]
    assert scene.rows("SELECT count(*) FROM outside.calls") == [(360,)]
    assert scene.rows("SELECT count(DISTINCT worker) FROM lifecycle.sagas") == [(2,)]


@pytest.mark.long
def test_an_unreachable_registry_makes_the_provisioner_unready_and_loses_no_version(
    scene: Scene, database_admin_url: str
) -> None:
    scene.start(METRICS_PORT=str(scene.port))
    scene.publish_desired([desired(key(1), 1)])
    scene.ended(key(1), 1)
    with shut(database_admin_url, scene.database):
        eventually(lambda: scene.ready(scene.port)[0] == 503)
        assert scene.ready(scene.port)[1]["registry"] != "ok"
        scene.publish_desired([gone(key(1), 2), desired(key(2), 1)])
    assert scene.ended(key(1), 2).state is State.DONE
    assert scene.ended(key(2), 1).state is State.DONE
    eventually(lambda: scene.ready(scene.port)[0] == 200)


def test_an_empty_registry_of_a_group_with_offsets_stops_intake(scene: Scene) -> None:
    process = scene.start()
    scene.publish_desired([desired(key(1), 1)])
    scene.ended(key(1), 1)
    assert end(process) == 0
    scene.run("DROP SCHEMA lifecycle CASCADE")
    process = scene.start(METRICS_PORT=str(scene.port))
    eventually(lambda: "older than what was said from it" in scene.ready(scene.port)[1].get("registry", ""))
    assert scene.ready(scene.port)[0] == 503
    assert end(process) == 0
    # Where nobody ever said anything, the group tells.
    scene.empty(OUTCOMES)
    scene.start(METRICS_PORT=str(scene.port))
    eventually(lambda: "the registry is empty" in scene.ready(scene.port)[1].get("intake", ""))
    assert scene.ready(scene.port)[0] == 503


def test_an_outbox_row_of_a_newer_release_waits_and_blocks_no_other_row(scene: Scene) -> None:
    process = scene.start()
    scene.publish_desired([desired(key(1), 1), desired(key(2), 1)])
    scene.ended(key(1), 1)
    scene.ended(key(2), 1)
    assert end(process) == 0
    scene.run(
        "INSERT INTO lifecycle.outbox (key, topic, seq, value)"
        " SELECT min(key), 'lifecycle.outcomes', 0, '{}'::bytea FROM lifecycle.sagas"
    )
    scene.start(METRICS_PORT=str(scene.port))
    scene.publish_desired([gone(key(1), 2), gone(key(2), 2)])
    assert scene.ended(key(2), 2).state is State.DONE
    eventually(lambda: "cannot be read by this release" in scene.ready(scene.port)[1]["outbox"])
    assert all(said.desired_version == 1 for said in scene.outcomes(key(1)))
    scene.run("DELETE FROM lifecycle.outbox WHERE seq = 0")
    assert scene.ended(key(1), 2).state is State.DONE


def test_an_offset_outside_the_log_stops_intake_and_is_reported(scene: Scene) -> None:
    process = scene.start()
    scene.publish_desired([desired(key(number), 1) for number in range(10)])
    for number in range(10):
        scene.ended(key(number), 1)
    assert end(process) == 0
    scene.publish_desired([desired(key(number), 2) for number in range(10)])
    scene.empty(DESIRED)
    scene.start(METRICS_PORT=str(scene.port))
    eventually(lambda: "the group stands at" in scene.ready(scene.port)[1].get("intake", ""))


def test_a_worker_paused_past_its_lease_changes_no_resource_when_it_wakes(scene: Scene) -> None:
    scene.environment["OUTSIDE_PAUSE_S"] = "0.2"
    sleeper = scene.start()
    scene.publish_desired([desired(key(1), 1)])
    eventually(lambda: len(scene.calls(key(1))) >= 2)
    # In the middle of a call, and with nothing on its way to Kafka.
    eventually(lambda: scene.rows("SELECT count(*) FROM lifecycle.outbox") == [(0,)])
    sleeper.send_signal(signal.SIGSTOP)
    scene.start()
    assert scene.ended(key(1), 1).state is State.DONE
    epochs = scene.rows("SELECT max(epoch) FROM outside.calls")
    ((journal, epoch),) = scene.rows("SELECT journal::text, epoch FROM lifecycle.sagas")
    sleeper.send_signal(signal.SIGCONT)
    eventually(lambda: '"event": "started"' in scene.logs())
    assert end(sleeper) == 0
    assert scene.rows("SELECT journal::text, epoch FROM lifecycle.sagas") == [(journal, epoch)]
    assert scene.rows("SELECT max(epoch) FROM outside.calls") == epochs
    assert scene.rows("SELECT count(*), sum(made) FROM outside.things") == [(len(STEPS), len(STEPS))]
    said = scene.outcomes(key(1))
    assert sorted(outcome.seq for outcome in said) == [1, 2]


def test_a_killed_provisioner_gets_its_partitions_back_at_once(scene: Scene) -> None:
    scene.environment |= {"SESSION_TIMEOUT_S": "45", "METRICS_PORT": str(scene.port)}
    process = scene.start()
    scene.publish_desired([desired(key(1), 1)])
    scene.ended(key(1), 1)
    end(process, signal.SIGKILL)
    scene.start()
    scene.publish_desired([desired(key(number), 1) for number in range(2, 8)])
    for number in range(2, 8):
        assert scene.ended(key(number), 1, deadline_s=30).state is State.DONE


def test_a_consumer_fenced_by_another_member_is_reported_and_rejoins(scene: Scene) -> None:
    scene.start(METRICS_PORT=str(scene.port))
    scene.publish_desired([desired(key(1), 1)])
    scene.ended(key(1), 1)
    assert scene.ready(scene.port)[0] == 200
    group, member = f"{scene.prefix}lifecycle-provisioner", f"{socket.gethostname()}-{scene.port}"
    other = Consumer(
        {"bootstrap.servers": scene.kafka, "group.id": group, "group.instance.id": member, "session.timeout.ms": 6_000}
    )
    other.subscribe([named(DESIRED, scene.prefix)])

    def fenced() -> bool:
        other.poll(0.01)
        return "FENCED" in scene.ready(scene.port)[1].get("intake", "").upper()

    try:
        assert eventually(fenced)
    finally:
        other.close()
    scene.publish_desired([desired(key(2), 1)])
    assert scene.ended(key(2), 1).state is State.DONE
    eventually(lambda: scene.ready(scene.port)[0] == 200)


def test_topics_that_end_in_transaction_markers_prove_the_registry_and_are_read_on(scene: Scene) -> None:
    first = scene.start()
    scene.publish_desired([desired(key(1), 1)])
    scene.ended(key(1), 1)
    assert end(first) == 0
    copier = Copier(scene.kafka, scene.prefix)
    for topic in (OUTCOMES, DESIRED):
        copier.abort(named(topic, scene.prefix), [(number, Message(b"k", b"x")) for number in range(PARTITIONS)])
    scene.start(METRICS_PORT=str(scene.port))
    eventually(lambda: scene.ready(scene.port)[0] == 200)
    scene.publish_desired([desired(key(2), 1), gone(key(1), 2)])
    assert scene.ended(key(2), 1).state is State.DONE
    assert scene.ended(key(1), 2).direction.value == "down"
