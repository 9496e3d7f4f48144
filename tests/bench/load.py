"""Full load: wrk keeps every connection busy for a moment, each request another delivery."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

from services.adapters.process.clock import now_us
from tests.bench import deliveries, machine
from tests.bench.contenders import PATH, Contender
from tests.bench.figures import Slice

_SCRIPT: Final = Path(__file__).with_name("post.lua")
_BESIDES_S: Final = 60.0


def no_wrk() -> str:
    """The remedy where wrk is missing; empty text where it is installed."""
    if shutil.which("wrk"):
        return ""
    return "wrk is not on this machine, and nothing else here loads a server fully (Debian: apt install wrk)"


def press(server: Contender, connections: int, seconds: float, file: Path, number: int) -> Slice:
    """Load one server.

    Args:
        server: Which.
        connections: Kept busy.
        seconds: How long; whole ones.
        file: Of deliveries it has not seen.
        number: Of the round.
    """
    argv = ("wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "10s", "-s", str(_SCRIPT))
    url = f"http://127.0.0.1:{server.port}{PATH}"
    prepared = sum(1 for _ in file.open("rb"))
    machine.settle(server.pid, *server.beside)
    before = machine.read(server.pid, *server.beside)
    ran = subprocess.run(
        (*argv, url, "--", str(file), PATH), check=True, capture_output=True, text=True, timeout=seconds + _BESIDES_S
    )
    after = machine.read(server.pid, *server.beside)
    told = json.loads(ran.stdout.splitlines()[-1])
    used_us = {root: (after.trees_s[root] - before.trees_s[root]) * 1e6 for root in after.trees_s}
    requests = max(1, told["requests"])
    return Slice(
        round=number,
        server=server.name,
        connections=connections,
        repeated=max(0, told["requests"] - prepared),
        cpu_us=used_us[server.pid] / requests,
        beside_us=sum(used_us[root] for root in server.beside) / requests,
        rss_bytes=machine.rss_bytes(server.pid),
        strangers_cores=machine.strangers_cores(before, after),
        **told,
    )


def fresh(path: Path, count: int) -> Path:
    """Write deliveries nobody has seen."""
    deliveries.write(path, count, now_us())
    return path
