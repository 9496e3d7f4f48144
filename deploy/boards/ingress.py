"""The board *ingress*: how deliveries are answered, and what waits on local disk."""

from typing import Final

from deploy.boards.panel import Board, Panel, Query, Row, Unit, bad_below, bad_from
from deploy.boards.queries import increase, occurring, quantiles, rate, resources

_GOOD: Final = 'status="200"'
_BY_STATUS: Final = (
    f"{rate('lifecycle_ingress_answers_total', 'status', _GOOD)} "
    f"or {occurring(rate('lifecycle_ingress_answers_total', 'status'))}"
)

_NO_QUEUE: Final = "the day reads no queue of Amazon"

BOARD: Final = Board(
    uid="lifecycle-ingress",
    title="Lifecycle / Ingress",
    description="How deliveries are answered, why some are refused, and what waits on local disk for Kafka.",
    jobs=("ingress",),
    rows=(
        Row(
            "Are deliveries answered?",
            (
                Panel(
                    title="Answers by status",
                    description="200 means that Kafka or the spool has the delivery. 4xx is a refusal of the sender's "
                    "request; 503 asks Genesys to send again.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(_BY_STATUS, "{{status}}"),),
                    stacked=True,
                    runbooks=("LifecycleDeliveryBudgetBurn",),
                ),
                Panel(
                    title="Answers other than 200, by reason",
                    description="`forged` after a change of the secret: the sender signs with another one. "
                    "docs/webhook.md explains every reason.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(
                            occurring(rate("lifecycle_ingress_answers_total", "status, reason", 'status!="200"')),
                            "{{status}} {{reason}}",
                        ),
                    ),
                    empty_when_healthy="every delivery is answered 200",
                ),
                Panel(
                    title="Time to answer",
                    description="From the first byte to the answer. Genesys waits 3 s, and no answer takes longer "
                    "than 2.7 s.",
                    unit=Unit.SECONDS,
                    queries=quantiles("lifecycle_ingress_answer_seconds"),
                    thresholds=bad_from(1.2, 2.7),
                ),
            ),
        ),
        Row(
            "Do hints of EventBridge arrive?",
            (
                Panel(
                    title="Hints by answer",
                    description="200 `queued` asks Genesys about one integration, `ignored_…` asks nothing. 4xx other "
                    "than 429 ends a hint, and the hourly reconciliation finds the same: docs/connect-genesys.md.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(
                            occurring(rate("lifecycle_ingress_hints_total", "status, reason")), "{{status}} {{reason}}"
                        ),
                    ),
                    empty_when_healthy="nobody sends hints",
                ),
                Panel(
                    title="Hints from a queue",
                    description="Messages of an SQS queue by result. `written` asks Genesys about one integration, "
                    "`ignored_…` asks nothing; `unbound` and `malformed` stay for the dead-letter queue, and count at "
                    "each receipt.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(occurring(rate("lifecycle_hints_messages_total", "result")), "{{result}}"),),
                    empty_when_healthy="nobody reads hints from a queue",
                    not_played=_NO_QUEUE,
                ),
                Panel(
                    title="The queue of hints",
                    description="Messages waiting, messages in hand, and calls to Amazon that failed. What waits grows "
                    "while Kafka or Amazon is away, and is read afterwards; the log says why.",
                    unit=Unit.COUNT,
                    queries=(
                        Query('max(lifecycle_hints_queue_messages{state="waiting"})', "waiting"),
                        Query("sum(lifecycle_hints_in_hand_messages)", "in hand"),
                        Query(
                            occurring(increase("lifecycle_hints_queue_faults_total", "kind", window="5m")),
                            "failed: {{kind}}",
                        ),
                    ),
                    empty_when_healthy="nobody reads hints from a queue",
                    not_played=_NO_QUEUE,
                ),
                Panel(
                    title="Sent to the queue until written",
                    description="From the queue's own stamp until Kafka acknowledged the request for a read.",
                    unit=Unit.SECONDS,
                    queries=quantiles("lifecycle_hints_written_seconds"),
                    empty_when_healthy="nobody reads hints from a queue",
                    not_played=_NO_QUEUE,
                ),
            ),
        ),
        Row(
            "Does Kafka take them?",
            (
                Panel(
                    title="Deliveries waiting for Kafka",
                    description="Deliveries without an acknowledgement yet. From INFLIGHT_MAX on the answer is 503.",
                    unit=Unit.COUNT,
                    queries=(Query("lifecycle_ingress_in_flight", "{{instance}}"),),
                ),
                Panel(
                    title="Breaker before Kafka",
                    description="1 for the present state: `closed` asks Kafka first; `open` writes to the spool at "
                    "once and lets the drainer probe Kafka.",
                    unit=Unit.COUNT,
                    queries=(Query("sum by (state) (lifecycle_ingress_breaker)", "{{state}}"),),
                    runbooks=("LifecycleKafkaBreakerOpen",),
                ),
                Panel(
                    title="Re-checks asked",
                    description="Deliveries that were too old or too new to be trusted, for which Genesys is asked.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(
                            occurring(rate("lifecycle_ingress_rechecks_total", "reason, outcome")),
                            "{{reason}} {{outcome}}",
                        ),
                    ),
                    empty_when_healthy="no delivery is outside its time",
                ),
            ),
        ),
        Row(
            "What waits on local disk?",
            (
                Panel(
                    title="Records in the spool",
                    description="Deliveries that were answered 200 and are not in Kafka yet. The disk must outlive the "
                    "process.",
                    unit=Unit.COUNT,
                    queries=(Query("lifecycle_ingress_spool_records", "{{instance}}"),),
                    width=6,
                    thresholds=bad_from(None, 1),
                    runbooks=("LifecycleSpoolNotEmpty",),
                ),
                Panel(
                    title="Age of the oldest record",
                    description="How long the oldest record has waited; at 6 h the spool closes.",
                    unit=Unit.SECONDS,
                    queries=(Query("lifecycle_ingress_spool_oldest_seconds", "{{instance}}"),),
                    width=6,
                    thresholds=bad_from(3600, 18000),
                    runbooks=("LifecycleSpoolNotEmpty",),
                ),
                Panel(
                    title="Size of the spool",
                    description="Bytes of the records on local disk. At SPOOL_MAX_BYTES (1 GiB, unless it was set; the "
                    "line) the spool closes.",
                    unit=Unit.BYTES,
                    queries=(Query("lifecycle_ingress_spool_bytes", "{{instance}}"),),
                    width=6,
                    thresholds=bad_from(None, 1 << 30),
                ),
                Panel(
                    title="Spool takes records",
                    description="1 while the spool takes records. At 0 Kafka's trouble is answered 503. Without "
                    "SPOOL_DIR it is always 0.",
                    unit=Unit.COUNT,
                    queries=(Query("lifecycle_ingress_spool_open", "{{instance}}"),),
                    width=6,
                ),
                Panel(
                    title="Spooled records by result",
                    description="`written` reached Kafka; `expired` became a dead letter with a re-check; `failed` is "
                    "still in the spool.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(occurring(rate("lifecycle_ingress_spool_drained_total", "result")), "{{result}}"),),
                    empty_when_healthy="nothing was spooled",
                ),
                Panel(
                    title="Spools closed, by reason",
                    description="Spools that stopped taking records since the start: by size or age, for a full file "
                    "system, or for an error of the disk.",
                    unit=Unit.COUNT,
                    queries=(Query(occurring("sum by (reason) (lifecycle_ingress_spool_closed_total)"), "{{reason}}"),),
                    empty_when_healthy="no spool closed",
                    runbooks=("LifecycleSpoolClosed",),
                ),
            ),
        ),
        Row(
            "Are the secrets in order?",
            (
                Panel(
                    title="Keyring cannot be used",
                    description="1 while the keyring file cannot be read; the last good one counts until then.",
                    unit=Unit.COUNT,
                    queries=(Query("lifecycle_keyring_broken", "{{job}} {{instance}}"),),
                    width=6,
                    thresholds=bad_from(None, 1),
                    runbooks=("LifecycleKeyringBroken",),
                ),
                Panel(
                    title="Time until a former secret ends",
                    description="After a rotation both secrets count until the former one ends. A sender that still "
                    "uses it then (the panel beside) is refused.",
                    unit=Unit.SECONDS,
                    queries=(
                        Query(
                            "min by (endpoint) (lifecycle_keyring_secret_expiry_timestamp_seconds > time()) - time()",
                            "{{endpoint}}",
                        ),
                    ),
                    width=6,
                    thresholds=bad_below(3_600, 21_600),
                    runbooks=("LifecycleSecretExpiresSoon",),
                    empty_when_healthy="no former secret counts",
                ),
                Panel(
                    title="Deliveries proved by a previous secret",
                    description="While this grows after a rotation, a sender does not use the current secret yet.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(rate("lifecycle_ingress_previous_secret_total", "endpoint"), "{{endpoint}}"),),
                    width=6,
                    empty_when_healthy="every sender uses the current secret",
                ),
                Panel(
                    title="Changes of the keyring file",
                    description="Changes since the start that were `taken`, or could not be read (`broken`).",
                    unit=Unit.COUNT,
                    queries=(
                        Query(
                            occurring("sum by (job, result) (lifecycle_keyring_reloads_total)"), "{{job}} {{result}}"
                        ),
                    ),
                    width=6,
                    empty_when_healthy="nobody changed the file",
                ),
            ),
        ),
        Row(
            "How are the processes?",
            (
                *resources("ingress"),
                Panel(
                    title="Odd retry marks",
                    description="Proved deliveries with a retry mark that is not a count: the sender changed its "
                    "dialect.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(rate("lifecycle_ingress_odd_marks_total")),),
                ),
            ),
        ),
    ),
)
