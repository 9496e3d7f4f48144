"""Identifies events, merges them into each tenant's state whatever their order, and publishes the desired state.

Reads `lifecycle.received` and `lifecycle.outcomes`; keeps a row per key in each of two tables; writes events, desired,
tenants, audit and dead letters. Guarantees: the offset of a record is committed after everything caused by the record
is acknowledged; a crash anywhere repeats records, identical in id and revision. The ledger calls no system but Kafka.
"""
