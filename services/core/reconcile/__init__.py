"""Decisions of the reconciler: observed state, differences, and the schedule of further looks at a key."""
