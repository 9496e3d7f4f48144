"""Check of the SQS queue of hints, where one is configured: an answer, a dead-letter queue, and the queue's policy.

No message is received, since a receipt counts towards the dead-letter queue: `/readyz` of the reader proves that right.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Final

from services.cli.doctor.finding import CheckContext, Finding, fault, skipped, well

_WHAT: Final = "hints' queue"
_DOCS: Final = "docs/connect-genesys.md"
_RECEIPTS_LEAST: Final = 5
"""Least `maxReceiveCount`: a message in hand at a restart is received once more, and must not be moved for that."""
_RETENTION_LEAST_S: Final = 86_400
"""Least retention, seconds: a reader may be away for a night."""


def hint_queue(context: CheckContext) -> Iterator[Finding]:
    """Checks the queue HINTS_SQS_QUEUE_URL; yields nothing where none is configured."""
    chosen = context.settings
    if chosen.hints_sqs_queue_url is None:
        if "HINTS_SQS_QUEUE_URL" in context.unusable:
            yield skipped(_WHAT, context.missing_text("HINTS_SQS_QUEUE_URL"), "correct it")
        return
    # boto3 is an extra: imported only where a queue is configured.
    from services.adapters.sqs import Queue, QueueFault

    queue = Queue(chosen.hints_sqs_queue_url, chosen.hints_sqs_region, polls_at_once=1)
    try:
        attributes = asyncio.run(queue.attributes())
    except QueueFault as error:
        detail, _, cure = str(error).partition("; ")
        yield fault(_WHAT, f"{chosen.hints_sqs_queue_url}: {detail}", cure)
        return
    name = chosen.hints_sqs_queue_url.rpartition("/")[2]
    yield from list(_faults(name, attributes)) or [well(_WHAT, f"{name}: {_counts(attributes)}")]


def _faults(name: str, attributes: Mapping[str, str]) -> Iterator[Finding]:
    redrive = _object(attributes, "RedrivePolicy")
    receipts = int(redrive.get("maxReceiveCount", 0))
    if not redrive:
        detail = "it has no dead-letter queue: messages that cannot be read stay until its retention ends"
        yield fault(_WHAT, f"{name}: {detail}", f"give it a `RedrivePolicy` ({_DOCS})")
    elif receipts < _RECEIPTS_LEAST:
        detail = f"it moves a message to its dead-letter queue after {receipts} receipts, and restarts cost one each"
        yield fault(_WHAT, f"{name}: {detail}", f"set maxReceiveCount to {_RECEIPTS_LEAST} or more")
    if (kept_s := int(attributes.get("MessageRetentionPeriod", _RETENTION_LEAST_S))) < _RETENTION_LEAST_S:
        detail = f"it keeps messages for {kept_s // 60} minutes only"
        yield fault(_WHAT, f"{name}: {detail}", "set MessageRetentionPeriod to a day or more; 4 days are usual")
    if "events.amazonaws.com" not in attributes.get("Policy", ""):
        detail = "its policy lets no rule of EventBridge send"
        yield fault(_WHAT, f"{name}: {detail}", f"give it the queue policy of {_DOCS}")


def _counts(attributes: Mapping[str, str]) -> str:
    """Returns the numbers of messages in words."""
    waiting, received = (
        attributes.get(f"ApproximateNumberOfMessages{suffix}", "an unknown number") for suffix in ("", "NotVisible")
    )
    visible_s = attributes.get("VisibilityTimeout", "?")
    return f"about {waiting} waiting, {received} received; visibility timeout {visible_s} s (the reader sets its own)"


def _object(attributes: Mapping[str, str], name: str) -> Mapping[str, str]:
    """Returns an attribute with a JSON object; empty if the attribute is absent or no object."""
    try:
        found = json.loads(attributes.get(name, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
