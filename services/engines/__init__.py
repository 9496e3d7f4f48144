"""Real Apache Kafka and PostgreSQL on a bare machine, for the demo, `lifecycle up` and the tests.

The package reads the environment given by the caller, and writes one state folder and one cache folder per user. Every
process started by the package ends with the calling process, even if SIGKILL ends the calling process (`parent_death`).

Rules: every download is pinned by SHA-256. No permission of a foreign folder is changed. A failed start is an error:
neither a fake nor a second source replaces the chosen engine.
"""

from services.engines.choice import Choice, Engine, choose
from services.engines.errors import DownloadError, EngineError, StartError
from services.engines.postgres import Durability
from services.engines.running import RunningEngines, running

__all__ = [
    "Choice",
    "DownloadError",
    "Durability",
    "Engine",
    "EngineError",
    "RunningEngines",
    "StartError",
    "choose",
    "running",
]
