"""An operator's world with a vendor's tenants: resources that exist outside before this system knows of them."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
from psycopg import sql

from schemas.tenant import Stage
from schemas.values import Json, Key
from services.cli.exits import Exit
from services.core.saga.calls import resource_name
from services.core.saga.plan import schema_name
from tests.support.eventually import eventually
from tests.support.ledger_process import body
from tests.support.operator_world import OperatorWorld
from tests.support.reconciler_world import changed, tenant_of

CRM_HOST = "acme.my.salesforce.com"
CONFIGURATION: Json = {"crmEndpoint": f"https://{CRM_HOST}", "syncInterval": "PT15M"}
TOPICS = ["conversations", "presence", "routing"]
SYSTEMS = ("middleware", "crm", "schemas", "subscriptions", "tokens")
CHANGES = frozenset({"create", "update", "delete"})
_AT_ONCE = 8


@dataclass
class AdoptionWorld(OperatorWorld):
    """One installation, and what a vendor has made outside under its own steam."""

    def vendors_tenants(self, count: int) -> list[Key]:
        """Keys of tenants whose every resource exists outside, and that Genesys has; nobody was told."""
        keys = sorted(self.new_key() for _ in range(count))
        with httpx2.Client(timeout=30.0) as client, ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda key: self._make(client, key), keys))
        made = "CREATE ROLE {name} NOLOGIN; CREATE SCHEMA {name}; COMMENT ON SCHEMA {name} IS {comment}"
        with psycopg.connect(self.database, autocommit=True) as session:
            for key in keys:
                name, comment = sql.Identifier(schema_name(key, 1)), json.dumps({"key": key, "generation": 1})
                session.execute(sql.SQL(made).format(name=name, comment=sql.Literal(comment)))
        return keys

    def _make(self, client: httpx2.Client, key: Key) -> None:
        name = resource_name(key, 1)
        resource = {"name": name, "key": key, "tenant_id": tenant_of(key), "generation": 1, "enabled": True}
        bodies: dict[str, Json] = {
            f"middleware/{name}": {**resource, "configuration": CONFIGURATION},
            f"crm/{CRM_HOST}/connections/{name}": {**resource, "sync_interval": CONFIGURATION["syncInterval"]},
            f"subscriptions/{name}": {**resource, "topics": TOPICS, "state": "active"},
        }
        for path, content in bodies.items():
            client.put(f"{self.outside.url}/{path}", json=content, headers=_headers(key)).raise_for_status()
        form = {"grant_type": "client_credentials", "scope": f"tenant:{name}"}
        client.post(
            f"{self.outside.url}/oauth/token", data=form, headers=_headers(key), auth=("lifecycle", "s" * 32)
        ).raise_for_status()

    def file(self, lines: Sequence[Any], name: str = "tenants.jsonl") -> Path:
        """A file of lines; texts are written as they are."""
        path = self.folder / name
        path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines) + "\n")
        return path

    def line(self, key: Key, **fields: Any) -> Json:
        """A line of a vendor's file."""
        steps = {"middleware": {"id": resource_name(key, 1)}, "schema": {"schema": schema_name(key, 1)}}
        return {"key": key, "tenantId": tenant_of(key), "configuration": CONFIGURATION, "steps": steps, **fields}

    def adopt(self, file: Path, *words: str, status: Exit = Exit.OK) -> dict[str, Any]:
        """The result of `lifecycle adopt`, as JSON."""
        own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), **self.environ}
        argv = [sys.executable, "-m", "services.cli.main", "adopt", str(file), "--by", "Ada", *words, "--json"]
        ended = subprocess.run(argv, env=own, cwd=self.folder, capture_output=True, timeout=280, check=False)
        assert ended.returncode == status, ended.stderr.decode()
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    def adopt_and_die(self, file: Path, after_rows: int) -> None:
        """Starts `lifecycle adopt`, and kills it as soon as the registry has so many rows of the file's tenants."""
        own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), **self.environ}
        argv = [sys.executable, "-m", "services.cli.main", "adopt", str(file), "--by", "Ada"]
        running = subprocess.Popen(argv, env=own, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with psycopg.connect(self.database, autocommit=True) as session:
            while running.poll() is None:
                found = session.execute(
                    "SELECT count(*) FROM lifecycle.sagas WHERE org = %s", (self.org_id,)
                ).fetchone()
                if found is not None and found[0] >= after_rows:
                    running.send_signal(signal.SIGKILL)
                    break
        assert running.wait(30) == -signal.SIGKILL, "it was faster than the look at the registry"

    def rows(self) -> dict[Key, tuple[str, int, int]]:
        """Phase, generation and version of each row of this organisation."""
        query = "SELECT key, phase, generation, desired_version FROM lifecycle.sagas WHERE org = %s"
        with psycopg.connect(self.database, autocommit=True) as session:
            found = session.execute(query, (self.org_id,)).fetchall()
        return {key: (phase, generation, version) for key, phase, generation, version in found}

    def until_active(self, keys: Sequence[Key], deadline_s: float = 60.0) -> None:
        """Waits until the view shows each tenant as active in generation 1."""

        def shown() -> Counter[str]:
            view = self.view.catch_up(30.0)
            found = [view.get(key) for key in keys]
            return Counter(f"{one.stage} {one.reason} {one.generation}" if one else "not told" for one in found)

        try:
            eventually(lambda: shown() == {f"{Stage.ACTIVE} None 1": len(keys)}, deadline_s)
        except AssertionError:
            raise AssertionError(f"not all are active: {shown()}, {Counter(self.rows().values())}") from None

    def changes(self, keys: Sequence[Key]) -> Counter[tuple[str, str]]:
        """The calls of these keys that changed or were to change a system: system and verb."""
        wanted = set(keys)
        calls = httpx2.get(f"{self.outside.url}/calls", timeout=60).raise_for_status().json()
        return Counter(
            (call["system"], call["verb"])
            for call in calls
            # The archive is written by a teardown: it is none of the tenant's resources.
            if call["key"] in wanted and call["verb"] in CHANGES and call["system"] in SYSTEMS
        )

    def things(self, keys: Sequence[Key]) -> dict[str, int]:
        """The number of resources of these keys, by system."""
        found = httpx2.get(f"{self.outside.url}/inventory", timeout=60).raise_for_status().json()
        return {system: sum(len(found[system].get(key, ())) for key in keys) for system in SYSTEMS}

    def uninstalled(self, keys: Sequence[Key]) -> None:
        """The webhooks of these uninstalls came; each integration is gone from Genesys."""
        raw = [(key, body(key, event="uninstalled", tenantId=tenant_of(key), configuration={})) for key in keys]
        self.bench.receive_all(raw)

    def is_deprovisioned(self, key: Key) -> bool:
        """True if the view says so."""
        return changed(self, key, stage=Stage.DEPROVISIONED)


def _headers(key: Key) -> dict[str, str]:
    return {"Lifecycle-Key": key, "Lifecycle-Generation": "1", "Idempotency-Key": secrets.token_hex(8)}


def await_plan(database: str) -> None:
    """Waits until a provisioner has kept its plan: lives cannot be adopted before."""

    def is_kept() -> bool:
        with psycopg.connect(database, autocommit=True) as session:
            found = session.execute("SELECT to_regclass('lifecycle.plans')::text").fetchone()
            made = found is not None and found[0] is not None
            return made and session.execute("SELECT FROM lifecycle.plans").fetchone() is not None

    eventually(is_kept, 60)


def unknown_key(org_id: str) -> Key:
    """A key of which nothing exists anywhere."""
    return f"{org_id}:{uuid4()}"
