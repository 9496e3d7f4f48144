"""A real simulator, a real ledger and Kafka around the reconciler; for tests."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from schemas.event import Observed
from schemas.outcome import Direction, Outcome, State
from schemas.tenant import Stage, Tenant
from schemas.topics import RECEIVED
from schemas.values import Json, Key
from services.adapters.kafka.tenant_view import TenantView
from services.adapters.process.clock import now_us
from services.adapters.process.environment import read
from services.adapters.process.settings import ReconcilerSettings
from services.engines import child_process
from services.reconciler.memory import Sights
from services.reconciler.report import RunReport
from services.reconciler.run import run_once
from tests.support.eventually import eventually
from tests.support.ledger_process import LedgerBench, body
from tests.support.simulator_process import Outside

SECOND_LOOK_S = 1.0
CONFIGURATION: Json = {"crmEndpoint": "https://acme.my.salesforce.com", "syncInterval": "PT15M"}


@dataclass
class ReconcilerWorld:
    """One installation without ingress and provisioner: what the reconciler reads and writes."""

    bench: LedgerBench
    outside: Outside
    folder: Path
    view: TenantView
    org_id: str = field(default_factory=lambda: str(uuid4()))
    health: str = ""
    """Base URL of the health of the running service."""

    @property
    def environ(self) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.bench.bootstrap,
            "TOPIC_PREFIX": self.bench.prefix,
            "KEYRING_FILE": str(self.bench.folder / "keyring.json"),
            "STATE_DIR": str(self.folder),
            "ORGS_DIR": str(self.outside.orgs),
            "GENESYS_LOGIN_URL": f"{self.outside.url}/genesys/login",
            "GENESYS_API_URL": f"{self.outside.url}/genesys",
            "RECONCILE_SECOND_LOOK_S": str(SECOND_LOOK_S),
        }

    def new_key(self) -> Key:
        return f"{self.org_id}:{uuid4()}"

    def know(self, key: Key, *, enabled: bool = True, configuration: Json | None = None) -> None:
        """Let Genesys know an integration, and tell nobody."""
        told = {"tenantId": tenant_of(key), "enabled": enabled, "configuration": configuration or CONFIGURATION}
        httpx2.put(self._control(key), json={**told, "webhook": False}).raise_for_status()

    def forget(self, key: Key) -> None:
        """Remove an integration from Genesys, and tell nobody."""
        httpx2.delete(self._control(key)).raise_for_status()

    def install(self, key: Key, configuration: Json | None = None) -> None:
        """Genesys knows it, and the webhook came."""
        self.know(key, configuration=configuration)
        self.bench.receive(body(key, tenantId=tenant_of(key), configuration=configuration or CONFIGURATION), key)
        eventually(lambda: self.tenant(key).installed)

    def conclude(self, key: Key) -> None:
        """The provisioner has made it."""
        version = self.tenant(key).version
        done = Outcome(
            key=key,
            seq=1,
            desired_version=version,
            generation=1,
            direction=Direction.UP,
            state=State.DONE,
            at=now_us(),
        )
        self.bench.conclude(done)
        eventually(lambda: changed(self, key, stage=Stage.ACTIVE))

    def has_seen(self, key: Key) -> bool:
        """True if the reconciler of this state folder saw the key in a listing."""
        return key in Sights(self.folder).load()

    def tenant(self, key: Key) -> Tenant:
        found = self.view.catch_up(30.0)
        assert key in found
        return found[key]

    def observations(self) -> list[Observed]:
        """The observations published for this world's organisation, in order per key."""
        found = [out for out in self.bench.out(RECEIVED) if out.headers["ce_type"] == Observed.ce_type]
        read = [Observed.model_validate_json(out.value) for out in found]
        for out, one in zip(found, read, strict=True):
            assert out.key == one.key
            assert out.ce_id == f"{one.key}/r:{one.read_at}"
        return [one for one in read if one.orgId == self.org_id]

    def run(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        dry_run: bool = False,
        approval: str | None = None,
        whole: bool = False,
    ) -> RunReport:
        """Does the work of `lifecycle reconcile --now`, for this world's organisation, or for all."""
        given, orgs = read({**self.environ, **(environ or {})}, ReconcilerSettings), None if whole else [self.org_id]
        return asyncio.run(run_once(given, now=now_us, dry_run=dry_run, orgs=orgs, approval=approval))

    def run_twice(self, environ: Mapping[str, str] | None = None) -> RunReport:
        """A run, and another once the claims that wait may be seen again."""
        first = self.run(environ)
        if first.look_again_at_us is None:
            return first
        again_us = first.look_again_at_us
        eventually(lambda: now_us() > again_us)
        return self.run(environ)

    @contextmanager
    def service(self, *, ready: bool = True, **environ: str) -> Iterator[str]:
        """A running `lifecycle reconciler`; the base URL of its health. SIGTERM must end it cleanly."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        # An audit asks for a read of its own: whoever tests that switches the audits on.
        quiet = {"RECONCILE_AUDIT_INTERVAL_S": "0"}
        own = {"PATH": os.environ["PATH"], "METRICS_PORT": str(port), **self.environ, **quiet, **environ}
        argv = (sys.executable, "-m", "services.cli.main", "reconciler")
        worker = child_process.start(argv, env=own, log_path=self.folder / "reconciler.log", cwd=Path.cwd())
        self.health = url = f"http://127.0.0.1:{port}"
        eventually(lambda: _status(url) == 200 if ready else _status(url) is not None)
        yield url
        assert worker.stop(30) == 0, child_process.last_lines(worker.log_path)

    def log(self) -> list[dict[str, Any]]:
        """The lines of the service's log."""
        return [json.loads(line) for line in (self.folder / "reconciler.log").read_text().splitlines()]

    def _control(self, key: Key) -> str:
        org_id, _, identity = key.partition(":")
        return f"{self.outside.url}/genesys/control/orgs/{org_id}/integrations/{identity}"


def tenant_of(key: Key) -> str:
    return f"tenant-{key[-8:]}"


def changed(world: ReconcilerWorld, key: Key, **values: Any) -> bool:
    """True if the view of a key has these values now."""
    found = world.tenant(key)
    return all(getattr(found, name) == value for name, value in values.items())


def _status(url: str) -> int | None:
    try:
        return httpx2.get(f"{url}/readyz", timeout=5).status_code
    except httpx2.TransportError:
        return None
