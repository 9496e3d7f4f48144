"""Decisions: pure functions over values and a given time. No asyncio, clock, environment, logging or I/O library."""
