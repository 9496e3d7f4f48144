"""The spool: records kept in RocksDB on local disk while Kafka is away.

Each spool owns one subfolder of SPOOL_DIR. It guarantees:

- A record reported as kept was synced before the report and is read back later, also after the process was killed.
- A missing or damaged record is counted in `Spool.damaged`, never silently skipped.
- After the first disk error the spool writes nothing more. A failed sync is never retried: after a failed fsync the
  kernel may mark the lost pages clean, and a second fsync would then succeed without having written them.
- An open spool never blocks the event loop on the disk. Opening one does: RocksDB holds the GIL meanwhile.

The layers, from the top: `spool.py` (asyncio interface), `thread.py` (the only thread that touches the disk),
`index.py` (record numbers in memory, opening, salvage), `records.py` (RocksDB), `salvage.py` (RocksDB's files read
without RocksDB), `folder.py` (ownership of folders), `disk.py` (properties of the file system).
"""

from services.adapters.spool.folder import FolderInUse, SpoolError, abandoned_folders
from services.adapters.spool.index import NewerVersion
from services.adapters.spool.spool import OnClosed, OnReport, Spool

__all__ = ["FolderInUse", "NewerVersion", "OnClosed", "OnReport", "Spool", "SpoolError", "abandoned_folders"]
