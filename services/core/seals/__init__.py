"""Decisions about the seals of the audit trail: the next seal of a partition, and the faults of a sealed trail."""
