"""The shipped kinds and the shipped plan fit each other and their settings."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import structlog

from services.adapters.process.errors import Unusable
from services.adapters.process.settings import Settings
from services.core.saga.plan import parse
from services.provisioner.kinds import TRAITS, build

LOG = structlog.get_logger()


def settings(tmp_path: Path, **more: Any) -> Settings:
    given = {"kafka_bootstrap_servers": "127.0.0.1:9", "database_url": "postgresql://127.0.0.1:9/x"}
    return Settings.model_validate(given | {"state_dir": tmp_path} | more)


async def test_every_kind_declares_its_secret_outputs(tmp_path: Path) -> None:
    built = build(settings(tmp_path), LOG)
    assert built.keys() == TRAITS.keys()
    for kind in built.values():
        await kind.close()


def test_the_shipped_plan_has_the_guides_steps_and_removes_the_archive_last() -> None:
    text = (files("services.provisioner") / "plan.toml").read_text(encoding="utf-8")
    urls = {"middleware_url": "http://m", "subscriptions_url": "http://s", "oauth_url": "http://o"}
    client = {"oauth_client_id": "l", "oauth_client_secret": "s"}
    plan = parse(text, kinds=TRAITS, settings=urls | client)
    assert [step.name for step in plan.steps] == [
        "archive",
        "middleware",
        "crm",
        "schema",
        "subscriptions",
        "tokens",
    ]


def test_only_urls_from_settings_belong_to_the_operator_in_the_shipped_plan() -> None:
    text = (files("services.provisioner") / "plan.toml").read_text(encoding="utf-8")
    for step in tomllib.loads(text)["step"]:
        if step.get("url_from") == "operator":
            assert step["url"].startswith("{settings.")


@pytest.mark.parametrize("url", ["file:///{tmp}/archive", "http://127.0.0.1:9/archive", "s3://bucket/prefix"])
async def test_the_archive_may_be_a_folder_a_store_over_http_or_a_bucket(tmp_path: Path, url: str) -> None:
    build(settings(tmp_path, archive_url=url.format(tmp=str(tmp_path)[1:])), LOG)


@pytest.mark.parametrize("url", ["nonsense", "ftp://x/y", ""])
async def test_an_invalid_archive_url_is_named_at_start(tmp_path: Path, url: str) -> None:
    if url:
        with pytest.raises(Unusable, match="ARCHIVE_URL"):
            build(settings(tmp_path, archive_url=url), LOG)
    else:
        build(settings(tmp_path, archive_url=url), LOG)
        assert (tmp_path / "archive").is_dir()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
async def test_kinds_are_built_with_an_egress_map_on_any_health_address(tmp_path: Path, host: str) -> None:
    replaced = {"egress_map": {"*.salesforce.com": "http://simulator:8080"}}
    for kind in build(settings(tmp_path, host=host, **replaced), LOG).values():
        await kind.close()


async def test_a_missing_database_or_kafka_is_named_at_start(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="DATABASE_URL"):
        build(settings(tmp_path, database_url=None), LOG)
    with pytest.raises(Unusable, match="KAFKA_BOOTSTRAP_SERVERS"):
        build(settings(tmp_path, kafka_bootstrap_servers=None), LOG)
