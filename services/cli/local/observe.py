"""Prometheus beside a local installation, for `lifecycle up --observe`: port, targets and rules.

Rule: the samples stay in the state folder, and a board shows the time before the last restart too.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Final

import httpx2

from services.cli.files import replace_json
from services.cli.local.wiring import HOST, LocalPorts
from services.engines.ports import free_ports
from services.engines.prometheus import Prometheus

NAME: Final = "prometheus"
SCRAPE_S: Final = 5.0
"""Seconds between two scrapes; the deployed configuration has 15."""
RULES: Final = Path(__file__).parents[3] / "deploy" / "prometheus" / "rules"
"""Folder of the recording rules and alerts in a checkout; an installed package has none."""
_ASK_S: Final = 2.0


def beside(top: Path, ports: LocalPorts, scrape_s: float) -> Prometheus:
    """Returns the Prometheus of a local installation, not started, with the port of the first start.

    Args:
        top: The state folder.
        ports: Ports of the services.
        scrape_s: Seconds between two scrapes.
    """
    folder = top / NAME
    folder.mkdir(parents=True, exist_ok=True)
    noted = folder / "port.json"
    if not noted.exists():
        replace_json(noted, free_ports(1)[0])
    port = json.loads(noted.read_text(encoding="utf-8"))
    targets = {job: f"{HOST}:{number}" for job, number in asdict(ports).items() if job != "simulator_database"}
    rules = sorted(RULES.glob("*.yaml"))
    return Prometheus(folder, top / "logs" / f"{NAME}.log", port, targets, rules, scrape_s)


def fault(top: Path) -> str:
    """Returns the reason why the Prometheus of a state folder is not ready; empty text without a reason."""
    try:
        port = json.loads((top / NAME / "port.json").read_text(encoding="utf-8"))
        answer = httpx2.get(f"http://{HOST}:{port}/-/ready", timeout=_ASK_S, trust_env=False)
    except (OSError, ValueError, httpx2.TransportError) as error:
        return f"no answer ({type(error).__name__})"
    return "" if answer.status_code == httpx2.codes.OK else f"status {answer.status_code}"
