"""`lifecycle demo` ends with 0 when every story passes, and names each deviation."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.timeout(400)]

_GUIDE_PLAN = Path(__file__).parents[2] / "services" / "provisioner" / "plan.toml"


def demo(*words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "services.cli.main", "demo", *words]
    return subprocess.run(argv, env={**os.environ, **environ}, capture_output=True, text=True, timeout=380, check=False)


def test_every_story_of_the_demo_passes() -> None:
    done = demo("--orgs", "25")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^\((\w)\) .*: as it should be$", done.stdout, re.MULTILINE) == list("abcdefgh")
    assert "RECONCILE_SECOND_LOOK_S" in done.stdout


@pytest.mark.long
def test_a_deviation_ends_the_demo_with_1_and_keeps_the_logs(tmp_path: Path) -> None:
    """A plan without tokens provisions less than the guide says; the demo must notice."""
    plan = tmp_path / "plan.toml"
    steps = _GUIDE_PLAN.read_text().split("[[step]]")
    plan.write_text("[[step]]".join(step for step in steps if 'name = "tokens"' not in step))
    done = demo("--story", "a", PLAN_FILE=str(plan))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "DEVIATION: tenant_acme_corp: tokens has generations []" in done.stdout
    kept = Path(done.stderr.split("logs are kept in ")[1].splitlines()[0])
    try:
        assert {path.stem for path in kept.iterdir()} >= {"ingress", "ledger", "provisioner", "kafka", "postgres"}
    finally:
        shutil.rmtree(kept.parent)
