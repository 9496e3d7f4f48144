"""Reads and verifies the audit trail, from Kafka or from an exported file."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from schemas.keyring import Material
from schemas.stored import StoredRecord
from schemas.topics import AUDIT, named
from services.adapters.kafka import reader
from services.adapters.process.settings import Settings
from services.adapters.secrets.keyring import raw
from services.core.seals.check import KnownSeal, TrailCheck, TrailReport, TrailRules

UNSEALED_INTERVALS: Final = 3
"""Intervals of sealing that a record may wait for its seal: a restart or a takeover costs a second one."""

OnProgress = Callable[[int, int], object]
"""Called with the number of offsets passed, and of all offsets."""


def present_trail(settings: Settings, on_progress: OnProgress) -> Iterator[StoredRecord]:
    """Yields the whole trail up to its present ends; in order within a partition. Blocks.

    Raises:
        KafkaError: The topic cannot be read.
    """
    topic = named(AUDIT, settings.topic_prefix)
    return reader.present_records(settings.kafka, [topic], on_progress=on_progress)


def verify(
    records: Iterable[StoredRecord],
    material: Material,
    settings: Settings,
    known: Mapping[int, KnownSeal],
    now_us: int,
    until_us: int | None,
) -> TrailReport:
    """Returns the result of the verification of a whole trail.

    Args:
        records: The trail; in order within a partition.
        material: The key material of the installation.
        settings: For the interval of sealing.
        known: By partition: the newest seal of an earlier verification.
        now_us: Our clock, microseconds UTC.
        until_us: The time up to which the trail was read, microseconds UTC; None: the newest timestamp in it.
    """
    assert AUDIT.retention_ms is not None, "the trail is not compacted"
    rules = TrailRules(
        audit=[raw(key) for key in material.audit],
        seal=[raw(key) for key in material.seal],
        retention_us=AUDIT.retention_ms * 1_000,
        unsealed_us=int(UNSEALED_INTERVALS * settings.seal_interval_s * 1_000_000),
        known=known,
    )
    check = TrailCheck(rules)
    for record in records:
        check.add(record)
    return check.report(now_us, until_us)
