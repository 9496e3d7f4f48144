"""Provisioner: drives a tenant's resources in the outside systems to the newest desired version.

The service reads `lifecycle.desired`, keeps its sagas in the registry and writes `lifecycle.outcomes` and
`lifecycle.audit`. Guarantees: every desired version taken up ends in an outcome; every step begun is finished or
undone; every outside resource exists at most once. The provisioner never reads an event and never asks Genesys.
"""
