"""The files by which others find a running installation: where its endpoints are, and the environment for commands.

Rule: they exist only while everything that was ready once is supervised; a reader never sees half of one.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from services.cli.files import replace_json


class EndpointsFile:
    """Writes the files, rewrites the endpoints when process ids change, removes all."""

    def __init__(self, endpoints_files: Collection[Path], environment_file: Path) -> None:
        """Write nothing yet.

        Args:
            endpoints_files: For programs outside, equal wherever they are.
            environment_file: For commands of ours.
        """
        self._endpoints_files = tuple(endpoints_files)
        self._environment_file = environment_file
        self._describe: Callable[[], dict[str, Any]] | None = None
        self._lock = threading.Lock()

    def publish(self, describe: Callable[[], dict[str, Any]], environ: Mapping[str, str]) -> None:
        """Say where everything is, from now on.

        Args:
            describe: Gives the endpoints as they are now.
            environ: What a command needs.
        """
        with self._lock:
            self._describe = describe
            replace_json(self._environment_file, dict(environ))
            self._write(describe)

    def refresh(self) -> None:
        """Write the endpoints anew, when they were published; called by any thread."""
        with self._lock:
            if self._describe is not None:
                self._write(self._describe)

    def withdraw(self) -> None:
        """Remove the files."""
        with self._lock:
            self._describe = None
            for path in (*self._endpoints_files, self._environment_file):
                path.unlink(missing_ok=True)

    def _write(self, describe: Callable[[], dict[str, Any]]) -> None:
        for path in self._endpoints_files:
            replace_json(path, describe())
