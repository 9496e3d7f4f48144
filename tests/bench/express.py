"""The guide's own design, where Node, npm and redis-server are found: Express verifies, Redis remembers and queues.

Rule: nothing is installed into the checkout. The packages, pinned by hash in `guide/package-lock.json`, go into the
user's cache; what is missing is named, and the design is then named as not run.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.engines import child_process, jars
from services.engines.ports import answers, free_ports
from tests.bench import deliveries
from tests.bench.contenders import Start
from tests.support.eventually import eventually

_GUIDE: Final = Path(__file__).with_name("guide").resolve()
_TOOLS: Final = ("node", "npm", "redis-server")
_INSTALL_S: Final = 300


class ExpressUnavailable(Exception):
    """It cannot be run on this machine; the text says why."""


@contextmanager
def design(folder: Path) -> Iterator[Start]:
    """A Redis of its own, on the core that this process is on, and how to start the server.

    Raises:
        NotHere: a tool is missing, or its packages cannot be had.
    """
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise ExpressUnavailable(f"{', '.join(missing)}: not on this machine")
    modules = _install()
    [port] = free_ports(1)
    argv = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
    redis = child_process.start(argv, env=child_process.bare(os.environ), log_path=folder / "redis.log")
    try:
        eventually(lambda: answers(port))
        server = ("node", str(_GUIDE / "server.js"), "{port}", str(port), deliveries.SECRET)
        yield Start(server, {"NODE_PATH": str(modules), "NODE_ENV": "production"}, (redis.pid,))
    finally:
        redis.kill()


def _install() -> Path:
    """Have the packages in the cache; the folder they are in."""
    folder = jars.cache_folder(os.environ).with_name("guide-design")
    folder.mkdir(parents=True, exist_ok=True)
    lock = (_GUIDE / "package-lock.json").read_bytes()
    done = folder / "installed-package-lock.json"
    if done.exists() and done.read_bytes() == lock:
        return folder / "node_modules"
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_GUIDE / name, folder / name)
    argv = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    try:
        subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True, timeout=_INSTALL_S)
    except subprocess.CalledProcessError as error:
        raise ExpressUnavailable(f"npm ci failed: {error.stderr.strip().splitlines()[-1:]}") from None
    except subprocess.TimeoutExpired:
        raise ExpressUnavailable(f"npm ci did not end within {_INSTALL_S} s") from None
    done.write_bytes(lock)
    return folder / "node_modules"
