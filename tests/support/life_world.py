"""A whole installation of real processes, and the hand of Genesys' administrator: changes, webhooks, hints and truth.

Rule: the truth is kept here with its times, and a change has two: it took effect between them. What is judged of a
moment counts only where both agree.
"""

import contextlib
import json
import os
import secrets
import subprocess
import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import psycopg
from psycopg import sql

from schemas import webhook_sent
from schemas.hint import PATH as HINT_PATH
from schemas.hint import SECRET_HEADER
from schemas.tenant import Tenant
from schemas.values import EventType, Json, Key
from schemas.webhook_sent import Sent
from services.cli import keyring_contents, sender
from services.cli.demo.outside import Outside
from services.cli.demo.view import PublicView
from services.cli.local.stack import Stack, stack
from services.cli.local.wiring import WEBHOOK_PATH
from tests.support.eventually import eventually
from tests.support.hints import envelope
from tests.support.ingress_process import now_us

ACTIONS: Final[Mapping[EventType, str]] = {
    EventType.INSTALLED: "Create",
    EventType.UNINSTALLED: "Delete",
    EventType.ENABLED: "Enable",
    EventType.DISABLED: "Disable",
    EventType.CONFIGURATION_UPDATED: "Update",
}
UNBRAKED: Final[Mapping[str, str]] = {"REMOVALS_AT_ONCE": "100000", "LIFECYCLE_OPERATOR": "operator"}
"""Settings of a day on which hundreds are removed, as in a year: the brake before the first delete holds nobody."""
_HINTS: Final = "audit"


@dataclass(frozen=True, slots=True)
class TrueState:
    """State of an integration in Genesys from a change on.

    Attributes:
        before_us: Our clock before the change was asked for, microseconds UTC.
        after_us: Our clock when it was done.
        event: The event of the change.
        installed: True if Genesys has the integration.
        enabled: Enablement; None where Genesys does not tell (RESTORED).
        configuration: The configuration.
    """

    before_us: int
    after_us: int
    event: EventType
    installed: bool
    enabled: bool | None
    configuration: Json


@dataclass(frozen=True, slots=True)
class Told:
    """One attempt to tell of a change, as it was answered.

    Attributes:
        at_us: Our clock at the answer, microseconds UTC.
        key: The integration.
        what: The event of a webhook, or the action of a hint.
        dated_us: `eventTimestamp`, or `eventTime` of a hint.
        change_us: Time of the change that it tells of.
        retry: Retry count that the body names.
        is_hint: True for a hint.
        restamped: True if `dated_us` is no time of the change.
        answer: Status and word of the answer.
    """

    at_us: int
    key: Key
    what: str
    dated_us: int
    change_us: int
    retry: int
    is_hint: bool
    restamped: bool
    answer: str


