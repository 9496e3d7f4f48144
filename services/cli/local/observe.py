"""Prometheus beside a local installation (`lifecycle up --observe`): scrapes every service, evaluates the rules.

Rule: the program is the one of the machine (Debian: `apt install prometheus`), never one of ours. Its data stays in the
state folder, so that a board shows the time before the last restart too.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import httpx2

from services.cli.exits import CommandError, Exit
from services.cli.files import replace_json
from services.cli.local.wiring import HOST, LocalPorts
from services.engines import child_process
from services.engines.ports import free_ports

NAME: Final = "prometheus"
SCRAPE_S: Final = 5.0
"""Seconds between two scrapes; the deployed configuration has 15."""
RULES: Final = Path(__file__).parents[3] / "deploy" / "prometheus" / "rules"
"""Folder of the recording rules and alerts, in a checkout."""
_INSTALLED_RULES: Final = Path(__file__).with_name("prometheus_rules")
"""Folder of the rules in an installed package."""
_ASK_S: Final = 2.0


@dataclass(slots=True)
class Prometheus:
    """Prometheus as a supervised process.

    Attributes:
        folder: Folder of configuration and data.
        log_path: Path of the log.
        port: Port of its web page and API.
        targets: `host:port` by job.
        scrape_s: Seconds between two scrapes, and between two evaluations of the rules.
        alertmanager: `host:port` that receives the alerts; empty for none.
    """

    folder: Path
    log_path: Path
    port: int
    targets: Mapping[str, str]
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
        """Writes the configuration and starts the program; the kernel ends it when this process ends."""
        config = self.folder / "prometheus.json"
        # JSON is YAML too.
        replace_json(config, self.configuration())
        argv = (
            program(NAME),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={HOST}:{self.port}",
            "--web.enable-lifecycle",
            "--log.level=warn",
        )
        self._child = child_process.start(
            argv, env=child_process.bare({"PATH": "/usr/bin:/bin:/usr/local/bin"}), log_path=self.log_path
        )

    def poll(self) -> int | None:
        """Returns the exit status, or None while the program runs."""
        return self._child.poll() if self._child else None

    def stop(self, timeout_s: float) -> None:
        """Asks the program to end, and kills it after `timeout_s` seconds."""
        if self._child:
            self._child.stop(timeout_s)

    def configuration(self) -> dict[str, object]:
        """Returns the configuration: a job a service, and the rules."""
        interval = f"{int(self.scrape_s * 1000)}ms"
        receivers = [{"static_configs": [{"targets": [self.alertmanager]}]}] if self.alertmanager else []
        return {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": sorted(str(file) for file in rules_folder().glob("*.yaml")),
            "alerting": {"alertmanagers": receivers},
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in self.targets.items()
            ],
        }


def beside(top: Path, ports: LocalPorts, scrape_s: float) -> Prometheus:
    """Returns the Prometheus of a local installation, with the port of its first start.

    Args:
        top: The state folder.
        ports: Ports of the services.
        scrape_s: Seconds between two scrapes.

    Raises:
        CommandError: the program is not installed (UNUSABLE).
    """
    program(NAME)
    folder = top / NAME
    folder.mkdir(parents=True, exist_ok=True)
    noted = folder / "port.json"
    if not noted.exists():
        replace_json(noted, free_ports(1)[0])
    targets = {job: f"{HOST}:{port}" for job, port in asdict(ports).items() if job != "simulator_database"}
    port = json.loads(noted.read_text(encoding="utf-8"))
    return Prometheus(folder, top / "logs" / f"{NAME}.log", port, targets, scrape_s)


def fault(top: Path) -> str:
    """Returns the reason why the Prometheus of a state folder is not ready; empty if it is ready."""
    try:
        port = json.loads((top / NAME / "port.json").read_text(encoding="utf-8"))
        answer = httpx2.get(f"http://{HOST}:{port}/-/ready", timeout=_ASK_S, trust_env=False)
    except (OSError, ValueError, httpx2.TransportError) as error:
        return f"no answer ({type(error).__name__})"
    return "" if answer.status_code == httpx2.codes.OK else f"status {answer.status_code}"


def rules_folder() -> Path:
    """Returns the folder of the rules: that of the checkout, or that of the installed package."""
    return RULES if RULES.is_dir() else _INSTALLED_RULES


def program(name: str) -> str:
    """Returns the path of a program of the machine.

    Raises:
        CommandError: the program is not installed (UNUSABLE).
    """
    if found := shutil.which(name):
        return found
    raise CommandError(Exit.UNUSABLE, f"--observe: {name} is not installed; Debian: apt install {name}")
