"""The loop of the reconciler between two runs: the first sight of active tenants."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from schemas.genesys import Organisation, Reading
from services.adapters.genesys.organisations_watch import OrganisationsWatch
from services.adapters.process import clock, logs
from services.adapters.process.environment import read
from services.adapters.process.settings import ReconcilerSettings
from services.core.reconcile.reconcile import Tenants
from services.core.reconcile.tenant_census import TenantCensus
from services.reconciler.audits import AuditFollower
from services.reconciler.main import _State, _tick
from services.reconciler.memory import Sights
from services.reconciler.run import RunResources
from tests.support.genesys_worlds import CLIENT, ORG, key_of, reading, tenant, view


class View:
    """One active tenant, which no run has seen."""

    def follow(self, _: float) -> Tenants:
        return view(tenant(1))


@dataclass
class Readers:
    """Genesys lists the tenant, and every listing counts."""

    listings: list[str] = field(default_factory=list)

    def forget(self, _: frozenset[str]) -> None:
        """Nothing is kept."""

    async def listed(self, organisation: Organisation) -> Reading:
        self.listings.append(organisation.org_id)
        return reading({1: "ENABLED"})


def resources_of(folder: Path, readers: Readers) -> RunResources:
    """Files and memory in a folder; nothing is published."""
    chosen = read({"ORGS_DIR": str(folder), "STATE_DIR": str(folder)}, ReconcilerSettings)
    unused, view, asked = cast("Any", None), cast("Any", View()), cast("Any", readers)
    census, sights = TenantCensus(), Sights(folder)
    return RunResources(
        chosen, b"", view, census, sights, asked, producer=unused, now_us=clock.now_us, roots=None, confirm=unused
    )


async def test_a_failed_first_sight_is_retried_later(tmp_path: Path) -> None:
    (tmp_path / f"{ORG}.json").write_text(f'{{"org_id": "{ORG}", "client_id": "{CLIENT}", "client_secret": "s"}}')
    readers, log = Readers(), logs.configure("reconciler", "error")
    resources = resources_of(tmp_path, readers)
    state = _State(float("inf"), AuditFollower(resources.settings, resources.readers, clock.now_us, log))
    barrier = tmp_path / "reconciler" / "sights.new"
    barrier.mkdir(parents=True)

    log = logs.configure("reconciler", "error")
    files = OrganisationsWatch(tmp_path, log)

    async def tick() -> None:
        await _tick(resources, files, state, random.Random(1), log)

    await tick()
    assert str(barrier) in state.fault
    barrier.rmdir()
    await tick()
    assert readers.listings == [ORG], "a sight that failed is not repeated at once"
    state.next_sight_s = 0.0
    await tick()
    assert readers.listings == [ORG, ORG], "and not forgotten"
    assert key_of(1) in resources.sights.load()
    await tick()
    assert (len(readers.listings), state.fault) == (2, "")


async def test_a_new_file_causes_a_new_first_sight_of_the_tenants(tmp_path: Path) -> None:
    readers, log = Readers(), logs.configure("reconciler", "error")
    resources = resources_of(tmp_path, readers)
    audits = AuditFollower(resources.settings, resources.readers, clock.now_us, log)
    state = _State(float("inf"), audits, sighted={key_of(1)})
    files = OrganisationsWatch(tmp_path, log)
    await _tick(resources, files, state, random.Random(1), log)
    assert readers.listings == [], "the tenant was looked for before, without a file"
    (tmp_path / f"{ORG}.json").write_text(f'{{"org_id": "{ORG}", "client_id": "{CLIENT}", "client_secret": "s"}}')
    await _tick(resources, files, state, random.Random(1), log)
    assert readers.listings == [ORG]
