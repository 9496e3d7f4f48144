"""An Amazon SQS queue: long polls, deletions, and the visibility timeout that keeps a message from other readers.

Rule: boto3 is spoken in this module alone. boto3 is an extra of the package: without boto3 the import of this module
raises `Unusable` with the remedy, so a command imports the module when it runs. Every error of boto3 becomes a
`QueueFault`, a sentence with a remedy. boto3 repeats no call: the caller decides.

Each call runs in a daemon thread. A long poll cannot be cancelled, and must not delay the end of the process. An
abandoned poll gives its messages back at once, or they come again after their visibility timeout.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from services.adapters.process.errors import Unusable

try:
    import boto3
    from botocore import exceptions
    from botocore.config import Config
except ModuleNotFoundError:
    raise Unusable("boto3 is not installed; install 'genesys-lifecycle[sqs]'") from None

BATCH_MAX: Final = 10
"""Most messages of one call, by Amazon's limit."""
LONG_POLL_S: Final = 20
"""Longest wait for a message, by Amazon's limit."""

_CONNECT_S: Final = 5
_ANSWER_S: Final = 10
"""Seconds that Amazon may take to answer, beside the wait of a long poll."""

_REGION: Final = re.compile(r"://(?:[^/]*\.)?([a-z]{2}(?:-[a-z]+)+-[0-9])\.(?:queue\.|vpce\.)?(?:amazonaws|api)\.")
"""The region in the host of a queue's URL: as in `sqs.REGION.amazonaws.com`, of a VPC endpoint, of two IP versions, and
of old."""

_DOCS: Final = "docs/connect-genesys.md"
_CREDENTIALS: Final = f"give the process a role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY ({_DOCS})"
_REMEDIES: Final[Mapping[str, str]] = {
    "expired": "the credentials have expired: renew them, or give the process a role, which renews its own",
    "credentials": "AWS does not know the credentials, or the clock is wrong: correct them, keep the clock with NTP",
    "denied": f"the credentials lack a right on the queue or on its key: {_DOCS} has the policy",
    "absent": "there is no such queue: correct HINTS_SQS_QUEUE_URL or HINTS_SQS_REGION",
    "throttled": "AWS limits the calls: nothing is lost, and the calls go on more slowly",
}
_SORTS: Final = (
    ("expired", re.compile(r"Expired", re.IGNORECASE)),
    ("denied", re.compile(r"AccessDenied|Unauthorized|KMS|KmsAccessDenied|OptInRequired", re.IGNORECASE)),
    ("absent", re.compile(r"NonExistentQueue|QueueDoesNotExist|InvalidAddress")),
    ("throttled", re.compile(r"Throttl|OverLimit|TooManyRequests|SlowDown", re.IGNORECASE)),
    ("credentials", re.compile(r"Token|Signature|AccessKey|UnrecognizedClient|AuthFailure|NotAuthorized|Credential")),
)
"""The sort of an error by Amazon's code, in order: some codes have words of two sorts."""

T = TypeVar("T")


class QueueFault(Exception):
    """A call to the queue failed. The text is a sentence with a remedy, without a secret."""


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """A received message.

    Attributes:
        message_id: Amazon's id of the message, equal over its receipts.
        receipt: Names this receipt in a deletion or a new visibility timeout.
        body: The body.
        sent_us: When the message was sent, by Amazon's clock; microseconds UTC.
        receipts: How often the message has been received, this time included.
    """

    message_id: str
    receipt: str
    body: bytes
    sent_us: int
    receipts: int


