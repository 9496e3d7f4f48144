"""The loop of the reconciler between two runs: the first sight of active tenants."""

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from schemas.genesys import Organisation, Reading
from schemas.tenant import Flag, Tenant
from services.adapters.genesys.answers import NoInformation
from services.adapters.genesys.organisations_watch import OrganisationChanges, OrganisationsWatch
from services.adapters.process import clock, logs
from services.adapters.process.environment import read
from services.adapters.process.settings import ReconcilerSettings
from services.core.reconcile.reconcile import Tenants
from services.core.reconcile.tenant_census import TenantCensus
from services.reconciler.audits import AuditFollower
from services.reconciler.fresh_files import FILE_SETTLE_S
from services.reconciler.main import _State, _tick
from services.reconciler.memory import Sights
from services.reconciler.run import RunResources
from tests.support.genesys_worlds import CLIENT, ORG, key_of, reading, tenant, view


@dataclass
class View:
    """One active tenant, which no run has seen; and others, if a test has them."""

    others: tuple[Tenant, ...] = ()

    def follow(self, _: float) -> Tenants:
        return view(tenant(1), *self.others)


@dataclass
class Readers:
    """Genesys lists the tenant, and every listing counts; but for the first so many, which give nothing."""

    listings: list[str] = field(default_factory=list)
    silent: int = 0

    def forget(self, _: frozenset[str]) -> None:
        """Nothing is kept."""

    async def listed(self, organisation: Organisation) -> Reading | NoInformation:
        self.listings.append(organisation.org_id)
        if len(self.listings) <= self.silent:
            return NoInformation("the listing is empty")
        return reading({1: "ENABLED"})


def resources_of(folder: Path, readers: Readers, *others: Tenant) -> RunResources:
    """Files and memory in a folder; nothing is published."""
    chosen = read({"ORGS_DIR": str(folder), "STATE_DIR": str(folder)}, ReconcilerSettings)
    unused, view, asked = cast("Any", None), cast("Any", View(others)), cast("Any", readers)
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


async def test_a_first_sight_without_an_answer_of_genesys_is_made_again(tmp_path: Path) -> None:
    (tmp_path / f"{ORG}.json").write_text(f'{{"org_id": "{ORG}", "client_id": "{CLIENT}", "client_secret": "s"}}')
    readers, log = Readers(silent=1), logs.configure("reconciler", "error")
    resources = resources_of(tmp_path, readers)
    state = _State(float("inf"), AuditFollower(resources.settings, resources.readers, clock.now_us, log))
    files = OrganisationsWatch(tmp_path, log)

    async def tick() -> None:
        await _tick(resources, files, state, random.Random(1), log)

    await tick()
    await tick()
    assert readers.listings == [ORG], "not at once"
    assert key_of(1) not in state.sighted, "an absence of it would count for nothing until the next hourly run"
    state.next_sight_s = 0.0
    await tick()
    assert resources.sights.load()[key_of(1)].seen_by == CLIENT
    await tick()
    assert (readers.listings, state.fault) == ([ORG, ORG], "")


async def test_keys_that_are_due_at_every_tick_put_no_first_sight_off(tmp_path: Path) -> None:
    (tmp_path / f"{ORG}.json").write_text(f'{{"org_id": "{ORG}", "client_id": "{CLIENT}", "client_secret": "s"}}')
    readers, log = Readers(), logs.configure("reconciler", "error")
    resources = resources_of(tmp_path, readers, tenant(2, flags=(Flag.TIE,), stage=None, updated_at=0))
    state = _State(float("inf"), AuditFollower(resources.settings, resources.readers, clock.now_us, log))
    await _tick(resources, OrganisationsWatch(tmp_path, log), state, random.Random(1), log)
    assert key_of(2) in state.looked, "it was due"
    assert "KAFKA_BOOTSTRAP_SERVERS" in state.fault, "and nobody was there to do it"
    assert key_of(1) in resources.sights.load()


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


async def test_a_changed_file_whose_early_run_fails_waits_for_the_next(tmp_path: Path) -> None:
    resources, log = resources_of(tmp_path, Readers()), logs.configure("reconciler", "error")
    state = _State(float("inf"), AuditFollower(resources.settings, resources.readers, clock.now_us, log))
    now_s = asyncio.get_running_loop().time()
    state.fresh.note(OrganisationChanges(changed=frozenset({ORG})), now_s - FILE_SETTLE_S)
    await _tick(resources, OrganisationsWatch(tmp_path, log), state, random.Random(1), log)
    assert "KAFKA_BOOTSTRAP_SERVERS" in state.fault
    assert state.fresh.due(view(tenant(1)), now_s + 2 * FILE_SETTLE_S) == {ORG}
