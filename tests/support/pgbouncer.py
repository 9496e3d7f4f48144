"""A real PgBouncer in front of a PostgreSQL, for one test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.engines import child_process
from services.engines.ports import HOST, answers, free_ports
from services.engines.readiness import until

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")
PASSWORD = "of the pooler"

_UNPRIVILEGED = "nobody"
"""It does not run as root."""


@contextmanager
def pgbouncer(database_url: str, *, mode: str = "transaction", size: int = 3, **more: str) -> Iterator[str]:
    """A PgBouncer that knows one database, under its own name; yields the URL that leads through it.

    Args:
        database_url: Of the database behind it.
        mode: `pool_mode`.
        size: Connections to the server, at most.
        more: Further settings.
    """
    assert PROGRAM is not None
    target, (port,) = urlsplit(database_url), free_ports(1)
    settings = {
        "listen_addr": HOST, "listen_port": str(port), "unix_socket_dir": "", "pool_mode": mode, "auth_type": "plain",
        "default_pool_size": str(size), "max_client_conn": "500", "server_connect_timeout": "3",
        "server_login_retry": "0.2", "query_wait_timeout": "20",
    }  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="lifecycle-tests-pgbouncer-"))
    folder.chmod(0o755)
    users, file = folder / "users", folder / "pgbouncer.ini"
    users.write_text(f'"{target.username}" "{PASSWORD}"\n')
    name = target.path[1:]
    server = (
        f"host={target.hostname} port={target.port} dbname={name} user={target.username} password={target.password}"
    )
    lines = [f"{key} = {value}" for key, value in (settings | {"auth_file": str(users)} | more).items()]
    file.write_text("\n".join(["[databases]", f"{name} = {server} dbname={name}", "[pgbouncer]", *lines, ""]))
    who = ("-u", _UNPRIVILEGED) if os.geteuid() == 0 else ()
    process = child_process.start((PROGRAM, *who, str(file)), env={}, log_path=folder / "log", cwd=folder)
    try:
        assert until(lambda: answers(port), 10), child_process.last_lines(folder / "log")
        yield target._replace(netloc=f"{target.username}:{PASSWORD.replace(' ', '%20')}@{HOST}:{port}").geturl()
    finally:
        process.kill()
        shutil.rmtree(folder)
