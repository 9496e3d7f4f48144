"""Decisions: pure functions over values and `now`. No asyncio, clock, environment, logging or I/O library."""
