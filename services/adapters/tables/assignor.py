"""An assignment is made of every topic of the group, or not at all.

Faust's leader skips a topic that its metadata lacks, which happens just after a restart of a broker
(faust/assignor/partition_assignor.py, "Ignoring missing topic"): then everybody gets nothing, for ever, or events
without their table.
"""

from typing import Any

from faust.assignor.partition_assignor import PartitionAssignor

from services.adapters.tables.exits import WorkerExit


class CompleteAssignor(PartitionAssignor):
    """Faust's assignor, for a cluster that shows every topic."""

    app: Any

    def _perform_assignment(self, cluster: Any, member_metadata: Any) -> Any:
        asked = {topic for member in member_metadata.values() for topic in member.subscription}
        if missing := sorted(topic for topic in asked if not cluster.partitions_for_topic(topic)):
            self.app.end(WorkerExit.METADATA, f"the cluster's metadata lacks {', '.join(missing)}")
        counts = {topic: len(cluster.partitions_for_topic(topic)) for topic in asked}
        if len(set(counts.values())) > 1:
            self.app.end(WorkerExit.METADATA, f"topics of one group need one partition count, not {counts}")
        return super()._perform_assignment(cluster, member_metadata)
