"""Writes kafka-jars.tsv, the list of jars that a Kafka broker needs: `python -m services.engines.pin_jars 4.3.1`.

Maven resolves the dependencies, because Maven's mediation of versions is the one that Kafka's release was built with.
Each jar is hashed as Maven's repository delivered the file; read the difference of the list before the commit.
To move to another Kafka: write the list, set `KAFKA` in services/engines/jars.py, run the tests.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

LIST: Final = Path(__file__).with_name("kafka-jars.tsv")
LOG4J: Final = "2.25.3"
"""Kafka's broker logs through slf4j 1, which log4j-slf4j-impl binds to log4j 2."""

_HEAD: Final = "group\tartifact\tversion\tbytes\tsha256"
_PROJECT: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>pin</groupId><artifactId>pin</artifactId><version>1</version><dependencies>{}</dependencies></project>
"""
_DEPENDENCY: Final = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
_TIMEOUT_S: Final = 600


def resolved(kafka: str, maven: str) -> str:
    """Returns the list for a version of Kafka, as the text of kafka-jars.tsv.

    Args:
        kafka: The version, for example 4.3.1.
        maven: Path of `mvn`.

    Raises:
        subprocess.CalledProcessError: Maven failed; the reason is on standard error.
    """
    wanted = (
        ("org.apache.kafka", "kafka_2.13", kafka),
        ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J),
        ("org.apache.logging.log4j", "log4j-core", LOG4J),
    )
    with tempfile.TemporaryDirectory(prefix="pin-jars-") as name:
        folder, jars = Path(name), Path(name, "jars")
        text = _PROJECT.format("".join(_DEPENDENCY.format(*coordinates) for coordinates in wanted))
        (folder / "pom.xml").write_text(text, encoding="utf-8")
        goal = ("dependency:copy-dependencies", "-DincludeScope=runtime", "-Dmdep.useRepositoryLayout=true")
        command = (maven, "-q", "-B", *goal, f"-DoutputDirectory={jars}")
        subprocess.run(command, cwd=folder, check=True, timeout=_TIMEOUT_S, stdout=sys.stderr)
        rows = sorted(_row(path, jars) for path in jars.rglob("*.jar"))
    return "\n".join((_HEAD, *rows)) + "\n"


def _row(path: Path, jars: Path) -> str:
    """Returns the row of a jar, whose folder in the repository is group/artifact/version."""
    *group, artifact, version, _ = path.relative_to(jars).parts
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return "\t".join((".".join(group), artifact, version, str(path.stat().st_size), digest))


def main(arguments: Sequence[str]) -> int:
    """Writes the list, or compares the list with `--check`; returns 0 if equal or written, else 1 or 2."""
    versions = [word for word in arguments if word != "--check"]
    maven = shutil.which("mvn")
    if len(versions) != 1 or maven is None:
        sys.stderr.write("usage: python -m services.engines.pin_jars [--check] VERSION; needs Maven's `mvn`\n")
        return 2
    text = resolved(versions[0], maven)
    if "--check" in arguments:
        return 0 if LIST.read_text(encoding="ascii") == text else 1
    LIST.write_text(text, encoding="ascii")
    sys.stdout.write(f"{LIST}: {text.count(chr(10)) - 1} jars\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
