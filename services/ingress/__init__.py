"""The edge: a signed POST of the sender becomes one record in `lifecycle.received`, or is refused and changes nothing.

Reads: HTTP, the keyring. Writes: `lifecycle.received` (deliveries untouched, re-checks), `lifecycle.dead-letters`.
Guarantees: 200 means that the delivery is durable, on every in-sync replica or fsynced in the spool. Never: filters,
merges, or judges an event.
"""
