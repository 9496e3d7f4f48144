"""Genesys and the outside systems, for demo, tests and benchmarks: real HTTP, real state, faults on request.

`/inventory` lists the resources of all outside systems now; `/calls` lists all calls with their outcomes. The simulator
imports no service under test, so inventory and call list are independent evidence about the services. The simulator
never runs beside real customers.
"""
