"""The rule of hints: the secret that proves a hint, the organisations it may name, and the audits that ask a re-check.

Rule: a hint changes nothing. An audit of an integration asks a re-check of the key, and the reconciler reads the key
from Genesys. So a forged, repeated or lost hint costs at most one read, and the hourly run needs no hint. An audit at
an endpoint with the authority `event` is no hint: see `audited_events`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hmac import digest
from typing import Final

from schemas import hint
from schemas.hint import AUDIT_TOPICS, AuditSubject, Envelope, IntegrationAudit
from schemas.times import LAST_US
from services.core.delivery.binding import ANY
from services.core.delivery.signature import Proof, Secrets, verify

_TEXT: Final = b"lifecycle hint"
"""Text under both MACs of `prove`; public."""

SERVICE: Final = "integrations"
ENTITY_TYPES: Final = frozenset({"integration"})
ACTIONS: Final = frozenset({
    "create", "update", "delete", "enable", "disable", "activate", "deactivate", "restore", "restoredeleted",
    "softdelete", "harddelete",
})  # fmt: skip
"""The audited changes of an integration, in lower case: the names of the notification topic's schema. The actions in
use by the service Integrations are not documented, so the table has all that change an entity."""

_READ_AFTER_US: Final = 1_000_000
"""A read within the second of the audit may be older than the change: times of reads are whole seconds."""


class Ignored(StrEnum):
    """Why an authentic notification asks and changes nothing."""

    TOPIC = "ignored_topic"
    """A notification of no audit topic."""
    ENTITY = "ignored_entity"
    """An audit of another service or entity type."""
    ACTION = "ignored_action"
    """An audit of an integration with an action outside `ACTIONS`, as a view."""
    CHANGE = "ignored_change"
    """An audit of an integration that states no event, at an endpoint whose audits count as events."""


@dataclass(frozen=True, slots=True)
class HintBinding:
    """The binding of a hint's endpoint.

    Attributes:
        orgs: Lower-cased ids of organisations; None for any organisation.
        accounts: AWS accounts of the event bus; None for any account.
    """

    orgs: frozenset[str] | None
    accounts: frozenset[str] | None

    def covers(self, org_id: str, account: str | None) -> bool:
        """True if the endpoint accepts notifications of an organisation from an AWS account (None: not named)."""
        return (self.orgs is None or org_id in self.orgs) and (self.accounts is None or account in self.accounts)


def hint_binding(orgs: Iterable[str], accounts: Iterable[str]) -> HintBinding:
    """Returns the binding of two lists; `*` in a list allows any value, an empty list allows none."""
    named, paid = frozenset(org.lower() for org in orgs), frozenset(accounts)
    return HintBinding(None if ANY in named else named, None if ANY in paid else paid)


def prove(secrets: Secrets | None, claimed: bytes, now_us: int) -> Proof:
    """Returns the secret in force that equals a claimed secret; `NONE` for any other claim.

    Both sides become MACs of one public text under the two secrets. So the compared texts have equal lengths, and
    `verify` keeps its promises: constant time, and equal work for an unknown endpoint.

    Args:
        secrets: The secrets of the endpoint; None for an unknown endpoint.
        claimed: The secret in the request's header, without a NUL byte: HMAC would ignore a NUL at the end of a key.
        now_us: The present time, microseconds UTC.
    """
    return verify(secrets, digest(claimed, _TEXT, "sha256"), _TEXT, now_us)


def judge_topic(topic: str) -> Ignored | None:
    """Returns why notifications of a topic ask nothing; None for an audit topic."""
    return None if topic.startswith(AUDIT_TOPICS) else Ignored.TOPIC


def judge_subject(subject: AuditSubject) -> Ignored | None:
    """Returns why an audit asks nothing; None for a change of an integration. Case does not count."""
    if subject.service.casefold() != SERVICE or subject.entity_type.casefold() not in ENTITY_TYPES:
        return Ignored.ENTITY
    return None if subject.action.casefold() in ACTIONS else Ignored.ACTION


def judge(envelope: Envelope) -> IntegrationAudit | Ignored:
    """Returns the audit of an integration in a notification, or why the notification asks nothing.

    Raises:
        Malformed: the notification of an audit topic is no audit, or the audit of an integration lacks a readable id,
            time or entity.
    """
    # The form of a notification depends on the topic, so each part is parsed once the part before is known.
    if (ignored := judge_topic(envelope.topic)) is not None:
        return ignored
    subject = hint.subject(envelope.event)
    if (ignored := judge_subject(subject)) is not None:
        return ignored
    return hint.audit(envelope)


def read_after_us(audited_us: int) -> int:
    """Returns the time that a read must reach to answer an audit of `audited_us`; both microseconds UTC.

    Both times are by the clock of Genesys. The time of a repeated hint is equal, so a repetition after the read asks
    no second read, whatever process takes it.
    """
    return min(audited_us + _READ_AFTER_US, LAST_US)
