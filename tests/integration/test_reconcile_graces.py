"""Removals that a grace period puts off: report and approval name the end of the wait, on real Kafka and PostgreSQL."""

import secrets
from contextlib import closing
from pathlib import Path

import pytest

from schemas.tenant import Stage
from schemas.times import instant
from services.adapters.kafka.tenant_view import TenantView
from services.adapters.process.clock import now_us
from services.cli.exits import Exit
from services.provisioner import plans
from tests.support.eventually import eventually
from tests.support.ledger_process import LedgerBench
from tests.support.operator_world import OperatorWorld, database_of, provisioner
from tests.support.reconciler_world import changed
from tests.support.simulator_process import outside

pytestmark = [pytest.mark.engines, pytest.mark.long, pytest.mark.timeout(300)]

_DAY_US = 86_400_000_000


def test_an_approval_that_ends_before_the_grace_says_so_and_the_report_names_the_end(
    kafka_bootstrap: str, database_admin_url: str, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.toml"
    shipped = Path(plans.__file__).with_name("plan.toml").read_text()
    plan.write_text(shipped.rstrip() + '\ndestroy_after = "P2D"\n')  # of the last step, which is undone first
    bench = LedgerBench(kafka_bootstrap, f"t{secrets.token_hex(5)}-", tmp_path)
    given = {"keyring_file": str(tmp_path / "keyring.json"), "oauth_client_secret": "s" * 32}
    with (
        database_of(database_admin_url) as database,
        bench.ledger(),
        outside(tmp_path / "outside", database, **given) as systems,
        provisioner(bench, systems, database, PLAN_FILE=str(plan)),
        closing(TenantView({"bootstrap.servers": kafka_bootstrap}, bench.prefix)) as view,
    ):
        folder = tmp_path / "reconciler"
        folder.mkdir()
        world = OperatorWorld(bench, systems, folder, view, database=database)
        keys = world.provisioned(6)
        assert world.report()["in_grace"] == []
        world.run()
        for key in keys:
            world.forget(key)
        stopped = world.run_twice().stopped
        assert stopped is not None
        digest = stopped.approval
        said = world.lifecycle("reconcile", "--now", "--approve", str(digest), "--by", "Ada", *world.scope)
        said = " ".join(said.split())
        assert "6 removals of them wait for the end of a grace period, until " in said
        assert "Approve them again after it" in said
        eventually(lambda: all(changed(world, key, stage=Stage.DEPROVISIONING) for key in keys), 60)
        graced = eventually(lambda: (found := world.report()["in_grace"]) and len(found) == 6 and found, 30)
        assert graced
        assert [one["key"] for one in graced] == sorted(keys)
        assert all(abs(instant(one["until"]) - now_us() - 2 * _DAY_US) < _DAY_US / 24 for one in graced)
        said = " ".join(world.lifecycle("reconcile", "--report", *world.scope, status=Exit.DEVIATION).split())
        assert "6 removals in a grace period, the first until " in said
        words = ("reconcile", "--now", "--approve", "x", "--by", "Ada", *world.scope)
        said = " ".join(world.lifecycle(*words, status=Exit.UNUSABLE).split())
        assert "6 removals are in a grace period until " in said
        assert "take an approval after it" in said
