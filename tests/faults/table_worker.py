"""The smallest application of durable tables: counts the new deliveries of each key and says each once.

Two inputs with a table each, as the ledger has. A row is its version, the count, and a journal of id, first offset and
sequence. Run by the chaos driver as a process; its arguments are a JSON object.
"""

import asyncio
import json
import signal
import struct
import sys
from pathlib import Path

from faust.types import EventT, StreamT

from schemas.codec import Message
from services.adapters.kafka.producer import Producer
from services.adapters.process import logs
from services.adapters.tables.app import Agent, Config, DurableApp, create_app
from services.adapters.tables.table import DurableTable
from services.adapters.tables.worker import run
from tests.faults import sabotage

INPUTS = {"events": "seen", "notes": "noted"}
"""Input topic to table, both without the prefix."""

OUTPUT = "said"
_HEAD = struct.Struct(">qq")
_ENTRY = struct.Struct(">8sqq")


class Row:
    """A counted key."""

    def __init__(self, packed: bytes | None) -> None:
        self.version: int
        self.count: int
        self.version, self.count = _HEAD.unpack_from(packed) if packed else (-1, 0)
        entries = _ENTRY.iter_unpack(packed[_HEAD.size :]) if packed else ()
        self.journal = {uid: (offset, sequence) for uid, offset, sequence in entries}

    def pack(self) -> bytes:
        entries = (_ENTRY.pack(uid, *entry) for uid, entry in self.journal.items())
        return _HEAD.pack(self.version, self.count) + b"".join(entries)

    def receive(self, uid: bytes, offset: int) -> int | None:
        """The sequence to say, or None for a duplicate."""
        known = self.journal.get(uid)
        if known is None:
            self.count += 1
            self.journal[uid] = (offset, self.count)
            self.version = max(offset, self.version + 1)
            return self.count
        first, sequence = known
        return sequence if offset <= first else None


def agent(app: DurableApp, table: DurableTable, other: DurableTable, output: str) -> Agent:
    """Reads one input into its table."""

    def count(event: EventT[bytes]) -> None:
        message = event.message
        assert message.key is not None
        assert message.value is not None
        other.row(message.partition, message.key)  # the other table of this partition is here too
        row = Row(table.row(message.partition, message.key))
        sequence = row.receive(message.value, message.offset)
        if sequence is not None:
            table.put(message.partition, message.key, row.pack())
            text = b"|".join((table.name.encode(), message.value, message.key, str(sequence).encode()))
            app.emit(output, Message(message.key, text))

    async def read(stream: StreamT[bytes]) -> None:
        async for event in stream.events():
            if await app.begin(event):
                with app.guard_decision(event):
                    count(event)
                app.finish(event)

    return read


async def work(
    *, brokers: str, prefix: str, partitions: int, folder: str, session_s: float, look_s: float, done_to_it: str = ""
) -> None:
    """Run until SIGTERM, or until what is `done_to_it` on purpose is noticed."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    producer = Producer({"bootstrap.servers": brokers, "log_level": 0}, linger_ms=5, timeout_ms=60_000)
    config = Config(f"{prefix}chaos", brokers, partitions, Path(folder), 0.7, session_s, foreign_look_s=look_s)
    app = create_app(config, producer)
    tables = {topic: app.durable_table(name) for topic, name in INPUTS.items()}
    events, notes = tables.values()
    others = {"events": notes, "notes": events}
    app.bind_agents(
        {prefix + topic: agent(app, table, others[topic], prefix + OUTPUT) for topic, table in tables.items()}
    )
    if done_to_it:
        sabotage.ALL[done_to_it](app, prefix + "events")
    await run(app, stop)
    await producer.close(5)


if __name__ == "__main__":
    logs.configure("chaos", "info")
    asyncio.run(work(**json.loads(sys.argv[1])))
