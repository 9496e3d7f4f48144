"""The reconciler's world with a real provisioner and its outside systems, and an operator before a terminal."""

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psycopg
from psycopg import sql

from schemas.audit import Audit
from schemas.codec import decode
from schemas.saga import Journal
from schemas.tenant import Stage
from schemas.topics import AUDIT
from schemas.values import Key
from services.cli.exits import Exit
from services.core.ledger.audit import is_genuine
from services.core.saga.calls import resource_name
from services.core.saga.plan import schema_name
from services.engines import child_process
from tests.support.eventually import eventually
from tests.support.ledger_process import LedgerBench, body
from tests.support.reconciler_world import ReconcilerWorld, changed, tenant_of
from tests.support.simulator_process import Outside
from tests.support.terminal import COLUMNS, on_terminal

_SECRET = "s" * 32
_STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class OperatorWorld(ReconcilerWorld):
    """One installation without ingress: Genesys, ledger, provisioner, outside systems, and the operator's commands."""

    database: str = ""

    @property
    def environ(self) -> dict[str, str]:
        return super().environ | systems(self.outside, self.database)

    def provisioned(self, count: int) -> list[Key]:
        """Keys of tenants that are installed in Genesys, desired, and active outside."""
        keys = [self.new_key() for _ in range(count)]
        for key in keys:
            self.install(key)
        for key in keys:
            eventually(lambda key=key: changed(self, key, stage=Stage.ACTIVE), 60)  # type: ignore[misc]
        return keys

    def lifecycle(self, *words: str, status: Exit = Exit.OK, **environ: str) -> str:
        """A command on a terminal of 80 columns; what it said, and no line is longer."""
        own = {"PYTHONPATH": str(Path.cwd()), **self.environ, **environ}
        ended, said = on_terminal(*words, cwd=self.folder, **own)
        assert ended == status, said
        plain = _STYLES.sub("", said)
        assert all(len(line) <= COLUMNS for line in plain.splitlines()), plain
        return plain

    def report(self, *words: str) -> dict[str, Any]:
        """The report of this world's organisation, as JSON."""
        said = self.json("reconcile", "--report", "--org", self.org_id, *words)
        assert isinstance(said, dict)
        return said

    def json(self, *words: str) -> Any:
        """What a command prints as JSON."""
        own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), **self.environ}
        argv = [sys.executable, "-m", "services.cli.main", *words, "--json"]
        ended = subprocess.run(argv, env=own, cwd=self.folder, capture_output=True, timeout=120, check=False)
        assert ended.returncode in {Exit.OK, Exit.DEVIATION}, ended.stderr.decode()
        return json.loads(ended.stdout)

    def acts(self, what: str) -> list[Audit]:
        """The audit records of an operator's acts on this organisation, each proved."""
        material = json.loads((self.bench.folder / "keyring.json").read_text())["material"]["audit"]
        out = [one for one in self.bench.out(AUDIT) if one.headers["ce_type"] == Audit.ce_type]
        found = [Audit.model_validate_json(one.value) for one in out]
        found = [one for one in found if one.key.startswith(self.org_id) and one.what == what]
        assert all(is_genuine(one, [key.encode() for key in material]) for one in found)
        return found

    def differences(self, *words: str) -> dict[Key, list[tuple[str, str]]]:
        """Each differing key of the report, with difference and actor."""
        return {
            one["key"]: [(found["difference"], found["by"]) for found in one["differences"]]
            for one in self.report(*words)["keys"]
        }

    def uninstall(self, key: Key) -> None:
        """Genesys forgets it, and the webhook came."""
        self.forget(key)
        self.bench.receive(body(key, event="uninstalled", tenantId=tenant_of(key), configuration={}), key)
        eventually(lambda: changed(self, key, installed=False))

    @property
    def scope(self) -> tuple[str, str]:
        """The words that narrow a command to this organisation."""
        return "--org", self.org_id

    def is_at_rest(self, key: Key) -> bool:
        """True if the saga of a key has neither a life nor an orphan check."""
        with psycopg.connect(self.database, autocommit=True) as session:
            found = session.execute("SELECT journal::text FROM lifecycle.sagas WHERE key = %s", (key,)).fetchone()
        journal = Journal() if found is None else decode(Journal, found[0].encode())
        return journal.life is None and not journal.orphan_checks

    def make_schema(self, key: Key, generation: int) -> None:
        """Make the schema and the role of a life, behind the provisioner's back."""
        name = sql.Identifier(schema_name(key, generation))
        comment = sql.Literal(json.dumps({"key": key, "generation": generation}))
        made = "CREATE ROLE {name} NOLOGIN; CREATE SCHEMA {name}; COMMENT ON SCHEMA {name} IS {comment}"
        with psycopg.connect(self.database, autocommit=True) as session:
            session.execute(sql.SQL(made).format(name=name, comment=comment))

    def put(self, key: Key, generation: int) -> None:
        """Make a resource of a life in the middleware, behind the provisioner's back."""
        name = resource_name(key, generation)
        content = {"name": name, "key": key, "generation": generation, "enabled": True}
        httpx2.put(self._middleware(name), json=content, headers=self._headers(key, generation)).raise_for_status()

    def take(self, key: Key, generation: int) -> None:
        """Remove the resource of a life from the middleware, behind the provisioner's back."""
        name = resource_name(key, generation)
        httpx2.delete(self._middleware(name), headers=self._headers(key, generation)).raise_for_status()

    def _middleware(self, name: str) -> str:
        return f"{self.outside.url}/middleware/{name}"

    def _headers(self, key: Key, generation: int) -> dict[str, str]:
        """As a worker would send them that holds the lease of the key."""
        with psycopg.connect(self.database, autocommit=True) as session:
            epochs = session.execute("SELECT epoch FROM lifecycle.sagas WHERE key = %s", (key,)).fetchone()
        return {
            "Lifecycle-Key": key,
            "Lifecycle-Generation": str(generation),
            "Lifecycle-Epoch": str(epochs[0] if epochs else 0),
            "Idempotency-Key": secrets.token_hex(8),
        }


