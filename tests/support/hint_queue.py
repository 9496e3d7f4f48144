"""An SQS queue over real HTTP (moto), a front that refuses or holds calls to it, and the reader of hints; for tests."""

import contextlib
import http.client
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import boto3
import httpx2
from botocore.config import Config

from services.engines import child_process
from services.engines.ports import free_ports
from tests.support.eventually import eventually

REGION = "eu-west-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "canary-aws-secret"}
SEND_MAX = 10
START_S = 90.0
"""Seconds; a busy machine takes long to import boto3."""


@dataclass
class Front:
    """An HTTP server before moto's.

    Attributes:
        url: Its URL.
        refusing: Action (`DeleteMessageBatch`) to the status and code that answer it, in place of the queue.
        held: Actions that wait, unanswered, until `release`.
        waiting: The requests that were held.
        calls: Actions, each with the request and the queue's answer (None without one), in order.

    A long poll waits here, and asks moto again and again: moto goes on with a poll whose reader is gone, and would give
    it messages, which Amazon does not.
    """

    url: str
    _target: tuple[str, int]
    refusing: dict[str, tuple[int, str]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    calls: list[tuple[str, Any, Any]] = field(default_factory=list)
    waiting: list[Any] = field(default_factory=list)
    _free: threading.Event = field(default_factory=threading.Event)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def release(self) -> None:
        self.held.clear()
        self._free.set()

    def of(self, action: str) -> list[tuple[Any, Any]]:
        """Requests and answers of one action."""
        return [(asked, said) for name, asked, said in list(self.calls) if name == action]

    def received(self) -> dict[str, str]:
        """Receipt to body of every message that a reader was given."""
        answers = [said for _, said in self.of("ReceiveMessage") if said]
        return {one["ReceiptHandle"]: one["Body"] for said in answers for one in said.get("Messages", [])}

    def deleted(self) -> list[str]:
        """Bodies of the messages whose deletion the queue confirmed."""
        bodies = self.received()
        return [
            bodies[entry["ReceiptHandle"]]
            for asked, said in self.of("DeleteMessageBatch")
            if said
            for entry in asked["Entries"]
            if entry["Id"] in {one["Id"] for one in said["Successful"]}
        ]

    def answer(self, action: str, headers: Any, body: bytes, line: socket.socket) -> tuple[int, dict[str, str], bytes]:
        asked = json.loads(body)
        end_s = time.monotonic() + asked.pop("WaitTimeSeconds", 0)
        while True:
            answer = self._answer(action, headers, asked)
            done = b"Messages" in answer[2] or answer[0] != 200 or time.monotonic() > end_s
            if not done:
                time.sleep(0.05)
            # Asked after the pause: whoever is gone by now must not be given what is sent from now on.
            if done or _is_gone(line):
                self.calls.append((action, asked, json.loads(answer[2] or b"{}") if answer[0] == 200 else None))
                return answer

    def _answer(self, action: str, headers: Any, asked: Any) -> tuple[int, dict[str, str], bytes]:
        if action in self.refusing:
            status, code = self.refusing[action]
            said = {"__type": f"com.amazonaws.sqs#{code}", "message": "refused by the test"}
            return status, {"x-amzn-errortype": code}, json.dumps(said).encode()
        if action in self.held:
            self.waiting.append(asked)
            self._free.wait()
            return 503, {}, b"{}"
        # One by one: moto gives a message to two readers that ask at once.
        with self._turn, contextlib.closing(http.client.HTTPConnection(*self._target, timeout=60)) as behind:
            own = {name: value for name, value in headers.items() if name not in {"Host", "Content-Length"}}
            behind.request("POST", "/", json.dumps(asked).encode(), own)
            reply = behind.getresponse()
            content = reply.read()
        kept = {
            name: reply.headers[name] for name in ("x-amzn-errortype", "x-amzn-query-error") if name in reply.headers
        }
        return reply.status, kept, content


def _is_gone(line: socket.socket) -> bool:
    """True if the other side has closed a connection on which nothing is to come."""
    readable, _, _ = select.select([line], [], [], 0)
    with contextlib.suppress(ConnectionResetError):
        return bool(readable) and not line.recv(1, socket.MSG_PEEK)
    return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    front: ClassVar[Front]

    def handle(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            super().handle()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        action = self.headers["X-Amz-Target"].rpartition(".")[2]
        # A reader that was killed meanwhile is no error of the server's, nor is the end of the queue's own server.
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, fields, content = self.front.answer(action, self.headers, body, self.connection)
            self.send_response(status)
            for name, value in {"Content-Type": "application/x-amz-json-1.0", **fields}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@dataclass
class HintQueue:
    """A queue, and the front through which readers speak to it."""

    url: str
    front: Front
    client: Any

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a reader of this queue."""
        return {
            "HINTS_SQS_QUEUE_URL": self.url,
            "HINTS_SQS_REGION": REGION,
            "AWS_ENDPOINT_URL_SQS": self.front.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            **CREDENTIALS,
        }

    def send(self, bodies: Sequence[str]) -> None:
        for first in range(0, len(bodies), SEND_MAX):
            some = bodies[first : first + SEND_MAX]
            entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(some)]
            assert len(self.client.send_message_batch(QueueUrl=self.url, Entries=entries)["Successful"]) == len(some)

    def tell(self, envelope: Any) -> None:
        """Sends one message, as a rule of EventBridge does."""
        self.client.send_message(QueueUrl=self.url, MessageBody=json.dumps(envelope))

    def counts(self) -> tuple[int, int]:
        """How many messages are visible, and how many are hidden by a receipt."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def time_passes(self) -> None:
        """Ends the visibility timeout of every message that was received and is still there."""
        for receipt in self.front.received():
            with contextlib.suppress(self.client.exceptions.ClientError):
                self.client.change_message_visibility(QueueUrl=self.url, ReceiptHandle=receipt, VisibilityTimeout=0)


@contextmanager
def moto(folder: Path) -> Iterator[int]:
    """A running SQS; its port."""
    (port,) = free_ports(1)
    argv = (Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port))
    env = child_process.bare(os.environ) | {"MOTO_ACCOUNT_ID": "123456789012"}
    server = child_process.start(argv, env=env, log_path=folder / "moto.log", cwd=folder)
    try:
        eventually(lambda: _answers(port))
        yield port
    finally:
        server.kill()


def _answers(port: int) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"http://127.0.0.1:{port}/moto-api/").status_code == 200
    return False


