"""The files of a running installation: the endpoints for outside programs, the environment for our commands.

Rule: the files exist only from the moment everything is ready until the stop begins. Each is replaced by a rename: a
reader never sees half of a file.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from services.cli.files import replace_json


class EndpointsFile:
    """Writes the files, rewrites the endpoints when process ids change, and removes all files; thread-safe."""

    def __init__(self, endpoints_files: Collection[Path], environment_file: Path) -> None:
        """Writes no file yet.

        Args:
            endpoints_files: Paths of the endpoints files, all with equal content.
            environment_file: Path of the environment file.
        """
        self._endpoints_files = tuple(endpoints_files)
        self._environment_file = environment_file
        self._describe: Callable[[], dict[str, Any]] | None = None
        self._lock = threading.Lock()

    def publish(self, describe: Callable[[], dict[str, Any]], environ: Mapping[str, str]) -> None:
        """Writes all files, and remembers `describe` for later refreshes.

        Args:
            describe: Returns the present endpoints.
            environ: The environment for an operator's command.
        """
        with self._lock:
            self._describe = describe
            # The endpoints file is last: an outside program that waits for it may run our commands at once, and those
            # read the environment file.
            replace_json(self._environment_file, dict(environ))
            self._write(describe)

    def refresh(self) -> None:
        """Rewrites the endpoints files; does nothing before `publish` and after `withdraw`."""
        with self._lock:
            # A watcher thread may come here before the publication and after the withdrawal; neither may create a file.
            if self._describe is not None:
                self._write(self._describe)

    def withdraw(self) -> None:
        """Removes the files and disables further refreshes."""
        with self._lock:
            self._describe = None
            for path in (*self._endpoints_files, self._environment_file):
                path.unlink(missing_ok=True)

    def _write(self, describe: Callable[[], dict[str, Any]]) -> None:
        for path in self._endpoints_files:
            replace_json(path, describe())
