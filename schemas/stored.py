"""A record as Kafka keeps it, read back from a topic."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record as stored in the log.

    Attributes:
        topic: Full name, with the prefix of the installation.
        partition: Number of the partition.
        offset: Offset in the partition.
        at_us: The record's timestamp, microseconds UTC.
        key: As text; empty for a record without a key.
        value: The data; None is a tombstone.
        headers: As text; of several headers with one name the first.
    """

    topic: str
    partition: int
    offset: int
    at_us: int
    key: str
    value: bytes | None
    headers: dict[str, str]
