"""The outside world for a test: a real simulator process, asked over real HTTP."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from services.core.saga.calls import Call, Verb, idempotency_key
from services.engines import child_process
from services.engines.ports import HOST, free_ports

ORG = "98765432-1234-5678-9abc-def012345678"
READY_S = 20.0


@dataclass
class Outside:
    """One simulator; it may be killed and started again on the same state and ports."""

    folder: Path
    port: int
    database_port: int
    database_url: str | None = None
    environ: dict[str, str] = field(default_factory=dict)
    process: child_process.Child | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def tenants_url(self) -> str:
        """The database as seen through the proxy."""
        assert self.database_url is not None
        parts = urlsplit(self.database_url)
        user = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{user}@{HOST}:{self.database_port}").geturl()

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    @property
    def orgs(self) -> Path:
        return self.folder / "orgs"

    def start(self) -> None:
        own = {
            "PATH": os.environ["PATH"],
            "HOST": HOST,
            "PORT": str(self.port),
            "STATE_DIR": str(self.folder / "state"),
            "ORGS_DIR": str(self.orgs),
            "SIMULATOR_ARCHIVE_DIR": str(self.archive),
            "SIMULATOR_DATABASE_PORT": str(self.database_port),
        }
        if self.database_url is not None:
            own["DATABASE_URL"] = self.database_url
        argv = (sys.executable, "-m", "services.cli.main", "simulator")
        self.process = child_process.start(
            argv, env=own | self.environ, log_path=self.folder / "simulator.log", cwd=Path.cwd()
        )
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, child_process.last_lines(self.process.log_path)
            try:
                if httpx2.get(f"{self.url}/livez", timeout=1).status_code == 200:
                    return
            except httpx2.HTTPError:
                time.sleep(0.02)
        raise AssertionError(child_process.last_lines(self.process.log_path))

    def stop(self) -> int:
        assert self.process is not None
        return self.process.stop(10)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    def fault(self, system: str, fault: str, **more: Any) -> None:
        """Set one fault."""
        httpx2.post(f"{self.url}/faults", json={"system": system, "fault": fault, **more}).raise_for_status()

    def heal(self) -> None:
        """Clear every fault."""
        httpx2.delete(f"{self.url}/faults").raise_for_status()

    def inventory(self, system: str, key: str) -> list[dict[str, Any]]:
        """The resources that a system keeps for a key."""
        answer = httpx2.get(f"{self.url}/inventory", timeout=10).raise_for_status()
        found: list[dict[str, Any]] = answer.json()[system].get(key, [])
        return found

    def calls(self, key: str, system: str | None = None) -> list[tuple[str, str]]:
        """Verb and outcome of the calls of a key, in order."""
        found = httpx2.get(f"{self.url}/calls", params={"key": key}).raise_for_status().json()
        return [(call["verb"], call["outcome"]) for call in found if system in {None, call["system"]}]


@contextmanager
def outside(folder: Path, database_url: str | None = None, **environ: str) -> Iterator[Outside]:
    """A running simulator."""
    port, database_port = free_ports(2)
    own = {name.upper(): text for name, text in environ.items()}
    world = Outside(folder, port, database_port, database_url, own)
    world.start()
    try:
        yield world
    finally:
        world.kill()


def a_call(verb: Verb, *, n: int = 1, key: str = f"{ORG}:a1b2c3d4-e5f6-7890-abcd-ef1234567890", **more: Any) -> Call:
    """One call, valid by default; `n` counts the intents of its step."""
    given: dict[str, Any] = {
        "step": "step",
        "kind": "http",
        "tenant_id": "tenant_acme_corp",
        "generation": 1,
        "epoch": 1,
        "settings": {},
        "outputs": {},
        "enabled": True,
        "timeout_s": 10.0,
    } | more
    given.setdefault("idempotency_key", idempotency_key(key, given["generation"], given["step"], n))
    return Call(verb=verb, key=key, **given)
