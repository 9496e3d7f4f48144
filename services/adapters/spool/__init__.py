"""Records on local disk while Kafka is away: RocksDB, in the one way that keeps what it was told is kept.

Reads and writes one folder of its own below the one it is given. Guarantees: what was reported as kept was synced and
is read back, after a kill too; what is missing or damaged is counted, never passed over; after a fault of the disk
nothing is written again. Never: holds the event loop up for the disk's sake once it is open, or tries a sync again
that failed.
"""

from services.adapters.spool.folder import FolderTaken, SpoolError, left_behind
from services.adapters.spool.index import NewerVersion
from services.adapters.spool.spool import OnClosed, OnReport, Spool

__all__ = ["FolderTaken", "NewerVersion", "OnClosed", "OnReport", "Spool", "SpoolError", "left_behind"]
