"""CPU time by owner: process trees from /proc, and the share of strangers."""

import os
import subprocess
import sys

from tests.bench import machine
from tests.bench.machine import Cores, CpuReading, Process, choose_cores, parse_stat, strangers_cores, tree

_STAT = "42 (a ) S( b) S 7 42 42 0 -1 4194560 1 2 3 4 50 6 700 8 20 0 1 0 99 1000 10"


def a_process(parent: int) -> Process:
    return Process("x", parent, 0, 0)


def a_reading(at_s: float, busy_s: float, ours_s: float) -> CpuReading:
    return CpuReading(at_s, busy_s, ours_s, {})


def test_a_process_name_may_contain_brackets_and_spaces() -> None:
    assert parse_stat(_STAT) == Process("a ) S( b", 7, 56, 708)


def test_a_process_tree_has_all_descendants() -> None:
    among = {1: a_process(0), 2: a_process(1), 3: a_process(2), 4: a_process(1), 5: a_process(9)}
    assert tree(2, among) == {2, 3}
    assert tree(1, among) == {1, 2, 3, 4}
    assert tree(99, among) == set()


def test_server_and_sender_get_separate_cores_unless_only_one_exists() -> None:
    assert choose_cores({5, 3, 4}) == Cores(server=3, sender=4)
    assert not choose_cores({0, 1}).shared
    assert choose_cores({7}).shared


def test_cpu_time_neither_idle_nor_ours_belongs_to_strangers() -> None:
    assert strangers_cores(a_reading(10, 100, 50), a_reading(12, 103, 52)) == 0.5
    assert strangers_cores(a_reading(10, 100, 50), a_reading(12, 102, 52.01)) == 0.0


def test_a_reading_covers_this_process_and_its_children() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = machine.read(os.getpid(), child.pid)
        assert child.pid in tree(os.getpid(), machine.processes())
        assert found.trees_s[os.getpid()] >= found.trees_s[child.pid] >= 0
        assert found.busy_s >= found.ours_s > 0
        assert machine.rss_bytes(child.pid) > 0
        child.communicate(b"\n")


def test_every_thread_of_a_pinned_process_is_pinned() -> None:
    core = min(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        machine.pin(child.pid, core)
        assert machine.strays(child.pid, core) == []
        assert machine.strays(child.pid, core + 1) != []
        child.communicate(b"\n")


def test_the_machine_is_described_in_one_line() -> None:
    text = machine.described()
    assert "Python 3." in text
    assert "uvicorn" in text
    assert "\n" not in text
