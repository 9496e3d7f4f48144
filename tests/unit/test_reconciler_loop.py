"""The loop of the reconciler between two runs: the first sight of active tenants."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from schemas.genesys import Organisation, Reading
from services.adapters.genesys.organisations_watch import OrganisationChanges, OrganisationsWatch
from services.adapters.process import clock, logs
from services.adapters.process.environment import read
from services.adapters.process.settings import ReconcilerSettings
from services.core.reconcile.reconcile import Tenants
from services.core.reconcile.tenant_census import TenantCensus
from services.reconciler.main import FILE_SETTLE_S, _State, _tick
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

    async def listed(self, organisation: Organisation) -> Reading:
        self.listings.append(organisation.org_id)
        return reading({1: "ENABLED"})


async def test_a_failed_first_sight_is_retried_later(tmp_path: Path) -> None:
    (tmp_path / f"{ORG}.json").write_text(f'{{"org_id": "{ORG}", "client_id": "{CLIENT}", "client_secret": "s"}}')
    chosen = read({"ORGS_DIR": str(tmp_path), "STATE_DIR": str(tmp_path)}, ReconcilerSettings)
    sights, readers, state = Sights(tmp_path), Readers(), _State(next_run_s=float("inf"))
    unused = cast("Any", None)
    view, census = cast("Any", View()), TenantCensus()
    resources = RunResources(
        chosen, b"", view, census, sights, cast("Any", readers), producer=unused, now_us=clock.now_us, roots=None
    )
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
    assert key_of(1) in sights.load()
    await tick()
    assert (len(readers.listings), state.fault) == (2, "")


def test_a_changed_file_is_due_once_its_edits_have_settled() -> None:
    state = _State(next_run_s=float("inf"))
    state.note(OrganisationChanges(changed=frozenset({ORG})), 100.0)
    assert state.take_due(view(tenant(1)), 100.0 + FILE_SETTLE_S - 1) == frozenset()
    assert state.take_due(view(tenant(1)), 100.0 + FILE_SETTLE_S) == {ORG}
    assert state.take_due(view(tenant(1)), 200.0) == frozenset(), "an early run is not repeated"


def test_a_new_file_of_an_organisation_with_tenants_causes_a_new_first_sight_and_no_early_run() -> None:
    state = _State(next_run_s=float("inf"), sighted={key_of(1)})
    state.note(OrganisationChanges(added=frozenset({ORG})), 100.0)
    assert state.sighted == set()
    assert state.take_due(view(tenant(1)), 200.0) == frozenset()
    state.note(OrganisationChanges(added=frozenset({ORG})), 100.0)
    assert state.take_due({}, 200.0) == {ORG}


def test_a_removed_file_takes_its_early_run_back() -> None:
    state = _State(next_run_s=float("inf"))
    state.note(OrganisationChanges(added=frozenset({ORG})), 100.0)
    state.note(OrganisationChanges(removed=frozenset({ORG})), 101.0)
    assert state.take_due({}, 200.0) == frozenset()
