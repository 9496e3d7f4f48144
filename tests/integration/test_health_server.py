"""The health server of services without a public port."""

import signal
import socket

import httpx2
import pytest

from services.adapters.process import health
from services.adapters.process.errors import Unusable


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


async def test_the_health_server_answers_on_a_free_port_and_leaves_signal_handlers_unchanged() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    faults = {"kafka": "no broker answers"}
    async with health.serve("ledger", lambda: faults, host="127.0.0.1", port=0) as port, httpx2.AsyncClient() as client:
        base = f"http://127.0.0.1:{port}"
        assert (await client.get(f"{base}/livez")).json() == {"status": "live"}
        assert (await client.get(f"{base}/readyz")).status_code == 503
        faults["kafka"] = ""
        assert (await client.get(f"{base}/readyz")).json() == {"status": "ready", "checks": {"kafka": "ok"}}
        assert "lifecycle_ledger_records_total" in (await client.get(f"{base}/metrics")).text
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_a_taken_port_is_reported_as_a_fault_of_the_settings() -> None:
    async with health.serve("ledger", dict, host="127.0.0.1", port=0) as port:
        with pytest.raises(Unusable, match=f"HOST, METRICS_PORT: 127.0.0.1, {port}: .*in use"):
            async with health.serve("ledger", dict, host="127.0.0.1", port=port):
                pass


async def test_a_foreign_address_is_reported_as_a_fault_of_the_settings() -> None:
    with pytest.raises(Unusable, match=r"HOST, METRICS_PORT: 192\.0\.2\.1, 0: "):
        async with health.serve("ledger", dict, host="192.0.2.1", port=0):
            pass


@pytest.mark.skipif(not _has_ipv6(), reason="the machine has no ::1")
async def test_the_health_server_listens_on_ipv6() -> None:
    async with health.serve("ledger", dict, host="::1", port=0) as port, httpx2.AsyncClient() as client:
        assert (await client.get(f"http://[::1]:{port}/livez")).status_code == 200
