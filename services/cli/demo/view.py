"""Follows the public topics as a downstream service would: tenants, events and verdicts of the audit trail.

Rule: folding is idempotent, since Kafka may repeat a record. Of a tenant's records the greatest version counts. An
event is identified by the revision, an audit line by the id.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from schemas.audit import Audit
from schemas.codec import decode
from schemas.event import Event
from schemas.stored import StoredRecord
from schemas.tenant import Stage, Tenant
from schemas.topics import AUDIT, EVENTS, TENANTS, named
from services.adapters.kafka import reader
from services.adapters.kafka.producer import KafkaError
from services.core.seals.chain import is_seal


@dataclass(frozen=True, slots=True)
class TenantChange:
    """The visible state of a tenant after a change; `at_us` is the timestamp of the Kafka record, microseconds UTC."""

    at_us: int
    stage: Stage | None
    enabled: bool | None
    reason: str | None
    revision: int
    generation: int


class PublicRecords:
    """The records folded so far. Not thread-safe.

    Attributes:
        tenants: Newest record of each tenant, by key.
        changes: Changes of the visible state, by key, oldest first.
        events: Events by key and revision.
        verdicts: Number of deliveries for each verdict of the audit trail, by key.
        contradictions: Texts about revisions with two different events.
        topics: Topic names with prefix to topics.
    """

    def __init__(self, prefix: str) -> None:
        """Starts without records.

        Args:
            prefix: Prefix of the installation's topic names.
        """
        self.tenants: dict[str, Tenant] = {}
        self.changes: dict[str, list[TenantChange]] = defaultdict(list)
        self.events: dict[str, dict[int, Event]] = defaultdict(dict)
        self.verdicts: dict[str, Counter[str]] = defaultdict(Counter)
        self.contradictions: list[str] = []
        self.topics = {named(topic, prefix): topic for topic in (TENANTS, EVENTS, AUDIT)}
        self._audited: set[str] = set()

    def gaps(self, key: str) -> str:
        """Returns the fault in the revisions of a key, as text; empty for 1, 2, 3 … up to the tenant's revision."""
        found, tenant = sorted(self.events[key]), self.tenants.get(key)
        if found != list(range(1, len(found) + 1)):
            return f"revisions {found} are not 1, 2, 3 …"
        if tenant is not None and tenant.revision != len(found):
            return f"the view stands at revision {tenant.revision}, the events at {len(found)}"
        return ""

    def fold(self, record: StoredRecord) -> None:
        """Adds a record; a repeated record changes nothing."""
        topic = self.topics[record.topic]
        if record.value is None:  # a tombstone
            return
        if topic is TENANTS:
            self._fold_tenant(decode(Tenant, record.value), record.at_us)
        elif topic is EVENTS:
            event = decode(Event, record.value)
            known = self.events[event.key].setdefault(event.revision, event)
            if known.uid != event.uid:
                self.contradictions.append(f"{event.key}: revision {event.revision} is {known.uid} and {event.uid}")
        elif not is_seal(record):
            line = decode(Audit, record.value)
            if line.id not in self._audited:
                self._audited.add(line.id)
                self.verdicts[line.key][line.verdict] += 1

    def _fold_tenant(self, tenant: Tenant, at_us: int) -> None:
        """Keeps the record with the greatest version; adds a change if the visible state differs from the last one."""
        known = self.tenants.get(tenant.key)
        if known is not None and known.version > tenant.version:
            return
        self.tenants[tenant.key] = tenant
        now = TenantChange(at_us, tenant.stage, tenant.enabled, tenant.reason, tenant.revision, tenant.generation)
        changes = self.changes[tenant.key]
        if not changes or _compared_fields(changes[-1]) != _compared_fields(now):
            changes.append(now)


class PublicView(PublicRecords):
    """Public records, kept up to date by a thread as long as the context lasts.

    The thread folds records under a lock. A condition on several fields belongs into `until`, which holds the lock.
    """

    def __init__(self, config: dict[str, Any], prefix: str) -> None:
        """Opens a reader at the beginning of all topics. Blocks until Kafka has listed the partitions.

        Args:
            config: Settings of the Kafka client.
            prefix: Prefix of the installation's topic names.

        Raises:
            KafkaError: No broker answers, or a topic is missing.
        """
        super().__init__(prefix)
        self._reader = reader.follow(config, self.topics)
        # Reentrant: a condition of `until` may call `gaps`, which takes the lock again.
        self._changed = threading.Condition(threading.RLock())
        self._stopping = False
        self._thread = threading.Thread(target=self._follow, name="view", daemon=True)

    def until(self, condition: Callable[[PublicRecords], bool], deadline_s: float) -> bool:
        """Waits until `condition` is True; returns False after `deadline_s` seconds.

        The condition runs in the calling thread, under the lock: no record is folded meanwhile.
        """
        deadline = time.monotonic() + deadline_s
        with self._changed:
            while not condition(self):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 1.0))
        return True

    def gaps(self, key: str) -> str:
        """Returns the result of `PublicRecords.gaps`, computed under the lock."""
        with self._changed:
            return super().gaps(key)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join(5)
        self._reader.close()

    def _follow(self) -> None:
        """Folds records until the end of the context. Runs in the thread of the view."""
        while not self._stopping:
            try:
                records = self._reader.poll(0.1)
            except KafkaError:
                continue  # the broker may be restarting: librdkafka reconnects by itself
            if records:
                with self._changed:
                    for record in records:
                        self.fold(reader.as_stored(record))
                    self._changed.notify_all()


def _compared_fields(change: TenantChange) -> tuple[object, ...]:
    """Returns the fields that make two changes different; time and generation alone do not."""
    return change.stage, change.enabled, change.reason, change.revision
