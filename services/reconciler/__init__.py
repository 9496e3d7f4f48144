"""4: Genesys, read and compared with the view, becomes observations.

Reads: the Genesys API, `lifecycle.tenants`. Writes: observations into `lifecycle.received`, its own memory of sights.
Guarantees: no information changes nothing; an absence counts when seen twice; the brake holds
a run that would remove too many.
Never: calls an outside system of a tenant, or changes a tenant by any road but `lifecycle.received`.
"""
