"""The list of Kafka's jars is what Maven resolves, so that the list can be made again for the next Kafka."""

import shutil

import pytest

from services.engines import jars, pin_jars


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("mvn") is None, reason="Maven (mvn) is not installed")
def test_the_list_of_jars_matches_maven() -> None:
    assert pin_jars.main(["--check", jars.KAFKA]) == 0


def test_a_command_line_without_a_version_prints_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert pin_jars.main([]) == 2
    assert "usage" in capsys.readouterr().err
