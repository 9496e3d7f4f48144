"""The file of tenants: whole or refused with every fault, and read again after a change."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from schemas.tenant_file import ToldTenant
from services.adapters.process.errors import Unusable
from services.adapters.process.file_identity import SETTLED_S, file_identity
from services.adapters.tenant_file import TenantFile, load
from services.core.saga.intents import completed
from tests.support.saga_world import DesiredVersions

ORG, OTHER = "98765432-1234-5678-9abc-def012345678", "00000000-1234-5678-9abc-def012345678"
ONE, TWO = "a1b2c3d4-e5f6-7890-abcd-ef1234567890", "b1b2c3d4-e5f6-7890-abcd-ef1234567890"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tenants.json"


def write(file: Path, whole: Any) -> Path:
    file.write_text(whole if isinstance(whole, str) else json.dumps(whole))
    return file


async def named(known: TenantFile, now_s: float) -> str | None:
    found = await known.of(f"{ORG}:{ONE}", now_s)
    return None if found is None else found.tenant_id


def told(tenant_id: str, **configuration: Any) -> dict[str, Any]:
    return {"tenant_id": tenant_id, "configuration": configuration}


async def test_the_line_of_an_integration_counts_before_the_line_of_the_organisation(file: Path) -> None:
    lines = {f"{ORG.upper()}:{ONE}": told("acme-one", crmEndpoint="https://x"), f"{ORG}:*": {"tenant_id": "acme"}}
    known = TenantFile(write(file, lines), CapturingLogger())
    now_s = time.monotonic()
    assert await known.of(f"{ORG}:{ONE}", now_s) == ToldTenant(
        tenant_id="acme-one", configuration={"crmEndpoint": "https://x"}
    )
    assert await known.of(f"{ORG}:{TWO}", now_s) == ToldTenant(tenant_id="acme")
    assert await known.of(f"{OTHER}:{ONE}", now_s) is None
    assert await TenantFile(None, CapturingLogger()).of(f"{ORG}:{ONE}", now_s) is None


@pytest.mark.parametrize(
    ("whole", "fault"),
    [
        ("{", "must be strict UTF-8 JSON"),
        ('{"a": "b", "a": "c"}', "has a duplicate key"),
        ([], "must be a JSON object"),
        ({ORG: told("acme")}, f"{ORG}: must be ORG:INTEGRATION"),
        ({"*:*": told("acme")}, "must be ORG:INTEGRATION"),
        ({f"{ORG}:*": "acme"}, "must be an object with tenant_id"),
        ({f"{ORG}:*": told("no blanks")}, "tenant_id: must be 1 to 128"),
        ({f"{ORG}:*": {"configuration": {}}}, "tenant_id: field required"),
        ({f"{ORG}:*": {"tenant_id": "acme", "configuration": "canary"}}, "configuration: input should be"),
        ({f"{ORG}:*": {"tenant_id": "acme", "tenantId": "canary"}}, "tenantId: extra inputs are not permitted"),
        ({f"{ORG}:*": told("acme"), f"{OTHER}:*": told("acme")}, f"{OTHER}:*: acme is the tenantId of another"),
        ({f"{ORG}:{ONE}": told("acme"), f"{ORG.upper()}:{ONE.upper()}": told("acme")}, "stands there twice"),
    ],
)
def test_a_file_that_cannot_be_used_names_its_fault(file: Path, whole: Any, fault: str) -> None:
    with pytest.raises(Unusable) as refused:
        load(write(file, whole))
    assert f"TENANTS_FILE: {file}: " in str(refused.value)
    assert fault in str(refused.value)
    assert "canary" not in str(refused.value), "a configuration may hold secrets"


def test_every_fault_is_named_and_a_missing_file_as_well(file: Path) -> None:
    with pytest.raises(Unusable, match="No such file"):
        TenantFile(file, CapturingLogger())
    with pytest.raises(Unusable) as refused:
        load(write(file, {"a": told("b"), f"{ORG}:*": told("")}))
    assert len(str(refused.value).splitlines()) == 2


async def test_a_changed_file_is_in_force_at_the_next_question_and_a_broken_one_changes_the_log_alone(
    file: Path,
) -> None:
    log = CapturingLogger()
    known = TenantFile(write(file, {}), log)

    assert await named(known, 0.0) is None
    write(file, {f"{ORG}:*": told("acme")})
    assert await named(known, 0.0) == "acme"
    write(file, "{")
    assert [await named(known, second) for second in (0.0, 1.0, 100.0)] == ["acme"] * 3
    file.unlink()
    assert await named(known, 200.0) == "acme"
    write(file, {f"{ORG}:{ONE}": told("acme-one")})
    assert await named(known, 300.0) == "acme-one"
    said = [(call.method_name, call.args[0]) for call in log.calls]
    assert said == [
        ("info", "tenants file taken"), ("error", "tenants file broken"), ("error", "tenants file broken"),
        ("info", "tenants file taken"),
    ]  # fmt: skip


async def test_a_broken_file_that_has_not_changed_is_read_again_after_a_while_and_not_at_every_question(
    file: Path,
) -> None:
    known = TenantFile(write(file, {}), CapturingLogger())
    write(file, "{")
    assert await named(known, 100.0) is None
    write(file, {f"{ORG}:*": told("acme")})
    known._identity = file_identity(file)  # as if both fell into one tick of the clock
    assert await named(known, 100.0 + SETTLED_S / 2) is None
    assert await named(known, 100.0 + SETTLED_S) == "acme"


async def test_a_file_that_is_slow_to_read_holds_up_nobody(file: Path) -> None:
    known = TenantFile(write(file, {f"{ORG}:*": told("acme")}), CapturingLogger())
    file.unlink()
    os.mkfifo(file)
    first = asyncio.create_task(named(known, 1.0))
    await asyncio.sleep(0)
    meanwhile, waits = await named(known, 1.0), not first.done()
    await asyncio.to_thread(write, file, {f"{ORG}:*": told("later")})
    assert (meanwhile, waits, await first) == ("acme", True, "later")


def test_what_an_event_has_told_counts_before_the_file() -> None:
    line = ToldTenant(tenant_id="told", configuration={"crmEndpoint": "told"})
    versions = DesiredVersions()
    unknown = versions.installed(tenant_id=None).model_copy(update={"configuration": {}})
    known = versions.installed(tenant_id="acme")
    assert completed(unknown, None) == unknown
    filled = completed(unknown, line)
    assert (filled.tenant_id, filled.configuration, filled.version) == ("told", line.configuration, unknown.version)
    assert completed(known, line) == known
