"""A receiver that writes every notice of Alertmanager down, and the machine's Alertmanager as a process.

Rule: the program is the one of the machine (Debian: `apt install prometheus-alertmanager`); no package brings one.
"""

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from services.adapters.process.clock import now_us
from services.engines import child_process
from services.engines.errors import EngineError
from services.engines.ports import HOST, free_ports

_STOP_S = 5.0


class Notice(NamedTuple):
    """An alert in a message of Alertmanager.

    Attributes:
        alert: Name of the alert.
        severity: Label `severity`.
        route: Last part of the URL that was called: the name of the receiver.
        status: `firing` or `resolved`.
        at_s: Arrival, seconds since 1970.
        labels: All labels.
        annotations: Summary, description and the runbook's address, with the numbers filled in.
    """

    alert: str
    severity: str
    route: str
    status: str
    at_s: float
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class Receiver:
    """Takes Alertmanager's webhooks, and keeps the notices in the order of their arrival."""

    def __init__(self) -> None:
        """Listens on a free port."""
        self._lock = threading.Lock()
        self._notices: list[Notice] = []
        keep = self._keep

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                keep(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Writes no line for each request."""

        self._server = ThreadingHTTPServer((HOST, 0), Handler)

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://{HOST}:{self._server.server_port}"

    def notices(self) -> list[Notice]:
        """Returns a copy of the notices."""
        with self._lock:
            return list(self._notices)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serves for as long as the context lasts."""
        thread = threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(_STOP_S)

    def _keep(self, path: str, message: Mapping[str, Any]) -> None:
        at_s = now_us() / 1e6
        with self._lock:
            for each in message["alerts"]:
                labels = each["labels"]
                name, severity, route = labels["alertname"], labels["severity"], path.strip("/")
                self._notices.append(Notice(name, severity, route, each["status"], at_s, labels, each["annotations"]))


@contextmanager
def alertmanager(folder: Path, configuration: Mapping[str, Any]) -> Iterator[str]:
    """Runs Alertmanager for as long as the context lasts; yields its `host:port`.

    Args:
        folder: Folder of configuration, data and log; is made.
        configuration: Content of the configuration file.

    Raises:
        EngineError: the program is not installed.
    """
    found = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if found is None:
        raise EngineError("Alertmanager is not installed here; Debian: apt install prometheus-alertmanager")
    folder.mkdir(parents=True)
    file = folder / "alertmanager.json"
    # JSON is YAML too.
    file.write_text(json.dumps(configuration, indent=1), encoding="utf-8")
    address = f"{HOST}:{free_ports(1)[0]}"
    argv = (
        found,
        f"--config.file={file}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
        "--log.level=warn",
    )
    child = child_process.start(argv, env={"LC_ALL": "C.UTF-8"}, log_path=folder / "alertmanager.log")
    try:
        yield address
    finally:
        child.stop(_STOP_S)
