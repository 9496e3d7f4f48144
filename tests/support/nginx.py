"""A real nginx with the file that is shipped, before real ingresses; for tests.

Rule: of the file only what is marked HERE is changed, and each line once.
"""

import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.engines.ports import free_ports
from tests.support.eventually import eventually

SHIPPED: Final = Path(__file__).parents[2] / "deploy" / "nginx" / "lifecycle.conf"

_AROUND: Final = """
{user}worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/lifecycle.conf;
}}
"""


def program() -> str:
    """The path of nginx; skips the test where it is missing."""
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if found is None:
        pytest.skip("no nginx (Debian: apt install nginx-light)")
    return found


def changed(text: str, changes: Mapping[str, str]) -> str:
    """The text with each of these pieces replaced; each must stand in it once."""
    for former, new in changes.items():
        assert text.count(former) == 1, f"{former!r} stands {text.count(former)} times in {SHIPPED.name}"
        text = text.replace(former, new)
    return text


@contextlib.contextmanager
def nginx(folder: Path, upstreams: Sequence[int], changes: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run it before these ports of this machine.

    Args:
        folder: Of its own, empty.
        upstreams: Two ports.
        changes: Further changes of the file.

    Yields:
        The port on which it speaks TLS.
    """
    (port,) = free_ports(1)
    _certify(folder)
    here = {
        "server ingress-1:8080": f"server 127.0.0.1:{upstreams[0]}",
        "server ingress-2:8080": f"server 127.0.0.1:{upstreams[1]}",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/nginx/tls/lifecycle.crt": f"{folder}/lifecycle.crt",
        "/etc/nginx/tls/lifecycle.key": f"{folder}/lifecycle.key",
    }
    (folder / "lifecycle.conf").write_text(changed(SHIPPED.read_text(), here | dict(changes or {})))
    user = "user root;\n" if Path("/").owner() == Path.home().owner() == "root" else ""
    (folder / "nginx.conf").write_text(_AROUND.format(folder=folder, user=user))
    argv = [program(), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE)
    try:
        eventually(lambda: _answers(folder, port) or process.poll() is not None)
        assert process.poll() is None, process.stderr and process.stderr.read()
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=20)


def trust(folder: Path) -> ssl.SSLContext:
    """A client's context that trusts this nginx alone."""
    return ssl.create_default_context(cafile=str(folder / "lifecycle.crt"))


def _answers(folder: Path, port: int) -> bool:
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        trust(folder).wrap_socket(plain, server_hostname="127.0.0.1"),
    ):
        return True
    return False


def _certify(folder: Path) -> None:
    """Write a key, and a certificate for 127.0.0.1 that it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lifecycle")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "lifecycle.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "lifecycle.key").write_bytes(private)
