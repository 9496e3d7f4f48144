"""Fixtures of several files: each has a ledger, Genesys, ingress and database of its own, made when a test asks."""

import secrets
from collections.abc import Iterator
from contextlib import closing

import pytest

from services.adapters.kafka.tenant_view import TenantView
from tests.support.eventually import eventually
from tests.support.ingress_process import Ingress, ingress
from tests.support.ledger_process import LedgerBench
from tests.support.operator_world import database_of
from tests.support.simulator_process import Outside, outside


@pytest.fixture(scope="module")
def bench(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerBench]:
    """A ledger with topics of its own, for all tests of a file."""
    made = LedgerBench(kafka_bootstrap, f"t{secrets.token_hex(5)}-", tmp_path_factory.mktemp("ledger"))
    with made.ledger():
        yield made


@pytest.fixture(scope="module")
def genesys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A simulator with its Genesys, for all tests of a file."""
    with outside(tmp_path_factory.mktemp("outside")) as running:
        yield running


@pytest.fixture(scope="module")
def edge(bench: LedgerBench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    """An ingress before the ledger of `bench`."""
    with ingress(bench.bootstrap, bench.prefix, tmp_path_factory.mktemp("ingress")) as running:
        eventually(lambda: running.get("/readyz").status == 200)
        yield running


@pytest.fixture(scope="module")
def view(bench: LedgerBench) -> Iterator[TenantView]:
    """The published tenants of `bench`."""
    with closing(TenantView({"bootstrap.servers": bench.bootstrap}, bench.prefix)) as made:
        yield made


@pytest.fixture(scope="module")
def database(database_admin_url: str) -> Iterator[str]:
    """A database of its own, for all tests of a file."""
    with database_of(database_admin_url) as url:
        yield url