def systems(outside: Outside, database: str) -> dict[str, str]:
    """What a provisioner has to know of the outside systems."""
    return {
        "DATABASE_URL": database,
        "TENANT_DATABASE_URL": outside.tenants_url,
        "MIDDLEWARE_URL": f"{outside.url}/middleware",
        "SUBSCRIPTIONS_URL": f"{outside.url}/subscriptions",
        "OAUTH_URL": f"{outside.url}/oauth",
        "OAUTH_CLIENT_SECRET": _SECRET,
        "ARCHIVE_URL": f"{outside.url}/archive",
        "EGRESS_MAP": json.dumps({"*.salesforce.com": f"{outside.url}/crm/{{host}}"}),
    }


@contextmanager
def provisioner(bench: LedgerBench, outside: Outside, database: str, **environ: str) -> Iterator[None]:
    """A running `lifecycle provisioner`; SIGTERM must end it cleanly."""
    own = {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": bench.bootstrap,
        "TOPIC_PREFIX": bench.prefix,
        "KEYRING_FILE": str(bench.folder / "keyring.json"),
        "STATE_DIR": str(bench.folder / "provisioner"),
        "SESSION_TIMEOUT_S": "4",
        "RETRY_FIRST_S": "0.05",
        **systems(outside, database),
        **environ,
    }
    argv = (sys.executable, "-m", "services.cli.main", "provisioner")
    worker = child_process.start(argv, env=own, log_path=bench.folder / "provisioner.log", cwd=Path.cwd())
    try:
        yield
    finally:
        assert worker.stop(30) == 0, child_process.last_lines(worker.log_path)


@contextmanager
def database_of(admin_url: str) -> Iterator[str]:
    """URL of a database of its own; dropped afterwards, with the roles of its tenants: roles outlive a database."""
    name = sql.Identifier(f"test_{secrets.token_hex(6)}")
    with psycopg.connect(admin_url, autocommit=True) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(name))
        url = urlsplit(admin_url)._replace(path=f"/{name.as_string().strip(chr(34))}").geturl()
        yield url
        with psycopg.connect(url) as tenants:
            roles = tenants.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ '^t_'").fetchall()
        session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        for (role,) in roles:
            session.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))
