"""The two files by which others find a running installation: the endpoints file, and the environment for commands.

Rule: they exist only while everything that was ready once is supervised; a reader never sees half of one.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.cli.files import replace_json


class Whereabouts:
    """Writes the files, rewrites the first when process ids change, removes both."""

    def __init__(self, endpoints_file: Path, environment_file: Path) -> None:
        """Write nothing yet.

        Args:
            endpoints_file: For programs outside.
            environment_file: For commands of ours.
        """
        self._endpoints_file = endpoints_file
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
            replace_json(self._endpoints_file, describe())

    def refresh(self) -> None:
        """Write the endpoints anew, when they were published; called by any thread."""
        with self._lock:
            if self._describe is not None:
                replace_json(self._endpoints_file, self._describe())

    def withdraw(self) -> None:
        """Remove both files."""
        with self._lock:
            self._describe = None
            for path in (self._endpoints_file, self._environment_file):
                path.unlink(missing_ok=True)
