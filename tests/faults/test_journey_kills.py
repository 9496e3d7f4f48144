"""The whole journey while its middle is killed again and again (the long form: `make faults`)."""

import pytest

from tests.faults import journey

pytestmark = [pytest.mark.engines, pytest.mark.long, pytest.mark.timeout(400)]


def test_a_burst_under_kills_makes_every_resource_once_and_skips_no_revision() -> None:
    assert journey.play(seed=1, orgs=100, kills=3) == []
