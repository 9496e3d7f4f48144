"""The whole journey while its middle is killed again and again (the long form: `make faults`)."""

import pytest

from tests.faults import journey

pytestmark = [pytest.mark.engines, pytest.mark.long, pytest.mark.timeout(400)]


def test_a_burst_under_kills_ends_with_every_resource_once_and_no_revision_missing() -> None:
    assert journey.play(seed=1, orgs=100, kills=3) == []
