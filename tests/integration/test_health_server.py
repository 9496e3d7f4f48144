"""The small server of services without a public port."""

import signal

import httpx2
import pytest

from services.adapters import health


async def test_it_answers_on_a_free_port_and_leaves_the_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    faults = {"kafka": "no broker answers"}
    async with health.serve(lambda: faults, host="127.0.0.1", port=0) as port, httpx2.AsyncClient() as client:
        base = f"http://127.0.0.1:{port}"
        assert (await client.get(f"{base}/livez")).json() == {"status": "live"}
        assert (await client.get(f"{base}/readyz")).status_code == 503
        faults["kafka"] = ""
        assert (await client.get(f"{base}/readyz")).json() == {"status": "ready", "checks": {"kafka": "ok"}}
        assert "lifecycle_ledger_records_total" in (await client.get(f"{base}/metrics")).text
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_a_taken_port_is_an_error_of_the_caller() -> None:
    async with health.serve(dict, host="127.0.0.1", port=0) as port:
        with pytest.raises(OSError, match="in use"):
            async with health.serve(dict, host="127.0.0.1", port=port):
                pass
