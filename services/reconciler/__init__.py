"""Service 4 of the journey: reads Genesys, compares Genesys with the view, and publishes observations.

Reads: the Genesys API, `lifecycle.tenants`, `lifecycle.audit`. Writes: observations into `lifecycle.received`, seals
into `lifecycle.audit`, a memory of sights on disk.
Guarantees: no information changes nothing; an absence counts when seen twice; the brake stops a run with too many
removals.
Never: calls an outside system of a tenant, or changes a tenant by any road but `lifecycle.received`.
"""
