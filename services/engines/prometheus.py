"""Prometheus of this machine as a process: scrapes services, evaluates rules, keeps the samples in a folder.

Rule: the program is the one of the machine (Debian: `apt install prometheus`); no package brings one.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.engines import child_process
from services.engines.errors import EngineError
from services.engines.ports import HOST


@dataclass(slots=True)
class Prometheus:
    """Prometheus as a supervised process.

    Attributes:
        folder: Folder of configuration and data; exists.
        log_path: Path of the log.
        port: Port of the web page and the API.
        targets: `host:port` by job.
        rules: Rule files.
        scrape_s: Seconds between two scrapes, and between two evaluations of the rules.
        alertmanager: `host:port` that receives the alerts; empty for none.
    """

    folder: Path
    log_path: Path
    port: int
    targets: Mapping[str, str]
    rules: Sequence[Path]
    scrape_s: float
    alertmanager: str = ""
    _child: child_process.Child | None = field(default=None)

    @property
    def url(self) -> str:
        """Base URL of the web page and the API."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id; None before the first start."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Writes the configuration and starts the program; the kernel ends the program when this process ends.

        Raises:
            EngineError: the program is not installed.
        """
        config = self.folder / "prometheus.json"
        # JSON is YAML too.
        config.write_text(json.dumps(self._configuration(), indent=1), encoding="utf-8")
        argv = (
            program(),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={HOST}:{self.port}",
            "--log.level=warn",
        )
        self._child = child_process.start(argv, env={"LC_ALL": "C.UTF-8"}, log_path=self.log_path)

    def poll(self) -> int | None:
        """Returns the exit status, or None while the program runs."""
        return self._child.poll() if self._child else None

    def stop(self, timeout_s: float) -> None:
        """Asks the program to end, and kills it after `timeout_s` seconds."""
        if self._child:
            self._child.stop(timeout_s)

    def _configuration(self) -> dict[str, object]:
        """Returns the configuration: a job a service, and the rules."""
        interval = f"{int(self.scrape_s * 1000)}ms"
        receivers = [{"static_configs": [{"targets": [self.alertmanager]}]}] if self.alertmanager else []
        return {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(file) for file in self.rules],
            "alerting": {"alertmanagers": receivers},
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in self.targets.items()
            ],
        }


def program() -> str:
    """Returns the path of the program.

    Raises:
        EngineError: the program is not installed.
    """
    if found := shutil.which("prometheus"):
        return found
    raise EngineError("prometheus is not installed here; Debian: apt install prometheus")