class Queue:
    """One queue. Use from one event loop; several calls may run at once."""

    def __init__(self, url: str, region: str | None, *, polls_at_once: int) -> None:
        """Prepares the clients; the first call connects.

        Args:
            url: URL of the queue.
            region: Region of the queue; None: the region in the URL, else the region of boto3's own settings.
            polls_at_once: Most long polls at once.

        Raises:
            Unusable: no region is known, or boto3's own settings cannot be used.
        """
        self._url, self._region, self._polls_at_once = url, region, polls_at_once
        self._open()

    def _open(self) -> None:
        # Connections of their own for the long polls, which must not keep a deletion waiting.
        self._polling = _client(self._url, self._region, LONG_POLL_S + _ANSWER_S, self._polls_at_once)
        self._acting = _client(self._url, self._region, _ANSWER_S, self._polls_at_once)

    async def receive(self, *, wait_s: int, visible_after_s: int) -> list[QueueMessage]:
        """Returns up to `BATCH_MAX` messages; waits `wait_s` for the first.

        Args:
            wait_s: Seconds, at most `LONG_POLL_S`.
            visible_after_s: The visibility timeout of each message, seconds.

        Raises:
            QueueFault: The call failed.
        """
        # Some seconds pass between the end of a poll that nobody waits for and the end of the process.
        abandoned = threading.Event()

        def poll(**arguments: Any) -> Any:
            answer = self._polling.receive_message(**arguments)
            if abandoned.is_set() and (found := [_message(one) for one in answer.get("Messages", [])]):
                entries = _entries(dict.fromkeys(found, 0))
                self._acting.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)
            return answer

        try:
            answer = await self._call(
                "receive messages",
                poll,
                MaxNumberOfMessages=BATCH_MAX,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=visible_after_s,
                AttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
            )
        except asyncio.CancelledError:
            abandoned.set()
            raise
        return [_message(found) for found in answer.get("Messages", [])]

    async def delete(self, messages: Sequence[QueueMessage]) -> None:
        """Deletes messages; one that Amazon could not delete comes again.

        Raises:
            QueueFault: The call failed; some messages may be deleted.
        """
        entries = [{"Id": str(number), "ReceiptHandle": one.receipt} for number, one in enumerate(messages)]
        await self._call("delete messages", self._acting.delete_message_batch, Entries=entries)

    async def show_after(self, after_s: Mapping[QueueMessage, int]) -> None:
        """Makes each message visible to all readers again after its seconds; 0 at once.

        A message that another reader has received meanwhile is left as it is, and so is one received 12 hours ago.

        Args:
            after_s: At most `BATCH_MAX` messages to seconds.

        Raises:
            QueueFault: The call failed.
        """
        change = self._acting.change_message_visibility_batch
        await self._call("keep messages", change, Entries=_entries(after_s))

    async def attributes(self) -> Mapping[str, str]:
        """Returns the attributes of the queue by Amazon's names.

        Raises:
            QueueFault: The call failed.
        """
        answer = await self._call("read attributes", self._acting.get_queue_attributes, AttributeNames=["All"])
        found: dict[str, str] = answer.get("Attributes", {})
        return found

    async def _call(self, act: str, method: Callable[..., Any], **arguments: Any) -> Any:
        """Calls a method of a client for the queue.

        Raises:
            QueueFault: The call failed.
        """
        try:
            return await _in_daemon_thread(lambda: method(QueueUrl=self._url, **arguments))
        except exceptions.ClientError as error:
            raise QueueFault(f"SQS, {act}: {_refusal(error.response)}") from None
        except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
            cure = "look at the network, HTTPS_PROXY and AWS_ENDPOINT_URL_SQS"
            raise QueueFault(f"SQS, {act}: not reached ({type(error).__name__}); {cure}") from None
        except exceptions.NoCredentialsError:
            # A client looks for credentials only when it is made.
            await _in_daemon_thread(self._open)
            raise QueueFault(f"SQS, {act}: no credentials of AWS are found; {_CREDENTIALS}") from None
        except exceptions.BotoCoreError as error:
            # Of boto3 itself, before a request: mostly about credentials. Such texts hold no secret.
            text = str(error).rstrip(".")
            raise QueueFault(f"SQS, {act}: {text}; {_CREDENTIALS}") from None


def region_of(url: str) -> str | None:
    """Returns the region in a queue's URL; None for a host without a region."""
    found = _REGION.search(url)
    return None if found is None else found[1]


def _client(url: str, region: str | None, read_s: int, connections: int) -> Any:
    """Returns a client of boto3 that repeats no call.

    Raises:
        Unusable: as `Queue`.
    """
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=read_s,
        max_pool_connections=connections,
        retries={"total_max_attempts": 1},
    )
    try:
        # A session of our own: the default session is state of the module.
        return boto3.session.Session().client("sqs", region_name=region or region_of(url), config=config)
    except exceptions.NoRegionError:
        raise Unusable("HINTS_SQS_REGION: not set, and HINTS_SQS_QUEUE_URL names no region") from None
    except (exceptions.BotoCoreError, ValueError) as error:
        raise Unusable(f"the settings of boto3 (AWS_…): {error}") from None


def _refusal(answer: Mapping[str, Any]) -> str:
    """Returns an error of Amazon in words: the code, the HTTP status, and the remedy."""
    code = str(answer.get("Error", {}).get("Code", "")) or "no code"
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    sort = next((sort for sort, words in _SORTS if words.search(code)), None)
    cure = _REMEDIES[sort] if sort else "the call is made again; `lifecycle doctor` looks at the queue"
    return f"{code} ({status}); {cure}"


def _entries(after_s: Mapping[QueueMessage, int]) -> list[dict[str, Any]]:
    """Returns the entries of a call that sets visibility timeouts."""
    return [
        {"Id": str(number), "ReceiptHandle": one.receipt, "VisibilityTimeout": seconds}
        for number, (one, seconds) in enumerate(after_s.items())
    ]


def _message(found: Mapping[str, Any]) -> QueueMessage:
    attributes = found.get("Attributes", {})
    return QueueMessage(
        message_id=found["MessageId"],
        receipt=found["ReceiptHandle"],
        body=found["Body"].encode("utf-8", "surrogatepass"),
        sent_us=int(attributes.get("SentTimestamp", 0)) * 1000,
        receipts=int(attributes.get("ApproximateReceiveCount", 1)),
    )


async def _in_daemon_thread(work: Callable[[], T]) -> T:
    """Runs `work` in a daemon thread of its own; a cancelled caller abandons the thread and its result."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # a result without an error is a T
        else:
            future.set_exception(error)

    def run() -> None:
        result, fault = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - the future carries it to the waiting task
            fault = error
        # The loop may have ended meanwhile, and nobody waits any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, fault)

    threading.Thread(target=run, name="sqs", daemon=True).start()
    return await future
