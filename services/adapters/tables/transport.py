"""Connects Faust to Kafka with `DurableConsumer` and with a producer that sends no records.

Problem: Faust's producer gives up a flush after 0.1 s without progress, and a failed send is only logged
(faust/transport/producer.py, faust/topics.py). Faust then commits the offset although records are missing.

Approach: every record goes through one `services.adapters.kafka.producer.Producer`. Of Faust's producer only `flush`
remains, which Faust calls before each commit: the commit barrier.

Rule: Faust itself never sends a record.
"""

from typing import ClassVar

from faust.transport.drivers import aiokafka as driver
from faust.transport.producer import Producer
from faust.types.transports import ConsumerT, ProducerT

from services.adapters.tables.consumer import DurableConsumer
from services.adapters.tables.protocol import TableApp


class Barrier(Producer):
    """The commit barrier: waits before each commit until every sent record is acknowledged."""

    app: TableApp  # type: ignore[assignment]  # see `protocol`

    async def flush(self) -> None:
        """Returns when every record sent so far has a delivery report. A failed record has ended the process before."""
        await self.app.log_of_writes.flush()


class Transport(driver.Transport):
    """Faust's transport, with `DurableConsumer` and `Barrier`."""

    Consumer: ClassVar[type[ConsumerT]] = DurableConsumer
    Producer: ClassVar[type[ProducerT]] = Barrier
