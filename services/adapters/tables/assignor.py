"""Ends the process rather than assign partitions by incomplete metadata.

Problem: the leader of the group computes the assignment from the metadata of the cluster. Just after a restart of a
broker the metadata may lack a topic. Faust logs "Ignoring missing topic" and assigns the rest
(faust/assignor/partition_assignor.py, `_get_copartitioned_groups`). The members then stay without partitions for ever,
or get events without the changelog of the events' table.

Rule: an assignment covers every topic of the group, and all topics have the same partition count. Otherwise the process
ends with `METADATA`, and the next start asks for new metadata.
"""

from typing import Any

from faust.assignor.partition_assignor import PartitionAssignor

from services.adapters.tables.exits import WorkerExit
from services.adapters.tables.protocol import TableApp


class CompleteAssignor(PartitionAssignor):
    """Faust's assignor, limited to clusters that show every topic of the group."""

    app: TableApp  # type: ignore[assignment]  # see `protocol`

    def _perform_assignment(self, cluster: Any, member_metadata: Any) -> Any:
        # Runs on the group's leader only; each member receives the result.
        subscribed = {topic for member in member_metadata.values() for topic in member.subscription}
        if missing := sorted(topic for topic in subscribed if not cluster.partitions_for_topic(topic)):
            self.app.end(WorkerExit.METADATA, f"the cluster's metadata lacks {', '.join(missing)}")
        counts = {topic: len(cluster.partitions_for_topic(topic)) for topic in subscribed}
        if len(set(counts.values())) > 1:
            self.app.end(WorkerExit.METADATA, f"topics of one group need one partition count, not {counts}")
        return super()._perform_assignment(cluster, member_metadata)
