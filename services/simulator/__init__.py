"""Genesys and the outside systems, for demo, tests and benchmarks: real HTTP, real state, faults on request.

It tells the truth: `/inventory` is what exists now, `/calls` is what was asked and what came of it. It imports no other
service, so that what it says about them is evidence. It never runs beside real customers.
"""
