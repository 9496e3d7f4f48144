"""Decisions of the reconciler: observed state, differences, and when a key is looked at again."""
