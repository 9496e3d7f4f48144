"""Everything that acts on the outside world: settings, Kafka, durable tables, HTTP, clock, metrics, logs, health.

Rule: an adapter makes no decision of the domain. Decisions are pure functions in `services/core`.
"""