@dataclass
class LifeWorld:
    """One installation. Its methods may be called by any thread."""

    stack: Stack
    view: PublicView
    outside: Outside
    deaths: list[str]
    truth: dict[Key, list[TrueState]] = field(default_factory=lambda: defaultdict(list))
    told: list[Told] = field(default_factory=list)
    approvals: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        content = json.loads(self.stack.folders.keyring.read_text())
        self._secret = content["endpoints"]["default"]["current"]["secret"].encode()
        self._hint_secret: str = content["hints"][_HINTS]["current"]["secret"]
        self.client = self.outside.client

    def change(
        self, key: Key, event: EventType, configuration: Json, *, enabled: bool | None, restores: bool = False
    ) -> TrueState:
        """Changes an integration in Genesys, and tells nobody."""
        org, _, identity = key.partition(":")
        url = f"{self.stack.simulator}/genesys/control/orgs/{org}/integrations/{identity}"
        before_us = now_us()
        if event is EventType.UNINSTALLED:
            self.client.delete(url).raise_for_status()
        elif restores:
            self.client.post(f"{url}/restore").raise_for_status()
        else:
            told: Json = {"tenantId": tenant_of(key), "configuration": configuration}
            switched = event in {EventType.INSTALLED, EventType.ENABLED, EventType.DISABLED}
            self.client.put(url, json=told | ({"enabled": enabled} if switched else {})).raise_for_status()
        state = TrueState(before_us, now_us(), event, event is not EventType.UNINSTALLED, enabled, configuration)
        self.truth[key].append(state)
        return state

    def webhook(self, key: Key, state: TrueState, metadata: Json, *, retry: int = 0, restamped: bool = False) -> Told:
        """Sends one attempt of the webhook of a change."""
        dated_us = now_us() if restamped else state.before_us
        org, _, identity = key.partition(":")
        sent = Sent(state.event, org, identity, tenant_of(key), state.configuration, dated_us, metadata)
        raw = webhook_sent.body(sent, retry)
        answer = self._post(WEBHOOK_PATH, raw, sender.headers(self._secret, raw, now_us()))
        told = Told(now_us(), key, state.event.value, dated_us, state.before_us, retry, False, restamped, answer)
        self.told.append(told)
        return told

    def hint(self, key: Key, state: TrueState) -> Told:
        """Sends the audit of a change, as EventBridge does."""
        raw = json.dumps(envelope(key, ACTIONS[state.event], state.before_us)).encode()
        fields = {"Content-Type": "application/json", SECRET_HEADER: self._hint_secret}
        answer = self._post(f"{HINT_PATH}{_HINTS}", raw, fields)
        told = Told(now_us(), key, ACTIONS[state.event], state.before_us, state.before_us, 0, True, False, answer)
        self.told.append(told)
        return told

    def fault(self, body: Mapping[str, Any]) -> None:
        """Sets a fault of the simulator."""
        self.client.post(f"{self.stack.simulator}/faults", json=dict(body)).raise_for_status()

    def heal(self) -> None:
        """Clears all faults."""
        self.client.delete(f"{self.stack.simulator}/faults").raise_for_status()

    def true_state(self, key: Key, at_us: int | None = None) -> TrueState | None:
        """Returns the state in force at a time; None before the first change."""
        found = self.truth[key]
        place = len(found) if at_us is None else bisect_right(found, at_us, key=lambda one: one.before_us)
        return found[place - 1] if place else None

    def left_after(self, key: Key, install_us: int, until_us: int) -> bool:
        """True if Genesys lost the integration after the newest install up to `install_us`, before `until_us`."""
        found = self.truth[key]
        since = bisect_right(found, install_us, key=lambda one: one.before_us)
        installs = [number for number in range(since) if found[number].event is EventType.INSTALLED]
        newest = installs[-1] if installs else -1
        return newest < 0 or any(not one.installed and one.before_us <= until_us for one in found[newest:])

    def metric(self, service: str, name: str, **labels: str) -> float:
        """Returns the sum of a metric's samples with these labels; 0 without one, or without an answer."""
        try:
            text = self.client.get(f"{self.stack.ports.base(service)}/metrics", timeout=5).text
        except httpx2.HTTPError:
            return 0.0
        total = 0.0
        for line in text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(f'{n}="{v}"' in sample for n, v in labels.items()):
                total += float(value)
        return total

    def tenants(self) -> dict[Key, Tenant]:
        """Returns the view of now."""
        found: dict[Key, Tenant] = {}
        self.view.until(lambda view: found.update(view.tenants) is None, 5.0)
        return found

    def lifecycle(self, *words: str) -> tuple[int, str, str]:
        """Runs an operator's command; returns status, output and errors."""
        argv = [sys.executable, "-m", "services.cli.main", *words]
        environ = {**self.stack.environ, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout, done.stderr

    def log(self, service: str) -> list[dict[str, Any]]:
        """Returns the lines of a service's log that are JSON."""
        found = []
        for line in (self.stack.folders.logs / f"{service}.log").read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [line for line in found if isinstance(line, dict)]

    def until_runs(self, count: int = 1, deadline_s: float = 180.0) -> None:
        """Waits for the ends of so many whole runs of the reconciler that end from now on."""
        for _ in range(count):
            before = self.metric("reconciler", _LAST_RUN)
            eventually(lambda: self.metric("reconciler", _LAST_RUN) > before, deadline_s)  # noqa: B023 - at once

    def _post(self, path: str, raw: bytes, fields: Mapping[str, str]) -> str:
        try:
            answer = self.client.post(self.stack.ingress + path, content=raw, headers=dict(fields), timeout=3.0)
        except httpx2.HTTPError as error:
            return type(error).__name__
        with contextlib.suppress(ValueError, AttributeError):
            return f"{answer.status_code} {answer.json().get('status', '')}"
        return str(answer.status_code)


_LAST_RUN: Final = "lifecycle_reconciler_last_run_timestamp_seconds"


def tenant_of(key: Key) -> str:
    """Returns the tenantId of an integration."""
    return f"tenant-{key[-12:]}"


@contextlib.contextmanager
def life_world(folder: Path, kafka: str, admin_url: str, **settings: str) -> Iterator[LifeWorld]:
    """An installation of its own on engines that run, with these settings.

    Args:
        folder: State folder of the installation.
        kafka: `host:port` of the broker.
        admin_url: URL of a PostgreSQL role that may create databases.
        settings: Settings by name.
    """
    name = f"lives_{secrets.token_hex(5)}"
    with psycopg.connect(admin_url, autocommit=True) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    environ = dict(os.environ) | {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "DATABASE_URL": f"{admin_url.rpartition('/')[0]}/{name}",
        "TOPIC_PREFIX": f"{name}-",
        **settings,
    }
    folder.mkdir(parents=True, exist_ok=True)
    content = keyring_contents.fresh(now_us()) | {"hints": {_HINTS: keyring_contents.hint_endpoint(now_us())}}
    keys = folder / "keyring.json"
    keys.touch(mode=0o600)
    keys.write_text(json.dumps(content))
    deaths: list[str] = []
    with (
        stack(folder, environ, report=deaths.append) as built,
        httpx2.Client(timeout=30.0, trust_env=False) as client,
        PublicView(built.settings.kafka, built.settings.topic_prefix) as view,
    ):
        yield LifeWorld(built, view, Outside(built.simulator, built.addresses.database, client), deaths)
