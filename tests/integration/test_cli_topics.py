"""`lifecycle topics apply` against a real cluster."""

from pathlib import Path

import pytest

from tests.unit.test_cli_commands import lifecycle

pytestmark = pytest.mark.engines


def test_applying_again_says_that_there_was_nothing_to_do(
    kafka_bootstrap: str, topic_prefix: str, tmp_path: Path
) -> None:
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
        "TOPIC_PREFIX": topic_prefix,
        "TOPIC_PARTITIONS": "1",
        "TOPIC_REPLICATION": "1",
    }
    first, second = (lifecycle("topics", "apply", cwd=tmp_path, **environ) for _ in range(2))
    assert first.stdout.startswith("created: ")
    assert (second.returncode, second.stdout) == (0, "nothing to do: every topic is there\n")
