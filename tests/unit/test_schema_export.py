"""The generated JSON Schemas match the records, are valid, and equal the files of the repository."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from schemas import codec, export, webhook
from schemas.event import Recheck
from schemas.values import Record
from tests.support.samples import SAMPLES
from tests.unit.test_webhook import GUIDE


def test_the_exported_schemas_match_the_models() -> None:
    assert export.drift(export.FOLDER) == []
    assert export.main(["--check"]) == 0


def test_drift_names_differing_missing_and_extra_files(tmp_path: Path) -> None:
    export.write(tmp_path)
    assert export.drift(tmp_path) == []
    (tmp_path / "lifecycle.event.v1.json").write_text("{}")
    (tmp_path / "lifecycle.audit.v1.json").unlink()
    (tmp_path / "old.json").write_text("{}")
    assert export.drift(tmp_path) == [
        "old.json is not a record",
        "lifecycle.event.v1.json differs",
        "lifecycle.audit.v1.json is missing",
    ]


@pytest.mark.parametrize("name", export.documents())
def test_each_document_is_a_schema_of_draft_2020_12(name: str) -> None:
    Draft202012Validator.check_schema(export.documents()[name])


def test_every_record_has_a_sample() -> None:
    assert [type(sample) for sample in SAMPLES] == list(export.RECORDS)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_every_encoded_record_is_valid_by_its_schema(sample: Record) -> None:
    schema = export.documents()[type(sample).ce_type]  # type: ignore[attr-defined]  # every concrete record has one
    Draft202012Validator(schema).validate(json.loads(codec.dump(sample)))
    assert codec.decode(type(sample), codec.dump(sample)) == sample


def test_the_guides_example_is_valid_by_the_webhook_schema() -> None:
    Draft202012Validator(export.documents()[webhook.CE_TYPE]).validate(GUIDE)


def test_a_validation_error_does_not_repeat_the_input() -> None:
    with pytest.raises(ValidationError) as caught:
        Recheck(key="canary", reason="", at=0)
    assert "canary" not in str(caught.value)
