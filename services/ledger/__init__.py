"""Finds out which event a delivery is, merges it so that order never matters, and publishes what is desired.

Reads `lifecycle.received` and `lifecycle.outcomes`; keeps one row per key in each of two tables; writes events,
desired, tenants, audit and dead letters. Guarantees: every record it read is in one of these before its offset is
committed; a crash anywhere repeats records, identical in id and revision. It never calls anything but Kafka.
"""
