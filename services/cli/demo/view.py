"""What the journey's public topics say, followed as a downstream service would: tenants, events, verdicts.

Rule: of tenants the greatest version counts, of events the revision; a record that Kafka repeats changes nothing here.
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
from schemas.tenant import Stage, Tenant
from schemas.topics import AUDIT, EVENTS, TENANTS, named
from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.reader import StoredRecord, TopicReader


@dataclass(frozen=True, slots=True)
class TenantChange:
    """A tenant as it became."""

    at_us: int
    stage: Stage | None
    enabled: bool | None
    reason: str | None
    revision: int
    generation: int


class PublicRecords:
    """Everything that was told so far."""

    def __init__(self, prefix: str) -> None:
        """Know nothing yet.

        Args:
            prefix: Of the installation's topics.
        """
        self.tenants: dict[str, Tenant] = {}
        self.changes: dict[str, list[TenantChange]] = defaultdict(list)
        self.events: dict[str, dict[int, Event]] = defaultdict(dict)
        self.verdicts: dict[str, Counter[str]] = defaultdict(Counter)
        self.contradictions: list[str] = []
        """Revisions that two events claim."""
        self.topics = {named(topic, prefix): topic for topic in (TENANTS, EVENTS, AUDIT)}
        self._audited: set[str] = set()

    def gaps(self, key: str) -> str:
        """What is wrong with the revisions of a key; empty when they count from 1 without gaps."""
        found, tenant = sorted(self.events[key]), self.tenants.get(key)
        if found != list(range(1, len(found) + 1)):
            return f"revisions {found} are not 1, 2, 3 …"
        if tenant is not None and tenant.revision != len(found):
            return f"the view stands at revision {tenant.revision}, the events at {len(found)}"
        return ""

    def fold(self, record: StoredRecord) -> None:
        """Take one record in."""
        topic = self.topics[record.topic]
        if record.value is None:
            return
        if topic is TENANTS:
            self._fold_tenant(decode(Tenant, record.value), record.at_us)
        elif topic is EVENTS:
            event = decode(Event, record.value)
            known = self.events[event.key].setdefault(event.revision, event)
            if known.uid != event.uid:
                self.contradictions.append(f"{event.key}: revision {event.revision} is {known.uid} and {event.uid}")
        else:
            line = decode(Audit, record.value)
            if line.id not in self._audited:
                self._audited.add(line.id)
                self.verdicts[line.key][line.verdict] += 1

    def _fold_tenant(self, tenant: Tenant, at_us: int) -> None:
        known = self.tenants.get(tenant.key)
        if known is not None and known.version > tenant.version:
            return
        self.tenants[tenant.key] = tenant
        now = TenantChange(at_us, tenant.stage, tenant.enabled, tenant.reason, tenant.revision, tenant.generation)
        changes = self.changes[tenant.key]
        if not changes or _essence(changes[-1]) != _essence(now):
            changes.append(now)


class PublicView(PublicRecords):
    """Follows the topics in a thread of its own; use it as a context."""

    def __init__(self, config: dict[str, Any], prefix: str) -> None:
        """Begin at the beginning. Blocks until Kafka has named the partitions.

        Raises:
            KafkaError: no broker answers, or a topic is missing.
        """
        super().__init__(prefix)
        self._follower = TopicReader(config, list(self.topics))
        self._news = threading.Condition(threading.RLock())
        self._leaving = False
        self._thread = threading.Thread(target=self._follow, name="view", daemon=True)

    def until(self, is_so: Callable[[PublicRecords], bool], deadline_s: float) -> bool:
        """Wait until it is so; False when it was not in time. `is_so` sees a view that stands still."""
        deadline = time.monotonic() + deadline_s
        with self._news:
            while not is_so(self):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._news.wait(min(left, 1.0))
        return True

    def gaps(self, key: str) -> str:
        """As `Told.gaps`, of a view that stands still."""
        with self._news:
            return super().gaps(key)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving = True
        self._thread.join(5)
        self._follower.close()

    def _follow(self) -> None:
        while not self._leaving:
            try:
                records = self._follower.poll(0.1)
            except KafkaError:
                continue  # the broker may be restarting: librdkafka finds it again
            if records:
                with self._news:
                    for record in records:
                        self.fold(record)
                    self._news.notify_all()


def _essence(change: TenantChange) -> tuple[object, ...]:
    return change.stage, change.enabled, change.reason, change.revision
