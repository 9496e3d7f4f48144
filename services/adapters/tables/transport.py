"""What Faust talks to Kafka with: our consumer, and a producer that sends nothing.

Rule: Faust never sends. Its own producer gives a flush up after 0.1 s without progress and only logs a failed send
(faust/transport/producer.py, faust/topics.py), and then commits the offset. Everything goes through one
`services.adapters.kafka.producer.Producer`; what is left of Faust's producer is `flush`, which is the commit barrier.
"""

from typing import Any, ClassVar

from faust.transport.drivers import aiokafka as driver
from faust.transport.producer import Producer
from faust.types.transports import ConsumerT, ProducerT

from services.adapters.tables.consumer import DurableConsumer


class Barrier(Producer):
    """Waits before each commit until everything that was sent is acknowledged."""

    app: Any

    async def flush(self) -> None:
        """Return when every record sent so far was reported on; a failed one has ended the process by then."""
        await self.app.log_of_writes.flush()


class Transport(driver.Transport):
    """Faust's own, with our consumer and the barrier."""

    Consumer: ClassVar[type[ConsumerT]] = DurableConsumer
    Producer: ClassVar[type[ProducerT]] = Barrier
