"""Fetches Apache Kafka: 46 jars pinned by exact coordinates and SHA-256, kept in one cache folder per user.

Rule: every jar is hashed at every start, before Kafka runs. A missing or corrupt jar is fetched into a private folder
of this process, verified, and renamed into the cache. So two processes may fetch at once.

The jars are fetched one by one, never transitively: jgo's own choice among conflicting versions differs from Maven's.
Source of the list: Maven's resolution of kafka_2.13 4.3.1, log4j-slf4j-impl and log4j-core 2.25.3.
"""

import hashlib
import importlib.util
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from services.engines.errors import INSTEAD, DownloadError

KAFKA = "4.3.1"

Progress = Callable[[int, int], None]
"""Callback (bytes in the cache, bytes of all jars), called after each fetched jar from a thread of the pool. Never
called if the cache is complete."""

_THREADS = 8
_ROUNDS = 2
_TIMEOUT_S = 20
_trust = threading.Lock()


@dataclass(frozen=True, slots=True)
class Jar:
    """One jar of the pinned list: Maven coordinates, size, and SHA-256 of the content."""

    group: str
    artifact: str
    version: str
    size_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The name of the jar's file in the cache; unique in the list."""
        return f"{self.artifact}-{self.version}.jar"

    def is_in(self, folder: Path) -> bool:
        """True if `folder` contains the jar with the pinned hash; an unreadable file counts as absent."""
        try:
            with (folder / self.file_name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except OSError:  # absent or unreadable: the fetch that follows reports the difference
            return False


def pinned() -> tuple[Jar, ...]:
    """Returns the jars of the committed list `kafka-jars.tsv`."""
    text = files("services.engines").joinpath("kafka-jars.tsv").read_text(encoding="ascii")
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return tuple(Jar(group, artifact, version, int(size), sha256) for group, artifact, version, size, sha256 in rows)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Returns the cache folder of this user and Kafka version: below XDG_CACHE_HOME, else below `~/.cache`."""
    caches = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home(), ".cache")
    return Path(caches, "genesys-lifecycle", f"kafka-{KAFKA}")


def fetch(
    jars: Sequence[Jar], cache: Path, *, progress: Progress | None = None, repository: str | None = None
) -> tuple[Path, ...]:
    """Fetches the missing jars into `cache`, and returns the paths of all jars. Blocks.

    Args:
        jars: The required jars.
        cache: The cache folder; created if absent.
        progress: Callback for the progress of the download.
        repository: Base URL of a Maven repository; None is the default of jgo.

    Returns:
        The path of each jar, in the order of `jars`. Every file has the pinned hash.

    Raises:
        DownloadError: After `_ROUNDS` rounds a jar is still absent or corrupt, or the extra `local` is not installed.
    """
    missing = _missing(jars, cache)
    if missing and not all(importlib.util.find_spec(package) for package in ("jgo", "truststore")):
        raise DownloadError(f"Apache Kafka {KAFKA}: install genesys-lifecycle[local], which fetches it. {INSTEAD}")
    failures: list[str] = []
    for _ in range(_ROUNDS):
        if not missing:
            break
        failures = _fetch_round(missing, sum(jar.size_bytes for jar in jars), cache, progress, repository)
        missing = _missing(missing, cache)
    if missing:
        raise DownloadError(
            f"Apache Kafka {KAFKA}: {len(missing)} of {len(jars)} jars are not in {cache} and could not be fetched "
            f"from {repository or 'the default Maven repository of jgo'} in {_ROUNDS} tries. "
            f"First failure: {failures[0] if failures else 'none reported'}. Check the network (HTTPS_PROXY is "
            f"honoured, certificates are the system's) and run again: what has arrived stays. {INSTEAD}"
        )
    return tuple(cache / jar.file_name for jar in jars)


def _missing(jars: Sequence[Jar], cache: Path) -> tuple[Jar, ...]:
    """Returns the jars absent from `cache` or corrupt in `cache`. Hashes in several threads."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return tuple(
            jar for jar, here in zip(jars, pool.map(lambda jar: jar.is_in(cache), jars), strict=True) if not here
        )


def _fetch_round(
    missing: Sequence[Jar], total_bytes: int, cache: Path, progress: Progress | None, repository: str | None
) -> list[str]:
    """Tries to fetch each missing jar once, in several threads; returns the text of each failure."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Inside the cache, so that the rename into the cache stays on one file system and is atomic.
        staging = Path(tempfile.mkdtemp(prefix=".fetching-", dir=cache))
    except OSError as error:
        return [f"the cache cannot be written ({error}); XDG_CACHE_HOME names another place"]
    counted = _Counter(total_bytes - sum(jar.size_bytes for jar in missing), total_bytes, progress)
    failures: list[str] = []

    def fetch_one(jar: Jar) -> None:
        if failures:  # without a network every jar fails alike: do not wait for 45 more timeouts
            return
        try:
            _fetch_one(jar, staging, cache, repository)
        except Exception as error:  # noqa: BLE001 - jgo and requests raise many types; each means: not fetched
            failures.append(f"{jar.group}:{jar.artifact}:{jar.version}: {error}")
        else:
            counted.add(jar.size_bytes)

    try:
        with _system_trust(), ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(fetch_one, missing))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return failures


def _fetch_one(jar: Jar, staging: Path, cache: Path, repository: str | None) -> None:
    """Fetches one jar into `staging`, verifies the hash, and renames the file into `cache`.

    Raises:
        DownloadError: The hash differs from the pinned hash.
    """
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415 - an extra, and only for a cold cache

    remote = None if repository is None else {"given": repository}
    context = MavenContext(PythonResolver(), repo_cache=staging, remote_repos=remote, timeout=_TIMEOUT_S)
    arrived = Path(context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve())
    named = arrived.rename(arrived.with_name(jar.file_name))
    if not jar.is_in(named.parent):
        raise DownloadError(f"what arrived is not what is pinned (SHA-256 {jar.sha256})")
    named.replace(cache / jar.file_name)


class _Counter:
    """Thread-safe sum of the fetched bytes; calls the progress callback under a lock, so every sum exceeds the last."""

    def __init__(self, start_bytes: int, total_bytes: int, progress: Progress | None) -> None:
        self._bytes, self._total_bytes, self._progress = start_bytes, total_bytes, progress
        self._lock = threading.Lock()

    def add(self, size_bytes: int) -> None:
        """Adds the size of a fetched jar."""
        with self._lock:
            self._bytes += size_bytes
            if self._progress:
                self._progress(self._bytes, self._total_bytes)


@contextmanager
def _system_trust() -> Iterator[None]:
    """Makes TLS in this process verify certificates by the system's store, as long as the context lasts.

    jgo uses `requests`, and `requests` trusts only a bundle of public authorities, not the authorities of a company.
    """
    import truststore  # noqa: PLC0415 - an extra, and only for a cold cache

    # truststore replaces `ssl.SSLContext` for the whole process: two nested contexts would undo each other.
    with _trust:
        truststore.inject_into_ssl()
        try:
            yield
        finally:
            truststore.extract_from_ssl()
