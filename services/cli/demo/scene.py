"""What a story of the demo can do and see, and where it writes down what is not as it should be.

Rule: a story never stops at a deviation; it names it and goes on, so that one run names them all.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid5

import httpx2

from schemas.tenant import Stage
from schemas.values import EventType, Json
from services.adapters.process.clock import now_us
from services.cli import sender
from services.cli.demo.outside import ARCHIVE, PROVISIONED, Outside
from services.cli.demo.view import PublicRecords, PublicView
from services.cli.local.stack import Stack
from services.cli.local.wiring import WEBHOOK_PATH
from services.cli.sender import IngressReply, InstalledIntegration

DEADLINE_S: Final = 60.0
"""One tenant takes a second or two; this much on a machine that is busy with everything else."""

SECOND_US: Final = 1_000_000

_IDS: Final = UUID("2f1c8a53-62fb-5a06-9a3d-6f2f0f8f4f11")
"""Ids of the demo's organisations are derived, so that two runs are alike."""

CONFIGURATION: Final[Json] = {
    "crmEndpoint": "https://acme.salesforce.com",
    "syncInterval": "PT5M",
    "featureFlags": ["voice_routing", "omnichannel_queue"],
}
"""The guide's."""


@dataclass(frozen=True, slots=True)
class StoryContext:
    """Everything a story needs: the installation, its public view, the outside, and how to sign."""

    stack: Stack
    view: PublicView
    outside: Outside
    secret: bytes
    client: httpx2.Client
    orgs: int
    """How many organisations install in the burst."""
    progress: Callable[[str, int, int], None]
    """Told what is counted, how many there are, and how many there will be."""


@dataclass(slots=True)
class Scene:
    """One story as it is played.

    Attributes:
        world: Where it plays.
        letter: Which one.
        began_us: When.
        cast: The integrations it is about, by the name they are shown under.
        deviations: What was not as it should be.
        notes: What is worth a line below the table.
    """

    world: StoryContext
    letter: str
    began_us: int = field(default_factory=now_us)
    cast: dict[str, InstalledIntegration] = field(default_factory=dict)
    deviations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def integration(self, name: str, configuration: Json | None = None) -> InstalledIntegration:
        """A new organisation with the integration, ids derived from story and name."""
        org, one = (str(uuid5(_IDS, f"{self.letter}/{name}/{part}")) for part in ("org", "integration"))
        made = InstalledIntegration(org, one, f"tenant_{self.letter}_{name}", CONFIGURATION | (configuration or {}))
        self.cast[name] = made
        return made

    def send(
        self, event: EventType, of: InstalledIntegration, *, genesys: bool = True, age_s: float = 0, **more: Any
    ) -> IngressReply:
        """Send one signed webhook; anything but 200 is a deviation.

        Args:
            event: What happened.
            of: To whom.
            genesys: Whether the simulator's Genesys is told too.
            age_s: How long ago it happened.
            more: As `sender.body`.
        """
        if genesys:
            sender.tell_genesys(self.world.client, self.world.stack.simulator, event, of)
        now = now_us()
        raw = sender.body(event, of, now - round(age_s * SECOND_US), **more)
        url = self.world.stack.ingress + WEBHOOK_PATH
        headers = sender.headers(self.world.secret, raw, now)
        answer = sender.read(self.world.client.post(url, content=raw, headers=headers))
        self.check(answer.accepted, f"{event} was answered {answer.status} {json.dumps(answer.body)}, not 200")
        return answer

    def until(self, of: InstalledIntegration, stage: Stage, *, revision: int, deadline_s: float = DEADLINE_S) -> None:
        """Wait until a tenant stands at a stage, at a revision or a later one; else it is a deviation."""

        def is_so(view: PublicRecords) -> bool:
            tenant = view.tenants.get(of.key)
            return tenant is not None and tenant.stage is stage and tenant.revision >= revision

        if not self.world.view.until(is_so, deadline_s):
            found = self.world.view.tenants.get(of.key)
            stands = f"{found.stage} ({found.reason}) at revision {found.revision}" if found else "unknown"
            self.deviations.append(f"{of.tenant}: {stands} after {deadline_s:g} s, not {stage} at revision {revision}")

    def until_calls(self, of: InstalledIntegration, is_so: Callable[[list[Json]], bool], what: str) -> None:
        """Wait until the calls about a tenant are as they should be."""
        deadline = time.monotonic() + DEADLINE_S
        while not is_so(self.world.outside.calls(of.key)):
            if time.monotonic() > deadline:
                self.deviations.append(f"{of.tenant}: not within {DEADLINE_S:g} s: {what}")
                return
            time.sleep(0.1)

    def check(self, holds: bool, otherwise: str) -> None:
        """Note a deviation unless it holds."""
        if not holds:
            self.deviations.append(otherwise)

    def check_provisioned(self, of: InstalledIntegration, *, generation: int = 1) -> None:
        """Exactly one resource of every kind, of this generation, and the schema in PostgreSQL."""
        found = self.world.outside.inventory()
        for system in PROVISIONED:
            there = found.get(system, {}).get(of.key, [])
            generations = [one["generation"] for one in there]
            self.check(
                generations == [generation],
                f"{of.tenant}: {system} has generations {generations}, not one of {generation}",
            )
        mine = [name for name, comment in self.world.outside.schemas().items() if of.key in comment]
        self.check(len(mine) == 1, f"{of.tenant}: {len(mine)} schemas with a role in PostgreSQL, not 1")
        self._check_revisions(of)

    def check_gone(self, of: InstalledIntegration, *, archived: bool) -> None:
        """Nothing left of it anywhere but, when it had a life, one archive."""
        counts = self.world.outside.counts(of.key)
        left = {system: count for system, count in counts.items() if count and system != ARCHIVE}
        self.check(not left, f"{of.tenant}: still exists: {left}")
        self.check(counts[ARCHIVE] == archived, f"{of.tenant}: {counts[ARCHIVE]} archives, not {int(archived)}")
        mine = [name for name, comment in self.world.outside.schemas().items() if of.key in comment]
        self.check(not mine, f"{of.tenant}: its schema still exists in PostgreSQL")
        self._check_revisions(of)

    def revisions(self, of: InstalledIntegration, count: int) -> None:
        """As many events as there should be."""
        self.world.view.until(lambda view: len(view.events[of.key]) >= count, 10.0)
        found = {number: event.event for number, event in sorted(self.world.view.events[of.key].items())}
        self.check(len(found) == count, f"{of.tenant}: {len(found)} events {found}, not {count}")

    def reconcile(self) -> Json:
        """Run `lifecycle reconcile --now` for the organisations of this story and return its result."""
        argv = [sys.executable, "-m", "services.cli.main", "reconcile", "--now", "--json"]
        argv += [word for of in self.cast.values() for word in ("--org", of.org)]
        environ = {**self.world.stack.environ, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=120, check=False)
        self.check(done.returncode == 0, f"reconcile ended with {done.returncode}: {done.stderr.strip()[-400:]}")
        try:
            found: Json = json.loads(done.stdout)
        except ValueError:
            return {}
        return found

    def _check_revisions(self, of: InstalledIntegration) -> None:
        self.world.view.until(lambda view: not view.gaps(of.key), 10.0)
        gaps = self.world.view.gaps(of.key)
        self.check(not gaps, f"{of.tenant}: {gaps}")
