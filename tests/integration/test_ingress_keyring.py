"""Secrets change under a running ingress: no valid sender is refused while the keyring file changes or breaks."""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from schemas.times import rfc3339
from services.cli import keyring_contents, keyring_file
from tests.support.eventually import eventually
from tests.support.ingress_process import (
    PREVIOUS,
    SECRET,
    Ingress,
    Line,
    body,
    ingress,
    make_topics,
    now_us,
    raw,
    request,
)

pytestmark = pytest.mark.engines

S = 1_000_000
STRANGER = "canary-stranger-0123456789-0123456789-abc"
ENOUGH = 40
"""Answers that a sender waits for before it takes something for shown."""


def endpoint(current: str = SECRET, previous: str | None = None, not_after_us: int = 0) -> dict[str, Any]:
    former = previous and {"secret": previous, "not_after": rfc3339(not_after_us)}
    return {"current": {"secret": current}, "previous": former}


@dataclass
class Life:
    """A ready ingress and its keyring file."""

    running: Ingress
    file: Path

    def write(self, **endpoints: Any) -> None:
        """Replace the file by rename, and wait for nothing."""
        self.replace(json.dumps({"endpoints": endpoints}))

    def replace(self, text: str) -> None:
        staging = self.file.with_name("staging")
        staging.write_text(text)
        staging.rename(self.file)

    def taken(self) -> float:
        return self.running.metric("lifecycle_keyring_reloads_total", result="taken")

    def broken(self) -> float:
        return self.running.metric("lifecycle_keyring_broken")

    def ask(self, secret: str, name: str = "default") -> int:
        return self.running.post(body(), secret=secret, path=f"/v1/genesys/lifecycle/{name}").status


@contextlib.contextmanager
def living(bootstrap: str, prefix: str, folder: Path, **environment: str) -> Iterator[Life]:
    make_topics(bootstrap, prefix)
    with ingress(bootstrap, prefix, folder, **environment) as running:
        eventually(lambda: running.get("/readyz").status == 200)
        yield Life(running, Path(environment.get("KEYRING_FILE", folder / "keyring.json")))


