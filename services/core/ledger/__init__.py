"""Decisions of the ledger: identity, journal, merge, revisions, stage, and the records that follow."""
