"""A table worker names the right that Kafka refused to aiokafka."""

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, IllegalStateError, TopicAuthorizationFailedError

from services.adapters.tables.denial import refusal


@pytest.mark.parametrize(
    ("error", "missing"),
    [
        (TopicAuthorizationFailedError("b"), "Read on topic b"),
        (TopicAuthorizationFailedError({"b", "a"}), "Read on topic a, Read on topic b"),
        (GroupAuthorizationFailedError("lifecycle-ledger"), "Read on group lifecycle-ledger"),
    ],
)
def test_a_refusal_names_the_right_and_the_remedy(error: Exception, missing: str) -> None:
    assert f"lacks {missing}; `lifecycle topics acls` prints" in refusal(error)


def test_another_exception_is_no_refusal() -> None:
    assert refusal(None) == refusal(IllegalStateError("b")) == ""