@pytest.fixture
def life(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Iterator[Life]:
    with living(kafka_bootstrap, topic_prefix, tmp_path) as found:
        yield found


@dataclass
class EndlessSender:
    """Sends without a pause, on one connection after the other, with whatever secret it is given."""

    port: int
    secret: str
    answers: list[tuple[str, int, int, int]] = field(default_factory=list)
    """Secret, sent at, answered at, status."""
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            with contextlib.closing(Line(self.port)) as line:
                while not self.stop.is_set() and self._ask(line):
                    pass

    def _ask(self, line: Line) -> bool:
        secret, sent_us = self.secret, now_us()
        line.write(request(raw(body()), secret=secret))
        reply = line.reply()
        if reply is not None:
            self.answers.append((secret, sent_us, now_us(), reply.status))
        return reply is not None and reply.fields.get("connection") != "close"

    def change(self, secret: str) -> None:
        """Returns once it signs with this one and nothing of the former is under way."""
        self.secret = secret
        self.wait(1)

    def wait(self, count: int) -> None:
        """Until so many more answers came under the secret it has now."""
        begun = self.count()
        eventually(lambda: self.count() >= begun + count)

    def count(self) -> int:
        return sum(secret == self.secret for secret, *_ in list(self.answers))


@contextlib.contextmanager
def sending(life: Life, *secrets: str) -> Iterator[list[EndlessSender]]:
    senders = [EndlessSender(life.running.port, secret) for secret in secrets]
    threads = [threading.Thread(target=sender.run) for sender in senders]
    for thread in threads:
        thread.start()
    try:
        yield senders
    finally:
        for sender in senders:
            sender.stop.set()
        for thread in threads:
            thread.join()


def statuses(senders: list[EndlessSender]) -> Counter[int]:
    return Counter(status for sender in senders for *_, status in sender.answers)


def rotate(life: Life, overlap_us: int) -> str:
    """As `lifecycle keyring rotate` does; the fresh secret, once the ingress has it."""
    before = life.taken()

    def edit(held: Any, _: Any) -> None:
        held["endpoints"]["default"] = keyring_contents.rotated(held["endpoints"]["default"], now_us(), overlap_us)

    after = keyring_file.change(life.file, edit)
    eventually(lambda: life.taken() > before)
    return after.endpoints["default"].current.secret.get_secret_value()


def test_a_rotation_under_load_refuses_no_sender_inside_the_overlap(life: Life) -> None:
    life.write(default={**endpoint(), "orgs": ["*"]})
    with sending(life, SECRET, SECRET, SECRET, SECRET) as senders:
        for sender in senders:
            sender.wait(ENOUGH)
        for _ in range(4):
            fresh = rotate(life, 3600 * S)
            for sender in senders[:2]:
                sender.change(fresh)
            for sender in senders:
                sender.wait(ENOUGH)  # two sign with the fresh one and two with the former
            for sender in senders[2:]:
                sender.change(fresh)
    assert statuses(senders).keys() == {200}
    assert statuses(senders).total() >= 4 * 5 * ENOUGH
    assert len({secret for sender in senders for secret, *_ in sender.answers}) == 5
    assert life.ask(SECRET) == 401, "three rotations ago it was cut off"


def test_a_former_secret_is_accepted_until_its_instant_and_no_longer(life: Life) -> None:
    with sending(life, PREVIOUS, SECRET) as (former, current):
        eventually(lambda: former.count() >= ENOUGH)
        not_after_us = now_us() + 4 * S
        life.write(default=endpoint(SECRET, PREVIOUS, not_after_us))
        eventually(lambda: life.taken() == 1)
        taken_us = now_us()
        assert taken_us < not_after_us, "the machine is too slow for this test"
        eventually(lambda: now_us() > not_after_us + S)
        former.wait(ENOUGH)
        current.wait(ENOUGH)
    assert statuses([current]).keys() == {200}
    inside = [code for _, sent, answered, code in former.answers if sent > taken_us and answered < not_after_us]
    after = [code for _, sent, _, code in former.answers if sent >= not_after_us]
    assert (set(inside), set(after)) == ({200}, {401})
    assert len(after) >= ENOUGH
    assert life.ask(STRANGER) == 401


@pytest.mark.parametrize("content", ['{"endpoints": {"default": {"current": {"sec', "", '{"endpoints": {}}'], ids=repr)
def test_a_broken_keyring_file_keeps_the_last_good_keyring_and_is_shown(life: Life, content: str) -> None:
    with sending(life, SECRET, SECRET) as senders:
        life.replace(content)
        eventually(lambda: life.broken() == 1)
        for sender in senders:
            sender.wait(ENOUGH)
        assert life.ask(STRANGER) == 401
        assert life.running.get("/readyz").status == 200
        (told,) = life.running.logged("keyring broken")
        assert told["level"] == "error"
        assert "canary" not in "".join(life.running.lines)
        life.write(default=endpoint())
        eventually(lambda: life.broken() == 0)
        for sender in senders:
            sender.wait(ENOUGH)
    assert statuses(senders).keys() == {200}
    assert len(life.running.logged("keyring broken")) == 1
    assert life.running.metric("lifecycle_keyring_reloads_total", result="broken") == 1


def test_a_keyring_file_that_is_missing_briefly_refuses_no_sender(life: Life) -> None:
    away = life.file.with_name("away")
    with sending(life, SECRET, SECRET, SECRET) as senders:
        for _ in range(3):
            life.file.rename(away)
            eventually(lambda: life.broken() == 1)
            for sender in senders:
                sender.wait(ENOUGH)
            away.rename(life.file)
            eventually(lambda: life.broken() == 0)
    assert statuses(senders).keys() == {200}
    assert life.taken() == 0
    assert len(life.running.logged("keyring broken")) == 3


def test_exactly_the_deliveries_proved_by_a_previous_secret_are_counted_by_endpoint(life: Life) -> None:
    def counted() -> float:
        return life.running.metric("lifecycle_ingress_previous_secret_total", endpoint="default")

    life.write(default=endpoint(SECRET, PREVIOUS, now_us() + 3600 * S))
    eventually(lambda: life.taken() == 1)
    assert (life.ask(SECRET), life.ask("x" * 40), counted()) == (200, 401, 0)
    assert [life.ask(PREVIOUS), life.ask(PREVIOUS), life.ask(SECRET)] == [200, 200, 200]
    assert counted() == 2


def test_endpoints_are_added_and_removed_without_a_restart(life: Life) -> None:
    made = keyring_contents.endpoint(now_us())
    secret = made["current"]["secret"]
    assert life.ask(secret, "acme") == 401
    keyring_file.change(life.file, lambda held, _: held["endpoints"].update(acme=made))
    eventually(lambda: life.ask(secret, "acme") == 200)
    assert [life.ask(secret), life.ask(SECRET, "acme"), life.ask(SECRET)] == [401, 401, 200]
    assert "acme" in life.running.logged("keyring taken")[0]["endpoints"]
    keyring_file.change(life.file, lambda held, _: held["endpoints"].pop("acme"))
    eventually(lambda: life.ask(secret, "acme") == 401)
    assert secret not in "".join(life.running.lines)


def test_a_kubernetes_secret_is_reloaded_when_its_link_is_swapped(
    kafka_bootstrap: str, topic_prefix: str, tmp_path: Path
) -> None:
    mount = tmp_path / "mount"

    def publish(name: str, secret: str) -> None:
        (mount / name).mkdir(parents=True)
        (mount / name / "keyring.json").write_text(json.dumps({"endpoints": {"default": endpoint(secret)}}))
        (mount / "..data_tmp").symlink_to(name)
        (mount / "..data_tmp").rename(mount / "..data")

    publish("..1", SECRET)
    (mount / "keyring.json").symlink_to("..data/keyring.json")
    with living(kafka_bootstrap, topic_prefix, tmp_path, KEYRING_FILE=str(mount / "keyring.json")) as life:
        assert [life.ask(SECRET), life.ask(PREVIOUS)] == [200, 401]
        publish("..2", PREVIOUS)
        eventually(lambda: life.ask(PREVIOUS) == 200)
        assert life.ask(SECRET) == 401
        assert life.broken() == 0
