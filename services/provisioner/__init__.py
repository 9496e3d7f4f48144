"""Desired → steps → outcomes: drives what exists to what should exist.

Reads `lifecycle.desired`, writes `lifecycle.outcomes`, keeps its sagas in the registry. Guarantees that every version
taken up ends in an outcome, that what was begun is finished or undone, and that each resource exists at most once. It
never reads an event and never asks Genesys.
"""
