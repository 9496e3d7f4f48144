"""The actions and checks of a demo story, and the list of its deviations.

Rule: a failed check adds a deviation and raises nothing, so a single run reports all deviations of a story.
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
"""Deadline of a wait. A tenant takes a second or two on an idle machine; the rest is for a loaded machine."""

_RECONCILE_S: Final = 120.0
"""Longest run of `lifecycle reconcile`, in seconds."""

SECOND_US: Final = 1_000_000

_IDS: Final = UUID("2f1c8a53-62fb-5a06-9a3d-6f2f0f8f4f11")
"""Namespace of the organisations' and integrations' ids: derived ids are equal in every run."""

CONFIGURATION: Final[Json] = {
    "crmEndpoint": "https://acme.salesforce.com",
    "syncInterval": "PT5M",
    "featureFlags": ["voice_routing", "omnichannel_queue"],
}
"""The configuration of the guide's example request."""


@dataclass(frozen=True, slots=True)
class StoryContext:
    """The environment of all stories of a run.

    Attributes:
        stack: The installation.
        view: The public topics, followed by a thread.
        outside: The outside systems.
        secret: Key for the signatures of webhooks.
        client: HTTP client with shared connections.
        orgs: Number of organisations in the burst story.
        progress: Callback (subject of the count, present count, final count).
    """

    stack: Stack
    view: PublicView
    outside: Outside
    secret: bytes
    client: httpx2.Client
    orgs: int
    progress: Callable[[str, int, int], None]


