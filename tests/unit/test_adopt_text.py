"""What `lifecycle adopt` prints: every line that leaves something to do, and a summary."""

import pytest

from schemas.audit import OperatorAct
from services.cli.adopt_text import adoption_json, print_adoption, print_release, release_json
from services.core.saga.adoption import Differing, StepFinding, StepSight
from services.core.saga.adoption_file import BadLine
from services.operations.adoption import AdoptedTenant, AdoptionEnd, AdoptionOrder
from services.operations.release import ReleasedKey
from tests.support.saga_world import KEY

ORDER = AdoptionOrder(OperatorAct(by="Ada", reason="why", digest="d" * 16, number=3), 1_000_000, Differing.LEAVE, False)
FOUND = StepFinding("middleware", StepSight.FOUND)
MISSING = StepFinding("crm", StepSight.MISSING)


def test_a_line_in_order_is_counted_and_any_other_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    ends = [
        AdoptedTenant(1, KEY.replace("2222", "1111"), AdoptionEnd.ADOPTED, (FOUND,)),
        AdoptedTenant(3, KEY, AdoptionEnd.LEFT, (FOUND, MISSING)),
        AdoptedTenant(4, KEY.replace("2222", "3333"), AdoptionEnd.CHANGED),
    ]
    found = adoption_json(ORDER, [BadLine(2, "key: is missing")], ends)
    assert ([line["line"] for line in found["lines"]], found["is_done"]) == ([1, 2, 3, 4], False)
    assert found["lines"][2]["steps"]["crm"] == {"sight": "missing", "detail": ""}
    print_adoption(found)
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()[1:]] == ["2", "3", "4"]
    assert "crm missing" in said.out
    assert said.err == "4 lines: 1 adopted, 1 bad line, 1 left, 1 changed meanwhile\n"


def test_an_adoption_with_nothing_left_prints_the_summary_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for end in (AdoptionEnd.ADOPTED, AdoptionEnd.ADOPTABLE, AdoptionEnd.ALREADY):
        found = adoption_json(ORDER, [], [AdoptedTenant(1, KEY, end, (FOUND,))])
        assert found["is_done"]
        print_adoption(found)
        assert (capsys.readouterr()) == ("", f"1 line: 1 {end}\n")
    print_adoption(adoption_json(ORDER, [], []))
    assert capsys.readouterr().err == "no tenant in the file\n"


def test_a_release_prints_the_end_of_each_key(capsys: pytest.CaptureFixture[str]) -> None:
    found = release_json({KEY: ReleasedKey.RELEASED, "other": ReleasedKey.NOT_ADOPTED})
    assert (found["is_done"], found["unknown"]) == (False, [])
    assert release_json({KEY: ReleasedKey.NO_SAGA})["unknown"] == [KEY]
    print_release(found)
    assert capsys.readouterr().out == (
        f"{KEY}: released: nothing outside was removed\nother: its life was not adopted: nothing was done\n"
    )
    assert release_json({KEY: ReleasedKey.AGAIN})["is_done"]
