"""A secret speaks for the organisations and integrations of its endpoint, and for no others."""

import pytest

from services.core.delivery.binding import binding

ORG, OTHER = "98765432-1234-5678-9abc-def012345678", "00000000-1234-5678-9abc-def012345678"
INTEGRATION = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"
KEY = f"{ORG}:{INTEGRATION}"


@pytest.mark.parametrize(
    ("orgs", "integrations", "covers"),
    [
        (["*"], ["*"], True),
        ([ORG], ["*"], True),
        ([ORG.upper()], ["*"], True),
        ([OTHER], ["*"], False),
        ([OTHER, ORG], [INTEGRATION], True),
        (["*"], [OTHER], False),
        ([ORG], [OTHER], False),
        ([], ["*"], False),
        (["*"], [], False),
        ([OTHER, "*"], ["*"], True),
    ],
    ids=[
        "any", "its org", "upper case", "another org", "both named", "another integration",
        "org but not integration", "no org", "no integration", "one star",
    ],
)  # fmt: skip
def test_a_binding_covers_its_own_keys_only(orgs: list[str], integrations: list[str], covers: bool) -> None:  # noqa: FBT001
    assert binding(orgs, integrations).covers(KEY) is covers