@dataclass(slots=True)
class Scene:
    """One run of a story.

    Attributes:
        context: The installation and the connections to the installation.
        letter: Letter of the story.
        began_us: Start of the story, microseconds UTC.
        integrations: The integrations of the story, by display name.
        deviations: Texts of the failed checks.
        notes: Lines for the report, below the table.
    """

    context: StoryContext
    letter: str
    began_us: int = field(default_factory=now_us)
    integrations: dict[str, InstalledIntegration] = field(default_factory=dict)
    deviations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def integration(self, name: str, configuration: Json | None = None) -> InstalledIntegration:
        """Returns a new integration of a new organisation, with ids derived from letter and name; sends nothing.

        Args:
            name: Display name, unique in the story.
            configuration: Fields that override those of `CONFIGURATION`.
        """
        org, integration_id = (str(uuid5(_IDS, f"{self.letter}/{name}/{part}")) for part in ("org", "integration"))
        integration = InstalledIntegration(
            org, integration_id, f"tenant_{self.letter}_{name}", CONFIGURATION | (configuration or {})
        )
        self.integrations[name] = integration
        return integration

    def send(
        self,
        event: EventType,
        integration: InstalledIntegration,
        *,
        genesys: bool = True,
        age_s: float = 0,
        **body_options: Any,
    ) -> IngressReply:
        """Sends one signed webhook and returns the answer; any status but 200 is a deviation.

        Args:
            event: Type of the event.
            integration: Integration of the event.
            genesys: True makes the same change in the simulator's Genesys first.
            age_s: Seconds from `eventTimestamp` to now.
            body_options: Further keyword arguments of `sender.body`.

        Raises:
            httpx2.HTTPError: Ingress or simulator cannot be reached.
        """
        # Genesys before the webhook, as in production, where the webhook follows the change.
        if genesys:
            sender.tell_genesys(self.context.client, self.context.stack.simulator, event, integration)
        now = now_us()
        raw = sender.body(event, integration, now - round(age_s * SECOND_US), **body_options)
        url = self.context.stack.ingress + WEBHOOK_PATH
        headers = sender.headers(self.context.secret, raw, now)
        answer = sender.read(self.context.client.post(url, content=raw, headers=headers))
        self.check(answer.accepted, f"{event} was answered {answer.status} {json.dumps(answer.body)}, not 200")
        return answer

    def wait_for_stage(
        self, integration: InstalledIntegration, stage: Stage, *, revision: int, deadline_s: float = DEADLINE_S
    ) -> None:
        """Waits until a tenant has a stage at `revision` or a later revision; a missed deadline is a deviation."""

        def reached(view: PublicRecords) -> bool:
            tenant = view.tenants.get(integration.key)
            return tenant is not None and tenant.stage is stage and tenant.revision >= revision

        if not self.context.view.until(reached, deadline_s):
            found = self.context.view.tenants.get(integration.key)
            stands = f"{found.stage} ({found.reason}) at revision {found.revision}" if found else "unknown"
            self.deviations.append(
                f"{integration.tenant}: {stands} after {deadline_s:g} s, not {stage} at revision {revision}"
            )

    def wait_for_calls(
        self, integration: InstalledIntegration, condition: Callable[[list[Json]], bool], expectation: str
    ) -> None:
        """Waits until the recorded calls about a tenant fulfil a condition; a missed deadline is a deviation.

        Args:
            integration: The tenant's integration.
            condition: Gets all calls in order; True ends the wait.
            expectation: Text of the deviation.
        """
        deadline = time.monotonic() + DEADLINE_S
        while not condition(self.context.outside.calls(integration.key)):
            if time.monotonic() > deadline:
                self.deviations.append(f"{integration.tenant}: not within {DEADLINE_S:g} s: {expectation}")
                return
            time.sleep(0.1)

    def check(self, holds: bool, otherwise: str) -> None:
        """Adds the deviation `otherwise` unless `holds` is True."""
        if not holds:
            self.deviations.append(otherwise)

    def check_provisioned(self, integration: InstalledIntegration, *, generation: int = 1) -> None:
        """Checks that every system has exactly one resource of the tenant, of `generation`.

        The schema and its role are checked in PostgreSQL itself, and the revisions for gaps.
        """
        found = self.context.outside.inventory()
        for system in PROVISIONED:
            resources = found.get(system, {}).get(integration.key, [])
            generations = [resource["generation"] for resource in resources]
            self.check(
                generations == [generation],
                f"{integration.tenant}: {system} has generations {generations}, not one of {generation}",
            )
        own_schemas = [name for name, comment in self.context.outside.schemas().items() if integration.key in comment]
        self.check(
            len(own_schemas) == 1, f"{integration.tenant}: {len(own_schemas)} schemas with a role in PostgreSQL, not 1"
        )
        self._check_no_gaps(integration)

    def check_gone(self, integration: InstalledIntegration, *, archived: bool) -> None:
        """Checks that no resource of the tenant is left.

        Args:
            integration: The tenant's integration.
            archived: True expects one archive, False none.
        """
        counts = self.context.outside.counts(integration.key)
        left = {system: count for system, count in counts.items() if count and system != ARCHIVE}
        self.check(not left, f"{integration.tenant}: still exists: {left}")
        self.check(
            counts[ARCHIVE] == archived, f"{integration.tenant}: {counts[ARCHIVE]} archives, not {int(archived)}"
        )
        own_schemas = [name for name, comment in self.context.outside.schemas().items() if integration.key in comment]
        self.check(not own_schemas, f"{integration.tenant}: its schema still exists in PostgreSQL")
        self._check_no_gaps(integration)

    def check_event_count(self, integration: InstalledIntegration, count: int) -> None:
        """Checks the number of published events of a tenant; waits at most 10 s for missing events."""
        self.context.view.until(lambda view: len(view.events[integration.key]) >= count, 10.0)
        found = {number: event.event for number, event in sorted(self.context.view.events[integration.key].items())}
        self.check(len(found) == count, f"{integration.tenant}: {len(found)} events {found}, not {count}")

    def reconcile(self) -> Json:
        """Runs `lifecycle reconcile --now` for the organisations of this story; returns the JSON output.

        A status but 0, or a command killed after 120 s, is a deviation. Output without JSON gives an empty result.
        """
        argv = [sys.executable, "-m", "services.cli.main", "reconcile", "--now", "--json"]
        argv += [word for integration in self.integrations.values() for word in ("--org", integration.org)]
        environ = {**self.context.stack.environ, "PATH": "/usr/bin:/bin"}
        try:
            done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=_RECONCILE_S, check=False)
        except subprocess.TimeoutExpired as late:
            # Bytes, although text was asked for.
            said = (late.stderr or b"").decode("utf-8", "replace").strip()[-400:]
            self.deviations.append(f"reconcile did not end in {_RECONCILE_S:g} s: {said}")
            return {}
        self.check(done.returncode == 0, f"reconcile ended with {done.returncode}: {done.stderr.strip()[-400:]}")
        try:
            found: Json = json.loads(done.stdout)
        except ValueError:
            return {}
        return found

    def _check_no_gaps(self, integration: InstalledIntegration) -> None:
        """Checks that the revisions are 1, 2, 3 …; waits at most 10 s, since the topics arrive independently."""
        self.context.view.until(lambda view: not view.gaps(integration.key), 10.0)
        gaps = self.context.view.gaps(integration.key)
        self.check(not gaps, f"{integration.tenant}: {gaps}")
