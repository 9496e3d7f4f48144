"""Secrets of a plan: a file for each, or a value; read at each use, and shown nowhere."""

from pathlib import Path

import pytest

from services.adapters.process.environment import read
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import ProvisionerSettings
from services.adapters.secrets.named_secrets import SECRET_MAX_BYTES, NamedSecrets
from services.core.saga.plan import parse
from services.provisioner.kinds import TRAITS
from services.provisioner.plans import missing_secrets, plan_text

PLAN = """
[[step]]
name = "a"
kind = "rest"
undo = "nothing"
url = "https://h"
url_from = "operator"
idempotent = "name"
headers = { X-Key = "{secrets.key}", X-Other = "{secrets.other}" }
create = { method = "PUT", path = "/{tenant.name}" }
"""


def test_a_file_counts_before_a_value_and_a_changed_file_at_once(tmp_path: Path) -> None:
    secrets = NamedSecrets(tmp_path, {"key": "given", "other": "o"})
    assert secrets["key"] == "given"
    (tmp_path / "key").write_text("from a file\r\n")
    assert (secrets["key"], secrets.get("none"), list(secrets), len(secrets)) == (
        "from a file",
        None,
        ["key", "other"],
        2,
    )
    (tmp_path / "key").write_text("changed")
    assert secrets["key"] == "changed"
    assert "changed" not in repr(secrets)
    assert "given" not in repr(secrets)


def test_what_is_no_secret_file_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    (folder / "..data").mkdir(parents=True)
    (folder / "large").write_bytes(b"x" * (SECRET_MAX_BYTES + 1))
    (folder / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "outside").write_text("x")
    secrets = NamedSecrets(folder, {})
    assert [secrets.get(name) for name in ("..data", "large", "binary", "../outside", ".")] == [None] * 5


def test_a_plan_that_names_a_missing_secret_is_refused_with_the_step_and_the_remedy(tmp_path: Path) -> None:
    assert [str(fault) for fault in missing_secrets(parse(PLAN, kinds=TRAITS, settings={}), {"key": "k"})] == [
        "step 1 (a): {secrets.other}: no such secret; put a file other into SECRETS_DIR, or name it in PLAN_SECRETS"
    ]
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    given = {"PLAN_FILE": str(plan), "SECRETS_DIR": str(tmp_path), "PLAN_SECRETS": '{"other": "hush"}'}
    (tmp_path / "key").write_text("k")
    settings = read(given, ProvisionerSettings)
    assert plan_text(settings, TRAITS) == PLAN
    assert "hush" not in repr(settings)
    (tmp_path / "key").unlink()
    with pytest.raises(Unusable, match=r"^PLAN_FILE: .*: step 1 \(a\): \{secrets.key\}: no such secret"):
        plan_text(settings, TRAITS)
    with pytest.raises(Unusable) as found:
        read({"PLAN_SECRETS": "hush-not-json"}, ProvisionerSettings)
    assert "hush" not in str(found.value)