@contextmanager
def hint_queue(port: int, **attributes: str) -> Iterator[HintQueue]:
    """A queue of its own in a running SQS, behind a front."""
    client = _client(f"http://127.0.0.1:{port}")
    url = client.create_queue(QueueName=f"hints-{uuid4()}", Attributes=attributes)["QueueUrl"]
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {}))
    server.daemon_threads = True
    front = Front(f"http://127.0.0.1:{server.server_address[1]}", ("127.0.0.1", port))
    server.RequestHandlerClass.front = front  # type: ignore[attr-defined]
    serving = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    serving.start()
    try:
        yield HintQueue(url, front, client)
    finally:
        front.release()
        server.shutdown()
        serving.join()
        server.server_close()
        client.close()


def _client(endpoint: str) -> Any:
    session = boto3.session.Session(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    return session.client("sqs", region_name=REGION, endpoint_url=endpoint, config=Config(retries={"mode": "standard"}))


@dataclass
class HintsProcess:
    """A running `lifecycle hints sqs`, and what it wrote to its log."""

    process: "subprocess.Popen[str]"
    url: str
    lines: list[str] = field(default_factory=list)

    def check(self, name: str) -> str:
        """A check of `/readyz` in its words; empty while nothing answers."""
        with contextlib.suppress(httpx2.TransportError):
            return str(httpx2.get(f"{self.url}/readyz", timeout=5).json()["checks"][name])
        return ""

    def is_ready(self) -> bool:
        return (self.check("kafka"), self.check("queue")) == ("ok", "ok")

    def metric(self, name: str, **labels: str) -> float:
        """The value of one sample of the table `lifecycle_hints_`; 0 when it is not there."""
        shown = ""
        with contextlib.suppress(httpx2.TransportError):
            shown = httpx2.get(f"{self.url}/metrics", timeout=5).text
        for line in shown.splitlines():
            sample, _, value = line.rpartition(" ")
            named = all(f'{label}="{text}"' in sample for label, text in labels.items())
            if sample.partition("{")[0] == f"lifecycle_hints_{name}" and named:
                return float(value)
        return 0.0

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, list(self.lines)) if line["event"] == event]

    def end(self, timeout_s: float = 60.0) -> int:
        """The exit status after SIGTERM."""
        self.process.terminate()
        return self.process.wait(timeout_s)


@contextmanager
def reader(bootstrap: str, prefix: str, folder: Path, environ: dict[str, str]) -> Iterator[HintsProcess]:
    """Starts one process; ends it, if it still runs, with SIGKILL."""
    (port,) = free_ports(1)
    own = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH", "PYTHONSAFEPATH") if name in os.environ},
        "HOME": str(folder),
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "TOPIC_PREFIX": prefix,
        "METRICS_PORT": str(port),
        **environ,
    }
    argv = (sys.executable, "-m", "services.cli.main", "hints", "sqs")
    process = subprocess.Popen(argv, env=own, stderr=subprocess.PIPE, text=True)
    running = HintsProcess(process, f"http://127.0.0.1:{port}")
    assert process.stderr is not None
    reading = threading.Thread(target=running.lines.extend, args=[process.stderr], daemon=True)
    reading.start()
    try:
        eventually(lambda: '"started"' in "".join(running.lines) or process.poll() is not None, START_S)
        yield running
    finally:
        process.kill()
        process.wait()
        reading.join()
        process.stderr.close()
