"""Decisions of the provisioner: the plan, the next move of a saga, and what an answer means for it."""
