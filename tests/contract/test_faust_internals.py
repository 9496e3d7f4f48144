"""Each replaced internal of Faust and aiokafka still has the reviewed source.

A fingerprint that differs is no bug by itself: read the new source, decide whether the cure still fits, and only then
write the new fingerprint down.
"""

import hashlib
import inspect
from importlib.metadata import version
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust import topics
from faust.app.base import App
from faust.assignor.partition_assignor import PartitionAssignor
from faust.stores import rocksdb
from faust.tables.base import Collection
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport import conductor
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver
from faust.transport.producer import Producer, ProducerBuffer
from mode import Service
from mode.utils.queues import FlowControlEvent

from services.adapters.tables.app import DurableApp
from services.adapters.tables.assignor import CompleteAssignor
from services.adapters.tables.consumer import DurableConsumer, PromptThread
from services.adapters.tables.recovery import DurableRecovery, DurableTables
from services.adapters.tables.store import DurableStore
from services.adapters.tables.table import DurableTable
from services.adapters.tables.transport import Barrier, Transport

READ = {
    # offsets and fence
    "new offset": (Consumer._new_offset, "1d2c7ea89a7a"),
    "pending": (Consumer._filter_tps_with_pending_acks, "f6f923977423"),
    "should commit": (Consumer._should_commit, "5ce941793947"),
    "commit": (Consumer._commit_offsets, "1a6979904118"),
    "seek": (Consumer.perform_seek, "0e8c130ff4b0"),
    "getmany": (Consumer.getmany, "4b168d84882a"),
    "drain": (Consumer._drain_messages, "44a2500309e8"),
    "wait for records": (Consumer._wait_next_records, "6218e1969a63"),
    "threaded commit": (driver.AIOKafkaConsumerThread._commit, "932852ce7a23"),
    "seek and wait": (driver.AIOKafkaConsumerThread._seek_wait, "9d221e816d94"),
    "to message": (driver.Consumer._to_message, "7c24f6511b2f"),
    "worker's consumer": (driver.AIOKafkaConsumerThread._create_worker_consumer, "c2701bfc3e6f"),
    "new thread": (driver.Consumer._new_consumer_thread, "0870ec53dea7"),
    "empty set means all": (Fetcher.fetched_records, "be4348896b9b"),
    "topics whose metadata is asked for": (AIOKafkaClient._metadata_update, "06dc51ed3e0d"),
    "what is committed": (PartitionRecords._unpack_records, "b803e6d46480"),
    "position": (FetchResult.getall, "3e717e30de50"),
    # barrier
    "producer": (Producer.flush, "9ff5ea46f01f"),
    "flush that gives up": (ProducerBuffer.flush_atmost, "4966e8c5f9b4"),
    "failed send is logged": (topics.Topic._on_published, "7cfe9ebd6596"),
    # watchdog
    "errors nobody asks for": (GroupCoordinator.check_errors, "ba6ca51ad348"),
    # store and table
    "batch": (rocksdb.Store.apply_changelog_batch, "ea3344d369fc"),
    "partition": (rocksdb.Store._db_for_partition, "cb7e67d5f9ef"),
    "items": (rocksdb.Store._visible_items, "545dc16a2b25"),
    "persisted": (rocksdb.Store.set_persisted_offset, "b4c811926678"),
    "new store": (Collection._new_store_by_url, "343a8125107d"),
    "table after recovery": (Collection.on_recovery_completed, "b1526fb39ea0"),
    "nobody notices": (Collection._on_changelog_sent, "60122c86a120"),
    # recovery
    "end of recovery": (Recovery.on_recovery_completed, "6ef567acf072"),
    "recovery": (Recovery._restart_recovery, "6bd8a8558a2d"),
    "slurp": (Recovery._slurp_changelogs, "7825c7e50f76"),
    "offsets": (Recovery._build_offsets, "27eec86be06c"),
    "highwaters": (Recovery._build_highwaters, "91b4cc0d3724"),
    "wait": (Recovery._wait, "ec7429b70176"),
    "wait of a service": (Service.wait_first, "feade6a31f8a"),
    "rebalance starts": (App.on_rebalance_start, "5c1e23de3067"),
    "rebalance": (Recovery.on_rebalance, "aa4d997a1795"),
    "clears queues": (FlowControlEvent.resume, "4dcdc1253fd0"),
    "the one recovery": (vars(TableManager)["recovery"], "f0bf5de78b4c"),
    # assignor
    "assignment": (PartitionAssignor._perform_assignment, "1e0bf2c5c8f4"),
    "ignores a missing topic": (PartitionAssignor._get_copartitioned_groups, "82b7a3764ad5"),
    # app
    "transport": (App._new_transport, "42db531312dd"),
    "producer transport": (App._new_producer_transport, "eb3b4aa6a896"),
    "revoked": (App._on_partitions_revoked, "d5c895bbe57d"),
    "assigned": (App._on_partitions_assigned, "de932b7927db"),
    "stop": (App._stop_consumer, "55854a5de12c"),
    "acks": (conductor.Conductor.acks_enabled_for, "77ff8a731d30"),
}


