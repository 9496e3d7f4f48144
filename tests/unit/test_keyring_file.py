"""An unusable keyring is refused by field and rule, and the message repeats no content."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.adapters.process.errors import Unusable
from services.adapters.secrets import keyring

SECRET = "canary" * 6
GOOD: dict[str, Any] = {"current": {"secret": SECRET}}
ORG = "98765432-1234-5678-9ABC-def012345678"


def load(tmp_path: Path, text: str) -> str:
    """The fault of this file; empty when it is accepted."""
    path = tmp_path / "keyring.json"
    path.write_text(text)
    try:
        keyring.load(path)
    except Unusable as unusable:
        return str(unusable)
    return ""


def endpoint(**fields: Any) -> str:
    return json.dumps({"endpoints": {"default": GOOD | fields}})


@pytest.mark.parametrize(
    ("text", "field", "rule"),
    [
        (endpoint(current={"secret": "canary"}), "endpoints.default.current.secret", "shorter than 32 bytes"),
        (endpoint(previous={"secret": SECRET, "not_after": 1767225600}), "previous.not_after", "not an RFC 3339"),
        (endpoint(previous={"secret": SECRET, "not_after": "canary"}), "previous.not_after", "not an RFC 3339"),
        (endpoint(orgs=["canary"]), "endpoints.default.orgs.0", r"neither \* nor a UUID"),
        (endpoint(integrations=["*", "canary"]), "endpoints.default.integrations.1", r"neither \* nor a UUID"),
        (endpoint(restamps="canary"), "endpoints.default.restamps", "boolean"),
        ("{}", "endpoints", "required"),
        ('{"endpoints": {\n  canary', "file", "is not JSON, at line 2 column 3"),
        ("", "file", "is not JSON"),
        ('{"endpoints": {"canary": {},\n "canary": {}}}', "file", "has a name twice, at line 2 column 11"),
    ],
)
def test_a_fault_is_reported_by_field_and_rule(tmp_path: Path, text: str, field: str, rule: str) -> None:
    with pytest.raises(Unusable, match=rf"^KEYRING_FILE: .*{field}: .*{rule}") as caught:
        raise Unusable(load(tmp_path, text))
    assert "canary" not in str(caught.value).replace(str(tmp_path), "")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(Unusable, match="is not JSON"):
        keyring.load(path)


def test_organisations_are_named_by_a_star_or_an_id_in_any_case(tmp_path: Path) -> None:
    assert load(tmp_path, endpoint(orgs=["*"], integrations=[ORG, ORG.lower()])) == ""
