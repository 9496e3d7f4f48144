"""Settings of the durable tables, and the log lines of their workers."""

import json
import logging
import subprocess
import sys

import faust
import pytest

from services.adapters.process.errors import Unusable
from services.adapters.process.log_throttle import ThrottleFilter
from services.adapters.tables.credentials import credentials
from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.store import version


def test_a_plain_cluster_needs_no_credentials() -> None:
    assert credentials({}) is None
    assert credentials({"security.protocol": "PLAINTEXT", "linger.ms": "5"}) is None


def test_sasl_settings_match_those_of_the_producer() -> None:
    config = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "ledger",
        "sasl.password": "hush",
    }
    found = credentials(config)
    assert isinstance(found, faust.SASLCredentials)
    assert (found.username, found.password, str(found.mechanism.value)) == ("ledger", "hush", "SCRAM-SHA-512")
    assert found.ssl_context is not None
    assert "hush" not in repr(found)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"sasl.oauthbearer.method": "oidc", "ssl.keystore.location": "f"}, "ssl.keystore.location"),
        ({"security.protocol": "sasl_plaintext", "sasl.mechanism": "GSSAPI"}, "GSSAPI"),
        ({"security.protocol": "quic"}, "quic"),
        ({"security.protocol": "ssl", "ssl.ca.location": "/nowhere"}, "ssl"),
    ],
    ids=["unknown settings", "unknown mechanism", "unknown protocol", "missing file"],
)
def test_a_setting_that_the_consumer_would_ignore_is_refused_by_name(config: dict[str, str], named: str) -> None:
    with pytest.raises(Unusable, match=named):
        credentials(config)


@pytest.mark.parametrize("logger", ["aiokafka", "librdkafka"])
def test_a_repeated_log_message_passes_once_and_others_beside_it(logger: str) -> None:
    seldom = ThrottleFilter()

    def passes(text: str, *args: object, name: str = logger) -> bool:
        return seldom.filter(logging.LogRecord(name, logging.ERROR, "", 0, text, args, None))

    assert [passes("lost %s", 1), passes("lost %s", 2), passes("found %s", 1), passes("lost %s", 1, name="other")] == [
        *(True, False, True, True)
    ]
    refused = "%s [%s] %s", "FAIL", "rdkafka#producer-1"  # how librdkafka says everything
    assert passes(*refused, "127.0.0.1:1: Connection refused (after 0ms)")
    assert not passes(*refused, "127.0.0.1:2: Connection refused (after 17ms)")
    assert passes(*refused, "127.0.0.1:2: SASL authentication failed")


def test_distinct_log_messages_do_not_fill_the_memory() -> None:
    seldom = ThrottleFilter()
    for number in range(3_000):
        text = "".join(chr(97 + int(digit)) for digit in str(number))
        assert seldom.filter(logging.LogRecord("x", logging.ERROR, "", 0, text, None, None))
    assert len(seldom._passed_at_s) <= 1_000


def test_the_version_of_a_row_is_its_head_and_a_missing_row_has_the_lowest() -> None:
    assert version((-5).to_bytes(8, "big", signed=True) + b"row") == -5
    assert version(None) < version((-(2**63) + 1).to_bytes(8, "big", signed=True))


def test_the_last_line_of_a_worker_is_json_with_a_documented_status() -> None:
    say = "from services.adapters.tables.exits import *; die(WorkerExit.FENCE, 'topic[1]: a \"hole\"')"
    ended = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=False)
    assert ended.returncode == WorkerExit.FENCE
    assert json.loads(ended.stderr) == {
        "level": "critical",
        "event": 'FENCE: topic[1]: a "hole"',
        "exit_status": WorkerExit.FENCE,
    }
    assert len(set(WorkerExit)) == len(WorkerExit.__members__)
    assert all(70 <= status < 100 for status in WorkerExit)


@pytest.mark.parametrize("stderr", ["os.close(2)", "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"])
def test_a_worker_ends_even_if_its_last_line_cannot_be_written(stderr: str) -> None:
    say = f"import os; {stderr}; from services.adapters.tables.exits import *; die(WorkerExit.FENCE, 'a hole')"
    assert subprocess.run([sys.executable, "-c", say], check=False).returncode == WorkerExit.FENCE
