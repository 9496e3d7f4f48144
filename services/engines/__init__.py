"""Real Apache Kafka and PostgreSQL on a bare machine, for the demo, `lifecycle up` and the tests.

Reads the environment it is given; writes one state folder and one cache folder per user. Whatever it starts dies
with its parent, also when that is killed -9. It never downloads what is not pinned by hash, never changes a folder
that is not its own, and never stands in for an engine with something else: no engine is an error.
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