def fingerprint(internal: Any) -> str:
    """Of the source as it was published: the versions are pinned, so only a patched or replaced package differs."""
    function: Any = (
        internal.fget if isinstance(internal, property) else inspect.unwrap(getattr(internal, "fun", internal))
    )
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


def test_the_installed_versions_of_faust_and_aiokafka_are_the_reviewed_ones() -> None:
    assert (version("faust-streaming"), version("aiokafka")) == ("0.15.3", "0.14.0")


@pytest.mark.parametrize("name", READ)
def test_an_internal_function_has_the_reviewed_source(name: str) -> None:
    internal, known = READ[name]
    assert fingerprint(internal) == known


@pytest.mark.parametrize(
    ("ours", "theirs", "names"),
    [
        (
            DurableConsumer,
            driver.Consumer,
            (
                "_new_offset",
                "_filter_tps_with_pending_acks",
                "_commit",
                "perform_seek",
                "_getmany",
                "_new_consumer_thread",
            ),
        ),
        (PromptThread, driver.AIOKafkaConsumerThread, ("_create_worker_consumer",)),
        (Barrier, Producer, ("flush",)),
        (DurableStore, rocksdb.Store, ("apply_changelog_batch", "_open_for_partition")),
        (DurableTable, Collection, ("_new_store_by_url", "on_recovery_completed")),
        (
            DurableRecovery,
            Recovery,
            ("on_recovery_completed", "on_rebalance", "_wait", "_build_offsets", "_build_highwaters"),
        ),
        (DurableApp, App, ("_new_transport", "_new_producer_transport")),
        (DurableTables, TableManager, ("recovery",)),
        (CompleteAssignor, PartitionAssignor, ("_perform_assignment",)),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_every_overridden_method_exists_with_the_same_arguments(
    ours: type, theirs: type, names: tuple[str, ...]
) -> None:
    for name in names:
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert mine is not other
        if not isinstance(mine, property):
            assert list(inspect.signature(mine).parameters) == list(inspect.signature(other).parameters)


def test_faust_takes_consumer_and_producer_from_the_transport() -> None:
    assert (driver.Transport.Consumer, driver.Transport.Producer) == (driver.Consumer, driver.Producer)
    assert (Transport.Consumer, Transport.Producer) == (DurableConsumer, Barrier)


def test_faust_reads_the_fetch_wait_when_the_consumer_starts() -> None:
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in inspect.getsource(AIOKafkaConsumer.start)


def test_the_attributes_read_by_the_watchdog_exist() -> None:
    source = inspect.getsource(GroupCoordinator.__init__)
    assert "self._coordination_task = " in source
    assert "self._pending_exception = " in source
