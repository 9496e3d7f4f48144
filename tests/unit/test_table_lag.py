"""The lag of a ledger that no broker answers is not known, and not 0."""

from aiokafka import AIOKafkaConsumer
from faust.types import TP

from services.adapters.tables.consumer import is_answered

AT_US = 1_800_000_000_000_000
HELD, OTHER = TP("lifecycle.received", 0), TP("lifecycle.received", 1)


async def answered(heard_us: int | None, tp: TP = HELD) -> bool:
    """Returns the judgement about a real client that holds a partition and was answered at this time."""
    client = AIOKafkaConsumer()
    try:
        client.assign([HELD])
        client._subscription.subscription.assignment.state_value(HELD).timestamp = heard_us and heard_us // 1_000
        return is_answered(client, tp, AT_US)
    finally:
        await client.stop()


async def test_a_partition_counts_as_answered_for_ten_seconds() -> None:
    assert await answered(AT_US - 9_000_000)
    assert not await answered(AT_US - 11_000_000)


async def test_a_partition_never_answered_or_not_held_is_not_answered() -> None:
    assert not await answered(None)
    assert not await answered(AT_US, OTHER)
    assert not is_answered(None, HELD, AT_US)
